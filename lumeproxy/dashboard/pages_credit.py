"""Credit: what came in and went out, and codes that give more."""

from __future__ import annotations

from aiohttp import web

from lumeproxy.core.limits import day_of
from lumeproxy.dashboard.pages_overview import burn_per_day, lasts_days, since_days
from lumeproxy.dashboard.route import Access, Route
from lumeproxy.dashboard.visit import Visit
from lumeproxy.errors import RateLimited, Refused
from lumeproxy.store import ledger, reports
from lumeproxy.store.database import Tx
from lumeproxy.store.ledger import Balance, EntryRow

PAGE_ENTRIES = 50
BURN_DAYS = 7


async def show(visit: Visit) -> web.StreamResponse:
    """Balance, the newest entries, the form for a code."""
    return await _page(visit)


async def redeem(visit: Visit) -> web.StreamResponse:
    """Give a code's credit to the account. Wrong codes are counted like wrong keys."""
    wait_s = visit.desk.guesses.wait_s(visit.address)
    try:
        if wait_s:
            raise RateLimited(f"Too many wrong codes; wait {wait_s} seconds, then try again.", retry_after_s=wait_s)
        await visit.run("code.redeem", account=visit.me.name, code=visit.form.get("code", ""))
    except Refused as error:
        visit.desk.guesses.failed(visit.address)
        return await _page(visit, error.message, error.status)
    except RateLimited as error:
        return await _page(visit, error.message, error.status)
    return visit.to("/credit", "redeemed")


async def _page(visit: Visit, problem: str = "", status: int = 200) -> web.Response:
    before = visit.asked("before")
    before_id = int(before) if before.isascii() and before.isdigit() and len(before) < 18 else None
    name, account_id, today = visit.me.name, visit.me.account_id, day_of(visit.now_ms)

    def gather(tx: Tx) -> tuple[Balance, list[EntryRow], int]:
        week = reports.sums(tx, since_days(account_id, today, BURN_DAYS))[0]["cost_nanousd"]
        burn = burn_per_day(week, reports.first_day(tx, account_id), today)
        return ledger.balance(tx, name), ledger.entries(tx, name, PAGE_ENTRIES + 1, before_id), burn

    balance, entries, burn = await visit.read(gather)
    return visit.page(
        "credit.html",
        status=status,
        balance=balance,
        burn=burn,
        lasts=lasts_days(balance.available_nanousd, burn),
        entries=entries[:PAGE_ENTRIES],
        older=entries[PAGE_ENTRIES - 1].id if len(entries) > PAGE_ENTRIES else None,
        problem=problem,
    )


ROUTES = (
    Route("GET", "/credit", Access.USER, show),
    Route("POST", "/credit/redeem", Access.USER, redeem),
)
