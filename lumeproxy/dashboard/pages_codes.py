"""The operator's redeem codes: batches made, shown once or as a file, withdrawn."""

from __future__ import annotations

import csv
import io

from aiohttp import web

from lumeproxy.core.money import parse_usd
from lumeproxy.dashboard.route import Access, Route
from lumeproxy.dashboard.visit import Visit
from lumeproxy.errors import NotFound, Refused
from lumeproxy.store import codes

DAY_MS = 86_400_000
EXPIRIES = {"": "never", "7": "in 7 days", "30": "in 30 days", "90": "in 90 days", "365": "in a year"}


async def show(visit: Visit) -> web.StreamResponse:
    """All batches, and the form for a new one."""
    return await _list(visit)


async def create(visit: Visit) -> web.StreamResponse:
    """Make codes and show them, or send them as a file, this once."""
    form = visit.form
    try:
        count, days = form.get("count", "").strip(), form.get("expires", "")
        if not count.isascii() or not count.isdigit() or len(count) > 6 or days not in EXPIRIES:
            raise Refused(f"Say how many codes there shall be: 1 to {codes.CODES_OF_BATCH}.")
        if not 1 <= int(count) <= codes.CODES_OF_BATCH:
            raise Refused(f"A batch has 1 to {codes.CODES_OF_BATCH} codes.")
        made = await visit.run(
            "code.create",
            name=form.get("name", "").strip(),
            kind="invite" if form.get("kind") == "invite" else "credit",
            amount_nanousd=_amount(form.get("amount", "")),
            count=int(count),
            expires_ms=visit.now_ms + int(days) * DAY_MS if days else None,
        )
    except Refused as error:
        return await _list(visit, error.message, error.status)
    if form.get("as") == "csv":
        text = io.StringIO()
        csv.writer(text).writerows([["code"], *([code] for code in made["texts"])])
        named = {"Content-Disposition": f'attachment; filename="codes-{made["id"]}.csv"'}
        return web.Response(text=text.getvalue(), content_type="text/csv", headers=named)
    return visit.page("codes_made.html", made=made)


async def show_one(visit: Visit) -> web.StreamResponse:
    """A batch, and who redeemed what of it."""
    return visit.page("codes_of.html", batch=await visit.run("code.show", batch=_batch(visit)))


async def withdraw(visit: Visit) -> web.StreamResponse:
    """End a batch."""
    batch = _batch(visit)
    await visit.run("code.withdraw", batch=batch)
    return visit.to(f"/operator/codes/{batch}", "withdrawn")


async def _list(visit: Visit, problem: str = "", status: int = 200) -> web.Response:
    batches = await visit.run("code.list")
    return visit.page(
        "codes.html",
        status=status,
        batches=batches,
        problem=problem,
        form=visit.form,
        expiries=EXPIRIES,
        most=codes.CODES_OF_BATCH,
    )


def _batch(visit: Visit) -> int:
    text = visit.part("batch")
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise NotFound("There is no such batch of codes.")
    return int(text)


def _amount(text: str) -> int:
    text = text.strip().removeprefix("$").replace(",", "")
    try:
        return parse_usd(text) if text else 0
    except ValueError as error:
        raise Refused(f"The credit of a code is wrong: {error}.") from None


ROUTES = (
    Route("GET", "/operator/codes", Access.OPERATOR, show),
    Route("POST", "/operator/codes", Access.OPERATOR, create),
    Route("GET", "/operator/codes/{batch}", Access.OPERATOR, show_one),
    Route("POST", "/operator/codes/{batch}/withdraw", Access.OPERATOR, withdraw),
)
