"""Passing a reply's bytes to the client, metered, settled before its end is let go.

Per chunk: meter, write, and two counters; nothing else. The exchange decides what a broken call means, this module only
says how it broke. Must not know wire formats or prices.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from lumeproxy.core.money import format_usd
from lumeproxy.core.sse import BLANK_LINE
from lumeproxy.core.types import Ending
from lumeproxy.dialects.base import Mark, Stripper
from lumeproxy.errors import LumeError, OutOfCredit
from lumeproxy.proxy.answers import headers_for_client
from lumeproxy.proxy.call import Call
from lumeproxy.proxy.live import LiveCall, Stage
from lumeproxy.proxy.meter import JsonMeter, StreamMeter
from lumeproxy.store.ledger import Settled
from lumeproxy.upstreams.base import CutShort, Reply

NANOUSD_DIGITS = 9
# How long a client may take to accept our last words, when its call was ended from outside: "suspended" means at once.
FAREWELL_MS = 500
# How much is handed to a client's connection at once. What the kernel does not take of it waits; nothing else is read
# from the upstream until it has gone, so that this is all that a client which never reads makes us keep.
WRITE_BYTES = 16_384
# How long a client may take to read what was written before its connection was cut; one that never reads costs memory.
LINGER_MS = 60_000
# Bytes on their way: metered ones with the number of them that may go before a settlement, or None and the bytes as read.
_Step = tuple[int | None, bytes]


class ClientLeft(Exception):
    """A write found the client's connection closed."""


def dollars(nanousd: int) -> str:
    """An amount for a header: plain decimal dollars, exact."""
    whole, part = divmod(abs(nanousd), 10**NANOUSD_DIGITS)
    return f"{'-' if nanousd < 0 else ''}{whole}.{part:0{NANOUSD_DIGITS}}"


def ran_out(call: Call, settled: Settled) -> OutOfCredit:
    """What a client is told whose credit ran out in the middle of an answer."""
    what = "The budget of this key, or its credit," if call.key.budget else "Your credit"
    return OutOfCredit(
        f"{what} ran out while this answer was being written; it was charged up to here. "
        f"Balance: {format_usd(settled.available_nanousd)}. Ask your operator to top up."
    )


