"""A reply on its way to a client: at once, in bounded memory, and never to a clean end that is not one."""

from __future__ import annotations

import asyncio
import gc
import socket
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from lumeproxy.dialects.openai_chat import OpenAIChat
from lumeproxy.proxy import relay
from lumeproxy.proxy.call import Call
from lumeproxy.proxy.live import Cause
from lumeproxy.proxy.meter import StreamMeter
from lumeproxy.proxy.relay import Relay, _portions, dollars
from lumeproxy.store import ledger
from tests.conftest import ROUTES
from tests.support import streams
from tests.support.calls import (
    ANTHROPIC,
    BILL,
    CHAT,
    INPUT,
    OUTPUT,
    RESPONSES,
    ask,
    ending,
    events,
    in_every_dialect,
    model,
    settled,
    tokens_out,
    until,
    whole,
)
from tests.support.client import Wire, dial, take
from tests.support.clock import FakeClock
from tests.support.proxy import Proxy, proxy
from tests.support.upstream import Connection, ScriptedUpstream

KIB = 1024


@pytest.mark.parametrize(
    ("nanousd", "text"),
    [(0, "0.000000000"), (1, "0.000000001"), (12_345_678_901, "12.345678901"), (-5, "-0.000000005")],
)
def test_amounts_in_headers_are_exact_decimal_dollars(nanousd: int, text: str) -> None:
    assert dollars(nanousd) == text


# --- at once -----------------------------------------------------------------------------------------------------------


def stepwise(parts: list[bytes], taken: asyncio.Semaphore, coding: str = "") -> Callable[[Connection], Any]:
    """Sends each part only after the client has seen the one before."""

    async def script(c: Connection) -> None:
        await c.stream_head({"content-encoding": coding} if coding else None)
        for part in parts:
            await c.chunk(part)
            await asyncio.wait_for(taken.acquire(), 5)
        await c.end()

    return script


async def read_stepwise(lume: Proxy, path: str, body: Any, parts: list[bytes], taken: asyncio.Semaphore) -> None:
    async with lume.post(path, body) as response:
        for part in parts:
            async with asyncio.timeout(5):
                assert await response.content.readexactly(len(part)) == part
            taken.release()
        assert await response.content.read() == b""


@in_every_dialect
async def test_an_event_reaches_the_client_before_the_next_leaves_the_upstream(
    lume: Proxy, upstream: ScriptedUpstream, path: str
) -> None:
    parts, taken = events(path), asyncio.Semaphore(0)
    upstream.script = stepwise(parts, taken)

    await read_stepwise(lume, path, ask(path), parts, taken)

    assert ending(await settled(lume)) == ("complete", "reported", False)


async def test_a_stream_from_which_usage_is_taken_out_flows_at_once(lume: Proxy, upstream: ScriptedUpstream) -> None:
    taken = asyncio.Semaphore(0)
    sent = events(CHAT)
    parts = [one.replace(b', "usage": null', b"") for one in sent if b'"choices": []' not in one]
    # The usage chunk comes together with the one before it, for nothing of it is to be seen.
    upstream.script = stepwise([*sent[:-3], sent[-3] + sent[-2], sent[-1]], taken)

    await read_stepwise(lume, CHAT, {"model": model(CHAT), "stream": True}, parts, taken)

    assert (await settled(lume))["cost_nanousd"] == BILL[CHAT]


@in_every_dialect
async def test_a_coded_stream_flows_at_once(lume: Proxy, upstream: ScriptedUpstream, path: str) -> None:
    coder, taken = zlib.compressobj(wbits=31), asyncio.Semaphore(0)
    parts = [coder.compress(one) + coder.flush(zlib.Z_SYNC_FLUSH) for one in events(path)]
    upstream.script = stepwise(parts, taken, "gzip")

    await read_stepwise(lume, path, {"model": model(path), "stream": True}, parts, taken)

    assert ending(await settled(lume)) == ("complete", "reported", False)


