"""Limits on the command line."""

from __future__ import annotations

import pytest

from lumeproxy.cli.limits import arguments, told
from tests.cli.support import Cli

NO_LIMITS = dict.fromkeys(
    ("calls_per_minute", "concurrent_calls", *(f"budget_{p}_nanousd" for p in ("day", "week", "month", "total")))
)


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({}, ""),
        ({"budget_day_nanousd": 5 * 10**9}, "$5.00 a day"),
        ({"budget_day_nanousd": 5 * 10**9, "budget_left_nanousd": 0}, "$5.00 a day ($0.00 left)"),
        ({"budget_week_nanousd": 1, "budget_total_nanousd": 10**9}, "$0.000000001 a week, $1.00 in total"),
        ({"calls_per_minute": 1000, "concurrent_calls": 0}, "1,000 calls a minute, any number of calls at once"),
    ],
)
def test_limits_are_told_in_words(limits, text):
    assert told({**NO_LIMITS, **limits}) == text


def test_what_was_not_given_is_not_sent():
    assert arguments(None, None) == {}
    assert arguments((None,), (0,), [("day", 5), ("total", None)]) == {
        "calls_per_minute": None, "concurrent_calls": 0, "budget_day_nanousd": 5, "budget_total_nanousd": None,
    }  # fmt: skip


def test_a_keys_limits_are_given_changed_and_shown(either: Cli):
    either("account", "create", "lim")
    made = either.json(
        "key", "create", "lim", "--budget", "day=2.50", "--budget", "total=$20", "--concurrent-calls", "3"
    )
    assert (made["budget_day_nanousd"], made["budget_total_nanousd"]) == (2_500_000_000, 20_000_000_000)

    said = either("key", "limit", made["id"], "--budget", "total=none", "--calls-per-minute", "1,000")
    assert said.out == f"Key {made['id']} of lim may use $2.50 a day, 1,000 calls a minute, 3 calls at once.\n"
    for command in (("key", "list", "lim"), ("account", "show", "lim")):
        assert f"{made['id']} may use $2.50 a day ($2.50 left), 1,000 calls a minute" in either(*command).out
    usual = either("key", "limit", made["id"], "--budget", "day=none", "--calls-per-minute", "usual",
                   "--concurrent-calls", "usual")  # fmt: skip
    assert usual.out == f"Key {made['id']} of lim may use what is usual.\n"
    assert "may use" not in either("key", "list", "lim").out


def test_an_accounts_limits_are_changed_and_shown(either: Cli):
    either("account", "create", "fast")

    said = either("account", "limit", "fast", "--calls-per-minute", "60")
    assert "It may use 60 calls a minute." in said.out
    assert either.json("account", "limit", "fast", "--concurrent-calls", "0")["concurrent_calls"] == 0
    assert "any number of calls at once" in either("account", "show", "fast").out


@pytest.mark.parametrize(
    "words",
    [
        ("key", "limit", "abcdefgh"),
        ("account", "limit", "me"),
        ("key", "limit", "abcdefgh", "--budget", "5"),
        ("key", "limit", "abcdefgh", "--budget", "year=5"),
        ("key", "limit", "abcdefgh", "--budget", "day=much"),
        ("key", "limit", "abcdefgh", "--calls-per-minute", "-1"),
        ("key", "limit", "abcdefgh", "--calls-per-minute", "ten"),
        ("account", "limit", "me", "--concurrent-calls", "1.5"),
    ],
)
def test_what_is_no_limit_is_a_usage_error(cli: Cli, words):
    outcome = cli(*words)

    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err
