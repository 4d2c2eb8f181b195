"""The first page: what there is, what was spent, for how long it lasts."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from lumeproxy.core.limits import DAY_MS, date_of, day_of
from lumeproxy.dashboard import charts
from lumeproxy.dashboard.charts import Series
from lumeproxy.dashboard.render import usd
from lumeproxy.dashboard.route import Access, Route
from lumeproxy.dashboard.visit import Visit
from lumeproxy.store import ledger, reports
from lumeproxy.store.database import Tx
from lumeproxy.store.reports import Filter

SHOWN_DAYS = 30
BURN_DAYS = 7
LASTING_DAYS = 3650  # beyond which nobody wants a number


async def show(visit: Visit) -> web.StreamResponse:
    """Balance, burn rate, spending by day and model, the newest calls."""
    account_id, name, today = visit.me.account_id, visit.me.name, day_of(visit.now_ms)
    which = since_days(account_id, today, SHOWN_DAYS)

    def gather(tx: Tx) -> dict[str, Any]:
        return {
            "balance": ledger.balance(tx, name),
            "rows": reports.grid(tx, which),
            "newest": reports.calls(tx, Filter(account_id=account_id), 6)[0],
            "first_day": reports.first_day(tx, account_id),
        }

    found = await visit.read(gather)
    rows = found.pop("rows")
    spans = spans_of(rows, today)
    burn = burn_per_day(spans[BURN_DAYS]["cost_nanousd"], found.pop("first_day"), today)
    columns, series = by_day(rows, today, SHOWN_DAYS)
    return visit.page(
        "overview.html",
        **found,
        spans=spans,
        models=reports.by(rows, "model"),
        burn=burn,
        lasts=lasts_days(found["balance"].available_nanousd, burn),
        chart=charts.stacked("cost", f"Cost by day and model, last {SHOWN_DAYS} days", columns, series, axis_usd),
        spark=charts.spark("spark", "Cost of the last 30 days", daily(series)),
        series=series,
        table=day_table(columns, series),
    )


def since_days(account_id: int | None, today: int, days: int) -> Filter:
    """Calls of the last days, today included."""
    return Filter(account_id=account_id, since_ms=(today - days + 1) * DAY_MS)


def spans_of(rows: list[dict[str, Any]], today: int) -> dict[int, dict[str, int]]:
    """The sums of today, a week and SHOWN_DAYS from a grid of as many days."""
    return {days: reports.added(rows, today - days + 1) for days in (1, BURN_DAYS, SHOWN_DAYS)}


def burn_per_day(spent_nanousd: int, first_day: int | None, today: int) -> int:
    """What a day costs, by the last week or by as much of it as there were calls; 0 without any."""
    if first_day is None:
        return 0
    return spent_nanousd // min(BURN_DAYS, max(1, today - first_day + 1))


def lasts_days(available_nanousd: int, burn_nanousd: int) -> int | None:
    """For how many days the credit lasts at that rate, None for longer than can be told."""
    if not burn_nanousd or available_nanousd // burn_nanousd > LASTING_DAYS:
        return None
    return available_nanousd // burn_nanousd


def by_day(rows: list[dict[str, Any]], today: int, days: int) -> tuple[list[str], list[Series]]:
    """Dates, and a series of costs for each model of a grid, those that cost little together."""
    first = today - days + 1
    values: dict[str, list[int]] = {}
    for row in rows:
        if first <= row["day"] <= today and row["cost_nanousd"]:
            values.setdefault(row["model"], [0] * days)[row["day"] - first] += row["cost_nanousd"]
    series = [Series(model, tuple(of_days)) for model, of_days in values.items()]
    return [date_of(day)[5:] for day in range(first, today + 1)], charts.ranked(series, "other models")


def daily(series: list[Series]) -> list[int]:
    """The sum of each column."""
    return [sum(column) for column in zip(*(one.values for one in series), strict=True)]


def day_table(columns: list[str], series: list[Series]) -> list[tuple[str, list[str]]]:
    """The figures of the picture, for who can't see it: the newest day first, days without any left out."""
    rows = []
    for at in reversed(range(len(columns))):
        values = [one.values[at] for one in series]
        if any(values):
            rows.append((columns[at], [usd(value, 4) for value in [*values, sum(values)]]))
    return rows


def axis_usd(nanousd: int) -> str:
    """Dollars in as few characters as tell it."""
    return usd(nanousd, next((digits for digits in range(6) if nanousd % 10 ** (9 - digits) == 0), 6))


ROUTES = (Route("GET", "/", Access.USER, show),)