async def test_parts_of_an_event_are_not_waited_for(lume: Proxy, upstream: ScriptedUpstream) -> None:
    taken = asyncio.Semaphore(0)
    stream = b"".join(events(RESPONSES))
    parts = [stream[at : at + 50] for at in range(0, len(stream), 50)]
    upstream.script = stepwise(parts, taken)

    await read_stepwise(lume, RESPONSES, ask(RESPONSES), parts, taken)


async def test_the_head_of_a_stream_is_not_kept_until_its_first_event(lume: Proxy, upstream: ScriptedUpstream) -> None:
    seen = asyncio.Event()

    async def answer(c: Connection) -> None:
        await c.stream_head()
        await asyncio.wait_for(seen.wait(), 5)
        for one in events(ANTHROPIC):
            await c.chunk(one)
        await c.end()

    upstream.script = answer
    async with asyncio.timeout(5), lume.post(ANTHROPIC, ask(ANTHROPIC)) as response:
        seen.set()
        assert response.headers["x-accel-buffering"] == "no"
        held = 10**9 - int(float(response.headers["x-lume-balance"]) * 10**9)
        assert 4096 * OUTPUT < held < 4200 * OUTPUT
        assert await response.read() == b"".join(events(ANTHROPIC))


async def test_a_large_whole_answer_flows_too_but_for_its_last_piece(lume: Proxy, upstream: ScriptedUpstream) -> None:
    body, seen = whole(ANTHROPIC, "x" * 600_000), asyncio.Event()

    async def answer(c: Connection) -> None:
        await c.head(200, {"content-type": "application/json", "content-length": str(len(body))})
        await c.send(body[:-5])
        await asyncio.wait_for(seen.wait(), 5)
        await c.send(body[-5:])

    upstream.script = answer
    async with asyncio.timeout(5), lume.post(ANTHROPIC, ask(ANTHROPIC, stream=False)) as response:
        got = await response.content.readexactly(300_000)
        seen.set()
        assert got + await response.content.read() == body
        assert response.headers["content-length"] == str(len(body))
        assert "x-lume-charge" not in response.headers
    assert (await settled(lume))["cost_nanousd"] == BILL[ANTHROPIC]


# --- bounded memory ----------------------------------------------------------------------------------------------------


