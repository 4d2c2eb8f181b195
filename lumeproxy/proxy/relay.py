"""Passing a reply's bytes to the client, metered, settled before its end is let go.

Per chunk: meter, write, and two counters; nothing else. The exchange decides what a broken call means, this module only
says how it broke. Must not know wire formats or prices.
"""

from __future__ import annotations

from aiohttp import web

from lumeproxy.core.headers import for_client
from lumeproxy.core.types import Ending
from lumeproxy.dialects.base import Mark
from lumeproxy.errors import LumeError, OutOfCredit
from lumeproxy.proxy.answers import CALL_ID_HEADER
from lumeproxy.proxy.call import Call
from lumeproxy.proxy.live import LiveCall, Stage
from lumeproxy.proxy.meter import JsonMeter, StreamMeter
from lumeproxy.upstreams.base import CutShort, Reply

NANOUSD_DIGITS = 9


class ClientLeft(Exception):
    """A write found the client's connection closed."""


def headers_for_client(call: Call, reply: Reply) -> list[tuple[str, str]]:
    """The upstream's headers that pass, both request ids, ours."""
    headers = for_client(reply.headers)
    names = {name.lower() for name, _ in headers}
    for name in ("request-id", "x-request-id"):
        if name not in names:
            headers.append((name, call.upstream_request_id or call.draft.call_id))
    headers.append((CALL_ID_HEADER, call.draft.call_id))
    return headers


def dollars(nanousd: int) -> str:
    """An amount for a header: plain decimal dollars, exact."""
    whole, part = divmod(abs(nanousd), 10**NANOUSD_DIGITS)
    return f"{'-' if nanousd < 0 else ''}{whole}.{part:0{NANOUSD_DIGITS}}"


class Relay:
    """One reply on its way to one client."""

    def __init__(self, call: Call, live: LiveCall, request: web.BaseRequest, reply: Reply) -> None:
        self._call = call
        self._live = live
        self._request = request
        self._reply = reply
        self.response: web.StreamResponse | None = None

    async def whole(self, meter: JsonMeter, *, buffer_bytes: int) -> web.StreamResponse:
        """A JSON answer: settled when it has arrived, then sent in one piece with its charge in a header.

        An answer over `buffer_bytes` flows as it comes, with its last piece held back until the charge is committed.
        Raises CutShort, ClientLeft.
        """
        call, live = self._call, self._live
        pieces: list[bytes] = []
        size = 0
        while chunk := await self._reply.read():
            live.progress += 1
            live.stage = Stage.UPSTREAM
            self._first_byte()
            meter.feed(chunk)
            pieces.append(chunk)
            size += len(chunk)
            if size > buffer_bytes:
                await self._start(chunked=self._reply.content_length is None)
                await self._write(b"".join(pieces[:-1]))
                pieces = [pieces[-1]]
        meter.finish()
        live.stage = Stage.OURSELVES
        settled = await call.settle(Ending.COMPLETE)
        if self.response is not None:
            await self._write(b"".join(pieces))
            await self._finish()
            return self.response
        headers = headers_for_client(call, self._reply)
        headers.append(("x-lume-charge", dollars(settled.cost_nanousd)))
        headers.append(("x-lume-balance", dollars(settled.available_nanousd)))
        return web.Response(status=self._reply.status, headers=headers, body=b"".join(pieces))

    async def stream(self, meter: StreamMeter) -> web.StreamResponse:
        """An event stream: every chunk at once, the last event after the commit.

        Raises CutShort where the upstream's connection broke or ended without the last event, ClientLeft.
        """
        call, live = self._call, self._live
        stripper = call.dialect.stripper(call.plan.asked)
        await self._start(chunked=True)
        while True:
            live.stage = Stage.UPSTREAM
            chunk = await self._reply.read()
            live.progress += 1
            if not chunk:
                break
            if call.ttfb_ms is None:
                self._first_byte()
            if call.settled is not None:
                await self._write(chunk if stripper is None else stripper.feed(chunk))
                continue
            free = meter.feed(chunk)
            out = chunk if stripper is None else stripper.feed(chunk)
            if meter.mark is Mark.NONE:
                if call.due():
                    live.urgent = live.urgent or call.review_at_chars == 0
                    if not await call.funded() and (
                        stripper is not None or meter.boundary >= 0 or not meter.can_splice
                    ):
                        return await self._out_of_credit(meter, out if stripper else out[: max(meter.boundary, 0)])
                await self._write(out)
                continue
            if stripper is not None:
                free = 0  # its bytes are not the meter's: hold all of this chunk
            await self._write(out[:free])
            live.stage = Stage.OURSELVES
            await call.settle(Ending.COMPLETE if meter.mark is Mark.FINAL else Ending.CUT_BY_UPSTREAM)
            await self._write(out[free:])
        if call.settled is None:
            raise CutShort("ended without its last event")
        if stripper is not None:
            await self._write(stripper.flush())
        await self._finish()
        assert self.response is not None
        return self.response

    async def end_early(self, meter: StreamMeter, error: LumeError) -> None:
        """End a running stream in the dialect's own words, where its bytes allow it; else cut it."""
        if self.response is None:
            return
        if meter.can_splice and meter.at_boundary:
            await self._write(self._call.dialect.ending(error, meter.reader))
            await self._finish()
        else:
            self.cut()

    async def _out_of_credit(self, meter: StreamMeter, last: bytes) -> web.StreamResponse:
        """Deliver up to the last whole event, settle, say why. What was delivered is charged, at most the hold.

        Nothing can be said inside a coded stream: that one is cut.
        """
        call = self._call
        await self._write(last)
        self._live.stage = Stage.OURSELVES
        settled = await call.settle(Ending.OUT_OF_CREDIT, error_code=OutOfCredit.code)
        self._reply.close()
        error = OutOfCredit(
            "Your credit ran out while this answer was being written; it was charged up to here. "
            f"Balance: ${dollars(settled.available_nanousd)}. Ask your operator to top up."
        )
        if meter.can_splice:
            await self._write(call.dialect.ending(error, meter.reader))
            await self._finish()
        else:
            self.cut()
        assert self.response is not None
        return self.response

    def cut(self) -> None:
        """Break the client's connection, after what was written: never a clean end without the last event."""
        if self._request.transport is not None:
            self._request.transport.close()

    def _first_byte(self) -> None:
        call = self._call
        if call.ttfb_ms is None:
            call.ttfb_ms = call.books.clock.monotonic_ms() - call.started_ms

    async def _start(self, *, chunked: bool) -> None:
        """Send the reply's head, once."""
        if self.response is not None:
            return
        headers = headers_for_client(self._call, self._reply)
        headers.append(("x-lume-balance", dollars(self._call.available_nanousd)))
        if self._reply.content_type == "text/event-stream":
            headers.append(("x-accel-buffering", "no"))  # nginx would collect the events otherwise
        response = web.StreamResponse(status=self._reply.status, headers=headers)
        if not chunked:
            response.content_length = self._reply.content_length
        self.response = response
        try:
            await response.prepare(self._request)
        except ConnectionError:
            raise ClientLeft from None

    async def _write(self, data: bytes) -> None:
        if not data:
            return
        assert self.response is not None
        self._live.stage = Stage.CLIENT
        try:
            await self.response.write(data)
        except ConnectionError:
            raise ClientLeft from None
        self._live.progress += 1

    async def _finish(self) -> None:
        assert self.response is not None
        try:
            await self.response.write_eof()
        except ConnectionError:
            raise ClientLeft from None
