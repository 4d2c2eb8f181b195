"""The operator's pages of the whole house: what runs, what was called and spent and by whom, prices in force."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiohttp import web

from lumeproxy.core.limits import day_of
from lumeproxy.dashboard import charts
from lumeproxy.dashboard.pages_overview import SHOWN_DAYS, axis_usd, by_day, day_table, since_days, spans_of
from lumeproxy.dashboard.pages_usage import listed, one_call
from lumeproxy.dashboard.route import Access, Route
from lumeproxy.dashboard.visit import Visit
from lumeproxy.store import accounts, reports
from lumeproxy.store.database import FILE_NAME, Tx

DEAREST = 10


async def show(visit: Visit) -> web.StreamResponse:
    """The whole house on one page."""
    today = day_of(visit.now_ms)
    month = since_days(None, today, SHOWN_DAYS)

    def gather(tx: Tx) -> dict[str, Any]:
        return {
            "customers": accounts.sums(tx),
            "rows": reports.grid(tx, month),
            "dearest": reports.dearest(tx, today - SHOWN_DAYS + 1, DEAREST),
        }

    found = await visit.read(gather)
    used = {one["upstream"]: one for one in reports.by(found["rows"], "upstream")}
    rows = found.pop("rows")
    columns, series = by_day(rows, today, SHOWN_DAYS)
    house = visit.desk.house
    return visit.page(
        "house.html",
        **found,
        spans=spans_of(rows, today),
        upstreams=await visit.run("upstream.list"),
        used=used,
        nothing=reports.added([]),
        running=house.running(),
        megabytes=_bytes(house.folder) // 1_000_000,
        unpriced=[priced.model for priced in house.prices() if priced.price is None],
        chart=charts.stacked(
            "cost", f"Cost of all accounts by day and model, last {SHOWN_DAYS} days", columns, series, axis_usd
        ),
        series=series,
        table=day_table(columns, series),
    )


async def disable(visit: Visit) -> web.StreamResponse:
    """Send no call to an upstream any more."""
    await visit.run("upstream.disable", name=visit.part("upstream"))
    return visit.to("/operator", "disabled")


async def enable(visit: Visit) -> web.StreamResponse:
    """Send calls to an upstream again."""
    await visit.run("upstream.enable", name=visit.part("upstream"))
    return visit.to("/operator", "enabled")


async def show_usage(visit: Visit) -> web.StreamResponse:
    """The calls of all accounts."""
    return await listed(visit, None, "/operator/usage")


async def show_call(visit: Visit) -> web.StreamResponse:
    """A call of any account."""
    return await one_call(visit, None, "/operator/usage")


async def show_prices(visit: Visit) -> web.StreamResponse:
    """What is served where, and at which price."""
    prices = visit.desk.house.prices()
    return visit.page(
        "prices.html",
        prices=[priced for priced in prices if priced.price is not None],
        unpriced=[priced for priced in prices if priced.price is None],
    )


def _bytes(folder: Path) -> int:
    """The size of the database's files. Only their names are asked for; they are never opened here."""
    return sum(file.stat().st_size for file in folder.glob(FILE_NAME + "*"))


ROUTES = (
    Route("GET", "/operator", Access.OPERATOR, show),
    Route("POST", "/operator/upstreams/{upstream}/disable", Access.OPERATOR, disable),
    Route("POST", "/operator/upstreams/{upstream}/enable", Access.OPERATOR, enable),
    Route("GET", "/operator/usage", Access.OPERATOR, show_usage),
    Route("GET", "/operator/usage/calls/{call}", Access.OPERATOR, show_call),
    Route("GET", "/operator/prices", Access.OPERATOR, show_prices),
)