def small_socket() -> socket.socket:
    """A client's socket that takes next to nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
    sock.setblocking(False)
    return sock


async def stall(lume: Proxy, path: str, body: bytes) -> Wire:
    """A client that sends its request and reads nothing."""
    sock = small_socket()
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", lume.server.port))
    wire = await dial(lume, path, body, sock=sock)
    wire.transport.pause_reading()
    return wire


class Flood:
    """An upstream that sends as fast as it can, 20 MB in all; `stuck` is set when nobody takes any more."""

    def __init__(self, *, piece_chars: int) -> None:
        self.handed = 0
        self.stuck = asyncio.Event()
        self._piece = events(ANTHROPIC, ["x" * piece_chars])[3]

    async def __call__(self, c: Connection) -> None:
        c.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KIB)
        c.writer.transport.set_write_buffer_limits(high=0)
        await c.stream_head()
        for one in events(ANTHROPIC, [])[:3]:
            await c.chunk(one)
        while self.handed < 20_000_000:
            sending = asyncio.ensure_future(c.chunk(self._piece))
            done, _ = await asyncio.wait((sending,), timeout=0.1)
            if not done:
                self.stuck.set()
            await sending
            self.handed += len(self._piece)


def buffered(call: Relay) -> int:
    """What we ourselves keep of a stream: read and not yet passed on, or passed on and not yet taken."""
    reply: Any = call._reply
    assert call._request.transport is not None
    return int(reply._content._size) + call._request.transport.get_write_buffer_size()


@pytest.mark.parametrize("piece_chars", [2000, 16_000])
async def test_a_client_that_does_not_read_holds_the_upstream_back(
    lume: Proxy, upstream: ScriptedUpstream, piece_chars: int
) -> None:
    flood = upstream.script = Flood(piece_chars=piece_chars)
    await lume.grant(10**12)
    wire = await stall(lume, ANTHROPIC, ask(ANTHROPIC))

    await asyncio.wait_for(flood.stuck.wait(), 10)

    gc.collect()
    (call,) = (found for found in gc.get_objects() if isinstance(found, Relay))
    assert buffered(call) < 256 * KIB
    # The rest is in the kernel's buffers of four sockets, which grow to 6 MB.
    assert flood.handed < 10_000_000
    wire.transport.abort()
    record = await settled(lume)
    assert record["ending"] == "cut_by_client"


async def test_what_a_stalled_client_was_sent_is_charged(
    tmp_path: Path, upstream: ScriptedUpstream, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    flood = upstream.script = Flood(piece_chars=4000)
    async with proxy(tmp_path, {"anthropic": upstream, "openai": upstream}, routes=ROUTES, clock=clock) as lume:
        await lume.grant(10**12)
        lost = asyncio.Event()
        monkeypatch.setattr(Handler, "connection_lost", lambda self, exc: (given(self, exc), lost.set())[0])
        wire = await stall(lume, ANTHROPIC, ask(ANTHROPIC))
        await asyncio.wait_for(flood.stuck.wait(), 10)

        async with asyncio.timeout(5):
            while len(lume.server.live):
                lume.server.live.look()
                clock.advance(30_001)
                await asyncio.sleep(0)

        record = await settled(lume)
        assert ending(record) == ("cut_by_client", "estimate", True)
        assert record["error_code"] == "client_gone"
        pieces = record["output_tokens"] / tokens_out(ANTHROPIC, 4000)
        assert 0 < pieces * 4000 < flood.handed
        await asyncio.wait_for(lost.wait(), 5)  # not left open for one who never reads
        wire.transport.resume_reading()
        await wire.ended()
        assert not wire.clean


async def test_our_last_words_do_not_wait_for_a_client_that_does_not_read(
    lume: Proxy, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "FAREWELL_MS", 20)
    flood = upstream.script = Flood(piece_chars=4000)
    await lume.grant(10**12)
    wire = await stall(lume, ANTHROPIC, ask(ANTHROPIC))
    await asyncio.wait_for(flood.stuck.wait(), 10)

    lume.server.live.interrupt_account(None, Cause.SUSPENDED)

    async with asyncio.timeout(2):
        record = await settled(lume)
    assert (record["ending"], record["error_code"]) == ("interrupted", "suspended")
    wire.transport.resume_reading()
    await wire.ended()
    assert not wire.clean


async def test_a_cut_connection_is_not_kept_for_a_client_that_does_not_read(
    lume: Proxy, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "LINGER_MS", 20)
    flood = upstream.script = Flood(piece_chars=4000)
    await lume.grant(10**12)
    lost = asyncio.Event()
    monkeypatch.setattr(Handler, "connection_lost", lambda self, exc: (given(self, exc), lost.set())[0])
    wire = await stall(lume, ANTHROPIC, ask(ANTHROPIC))
    await asyncio.wait_for(flood.stuck.wait(), 10)

    lume.server.live.interrupt_account(None, Cause.TOO_LONG)

    assert (await settled(lume))["ending"] == "cut_by_upstream"
    await asyncio.wait_for(lost.wait(), 5)
    wire.transport.resume_reading()
    await wire.ended()
    assert not wire.clean


Handler: Any = web.RequestHandler
given = Handler.connection_lost


# --- ended early -------------------------------------------------------------------------------------------------------


async def test_what_waited_for_credit_is_sent_before_our_last_words(
    lume: Proxy, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client has half of an event; behind that half nothing else could be understood."""
    made = [*events(ANTHROPIC, [])[:2], events(ANTHROPIC, ["x" * 20_000])[3]]
    stream = b"".join(made)
    half = asyncio.Event()

    async def answer(c: Connection) -> None:
        await c.stream_head()
        await c.chunk(stream[:-9000])
        await half.wait()
        await c.chunk(stream[-9000:])
        await c.closed_by_peer()

    upstream.script = answer
    lume.delay(ledger.extend, asyncio.Event(), monkeypatch)
    wire = await dial(lume, ANTHROPIC, ask(ANTHROPIC))
    await wire.until(b"x" * 10_000)
    half.set()
    (call,) = lume.server.live._calls.values()
    await until(lambda: call.checkpoint.__self__._extending is not None)  # type: ignore[attr-defined]

    lume.server.live.interrupt_account(None, Cause.SUSPENDED)

    await wire.until(b"0\r\n\r\n")
    assert wire.body.startswith(stream + b"event: content_block_stop\n")
    assert (await settled(lume))["ending"] == "interrupted"


