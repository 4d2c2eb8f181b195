"""What was called: the table with its filters, one call, a session with its agents, files, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from lumeproxy.core.limits import date_of, day_of
from lumeproxy.dashboard import charts, exports, filters
from lumeproxy.dashboard.charts import Series
from lumeproxy.dashboard.filters import Asked
from lumeproxy.dashboard.render import count, short
from lumeproxy.dashboard.route import Access, Route
from lumeproxy.dashboard.visit import Visit
from lumeproxy.errors import NotFound
from lumeproxy.store import accounts, keys, people, reports, usage
from lumeproxy.store.database import Tx
from lumeproxy.store.reports import Filter

PAGE_CALLS = 50
SESSION_CALLS = 500
PICTURE_DAYS = 90
# The bars of the picture of waits, by their upper ends in ms.
WAITS = (250, 500, 1000, 2000, 4000, 8000, 16_000, 32_000)
CLASSES = {
    "cache_read_tokens": "input from cache",
    "input_tokens": "input",
    "cache_write_5m_tokens": "written for 5 min",
    "cache_write_1h_tokens": "written for 1 h",
    "output_tokens": "output",
}


async def show(visit: Visit) -> web.StreamResponse:
    """The calls of whoever is signed in."""
    return await listed(visit, visit.me.account_id, "/usage")


async def listed(visit: Visit, account_id: int | None, path: str) -> web.Response:
    """A page of calls of an account, or of all for the operator."""
    asked = filters.asked(visit.request.query)
    if account_id is None and asked.account:
        account_id = (await visit.read(accounts.get, asked.account)).id
    which = asked.filter(account_id, visit.now_ms)
    at = filters.place(visit.asked("before"))
    today = day_of(visit.now_ms)

    def gather(tx: Tx) -> dict[str, Any]:
        found, following = reports.calls(tx, which, PAGE_CALLS, at)
        rows = reports.grid(tx, which, finer=False) if which.in_days else []
        sums, whole = (reports.added(rows), True) if which.in_days else reports.sums(tx, which)
        of_period = Asked(days=asked.days).filter(account_id, visit.now_ms)
        return {
            "records": found,
            "following": filters.text_of(following) if following else "",
            "sums": sums,
            "whole": whole,
            "models": reports.models(tx, of_period),
            "keys": {key.id: key.name for key in keys.list_all(tx, visit.me.name)} if path == "/usage" else {},
            "days": rows,
            "waits": reports.waits(tx, which),
        }

    found = await visit.read(gather)
    pictures: dict[str, Any] = {
        "tokens": _tokens(found.pop("days"), today, asked.days) if which.in_days else None,
        "first_byte": _first_byte(found.pop("waits")),
    }
    return visit.page(
        "usage.html",
        **found,
        **pictures,
        query=asked,
        usage_path=path,
        periods=filters.PERIODS,
        outcomes=filters.OUTCOMES,
        first=at == reports.END,
        scanned=reports.SCANNED,
    )


async def show_call(visit: Visit) -> web.StreamResponse:
    """One call with all that is kept of it."""
    return await one_call(visit, visit.me.account_id, "/usage")


async def one_call(visit: Visit, account_id: int | None, path: str) -> web.Response:
    """A call of an account, or of any for the operator."""

    def find(tx: Tx) -> dict[str, Any]:
        record = usage.get(tx, visit.part("call"))
        if record is None or account_id not in (None, record.account_id):
            raise NotFound("There is no such call.")
        return {"r": record, "account": people.get(tx, record.account_id).name}

    return visit.page("call.html", **await visit.read(find), usage_path=path)


async def show_session(visit: Visit) -> web.StreamResponse:
    """A client's session: its calls, and those of the agents that it started."""
    asked = Asked(days="90", session=visit.part("session"))
    which = asked.filter(visit.me.account_id, visit.now_ms)
    records, following = await visit.read(reports.calls, which, SESSION_CALLS)
    if not records:
        raise NotFound("There is no such session among your newest calls.")
    return visit.page(
        "session.html",
        session=asked.session,
        records=records,
        more=following is not None and len(records) == SESSION_CALLS,
        agents=reports.by_agent(records),
        cost=sum(record["cost_nanousd"] for record in records),
    )


async def export_json(visit: Visit) -> web.StreamResponse:
    """The filtered calls as JSON."""
    return await exports.send(visit, _which(visit), "json", "usage")


async def export_csv(visit: Visit) -> web.StreamResponse:
    """The filtered calls as CSV."""
    return await exports.send(visit, _which(visit), "csv", "usage")


def _which(visit: Visit) -> Filter:
    return filters.asked(visit.request.query).filter(visit.me.account_id, visit.now_ms)


# --- pictures ----------------------------------------------------------------------------------------------------------


def _tokens(rows: Sequence[dict[str, Any]], today: int, period: str) -> dict[str, Any]:
    """Tokens by class and day."""
    days = PICTURE_DAYS if period == "all" else int(period)
    first = today - days + 1
    values = {name: [0] * days for name in CLASSES}
    for row in rows:
        if first <= row["day"] <= today:
            for name in CLASSES:
                values[name][row["day"] - first] = row[name]
    columns = [date_of(day)[5:] for day in range(first, today + 1)]
    series = [Series(CLASSES[name], tuple(of_days)) for name, of_days in values.items() if any(of_days)]
    rows_shown = [
        (columns[at], [count(one.values[at]) for one in series] + [count(sum(one.values[at] for one in series))])
        for at in reversed(range(days))
        if any(one.values[at] for one in series)
    ]
    return {
        "chart": charts.stacked("tokens", "Tokens by class and day", columns, series, short),
        "series": series,
        "table": rows_shown,
    }


def _first_byte(waits: list[int]) -> dict[str, Any] | None:
    """How long the first byte took, from a sorted list."""
    if not waits:
        return None
    names = [f"<{_limit(limit)}" for limit in WAITS] + [f"≥{_limit(WAITS[-1])}"]
    bars = [0] * len(names)
    for wait in waits:
        bars[next((at for at, limit in enumerate(WAITS) if wait < limit), len(WAITS))] += 1
    return {
        "chart": charts.stacked(
            "first-byte", "Calls by time to the first byte", names, [Series("calls", tuple(bars))], short
        ),
        "table": [(name, [count(bar)]) for name, bar in zip(names, bars, strict=True)],
        "median": waits[len(waits) // 2],
        "slow": waits[len(waits) * 95 // 100],
        "calls": len(waits),
    }


def _limit(ms: int) -> str:
    return f"{ms} ms" if ms < 1000 else f"{ms // 1000} s"


ROUTES = (
    Route("GET", "/usage", Access.USER, show),
    Route("GET", "/usage.json", Access.USER, export_json),
    Route("GET", "/usage.csv", Access.USER, export_csv),
    Route("GET", "/usage/calls/{call}", Access.USER, show_call),
    Route("GET", "/usage/sessions/{session}", Access.USER, show_session),
)
