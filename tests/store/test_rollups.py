"""Rollups repeat the days: summed once they are over, anew when a settlement comes late, and checked by the audit."""

from __future__ import annotations

import pytest

from lumeproxy.core.limits import DAY_MS, day_of
from lumeproxy.store import rollups, usage
from lumeproxy.store.audit import audit
from tests.store.books import call, customer, remember
from tests.support.clock import START_MS

TODAY = day_of(START_MS)
GROUPS = ("model", "key", "day", "upstream", "account", "session")


@pytest.fixture
def week(tx):
    """Two accounts, three keys, two models, over a week with a day without calls."""
    ids = [customer(tx).id, customer(tx, "bob").id]
    remember(tx)
    for number in range(40):
        day = (0, 1, 2, 4, 5, 6)[number % 6]
        call(tx, f"c{number}", ids[number % 2], output_tokens=number, input_tokens=1, key_id=f"k{number % 3}",
             model=f"m{number % 5 % 2}", time_ms=START_MS - day * DAY_MS)  # fmt: skip
    return tx


def sums(tx):
    """All groups, since ever and since some moments."""
    times = (None, START_MS - 6 * DAY_MS - 5, START_MS - 3 * DAY_MS, (TODAY - 2) * DAY_MS, START_MS)
    return [usage.totals(tx, by, None, since_ms) for by in GROUPS for since_ms in times]


def summed(tx, until_day):
    days = 0
    while rollups.sum_next(tx, until_day):
        days += 1
    return days


def test_sums_are_the_same_with_rollups_and_without(week):
    before = sums(week)

    assert [summed(week, TODAY - 3), rollups.mark(week)] == [3, TODAY - 3]
    assert sums(week) == before
    assert [summed(week, TODAY), summed(week, TODAY)] == [2, 0]
    assert sums(week) == before
    assert rollups.mark(week) == TODAY
    assert audit(week) == []
    rows = week.execute("SELECT sum(calls), count(DISTINCT day) FROM model_sums").fetchone()
    assert rows == (33, 5)


@pytest.mark.parametrize("key", ["k0", "new"])
def test_a_settlement_that_comes_late_is_in_the_sums_at_once_and_in_the_rollup_after_the_next_round(week, key):
    summed(week, TODAY)
    late = START_MS - 4 * DAY_MS
    before = usage.totals(week, "upstream")[0]
    call(week, "late", 4, output_tokens=1000, key_id=key, model="m0", time_ms=late)

    assert rollups.mark(week) == day_of(late)
    after = usage.totals(week, "upstream")[0]
    assert (after["calls"], after["output_tokens"]) == (before["calls"] + 1, before["output_tokens"] + 1000)
    assert audit(week) == []
    right = sums(week)
    assert summed(week, TODAY) == 3
    assert sums(week) == right
    assert audit(week) == []


@pytest.mark.parametrize("table", rollups.TABLES)
def test_the_audit_finds_a_rollup_that_was_altered(week, table):
    summed(week, TODAY)
    week.execute("SAVEPOINT altered")
    week.execute(f"UPDATE {table} SET cost_nanousd = cost_nanousd + 1 WHERE day = {TODAY - 1}")
    week.execute(f"DELETE FROM {table} WHERE day = {TODAY - 2}")
    problems = audit(week)
    week.execute("ROLLBACK TO altered")

    assert problems == [f"The rollup of 2026-11-{day} in {table} is not the sum of that day." for day in (16, 17)]


def test_a_year_of_everybody_is_read_from_the_rollups(week):
    summed(week, TODAY)
    seen: list[str] = []
    week.set_trace_callback(seen.append)
    for by in ("model", "day", "upstream", "key", "account"):
        usage.totals(week, by)
    week.set_trace_callback(None)
    texts = [text for text in seen if "_sums" in text]

    assert [("model_sums" in text, "key_sums" in text) for text in texts] == [(True, False)] * 3 + [(False, True)] * 2
