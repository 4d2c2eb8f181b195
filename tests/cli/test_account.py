"""`lumeproxy account`, with and without a running server."""

from __future__ import annotations

import importlib
import io
import re
import sys

import pytest

from tests.cli.support import Cli, cells

DOLLAR = 10**9
account = importlib.import_module("lumeproxy.cli.account")  # its group has the same name


def test_an_account_is_made_with_credit_and_told_what_comes_next(either: Cli):
    outcome = either("account", "create", "Ann", "--credit", "$2.50")

    assert (outcome.status, outcome.err) == (0, "")
    assert "Account ann was made with $2.50." in outcome.out
    assert "lumeproxy key create ann" in outcome.out
    assert either.json("credit", "balance", "ann")["balance_nanousd"] == 2_500_000_000


def test_an_accounts_json_has_its_state_and_its_money(either: Cli):
    made = either.json("account", "create", "json", "--credit", "1")

    assert made.pop("created_ms") > 1_700_000_000_000
    assert made == {
        "account": "json",
        "status": "active",
        "reason": "",
        "balance_nanousd": DOLLAR,
        "held_nanousd": 0,
        "available_nanousd": DOLLAR,
        "calls_per_minute": None,
        "concurrent_calls": None,
        "low_balance_nanousd": None,
    }
    assert either.json("account", "show", "json")["keys"] == []
    assert [a["account"] for a in either.json("account", "list")].count("json") == 1


def test_suspending_needs_a_reason_and_is_undone_closing_is_not(either: Cli):
    either("account", "create", "eve")

    assert either("account", "suspend", "eve").status == 2
    assert either("account", "suspend", "eve", "--reason", "  ").status == 2
    assert either("account", "suspend", "eve", "--reason", "unpaid").out == (
        "Account eve is suspended: unpaid.\nBalance $0.00.\n"
    )
    assert either.json("account", "resume", "eve")["status"] == "active"
    assert either("account", "close", "eve").out.startswith("Account eve is closed.\n")
    again = either("account", "resume", "eve")
    assert (again.status, again.out) == (1, "")
    assert again.err == "lumeproxy: The account eve is closed for good.\n"


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("create", "twice"), 1, "There is an account twice already."),
        (("create", "no name"), 2, "'no name' is no account name"),
        (("create", "house:credit"), 2, "'house:credit' is no account name"),
        (("show", "nobody"), 1, "There is no account nobody."),
        (("show", "house:credit"), 1, "There is no account house:credit."),
        (("create", "rich", "--credit", "1000001"), 2, "can't be above 1,000,000 dollars"),
        (("create", "poor", "--credit", "-1"), 2, "can't be negative"),
        (("create", "\udcff"), 2, "'\\udcff' is no account name"),
        (("show", "\udcff"), 1, "not valid UTF-8"),
        (("create",), 2, "Missing argument 'NAME'"),
        (("nothing",), 2, "No such command"),
        ((), 2, "Usage: lumeproxy account"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(either: Cli, arguments, status, told):
    either("account", "create", "twice")

    outcome = either("account", *arguments) if arguments else either("account")

    assert (outcome.status, outcome.out) == (status, "")
    assert told in outcome.err


def test_no_accounts_are_said_to_be_none(cli: Cli):
    cli.begin()

    assert cli("account", "list").out == (
        f"No accounts yet. Make one: lumeproxy account create NAME --credit 10 --data {cli.data}\n"
    )
    assert cli.json("account", "list") == []


def test_the_list_aligns_and_keeps_within_the_screen(cli: Cli):
    cli("account", "create", "a" * 64, "--credit", "1000000")
    cli("account", "create", "b", "--credit", "0.123456")
    cli("account", "suspend", "b", "--reason", "why " * 50)

    out = cli("account", "list").out
    head, long, short = cells(out)

    assert head == ["account", "status", "balance", "held", "created", "reason"]
    assert long[0] == "a" * (len(long[0]) - 1) + "…"
    assert long[1:4] == ["active", "$1,000,000.000000", "$0.000000"]
    assert short[:4] == ["b", "suspended", "$0.123456", "$0.000000"]
    assert short[-1].endswith("…")
    first, second = out.splitlines()[1:]
    assert first.index(".000000") == second.index(".123456")


def test_an_account_is_shown_with_its_keys(cli: Cli):
    cli("account", "create", "ann", "--credit", "1")
    assert "No keys yet. Make one: lumeproxy key create ann" in cli("account", "show", "ann").out
    key = cli.json("key", "create", "ann", "--name", "laptop")

    shown = cli("account", "show", "ANN").out

    assert shown.startswith("Account ann is active.\nBalance $1.00.\n\n")
    assert cells(shown, 1) == [["key", "name", "expires", "state"], [key["id"], "laptop", "-", "in force"]]
    assert key["key"] not in shown


def test_a_closed_account_is_offered_no_key(either: Cli):
    either("account", "create", "gone", "--credit", "2.5")

    assert either("account", "close", "gone").out == "Account gone is closed.\nBalance $2.50, which stays with it.\n"
    assert either("account", "show", "gone").out == "Account gone is closed.\nBalance $2.50, which stays with it.\n"


@pytest.mark.parametrize(
    ("answer", "more", "status", "left"),
    [("y\n", [], 0, "closed"), ("n\n", [], 1, "active"), ("", [], 1, "active"), ("n\n", ["--yes"], 0, "closed")],
)
def test_a_person_is_asked_before_an_account_is_closed(cli: Cli, monkeypatch, answer, more, status, left):
    cli("account", "create", "ann", "--credit", "2.5")
    monkeypatch.setattr("lumeproxy.cli.account.on_terminal", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))

    outcome = cli("account", "close", "ann", *more)

    assert outcome.status == status
    assert cli.json("account", "show", "ann")["status"] == left
    assert ("Closing ann is for good: its keys end, and its balance of $2.50 stays unused." in outcome.out) is (
        not more
    )
    if answer == "n\n" and not more:
        assert outcome.out.endswith("Nothing was changed.\n")