class Relay:
    """One reply on its way to one client."""

    def __init__(self, call: Call, live: LiveCall, request: web.BaseRequest, reply: Reply) -> None:
        self._call, self._live = call, live
        self._request = request
        self._reply = reply
        self._unsent: bytes | memoryview = b""  # metered, and not yet written
        self.portions: Iterator[bytes] = iter(())  # of the chunk at hand, those that are not metered yet
        self._begun = False  # the head is sent, with the first bytes
        self._writer: AbstractStreamWriter | None = None
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
            self._first_byte()
            meter.feed(chunk)
            if live.cause is not None:
                raise ClientLeft  # noted before the reply began
            pieces.append(chunk)
            size += len(chunk)
            if size > buffer_bytes:
                await self._start(chunked=self._reply.content_length is None)
                await self._write(b"".join(pieces[:-1]))
                pieces = [pieces[-1]]
            live.stage = Stage.UPSTREAM
        meter.finish()
        live.stage = Stage.OURSELVES
        settled = await call.settle(Ending.COMPLETE)
        body = b"".join(pieces)
        if self.response is not None:
            await self._write(body)
        else:
            headers = headers_for_client(self._reply, call.draft.call_id)
            headers.append(("x-lume-charge", dollars(settled.cost_nanousd)))
            headers.append(("x-lume-balance", dollars(settled.available_nanousd)))
            await self._prepare(web.Response(status=self._reply.status, headers=headers, body=body))
        return await self._finish()

    async def stream(self, meter: StreamMeter) -> web.StreamResponse:
        """An event stream: every chunk at once, the last event after the commit.

        Raises CutShort where the upstream's connection broke or ended without the last event, ClientLeft.
        """
        call = self._call
        # Nothing can be taken out of a coded stream: it passes as it is.
        stripper = call.dialect.stripper(call.plan.asked) if meter.can_splice else None
        await self._start(chunked=True)
        while call.settled is None:
            free, data = await self._flow(meter, stripper) or (None, await self._read(meter))
            if free is not None:
                ended = await self._deliver(meter, b"", data, free, stripped=stripper is not None)
            elif data:
                ended = await self._advance(meter, stripper, data)
            else:
                break
            if ended is not None:
                return ended
            data = b""  # waited for below is what the connection holds of it, and nothing else
            await self._drained()
        while chunk := await self._read(meter):
            await self._write(chunk if stripper is None else stripper.feed(chunk))
        if call.settled is None:
            meter.finish()
            if meter.mark is Mark.NONE and not meter.unreadable:
                raise CutShort("ended without its last event")
            await self._settle_read(meter)
        if stripper is not None:
            await self._write(stripper.flush())
        return await self._finish()

    async def _advance(self, meter: StreamMeter, stripper: Stripper | None, chunk: bytes) -> web.StreamResponse | None:
        """Meter and write a chunk: at once where the hold covers all that it can hold, else in portions that it covers or
        event by event, so that what the credit does not pay for is not given away. The response where it ends here."""
        call = self._call
        covered = call.covers(len(chunk)) or not meter.can_splice
        pieces = self.portions = iter((chunk,)) if covered else _portions(chunk, call.room)
        ready: list[bytes] = []
        for piece in pieces:
            free = meter.feed(piece)
            out = piece if stripper is None else stripper.feed(piece)
            if meter.mark is Mark.NONE and (not call.due() or self._reviewed()):
                ready.append(out)
                continue
            ended = await self._deliver(meter, b"".join(ready), out, free, stripped=stripper is not None)
            if ended is not None:
                return ended
            ready.clear()
            if call.settled is not None:
                rest = b"".join(pieces)
                ready.append(rest if stripper is None else stripper.feed(rest))
        await self._put(b"".join(ready))
        return None

    async def _deliver(
        self, meter: StreamMeter, before: bytes, out: bytes, free: int, *, stripped: bool
    ) -> web.StreamResponse | None:
        """Write bytes that are metered, after what they call for: more credit, or the settlement before the last event.
        `before` are such that call for nothing. The response where they were the last."""
        call = self._call
        self._unsent = before + out
        if meter.mark is Mark.NONE:
            if call.due() and not self._reviewed():
                self._reply.pause()  # what came while we wait for credit would be kept
                if not await call.funded():
                    end = _cut_at(meter, out, stripped=stripped)
                    if end is not None or before:
                        return await self._out_of_credit(meter, before + out[: end or 0])
            await self._put(before + out)
            return None
        free = 0 if stripped else free  # stripped bytes are not the meter's: hold all of them
        await self._put(before + out[:free])
        await self._settle_read(meter)
        await self._put(out[free:])
        return None

    def _reviewed(self) -> bool:
        """Look whether what was metered is covered, and note that the input became known; False where that takes time."""
        self._live.urgent = self._live.urgent or self._call.review_at_chars == 0
        return self._call.reviewed()

    async def _flow(self, meter: StreamMeter, stripper: Stripper | None) -> _Step | None:
        """Pass bytes on in the callback in which they come, without a turn of the loop, while nothing has to be decided
        and the client takes them. What needs a decision comes back unwritten; None: the reply ended, broke, or does not
        flow, which the next read tells.
        """
        call, live, writer, request = self._call, self._live, self._writer, self._request
        left: _Step | None = None

        def take(chunk: bytes) -> bool:
            nonlocal left
            live.progress += 1
            self._first_byte()
            transport = request.transport
            if not self._begun or len(chunk) > WRITE_BYTES or transport is None or not call.covers(len(chunk)):
                left, self.portions = (None, chunk), iter((chunk,))  # an interruption may come now
                return False
            free = meter.feed(chunk)
            out = chunk if stripper is None else stripper.feed(chunk)
            if meter.mark is not Mark.NONE or call.due():
                left = (free, out)
                self._unsent = out  # an interruption may come before `left` is looked at
                return False
            if out:
                transport.write(b"%x\r\n%b\r\n" % (len(out), out))
            return transport.get_write_buffer_size() == 0

        if writer is None or request.version < HttpVersion11:  # which knows no chunks
            return None
        live.stage = Stage.UPSTREAM
        while await self._reply.flow(take):
            if left is not None:
                return left
            await self._drained()
            live.stage = Stage.UPSTREAM
        return None

    async def _read(self, meter: StreamMeter) -> bytes:
        """The next bytes; after the answer's last event it does not matter how the upstream's connection ends."""
        self._live.stage = Stage.UPSTREAM
        try:
            chunk = await self._reply.read()
        except CutShort:
            if self._call.settled is not None and meter.mark is Mark.FINAL:
                return b""
            raise
        self._live.progress += 1
        if chunk:
            self._first_byte()
        return chunk

    async def _settle_read(self, meter: StreamMeter) -> None:
        """Settle a stream that was read to its last event, or to an error event."""
        self._live.stage = Stage.OURSELVES
        failed = meter.mark is Mark.FAILED
        await self._call.settle(Ending.CUT_BY_UPSTREAM if failed else Ending.COMPLETE)

    async def end_early(self, meter: StreamMeter, error: LumeError) -> None:
        """End a running stream in the dialect's own words, where its bytes allow it and the client takes them; else
        cut it. The call must be settled: nobody watches over this."""
        try:
            async with asyncio.timeout(FAREWELL_MS / 1000):
                await self._put(self._unsent)
                if meter.can_splice and meter.at_boundary:
                    await self._put(self._call.dialect.ending(error, meter.reader))
                    await self._finish()
                    return
        except (TimeoutError, ClientLeft):
            self.cut(at_once=True)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled this: the interruption found us waiting for the client, and aiohttp keeps that wait,
            # cancelled, for the next one. The client still takes nothing.
            self.cut(at_once=True)
        else:
            self.cut()

    async def _out_of_credit(self, meter: StreamMeter, last: bytes) -> web.StreamResponse:
        """Settle, deliver up to the last whole event, say why. What was delivered is charged, at most the hold.

        Nothing can be said inside a coded stream: that one is cut.
        """
        call = self._call
        self._live.stage = Stage.OURSELVES
        self._reply.close()
        settled = await call.settle(Ending.OUT_OF_CREDIT, error_code=OutOfCredit.code)
        error = ran_out(call, settled)
        if meter.can_splice:
            await self._write(last + call.dialect.ending(error, meter.reader))
            return await self._finish()
        self.cut()
        assert self.response is not None
        return self.response

    def cut(self, *, at_once: bool = False) -> None:
        """Break the client's connection after what was written, or `at_once` where nobody reads any more: never a clean
        end without the last event."""
        transport = self._request.transport
        if transport is None:
            return
        if self._request.version < HttpVersion11:
            # Such an answer ends with its connection, so that only a reset tells the client that it is not complete.
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            at_once = True
        if at_once:
            transport.abort()
            return
        if transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(LINGER_MS / 1000, transport.abort)
        transport.close()

    def _first_byte(self) -> None:
        call = self._call
        if call.ttfb_ms is None:
            call.ttfb_ms = call.books.clock.monotonic_ms() - call.started_ms

    async def _start(self, *, chunked: bool) -> None:
        """Send the reply's head, once."""
        if self.response is not None:
            return
        headers = headers_for_client(self._reply, self._call.draft.call_id)
        headers.append(("x-lume-balance", dollars(self._call.available_nanousd)))
        if self._reply.content_type == "text/event-stream":
            headers.append(("x-accel-buffering", "no"))  # nginx would collect the events otherwise
        response = web.StreamResponse(status=self._reply.status, headers=headers)
        if not chunked:
            response.content_length = self._reply.content_length
        await self._prepare(response)

    async def _prepare(self, response: web.StreamResponse) -> None:
        self.response = response  # also where this fails: the connection is of no use for another answer then
        try:
            self._writer = await response.prepare(self._request)
        except ConnectionError:
            raise ClientLeft from None
        if self._request.transport is not None:
            self._request.transport.set_write_buffer_limits(high=0)  # `drain` waits until all has gone

    async def _write(self, data: bytes | memoryview) -> None:
        """Write, and wait until the client has taken it."""
        await self._put(data)
        await self._drained()

    async def _put(self, data: bytes | memoryview) -> None:
        """Write in pieces, waiting for the client to take each but the last."""
        response, writer = self.response, self._writer
        assert response is not None
        assert writer is not None
        if len(data) > WRITE_BYTES:
            data = memoryview(data)
        while data:
            piece, data = data[:WRITE_BYTES], data[WRITE_BYTES:]
            # The piece is in the connection's buffer then, whatever interrupts the wait for it.
            self._unsent = data or b""
            self._begun = True
            writer.buffer_size = 0  # else aiohttp waits now and then, before the upstream is held back
            try:
                await response.write(piece)
            except ConnectionError:
                raise ClientLeft from None
            if data:
                await self._drained()

    async def _drained(self) -> None:
        """Wait until the client has taken what was written, under the watch's eyes: one that takes nothing for too long is
        given up. Nothing is taken from the upstream meanwhile."""
        live, writer = self._live, self._writer
        assert writer is not None
        transport = self._request.transport
        if transport is None or transport.get_write_buffer_size():
            self._reply.pause()
            live.stage = Stage.CLIENT
            try:
                await writer.drain()
            except ConnectionError:
                raise ClientLeft from None
        live.progress += 1

    async def _finish(self) -> web.StreamResponse:
        assert self.response is not None
        if self._live.cause is None:
            self._live.stage = Stage.CLIENT
        try:
            await self.response.write_eof()
        except ConnectionError:
            raise ClientLeft from None
        return self.response


def _portions(chunk: bytes, room: Callable[[], int]) -> Iterator[bytes]:
    """The chunk in pieces that each end with an event, but for the last, which may be the beginning of one. A piece is one
    event, or as many as there is room for when it is taken: so many bytes can't hold more than the hold covers."""
    at = 0
    while at < len(chunk):
        found = chunk.rfind(b"\n\n", at, at + room())
        end = found + 2
        if found < 0:
            blank = BLANK_LINE.search(chunk, at)
            end = len(chunk) if blank is None else blank.end()
        yield chunk[at:end]
        at = end


def _cut_at(meter: StreamMeter, out: bytes, *, stripped: bool) -> int | None:
    """Where in the bytes at hand a stream may be ended: after a whole event, None where none ends in them."""
    if stripped:
        return len(out)  # whole events only
    if not meter.can_splice:
        return 0
    return meter.boundary if meter.boundary >= 0 else None
