"""The first page: balance, burn rate, and for how long it lasts."""

from __future__ import annotations

import pytest

from lumeproxy.core.limits import date_of
from lumeproxy.dashboard import pages_overview as overview
from lumeproxy.dashboard.charts import Series
from tests.dashboard.browser import Site

DOLLAR = 10**9


@pytest.mark.parametrize(
    ("spent", "first_day", "burn"),
    [(0, None, 0), (700, 0, 100), (700, 100, 700), (700, 99, 350), (700, 94, 100), (700, 93, 100), (700, 101, 700)],
)
def test_the_burn_rate_is_of_a_week_or_of_the_days_since_the_first_call(spent, first_day, burn):
    assert overview.burn_per_day(spent, first_day, 100) == burn


@pytest.mark.parametrize(("available", "burn", "days"), [(100, 0, None), (100, 30, 3), (0, 30, 0), (10**9, 1, None)])
def test_credit_lasts_so_many_days(available, burn, days):
    assert overview.lasts_days(available, burn) == days


def test_costs_are_laid_out_by_day_with_a_table_of_the_same_figures():
    costs = [(8, "a", DOLLAR), (10, "a", 2), (10, "b", 3 * DOLLAR), (1, "b", 5)]
    rows = [{"day": day, "model": model, "cost_nanousd": cost} for day, model, cost in costs]
    columns, series = overview.by_day(rows, 10, 3)

    assert columns == [date_of(day)[5:] for day in (8, 9, 10)]
    assert series == [Series("b", (0, 0, 3 * DOLLAR)), Series("a", (DOLLAR, 0, 2))]
    assert overview.daily(series) == [DOLLAR, 0, 3 * DOLLAR + 2]
    assert overview.day_table(columns, series) == [
        (columns[2], ["$3.0000", "<$0.0001", "$3.0000"]),
        (columns[0], ["$0.0000", "$1.0000", "$1.0000"]),
    ]


@pytest.mark.parametrize(
    ("nanousd", "told"),
    [
        (0, "$0"),
        (5 * DOLLAR, "$5"),
        (DOLLAR // 2, "$0.5"),
        (200_000, "$0.0002"),
        (50_000, "$0.00005"),
        (20, "<$0.000001"),
    ],
)
def test_the_grid_tells_dollars_in_few_characters(nanousd, told):
    assert overview.axis_usd(nanousd) == told


async def test_without_a_call_it_says_what_to_do_next(pages: Site):
    page = await (await pages.user()).get("/")

    assert "Balance $1.00 Nothing was spent in the last week." in page.told
    assert "No calls in the last 30 days" in page.told
    assert {"/keys", "/connect"} <= page.links


async def test_it_shows_what_was_spent_on_what(pages: Site):
    for day in range(3):
        # Two tokens in and five out at $1 and $5 per million.
        call = await pages.call(text="hello there")
        if day < 2:
            pages.clock.wall_ms += 86_400_000
    records = await pages.lume.records()
    each = records[0]["cost_nanousd"]
    assert [record["cost_nanousd"] for record in records] == [each] * 3
    page = await (await pages.user()).get("/")

    assert "Balance $1.00" in page.told
    assert each == 22_000
    assert "At this rate it lasts for years." in page.told
    assert "7 days $0.0001 3 calls" in page.told and "Today <$0.0001 1 call" in page.told
    assert "3 calls, 0 % of the input from cache" in page.told
    assert f"/usage/calls/{call}" in page.links
    assert "/usage?days=30&model=claude-echo" in page.links
    assert page.text.count('<svg class="chart') == 2
    assert await pages.lume.audit() == []
