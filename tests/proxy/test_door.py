"""Requests that are none: answered shortly, closed, and never quoted; nothing of them goes upstream or into the books."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from lumeproxy import logs
from lumeproxy.clock import Clock
from lumeproxy.proxy.door import Runner
from tests.conftest import ROUTES
from tests.proxy.conftest import Speak, spoken
from tests.support import streams
from tests.support.proxy import Proxy, proxy
from tests.support.upstream import Connection, ScriptedUpstream

BODY = b'{"model":"claude-test-1","max_tokens":5,"messages":[]}'
SIZE = str(len(BODY)).encode()
CHUNKS = b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"
HOST = b"Host: 127.0.0.1\r\n"
KEY = b"Authorization: Bearer {key}\r\n"
POST = b"POST /v1/messages HTTP/1.1\r\n" + HOST + KEY
SIZED = POST + b"Content-Length: " + SIZE + b"\r\n"


def sized(value: str) -> bytes:
    return POST + b"Content-Length: " + value.encode() + b"\r\n\r\n" + BODY


def coded(value: str) -> bytes:
    return POST + b"Transfer-Encoding: " + value.encode() + b"\r\n\r\n" + CHUNKS


def chunked(text: bytes) -> bytes:
    return POST + b"Transfer-Encoding: chunked\r\n\r\n" + text


def get(target: bytes, version: bytes = b"HTTP/1.1", method: bytes = b"GET") -> bytes:
    return method + b" " + target + b" " + version + b"\r\n" + HOST + KEY + b"\r\n"


# Every one of them with a valid key, most with a valid body: only its form is at fault.
MALFORMED = {
    # two opinions on where the body ends
    "length and chunked": SIZED + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "chunked and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: " + SIZE + b"\r\n\r\n" + CHUNKS,
    "two lengths": SIZED + b"Content-Length: 1\r\n\r\n" + BODY,
    "a length twice": SIZED + b"Content-Length: " + SIZE + b"\r\n\r\n" + BODY,
    "two transfer-encodings": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "identity, then chunked": POST + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    **{f"length {value!r}": sized(value) for value in
       ("+54", "-1", "0x36", "5_4", "", "5 4", "54.0", "54;1", "54, 54", "\v54", "٥٤", "9" * 30)},
    **{f"transfer-encoding {value!r}": coded(value) for value in
       ("xchunked", "chunked, identity", "chunked, chunked", "identity", "gzip", "gzip, chunked", "chunked;q=1",
        "\vchunked", "chunked\v", '"chunked"', "chunked,", ",chunked", "")},
    "chunked over HTTP/1.0": coded("chunked").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKS,
    "folded transfer-encoding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKS,
    # chunks
    **{f"chunk size {value!r}": chunked(value + b"\r\nx\r\n0\r\n\r\n") for value in
       (b"-1", b"+1", b"0x1", b"1_0", b"", b"1 ", b" 1", b"g", b"f" * 18, b"1;a\nb")},
    "chunk lines by LF only": chunked(b"1\nx\n0\n\n"),
    "chunk longer than said": chunked(b"1\r\nxx\r\n0\r\n\r\n"),
    "trailer without a colon": chunked(CHUNKS[:-2] + b"bad trailer\r\n\r\n"),
    "a length in the trailer": chunked(CHUNKS[:-2] + b"Content-Length: 3\r\n\r\n"),
    # lines and headers
    "LF only": SIZED.replace(b"\r\n", b"\n") + b"\n" + BODY,
    "one bare LF": POST + b"X-A: b\nContent-Length: " + SIZE + b"\r\n\r\n" + BODY,
    "a bare CR": POST + b"X-A: b\rX-B: c\r\nContent-Length: " + SIZE + b"\r\n\r\n" + BODY,
    "a folded header": POST + b"X-A: a\r\n b\r\nContent-Length: " + SIZE + b"\r\n\r\n" + BODY,
    **{f"byte {value:#04x} in a header": SIZED + b"X-A: a" + bytes([value]) + b"b\r\n\r\n" + BODY for value in
       (0, 1, 8, 0x0B, 0x0C, 0x1B, 0x7F)},
    "NUL in a name": SIZED + b"X\0A: b\r\n\r\n" + BODY,
    "no colon": SIZED + b"NoColon\r\n\r\n" + BODY,
    "no name": SIZED + b": b\r\n\r\n" + BODY,
    "space in a name": SIZED + b"X A: b\r\n\r\n" + BODY,
    "no host": POST.replace(HOST, b"") + b"\r\n",
    "two hosts": POST + HOST + b"\r\n",
    "an old WebSocket": POST + b"Sec-WebSocket-Key1: x\r\n\r\n",
    # too much
    "a key with a control character": POST.replace(KEY, b"Authorization: Bearer {key}\x01\r\n") + b"\r\n",
    "a header of 40 KB": POST.replace(KEY, b"Authorization: Bearer " + b"{key}" * 800 + b"\r\n") + b"\r\n",
    "a target of 40 KB": get(b"/v1/messages?" + b"{key}" * 800),
    "200 headers": SIZED + b"".join(b"X-%d: {key}\r\n" % n for n in range(200)) + b"\r\n" + BODY,
    # first lines
    **{f"version {value!r}": get(b"/v1/models", value) for value in
       (b"HTTP/0.9", b"HTTP/1", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/3.0", b"HTTP/11.1", b"http/1.1", b"HTTP/1.1 ",
        b"ICY/1.0")},
    **{f"method {value!r}": get(b"/v1/models", method=value) for value in
       (b"get", b"G\0T", b"FOO", b"", b"GE T", b"{key}")},
    **{f"target {value!r}": get(value) for value in
       (b"v1/models", b"*", b"", b"\\v1\\models", b"/v1/mod els", b"/v1/models\t", b"/v1/models\xff", b"/\xe9",
        b"/v1/models?\xff", b"http:///v1/models", b"http://[::1/v1/models", b"http://127.0.0.1:99999999/v1/models",
        b"file:///etc/passwd", b"{key}")},
    # not HTTP
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "an HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "noise": b"\xff\xfe\xfd{key}\r\n\r\n",
}  # fmt: skip
TOO_LARGE = {"a header of 40 KB", "a target of 40 KB"}


async def test_malformed_requests_are_answered_shortly_and_closed(
    lume: Proxy, upstream: ScriptedUpstream, speak: Speak
):
    key, secret = lume.key.encode(), lume.key[14:].encode()
    wrong = {}
    for name, data in MALFORMED.items():
        answer = await speak(data.replace(b"{key}", key), to_end=True)
        status = 431 if name in TOO_LARGE else 400
        if answer.status != status or secret in answer.wire or b"Traceback" in answer.wire:
            wrong[name] = answer.wire

    assert wrong == {}
    assert len(MALFORMED) >= 60
    assert upstream.received == []
    assert await lume.records() == []
    assert (await lume.balance()).held_nanousd == 0
    log = lume.log.getvalue()
    assert log.count('"event":"malformed_request"') + log.count('"event":"refused"') == len(MALFORMED)
    assert secret.decode() not in log
    assert '"level":"error"' not in log


@pytest.mark.parametrize("begun", [b"", b"5\r\nhello\r\n"])
async def test_framing_that_breaks_while_the_body_is_read_is_answered_at_once(
    lume: Proxy, upstream: ScriptedUpstream, speak: Speak, begun
):
    head = POST.replace(b"{key}", lume.key.encode()) + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"

    answer = await speak(head, begun + b"zz\r\n", to_end=True)

    assert answer.status == 400
    assert b'"invalid_request_error"' in answer.body
    assert upstream.received == []
    assert '"level":"error"' not in lume.log.getvalue()


async def test_a_malformed_request_behind_a_good_one_gets_its_own_answer(
    lume: Proxy, upstream: ScriptedUpstream, speak: Speak
):
    upstream.script = lambda c: c.reply(streams.anthropic_whole())
    good = SIZED.replace(b"{key}", lume.key.encode()) + b"Expect: 100-continue\r\n\r\n"

    answer = await speak(good, BODY + b"GET / HTTP/1.1\r\n\r\n", to_end=True)

    assert answer.status == 200
    assert answer.body == streams.anthropic_whole()
    assert answer.wire.count(b"HTTP/1.0 400 Bad Request") == 1
    assert [record["ending"] for record in await lume.records()] == ["complete"]


@pytest.fixture
async def hasty(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Proxy]:
    """A proxy that waits for a head no longer than it must."""
    both = {"anthropic": upstream, "openai": upstream}
    async with proxy(tmp_path, both, routes=ROUTES, more="[limits]\nhead_ms = 50") as made:
        yield made


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: "])
async def test_a_head_that_is_not_there_in_time_ends_the_connection(hasty: Proxy, sent):
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty.server.port)
    writer.write(sent)

    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_the_next_head_on_a_connection_has_to_come_in_time_too(hasty: Proxy):
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty.server.port)
    for _ in range(2):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"ok\n"), 5)
    writer.write(b"GET /hea")

    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_a_slow_answer_is_not_taken_for_a_late_head(hasty: Proxy, upstream: ScriptedUpstream):

    async def slow(connection: Connection) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", hasty.server.port)
        assert await asyncio.wait_for(reader.read(), 5) == b""  # by now the time for a head has passed
        writer.close()
        await connection.reply(streams.anthropic_whole())

    upstream.script = slow
    answer = await spoken(hasty.server.port, SIZED.replace(b"{key}", hasty.key.encode()) + b"\r\n" + BODY)

    assert answer.body == streams.anthropic_whole()


# --- faults of ours behind the handlers, where only the HTTP layer sees them -------------------------------------------


@pytest.fixture
def log_lines() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
async def faulty(log_lines: io.StringIO) -> AsyncIterator[int]:
    """The port of a bare server of ours whose handlers fail in ways that no handler of ours should."""

    async def failing(_request: web.Request) -> web.Response:
        raise ZeroDivisionError("a secret text")

    async def unsendable(_request: web.Request) -> web.Response:
        return web.Response(headers={"x-a": "b\r\nx-evil: 1"})

    async def begun(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        raise ZeroDivisionError("a secret text")

    app = web.Application()
    for path, handler in (("/failing", failing), ("/unsendable", unsendable), ("/begun", begun)):
        app.router.add_get(path, handler)
    log = logs.make(level="debug", style="json", clock=Clock(), stream=log_lines)
    runner = Runner(app, log, header_bytes=8192, head_ms=15_000)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def test_a_fault_that_no_handler_caught_is_a_500_without_its_text(faulty, log_lines):
    answer = await spoken(faulty, b"GET /failing HTTP/1.1\r\nHost: x\r\n\r\n", to_end=True)

    assert (answer.status, answer.body) == (500, b"Something went wrong here.\n")
    assert '"error":"ZeroDivisionError"' in log_lines.getvalue()
    assert "secret" not in log_lines.getvalue()


async def test_a_header_that_would_split_the_answer_is_never_sent(faulty, log_lines):
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await spoken(faulty, b"GET /unsendable HTTP/1.1\r\nHost: x\r\n\r\n")

    assert caught.value.partial == b""
    assert '"event":"http_error","error":"ValueError"' in log_lines.getvalue()
    assert "x-evil" not in log_lines.getvalue()


async def test_an_answer_that_has_begun_is_cut_and_not_followed_by_another(faulty, log_lines):
    reader, writer = await asyncio.open_connection("127.0.0.1", faulty)
    writer.write(b"GET /begun HTTP/1.1\r\nHost: x\r\n\r\n")
    wire = await asyncio.wait_for(reader.read(), 5)
    writer.close()

    assert wire.count(b"HTTP/1.1") == 1
    assert wire.endswith(b"5\r\nbegun\r\n")
    assert '"event":"internal_error"' in log_lines.getvalue()
