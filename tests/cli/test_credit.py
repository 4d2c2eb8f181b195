"""`lumeproxy credit`: grants, balances, entries."""

from __future__ import annotations

import pytest

from tests.cli.support import Cli, book_call, cells, in_database


def test_a_grant_adds_to_the_balance_exactly(either: Cli):
    either("account", "create", "gus", "--credit", "0.10")

    assert either("credit", "grant", "gus", "0.000000001", "--note", "a hair").out == (
        "$0.000000001 for gus; the balance is $0.10.\n"
    )
    assert either.json("credit", "grant", "gus", "$5") == {
        "account": "gus",
        "balance_nanousd": 5_100_000_001,
        "held_nanousd": 0,
        "available_nanousd": 5_100_000_001,
    }
    assert either("credit", "balance", "gus").out == "gus has $5.10.\n"


def test_the_balance_in_json_has_the_four_names_outsiders_rely_on(either: Cli):
    either("account", "create", "bal", "--credit", "3")

    assert either.json("credit", "balance", "BAL") == {
        "account": "bal",
        "balance_nanousd": 3 * 10**9,
        "held_nanousd": 0,
        "available_nanousd": 3 * 10**9,
    }


@pytest.mark.parametrize(
    ("amount", "status", "told"),
    [
        ("0", 2, "must be above $0"),
        ("1000000.01", 2, "can't be above 1,000,000 dollars"),
        ("0.0000000001", 2, "at most nine decimals"),
        ("-5", 2, "No such option"),
        ("much", 2, "'much' is not an amount."),
        ("nan", 2, "'NaN' is not an amount."),
        ("1e999", 2, "is not an amount."),
    ],
)
def test_what_is_no_grant_changes_nothing(either: Cli, amount, status, told):
    either("account", "create", "noa", "--credit", "1")

    outcome = either("credit", "grant", "noa", amount)

    assert (outcome.status, outcome.out) == (status, "")
    assert told in outcome.err
    assert either.json("credit", "balance", "noa")["balance_nanousd"] == 10**9


def test_unknown_and_closed_accounts_get_nothing(either: Cli):
    either("account", "create", "shut")
    either("account", "close", "shut")

    assert "There is no account nobody." in either("credit", "grant", "nobody", "1").err
    assert "is closed" in either("credit", "grant", "shut", "1").err
    assert either("credit", "balance", "nobody").status == 1
    assert either("credit", "entries", "nobody").status == 1


def test_entries_are_listed_newest_first(cli: Cli):
    cli("account", "create", "ann", "--credit", "1")
    in_database(cli.data, lambda tx: book_call(tx, 1, "ann"))
    cli("credit", "grant", "ann", "2.5", "--note", "a very long note " * 20)

    out = cli("credit", "entries", "ann").out
    head, grant, charge, first = cells(out)

    assert head == ["time", "kind", "amount", "call", "note"]
    assert (grant[1:4], charge[1:3]) == (["grant", "$2.500000", "-"], ["charge", "-$0.000150"])
    assert charge[3] == f"call_{1:026}"
    assert first[1:] == ["grant", "$1.000000", "-", "first credit"]
    assert len({line.index(".") for line in out.splitlines()[1:]}) == 1


def test_entries_in_json_are_signed_and_can_be_limited(cli: Cli):
    cli("account", "create", "ann", "--credit", "1")
    in_database(cli.data, lambda tx: book_call(tx, 1, "ann"))

    charge, grant = cli.json("credit", "entries", "ann")

    assert (charge["kind"], charge["amount_nanousd"], charge["call_id"]) == ("charge", -150_000, f"call_{1:026}")
    assert (grant["kind"], grant["amount_nanousd"], grant["note"]) == ("grant", 10**9, "first credit")
    assert cli.json("credit", "entries", "ann", "--limit", "1") == [charge]
    assert cli("credit", "entries", "ann", "--limit", "0").status == 2


def test_no_entries_are_said_to_be_none(cli: Cli):
    cli("account", "create", "ann")

    assert cli("credit", "entries", "ann").out == "No entries yet.\n"


def test_what_running_calls_hold_is_told_apart(cli: Cli):
    from lumeproxy.store import ledger

    cli("account", "create", "ann", "--credit", "1")

    def hold(tx):
        record = book_call(tx, 1, "ann")
        ledger.hold(tx, "call_open", record.account_id, 250_000_000, 0, record, 0)

    in_database(cli.data, hold)

    assert cli("credit", "balance", "ann").out == (
        "ann has $0.99985.\n$0.25 is held by running calls, $0.74985 is available.\n"
    )
    assert "Balance $0.99985, $0.25 of it held by running calls." in cli("account", "show", "ann").out