def test_nobody_is_asked_of_a_closed_account_nor_without_a_terminal(cli: Cli, monkeypatch):
    assert account.on_terminal() is False
    cli("account", "create", "ann")
    monkeypatch.setattr(account, "on_terminal", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))

    assert cli.json("account", "close", "ann")["status"] == "closed"
    assert cli("account", "close", "ann").status == 0


def test_an_account_becomes_an_operators_and_a_users_again(either: Cli):
    either("account", "create", "olga")

    told = either("account", "admin", "olga")
    assert (told.status, "Account olga is an operator's. Sign in: " in told.out) == (0, True)
    assert "account link olga" in told.out
    assert either.json("account", "admin", "olga", "--revoke")["role"] == "user"
    assert either("account", "admin", "olga", "--revoke").out == "Account olga is a user's.\n"
    assert either("account", "admin", "nobody").status == 1


def test_a_link_names_the_server_and_stands_alone_on_its_line(either: Cli):
    either("account", "create", "lena")

    told = either("account", "link", "lena")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/sign-in/link\?token=[0-9a-f]{48}\n", told.out)
    made = either.json("account", "link", "lena")
    assert (made["account"], made["url"] in told.out) == ("lena", False)
    either("account", "suspend", "lena", "--reason", "x")
    assert either("account", "link", "lena").err.endswith("The account lena is suspended; it can't sign in.\n")


def test_a_threshold_is_set_told_and_taken_back(either: Cli):
    either("account", "create", "low", "--credit", "10")

    assert (
        "Somebody is told when it falls below $5.00.\n" in either("account", "limit", "low", "--low-balance", "5").out
    )
    assert "It is below $20.00.\n" in either("account", "limit", "low", "--low-balance", "$20").out
    assert either.json("account", "show", "low")["low_balance_nanousd"] == 20 * DOLLAR
    assert either.json("account", "limit", "low", "--low-balance", "usual")["low_balance_nanousd"] is None
    assert either("account", "limit", "low", "--low-balance", "much").status == 2
    assert "Name a limit: --low-balance" in either("account", "limit", "low").err


def test_an_account_is_erased_and_its_ledger_stays(either: Cli):
    either("account", "create", "forgotten", "--credit", "10")
    outcome = either("account", "erase", "forgotten")

    assert outcome.status == 0
    (name,) = re.findall(r"erased-\d+", outcome.out)
    assert outcome.out == f"The account is erased. Its entries are kept as {name}, with the notes of its grants.\n"
    assert either("account", "show", "forgotten").status == 1
    assert either.json("account", "show", name)["balance_nanousd"] == 10 * DOLLAR
    assert either.json("account", "erase", name)["account"] == name
    assert either.json("audit") == {"ok": True, "problems": []}
