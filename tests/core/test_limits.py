"""Limits and the calendar of budgets."""

from __future__ import annotations

import calendar
import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumeproxy.core.limits import END, NO_BUDGET, USUAL, Budget, Limits, date_of, day_of, span

LAST_MS = 221_845_392_000_000  # in the year 9000


def at(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("period", "moment", "first", "end"),
    [
        ("day", "2026-11-24T00:00:00", "2026-11-24", "2026-11-25"),
        ("day", "2026-11-24T23:59:59.999", "2026-11-24", "2026-11-25"),
        ("week", "2026-11-23T00:00:00", "2026-11-23", "2026-11-30"),
        ("week", "2026-11-29T23:59:59.999", "2026-11-23", "2026-11-30"),
        ("week", "2027-01-01T12:00:00", "2026-12-28", "2027-01-04"),
        ("month", "2026-11-30T23:59:59.999", "2026-11-01", "2026-12-01"),
        ("month", "2026-12-31T01:00:00", "2026-12-01", "2027-01-01"),
        ("month", "2028-02-29T01:00:00", "2028-02-01", "2028-03-01"),
    ],
)
def test_a_period_is_one_of_the_calendar(period, moment, first, end):
    assert tuple(map(date_of, span(period, at(moment)))) == (first, end)


def test_all_time_has_no_end():
    assert span("total", at("2026-11-24")) == (0, END)


@given(st.integers(0, LAST_MS), st.sampled_from(["day", "week", "month", "total"]))
def test_a_moment_lies_in_its_period_and_periods_meet(time_ms, period):
    first, end = span(period, time_ms)

    assert first <= day_of(time_ms) < end
    if end < END:
        assert span(period, (end - 1) * 86_400_000) == (first, end)
        assert span(period, end * 86_400_000)[0] == end
    if period == "month":
        date = datetime.date.fromisoformat(date_of(first))
        assert end - first == calendar.monthrange(date.year, date.month)[1]


@pytest.mark.parametrize(
    ("own", "usual", "found"),
    [
        (USUAL, Limits(3, 4), Limits(3, 4)),
        (Limits(0, None), Limits(3, 4), Limits(0, 4)),
        (Limits(None, 9), Limits(3, 4), Limits(3, 9)),
        (USUAL, USUAL, USUAL),
    ],
)
def test_a_limit_of_ones_own_comes_before_the_usual_one(own, usual, found):
    assert own.over(usual) == found


def test_a_budget_of_nothing_is_one_and_no_budget_is_none():
    assert Budget(total_nanousd=0)
    assert not NO_BUDGET
    assert dict(Budget(1, 2, 3, 4).periods()) == {"day": 1, "week": 2, "month": 3, "total": 4}
