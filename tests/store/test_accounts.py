"""Accounts: names, states, and what is not shown."""

from __future__ import annotations

import pytest

from lumeproxy.errors import Missing, Refused
from lumeproxy.store import accounts, ledger
from lumeproxy.store.accounts import Account
from tests.store import books


def test_a_new_account_is_active_and_has_nothing(tx):
    made = accounts.create(tx, "ann", 1234)

    assert made == Account(made.id, "ann", "customer", "active", "", 0, 0, 1234)
    assert made.available_nanousd == 0
    assert accounts.get(tx, "ann") == made


def test_a_name_is_checked_before_there_is_a_database():
    assert accounts.checked_name("Ann.B") == "ann.b"
    with pytest.raises(Refused, match="'a/b' is no account name: use up to 64 letters"):
        accounts.checked_name("a/b")


@pytest.mark.parametrize("name", ["a", "0", "ann.lee-2_x@home", "x" * 64])
def test_names_that_are_taken_as_they_are(tx, name):
    assert accounts.create(tx, name, 0).name == name


@pytest.mark.parametrize(
    "name", ["", " ", "ann lee", "-ann", ".ann", "@", "x" * 65, "änn", "house:credit", "ann\n", "ann/", "'; --"]
)
def test_what_is_no_name_is_refused(tx, name):
    with pytest.raises(Refused, match="is no account name"):
        accounts.create(tx, name, 0)

    assert accounts.count(tx) == 0


def test_a_long_name_is_not_echoed_whole(tx):
    with pytest.raises(Refused) as refused:
        accounts.create(tx, "y" * 10_000, 0)

    assert len(str(refused.value)) < 200


def test_names_do_not_differ_by_case(tx):
    made = accounts.create(tx, "Ann", 0)

    assert made.name == "ann"
    assert accounts.get(tx, "ANN") == made
    with pytest.raises(Refused, match="There is an account ann already"):
        accounts.create(tx, "aNN", 0)


def test_an_unknown_account_is_missing(tx):
    for ask in (accounts.get, lambda tx, name: accounts.set_status(tx, name, "closed", "", 0)):
        with pytest.raises(Missing, match="There is no account bob"):
            ask(tx, "bob")


def test_the_house_is_neither_found_nor_listed_nor_counted(tx):
    assert (accounts.list_all(tx), accounts.count(tx)) == ([], 0)
    for name in ("house:credit", "house:revenue", "house:shortfall"):
        with pytest.raises(Missing):
            accounts.get(tx, name)


def test_accounts_are_listed_by_name(tx):
    for name in ("cy", "ann", "bob"):
        accounts.create(tx, name, 0)

    assert [account.name for account in accounts.list_all(tx)] == ["ann", "bob", "cy"]
    assert accounts.count(tx) == 3


def test_suspending_and_resuming_keeps_everything_else(tx):
    before = books.customer(tx, "ann", 500)

    suspended = accounts.set_status(tx, "ANN", "suspended", "too loud", 9)
    assert (suspended.status, suspended.reason, suspended.balance_nanousd) == ("suspended", "too loud", 500)
    assert accounts.set_status(tx, "ann", "suspended", "too loud", 10) == suspended

    assert accounts.set_status(tx, "ann", "active", "", 11) == before


def test_a_closed_account_stays_closed(tx):
    books.customer(tx, "ann", 500)
    closed = accounts.set_status(tx, "ann", "closed", "left", 9)

    for status in ("active", "suspended"):
        with pytest.raises(Refused, match="ann is closed for good"):
            accounts.set_status(tx, "ann", status, "", 10)

    assert accounts.get(tx, "ann") == closed
    assert accounts.set_status(tx, "ann", "closed", "left", 11) == closed


def test_those_with_calls_to_end_are_the_inactive_ones_with_an_open_hold(tx):
    ids = {}
    for name in ("active", "suspended", "closed", "idle"):
        ids[name] = books.customer(tx, name).id
        if name != "idle":
            books.take(tx, f"call-{name}", ids[name])
    accounts.set_status(tx, "suspended", "suspended", "x", 1)
    accounts.set_status(tx, "closed", "closed", "x", 1)
    accounts.set_status(tx, "idle", "suspended", "x", 1)

    assert accounts.inactive_ids(tx) == [ids["suspended"], ids["closed"]]

    ledger.settle(tx, books.billed("call-closed", ids["closed"]))
    assert accounts.inactive_ids(tx) == [ids["suspended"]]


def test_a_call_that_holds_nothing_is_to_be_ended_too(tx):
    ann = books.customer(tx, "ann", 0)
    books.take(tx, "call-free", ann.id, want=0)
    accounts.set_status(tx, "ann", "suspended", "x", 1)

    assert accounts.inactive_ids(tx) == [ann.id]


def test_available_is_the_balance_less_what_is_held(tx):
    ann = books.customer(tx, "ann", 5_000_000)
    books.take(tx, "call1", ann.id, 1_000_000)

    held = accounts.get(tx, "ann")
    assert (held.balance_nanousd, held.held_nanousd, held.available_nanousd) == (5_000_000, 1_000_000, 4_000_000)


def test_the_probe_writes_without_touching_money(tx):
    before = tx.total_changes
    accounts.probe(tx)

    assert tx.total_changes == before + 1
    assert books.sums(tx) == (0, 0)


def test_accounts_are_found_by_a_part_of_their_name(tx):
    for name in ("ann", "anna", "hanna", "bob"):
        accounts.create(tx, name, 1)

    assert [a.name for a in accounts.search(tx, "ANN", 10)] == ["ann", "anna", "hanna"]
    assert [a.name for a in accounts.search(tx, "ann", 1, "ann")] == ["anna"]
    assert [a.name for a in accounts.search(tx, "", 10)] == ["ann", "anna", "bob", "hanna"]
    assert accounts.search(tx, "%", 10) == accounts.search(tx, "house", 10) == []


def test_all_customers_are_summed_without_the_house(tx):
    for name in ("ann", "bob"):
        accounts.create(tx, name, 1)
    ledger.grant(tx, "ann", 5, "", None, 1)
    accounts.set_status(tx, "bob", "suspended", "x", 1)

    assert accounts.sums(tx) == {
        "active": 1, "suspended": 1, "closed": 0, "balance_nanousd": 5, "held_nanousd": 0,
    }  # fmt: skip
