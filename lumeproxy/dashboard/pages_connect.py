"""Connecting a tool: what to set, copied with one click, and a tick when its first call arrives."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator

import msgspec
from aiohttp import web

from lumeproxy.dashboard.route import Access, Route
from lumeproxy.dashboard.visit import Visit
from lumeproxy.errors import RateLimited
from lumeproxy.store import reports
from lumeproxy.store.reports import Filter

LOOK_S = 1.0  # how often it is looked for a call
WAIT_S = 900.0  # then the browser asks anew, if the page is still open
_HELLO = b"retry: 3000\n\n"


async def show(visit: Visit) -> web.StreamResponse:
    """The lines for each tool."""
    listed = await visit.run("key.list", account=visit.me.name)
    usable = [key for key in listed if key["revoked_ms"] is None]
    return visit.page("connect.html", base_url=visit.base_url, keys=usable, since=visit.now_ms)


async def calls(visit: Visit) -> web.StreamResponse:
    """Server-sent events: `call`, once a call has ended that began after the page was shown."""
    since = visit.asked("since")
    since_ms = int(since) if since.isascii() and since.isdigit() and len(since) < 16 else visit.now_ms
    with _place(visit):
        response = web.StreamResponse()
        response.content_type, response.charset = "text/event-stream", "utf-8"
        visit.harden(response)
        await response.prepare(visit.request)
        with contextlib.suppress(ConnectionError):  # the page was left
            await response.write(_HELLO)
            found = await _first(visit, since_ms)
            if found is not None:
                shown = {name: found[name] for name in ("call_id", "model", "ending")}
                await response.write(b"event: call\ndata: " + msgspec.json.encode(shown) + b"\n\n")
            await response.write_eof()
        return response


async def _first(visit: Visit, since_ms: int) -> dict[str, object] | None:
    """The newest call since a time, as soon as there is one; None when the page has left, or the wait was long."""
    which = Filter(account_id=visit.me.account_id, since_ms=since_ms)
    loop = asyncio.get_running_loop()
    end = loop.time() + WAIT_S
    while visit.request.transport is not None and loop.time() < end:
        found, _ = await visit.read(reports.calls, which, 1)
        if found:
            return found[0]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await visit.desk.ending.wait()
                return None
    return None


@contextlib.contextmanager
def _place(visit: Visit) -> Iterator[None]:
    """One of the account's places for pages that wait. Raises RateLimited without a free one."""
    waiting: Counter[int] = visit.desk.waiting
    account_id = visit.me.account_id
    if waiting[account_id] >= visit.desk.rules.streams_of_account:
        raise RateLimited("Too many of your pages wait for a call; close one.", retry_after_s=30)
    waiting[account_id] += 1
    try:
        yield
    finally:
        waiting[account_id] -= 1
        if not waiting[account_id]:
            del waiting[account_id]


ROUTES = (
    Route("GET", "/connect", Access.USER, show),
    Route("GET", "/connect/calls", Access.USER, calls),
)
