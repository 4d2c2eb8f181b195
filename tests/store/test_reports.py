"""What the pages show of usage, by hand and beside the plain sums of all records."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from lumeproxy.core.limits import DAY_MS, day_of
from lumeproxy.store import ledger, reports, usage
from lumeproxy.store.reports import END, Filter, Place
from tests.store.books import billed, customer, take
from tests.support.clock import START_MS

TODAY = day_of(START_MS)
MIDNIGHT = TODAY * DAY_MS


@pytest.fixture
def filled(tx):
    """Twelve calls of ann over three days, one of bob."""
    ann, bob = customer(tx), customer(tx, "bob")
    fields: Iterator[dict[str, Any]] = itertools.cycle([
        {"ending": "complete", "session_id": "s1", "agent_id": ""},
        {"ending": "refused", "session_id": "s1", "agent_id": "a1", "status": 429, "ttfb_ms": None},
        {"ending": "cut_by_client", "session_id": "s2", "agent_id": "", "model": "other", "key_id": "key00002"},
        {"ending": "complete", "session_id": "", "agent_id": "", "upstream": "second"},
    ])  # fmt: skip
    for number in range(12):
        at = {"time_ms": MIDNIGHT - DAY_MS + number * DAY_MS // 4, "ttfb_ms": number * 10}
        settle(
            tx,
            f"a{number:02}",
            ann.id,
            input_tokens=number,
            cache_read_tokens=1,
            output_tokens=2,
            **(at | next(fields)),
        )
    settle(tx, "b", bob.id, output_tokens=100, time_ms=MIDNIGHT)
    return ann


def settle(tx, call_id, account_id, **fields):
    take(tx, call_id, account_id)
    ledger.settle(tx, billed(call_id, account_id, **fields))


def ids(found):
    return [record["call_id"] for record in found[0]]


# --- single calls ------------------------------------------------------------------------------------------------------


def test_calls_are_those_of_the_usage_command_newest_first(tx, filled):
    found, following = reports.calls(tx, Filter(), 100)

    assert found == usage.find(tx)
    assert following is None
    assert reports.calls(tx, Filter(account_id=filled.id), 100)[0] == usage.find(tx, "ann")


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ({"model": "other"}, [10, 6, 2]),
        ({"key_id": "key00002"}, [10, 6, 2]),
        ({"session_id": "s1"}, [9, 8, 5, 4, 1, 0]),
        ({"outcome": "failed"}, [9, 5, 1]),
        ({"outcome": "cut_by_client"}, [10, 6, 2]),
        ({"outcome": "nothing"}, []),
        ({"session_id": "s1", "outcome": "complete"}, [8, 4, 0]),
        ({"since_ms": MIDNIGHT, "until_ms": MIDNIGHT + DAY_MS}, [7, 6, 5, 4]),
        ({"since_ms": MIDNIGHT + 1, "model": "other"}, [10, 6]),
        ({"model": "' OR 1"}, []),
    ],
)
def test_a_filter_finds_what_it_says(tx, filled, which, expected):
    assert ids(reports.calls(tx, Filter(account_id=filled.id, **which), 100)) == [
        f"a{number:02}" for number in expected
    ]


def test_pages_go_on_where_the_last_one_ended(tx, filled):
    seen: list[str] = []
    at: Place | None = END
    pages = 0
    while at is not None:
        found, at = reports.calls(tx, Filter(account_id=filled.id), 5, at)
        seen += [record["call_id"] for record in found]
        pages += 1

    assert seen == [f"a{number:02}" for number in reversed(range(12))]
    assert pages == 3


def test_one_step_looks_at_so_many_records_and_says_where_to_go_on(tx, filled, monkeypatch):
    monkeypatch.setattr(reports, "SCANNED", 4)
    which = Filter(account_id=filled.id, outcome="cut_by_client")
    steps: list[list[str]] = []
    at: Place | None = END
    while at is not None:
        found, at = reports.calls(tx, which, 10, at)
        steps.append([record["call_id"] for record in found])

    assert steps == [["a10"], ["a06"], ["a02"], []]
    assert reports.sums(tx, which) == (reports.sums(tx, which)[0], False)
    assert reports.sums(tx, which)[0]["calls"] == 1


# --- sums --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "which",
    [{}, {"since_ms": MIDNIGHT}, {"model": "other"}, {"key_id": "key00001"}, {"since_ms": MIDNIGHT + DAY_MS // 2},
     {"session_id": "s1"}, {"outcome": "failed"}, {"until_ms": MIDNIGHT}],
)  # fmt: skip
def test_sums_are_those_of_the_records(tx, filled, which):
    asked = Filter(account_id=filled.id, **which)
    found, whole = reports.sums(tx, asked)
    records = reports.calls(tx, asked, 100)[0]

    assert whole
    assert found["calls"] == len(records)
    assert found["failed_calls"] == sum(record["ending"] == "refused" for record in records)
    for name in ("input_tokens", "cache_read_tokens", "output_tokens", "cost_nanousd"):
        assert found[name] == sum(record[name] for record in records), name


def test_sums_of_nothing_are_zero(tx):
    assert reports.sums(tx, Filter())[0] == dict.fromkeys(reports.SUMS, 0)
    assert reports.sums(tx, Filter(session_id="x"))[0] == dict.fromkeys(reports.SUMS, 0)
    assert reports.first_day(tx, 9) is None


def test_groups_are_dearest_first_and_days_oldest_first(tx, filled):
    mine = Filter(account_id=filled.id)
    rows, everything = reports.grid(tx, mine), reports.grid(tx, Filter())

    assert [(row["model"], row["calls"]) for row in reports.by(rows, "model")] == [("claude-test-1", 9), ("other", 3)]
    assert {row["upstream"]: row["calls"] for row in reports.by(everything, "upstream")} == {
        "anthropic": 10,
        "second": 3,
    }
    assert [(row["day"] - TODAY, row["calls"]) for row in reports.by(rows, "day")] == [(-1, 4), (0, 4), (1, 4)]
    assert reports.by(rows, "day") == reports.grid(tx, mine, finer=False)
    assert reports.added(rows) == reports.sums(tx, mine)[0]
    assert reports.added(rows, TODAY) == reports.sums(tx, Filter(account_id=filled.id, since_ms=MIDNIGHT))[0]
    assert reports.added([]) == dict.fromkeys(reports.SUMS, 0)
    assert reports.models(tx, mine) == ["claude-test-1", "other"]
    assert reports.models(tx, Filter(account_id=99)) == []


def test_the_accounts_that_spend_most(tx, filled):
    found = reports.dearest(tx, 0, 10)

    assert [row["account"] for row in found] == ["bob", "ann"]
    assert found[0] == {"account": "bob", "calls": 1, "cost_nanousd": 100 * 10_000}
    assert reports.dearest(tx, 0, 1) == found[:1]
    assert reports.by_account(tx, [filled.id, 99], 0) == {filled.id: (12, found[1]["cost_nanousd"]), 99: (0, 0)}
    assert reports.first_day(tx, filled.id) == TODAY - 1
    assert reports.last_day_of_key(tx, "key00001") == TODAY + 1
    assert reports.last_day_of_key(tx, "nobody") is None


def test_waits_are_sorted_without_those_that_had_none(tx, filled):
    assert reports.waits(tx, Filter(account_id=filled.id)) == [0, 20, 30, 40, 60, 70, 80, 100, 110]
    assert reports.waits(tx, Filter(account_id=filled.id, model="other")) == [20, 60, 100]


def test_a_sessions_agents_are_summed_the_session_itself_first(tx, filled):
    records = reports.calls(tx, Filter(account_id=filled.id, session_id="s1"), 100)[0]

    assert [(one["agent_id"], one["calls"], one["input"], one["output"]) for one in reports.by_agent(records)] == [
        ("", 3, 0 + 4 + 8 + 3, 6),
        ("a1", 3, 1 + 5 + 9 + 3, 6),
    ]


@pytest.mark.parametrize("which", [Filter(), Filter(account_id=4), Filter(account_id=4, model="m", outcome="failed")])
def test_the_newest_records_are_found_by_an_index_without_sorting(tx, which):
    plan = " ".join(
        row[3] for row in tx.execute("EXPLAIN QUERY PLAN " + reports._newest(which), reports._values(which, END, 5))
    )

    assert (
        "usage_by_" in plan and "TEMP B-TREE" not in plan and "SCAN usage" not in plan.replace("SCAN usage USING", "")
    )