async def test_what_had_come_in_the_moment_of_an_interruption_is_sent_before_our_last_words(
    lume: Proxy, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Again the client has half of an event; the other half is metered, and the call is suspended before it is written."""
    made = [*events(ANTHROPIC, [])[:2], *events(ANTHROPIC, ["one", "two"])[3:5]]
    stream = b"".join(made)
    half, due = asyncio.Event(), Call.due

    async def answer(c: Connection) -> None:
        await c.stream_head()
        await c.chunk(stream[:-5])
        await half.wait()
        await c.chunk(stream[-5:])
        await c.closed_by_peer()

    def suspended(call: Call) -> bool:
        if call.reader.reading.output_chars == len("onetwo"):
            lume.server.live.interrupt_account(None, Cause.SUSPENDED)
            return True
        return due(call)

    upstream.script = answer
    monkeypatch.setattr(Call, "due", suspended)
    wire = await dial(lume, ANTHROPIC, ask(ANTHROPIC))
    await wire.until(stream[-20:-5])
    half.set()

    await wire.until(b"0\r\n\r\n")
    assert wire.body.startswith(stream + b"event: content_block_stop\n")
    assert (await settled(lume))["error_code"] == "suspended"


@pytest.mark.parametrize("how", ["out of credit", "suspended"])
async def test_the_upstream_is_closed_before_the_books_are(
    tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """While a settlement waits for the disk, no provider goes on writing at our cost."""
    closed = asyncio.Event()

    async def answer(c: Connection) -> None:
        await c.stream_head()
        for one in events(ANTHROPIC, ["x" * (4000 if how == "out of credit" else 40)])[:-3]:
            await c.chunk(one)
        await c.closed_by_peer()
        closed.set()

    upstream.script = answer
    upstreams = {"anthropic": upstream, "openai": upstream}
    async with proxy(tmp_path, upstreams, routes=ROUTES, credit_nanousd=6_000_000) as lume:
        lume.delay(ledger.settle, closed, monkeypatch)
        wire = await dial(lume, ANTHROPIC, ask(ANTHROPIC))
        if how == "suspended":
            await wire.until(b"xxx")
            lume.server.live.interrupt_account(None, Cause.SUSPENDED)

        await asyncio.wait_for(closed.wait(), 5)
        assert (await settled(lume))["ending"] == ("out_of_credit" if how == "out of credit" else "interrupted")


def test_a_stream_is_cut_behind_a_whole_event_or_not_at_all() -> None:
    def fed(*chunks: bytes, encoding: str = "") -> StreamMeter:
        dialect = OpenAIChat()
        meter = StreamMeter(dialect.reader(dialect.ask(ask(CHAT))), (), event_bytes=1000, encoding=encoding)
        for chunk in chunks:
            meter.feed(chunk)
        return meter

    assert relay._cut_at(fed(b"data: a\n\ndata"), b"data: a\n\ndata", stripped=False) == 9
    assert relay._cut_at(fed(b"data: a\n\n", b"data"), b"data", stripped=False) is None
    assert relay._cut_at(fed(b"data: a\n\ndata"), b"data: a\n\n", stripped=True) == 9
    assert relay._cut_at(fed(b"data: a\n\n", encoding="br"), b"data: a\n\n", stripped=False) == 0


# --- ends --------------------------------------------------------------------------------------------------------------


@in_every_dialect
async def test_how_the_upstreams_connection_ends_after_the_last_event_does_not_matter(
    lume: Proxy, upstream: ScriptedUpstream, path: str
) -> None:
    async def answer(c: Connection) -> None:
        await c.stream_head()
        for one in events(path):
            await c.chunk(one)
        c.writer.close()

    upstream.script = answer

    taken = await take(lume.post(path, ask(path)))

    assert (taken.body, taken.clean) == (b"".join(events(path)), True)
    assert ending(await settled(lume)) == ("complete", "reported", False)


@in_every_dialect
@pytest.mark.parametrize("asked", [True, False])
async def test_a_last_event_without_its_line_end_is_the_last_event_all_the_same(
    lume: Proxy, upstream: ScriptedUpstream, path: str, asked: bool
) -> None:
    sent = b"".join(events(path)).rstrip(b"\n")
    upstream.script = lambda c: c.stream([sent[:-30], sent[-30:]])

    taken = await take(lume.post(path, ask(path) if asked else {"model": model(path), "stream": True}))

    assert taken.clean
    assert taken.body.endswith(sent[-6:])
    assert ending(await settled(lume)) == ("complete", "reported", False)


async def test_what_comes_behind_the_last_event_passes_unmetered(lume: Proxy, upstream: ScriptedUpstream) -> None:
    sent = [*events(ANTHROPIC), b": more\n\n", *events(ANTHROPIC, delta={"output_tokens": 9999})]
    upstream.script = lambda c: c.stream(sent)

    taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC)))

    assert taken.body == b"".join(sent)
    assert (await settled(lume))["cost_nanousd"] == BILL[ANTHROPIC]


async def test_a_client_of_http_1_0_learns_by_a_reset_that_its_answer_is_cut(
    lume: Proxy, upstream: ScriptedUpstream
) -> None:
    """There is no last chunk to be missed: a plain end of the connection would be a clean one."""
    sent = b"".join(events(ANTHROPIC)[:4])

    async def answer(c: Connection) -> None:
        await c.stream_head()
        await c.chunk(sent)
        await seen.wait()
        c.writer.close()

    seen = asyncio.Event()
    upstream.script = answer
    wire = await dial(lume, ANTHROPIC, ask(ANTHROPIC), version="1.0")
    await wire.until(sent[-9:])
    seen.set()

    await wire.ended()
    assert isinstance(wire.error, ConnectionResetError)
    assert b"chunked" not in wire.head.lower()
    assert (await settled(lume))["ending"] == "cut_by_upstream"


async def test_a_client_of_http_1_0_gets_a_complete_answer_to_its_end(lume: Proxy, upstream: ScriptedUpstream) -> None:
    upstream.script = lambda c: c.stream(events(ANTHROPIC))

    wire = await dial(lume, ANTHROPIC, ask(ANTHROPIC), version="1.0")

    await wire.ended()
    assert wire.error is None
    assert wire.body == b"".join(events(ANTHROPIC))


# --- heads -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [True, False])
async def test_headers_pass_but_for_the_upstreams_own_and_what_cannot_be_written(
    lume: Proxy, upstream: ScriptedUpstream, streamed: bool
) -> None:
    async def answer(c: Connection) -> None:
        body = b"".join(events(ANTHROPIC)) if streamed else whole(ANTHROPIC)
        kind = b"text/event-stream" if streamed else b"application/json"
        await c.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: " + kind + b"; charset=utf-8\r\ncontent-length: %d\r\n" % len(body)
            + b"X-Kept: a\r\nX-Kept: b\r\nx-utf8: caf\xc3\xa9\r\nx-latin: caf\xe9\r\nset-cookie: s=1\r\nserver: them\r\n"
            b"x-lume-charge: 0\r\nconnection: x-hop\r\nx-hop: 1\r\nrequest-id: req_1\r\n\r\n" + body
        )  # fmt: skip

    upstream.script = answer

    taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC, stream=streamed)))

    assert taken.status == 200
    headers = taken.headers
    assert headers.getall("X-Kept") == ["a", "b"]
    assert headers["x-utf8"] == "caf\u00e9"
    assert headers["content-type"].endswith("; charset=utf-8")
    assert not {"x-latin", "set-cookie", "x-hop", "transfer-encoding" if not streamed else "-"} & set(headers)
    assert headers.get("server") != "them"
    assert (headers["request-id"], headers["x-request-id"]) == ("req_1", "req_1")
    record = await settled(lume)
    assert headers["x-lume-call-id"] == record["call_id"]
    assert record["cost_nanousd"] == BILL[ANTHROPIC]
    if not streamed:
        assert headers.getall("x-lume-charge") == [f"0.{BILL[ANTHROPIC]:09}"]


async def test_where_the_upstream_names_no_request_ours_is_named(lume: Proxy, upstream: ScriptedUpstream) -> None:
    upstream.script = lambda c: c.stream(events(CHAT))

    taken = await take(lume.post(CHAT, ask(CHAT)))

    call_id = (await settled(lume))["call_id"]
    assert {taken.headers[name] for name in ("request-id", "x-request-id", "x-lume-call-id")} == {call_id}


async def test_a_stream_that_begins_with_an_error_costs_nothing(lume: Proxy, upstream: ScriptedUpstream) -> None:
    sent = [streams.event({"type": "error", "error": {"type": "overloaded_error", "message": "m"}}, "error")]
    upstream.script = lambda c: c.stream(sent)

    taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC)))

    assert taken.body == sent[0]
    assert ending(await settled(lume)) == ("cut_by_upstream", "none", False)


async def test_a_flood_of_input_is_charged_no_more_than_once(lume: Proxy, upstream: ScriptedUpstream) -> None:
    upstream.script = lambda c: c.stream([one for event in events(ANTHROPIC) for one in (event, b": ping\n\n")])

    await take(lume.post(ANTHROPIC, ask(ANTHROPIC)))

    assert (await settled(lume))["cost_nanousd"] == 100 * INPUT + 20 * OUTPUT


@pytest.mark.parametrize(
    ("room", "pieces"),
    [
        (0, [b"a\n\n", b"bb\n\n", b"c"]),
        (3, [b"a\n\n", b"bb\n\n", b"c"]),
        (6, [b"a\n\n", b"bb\n\n", b"c"]),
        (7, [b"a\n\nbb\n\n", b"c"]),
        (99, [b"a\n\nbb\n\n", b"c"]),
    ],
)
def test_a_chunk_is_metered_in_portions_of_whole_events_that_the_hold_covers(room, pieces):
    assert list(_portions(b"a\n\nbb\n\nc", lambda: room)) == pieces
    crlf = [piece.replace(b"\n", b"\r\n") for piece in (b"a\n\n", b"bb\n\n", b"c")]
    assert list(_portions(b"".join(crlf), lambda: room)) == crlf  # one by one, whatever there is room for


def test_the_room_is_asked_for_anew_before_each_portion():
    rooms = iter([2, 99, 0])

    assert list(_portions(b"a\n\nb\n\nc\n\nd\n\n", lambda: next(rooms, 0))) == [b"a\n\n", b"b\n\nc\n\nd\n\n"]
