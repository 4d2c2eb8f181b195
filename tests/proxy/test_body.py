"""Request bodies: limits before buffering, patience with an end, codings without bombs or a second reading."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import sys
import tracemalloc
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lumeproxy.errors import BodyTimeout, BodyTooLarge, InvalidRequest, LumeError, UnsupportedEncoding
from lumeproxy.proxy.body import decoded, read_body
from tests.proxy.conftest import Speak, spoken
from tests.support import streams
from tests.support.proxy import Proxy, proxy
from tests.support.upstream import ScriptedUpstream

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BODY = b'{"model":"claude-test-1","max_tokens":5,"messages":[]}'
LIMIT = 1000
MIB = 1 << 20

# --- decoding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("coding", "coded"),
    [
        ("", BODY),
        ("identity", BODY),
        ("gzip", gzip.compress(BODY)),
        ("GZIP", gzip.compress(BODY)),
        (" x-gzip ", gzip.compress(BODY)),
        ("deflate", zlib.compress(BODY)),
        ("zstd", zstd.compress(BODY)),
        ("zstd", zstd.compress(BODY, 19)),
        ("identity, gzip,", gzip.compress(BODY)),
        ("gzip, zstd", zstd.compress(gzip.compress(BODY))),
    ],
)
def test_each_coding_is_read(coding, coded):
    assert decoded(coded, coding, LIMIT) == BODY


def test_an_uncoded_body_is_the_same_object():
    assert decoded(BODY, "identity", LIMIT) is BODY


@pytest.mark.parametrize(
    "coding", ["br", "compress", "gzip, br", "gzip;q=1", "chunked", "x", "gzip, gzip, gzip", "gzip," * 9999]
)
def test_other_codings_and_many_at_once_are_refused(coding):
    with pytest.raises(UnsupportedEncoding):
        decoded(gzip.compress(BODY), coding, LIMIT)


TWO = {
    "gzip": gzip.compress(BODY[:20]) + gzip.compress(BODY[20:]),
    "zstd": zstd.compress(BODY[:20]) + zstd.compress(BODY[20:]),
}


@pytest.mark.parametrize(
    ("coding", "coded", "word"),
    [
        ("gzip", BODY, "not what"),
        ("zstd", BODY, "not what"),
        ("deflate", gzip.compress(BODY), "not what"),
        ("gzip", b"", "not what"),
        ("zstd", b"", "not what"),
        ("gzip", gzip.compress(BODY)[:-1], "not what"),
        ("gzip", gzip.compress(BODY)[:-8] + bytes(8), "not what"),
        ("deflate", zlib.compress(BODY)[:-1], "not what"),
        ("zstd", zstd.compress(BODY)[:-1], "not what"),
        ("zstd", b"\x50\x2a\x4d\x18\x04\0\0\0skip" + zstd.compress(BODY), "goes on"),
        ("gzip", TWO["gzip"], "goes on"),
        ("zstd", TWO["zstd"], "goes on"),
        ("gzip", gzip.compress(BODY) + gzip.compress(b""), "goes on"),
        ("gzip", gzip.compress(BODY) + b"\0", "goes on"),
        ("deflate", zlib.compress(BODY) + b"x", "goes on"),
        ("zstd", zstd.compress(BODY) + b"garbage", "goes on"),
    ],
)
def test_what_one_reader_would_take_and_another_not_is_refused(coding, coded, word):
    with pytest.raises(InvalidRequest, match=word):
        decoded(coded, coding, LIMIT)


@pytest.mark.parametrize(
    ("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstd.compress)]
)
def test_the_limit_counts_decoded_bytes_to_the_last(coding, compress):
    assert len(decoded(compress(b"x" * LIMIT), coding, LIMIT)) == LIMIT
    with pytest.raises(BodyTooLarge):
        decoded(compress(b"x" * (LIMIT + 1)), coding, LIMIT)


def test_a_bomb_is_not_unpacked():
    bomb = gzip.compress(gzip.compress(bytes(64 * MIB), 9), 9)
    zbomb = zstd.compress(bytes(64 * MIB))
    assert len(bomb) < 2000 and len(zbomb) < MIB
    tracemalloc.start()
    for coding, body in (("gzip, gzip", bomb), ("zstd", zbomb)):
        with pytest.raises(BodyTooLarge):
            decoded(body, coding, 2 * MIB)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 8 * MIB


# --- reading -----------------------------------------------------------------------------------------------------------


class Dripping:
    """A body that comes a piece a second, by the loop's own clock."""

    def __init__(self, loop: Any, piece: bytes, pieces: int) -> None:
        self._loop, self._piece, self._left = loop, piece, pieces

    def at_eof(self) -> bool:
        return self._left == 0

    def is_eof(self) -> bool:
        return False

    async def readany(self) -> bytes:
        self._left -= 1
        self._loop.now += 1.0
        return self._piece


@pytest.fixture
def drip(monkeypatch):
    async def read(piece: bytes, pieces: int, *, limit_bytes: int = 10 * MIB) -> bytes:
        loop: Any = asyncio.get_running_loop()
        loop.now = loop.time()
        monkeypatch.setattr(loop, "time", lambda: loop.now)
        body = Dripping(loop, piece, pieces)
        request: Any = SimpleNamespace(content_length=None, content=body, headers={})
        return await read_body(request, limit_bytes=limit_bytes, idle_ms=30_000, bytes_per_s=1_024)

    return read


async def test_a_body_may_come_slowly_but_not_for_ever(drip):
    assert await drip(b"x", 30) == b"x" * 30
    with pytest.raises(BodyTimeout, match="30 s"):
        await drip(b"x", 10_000)
    assert len(await drip(b"x" * 1_024, 3600)) == 3600 * 1_024


async def test_a_body_without_an_announced_length_is_cut_off_at_the_limit(drip):
    assert await drip(b"x" * 100, 10, limit_bytes=LIMIT) == b"x" * LIMIT
    with pytest.raises(BodyTooLarge):
        await drip(b"x" * 100, 11, limit_bytes=LIMIT)


@pytest.fixture
async def small(tmp_path: Path, upstream: ScriptedUpstream):
    """A proxy that takes bodies of 1 MiB and waits 100 ms for the next piece."""
    upstream.script = lambda c: c.reply(streams.anthropic_whole())
    more = f"[limits]\nbody_bytes = {MIB}\nbody_idle_ms = 100"
    async with proxy(tmp_path, {"anthropic": upstream}, more=more, routes=ROUTES) as lume:
        yield lume


ROUTES = '[[routes]]\nmodel = "claude-test-*"\nupstreams = ["anthropic"]'


def post(lume: Proxy, *headers: str) -> bytes:
    lines = ["POST /v1/messages HTTP/1.1", "Host: 127.0.0.1", f"x-api-key: {lume.key}", *headers, "", ""]
    return "\r\n".join(lines).encode()


def padded(size: int) -> bytes:
    return BODY[:-1] + b',"pad":"' + b"x" * (size - len(BODY) - 9) + b'"}'


async def test_a_body_as_large_as_the_limit_passes_and_one_byte_more_does_not(small: Proxy, upstream: ScriptedUpstream):
    exact = padded(MIB)
    assert len(exact) == MIB
    assert (await spoken(small.server.port, post(small, f"Content-Length: {MIB}") + exact)).status == 200
    assert upstream.received[0].body == exact
    assert upstream.received[0].header("content-length") == str(MIB)

    answer = await spoken(small.server.port, post(small, f"Content-Length: {MIB + 1}") + padded(MIB + 1))
    assert (answer.status, answer.header("x-should-retry")) == (413, ["false"])
    error = json.loads(answer.body)["error"]
    assert (error["type"], error["message"]) == (
        "request_too_large",
        "The request body is larger than this proxy takes (1 MiB).",
    )
    assert len(upstream.received) == 1
    assert len(await small.records()) == 1


@pytest.mark.parametrize("size", [MIB + 1, 1 << 40, 1 << 62])
async def test_an_announced_length_over_the_limit_is_refused_before_a_byte_of_it_is_read(
    small: Proxy, upstream: ScriptedUpstream, size
):
    for more in ((), ("Expect: 100-continue",)):
        answer = await spoken(small.server.port, post(small, f"Content-Length: {size}", *more))
        assert answer.status == 413
        assert answer.header("connection") == ["close"]
    assert upstream.received == []


async def test_a_chunked_body_is_read_and_is_refused_where_it_passes_the_limit(
    small: Proxy, upstream: ScriptedUpstream
):
    head = post(small, "Expect: 100-continue", "Transfer-Encoding: chunked")
    chunk = b"%x\r\n" % (MIB // 4) + bytes(MIB // 4) + b"\r\n"

    assert (await spoken(small.server.port, head, b"36\r\n" + BODY + b"\r\n0\r\n\r\n")).status == 200
    assert upstream.received[0].body == BODY
    assert upstream.received[0].header("transfer-encoding") is None
    assert (await spoken(small.server.port, head, chunk * 5)).status == 413
    assert len(upstream.received) == 1


@pytest.mark.parametrize("framing", ["Content-Length: 54", "Transfer-Encoding: chunked"])
async def test_a_body_that_stops_half_way_times_out_without_a_hold(small: Proxy, upstream: ScriptedUpstream, framing):
    answer = await spoken(small.server.port, post(small, "Expect: 100-continue", framing), b"5\r\n{")

    assert answer.status == 408
    assert json.loads(answer.body)["error"]["type"] == "timeout_error"
    assert answer.header("connection") == ["close"]
    assert answer.header("x-should-retry") == []  # it may be tried again
    assert upstream.received == []
    assert (await small.balance()).held_nanousd == 0


@pytest.mark.parametrize(
    ("key", "length", "status"), [("{key}", len(BODY), 100), ("wrong", len(BODY), 401), ("{key}", 1 << 40, 413)]
)
async def test_a_client_that_asks_first_is_told_before_it_sends_its_body(
    lume: Proxy, upstream: ScriptedUpstream, speak: Speak, key, length, status
):
    upstream.script = lambda c: c.reply(streams.anthropic_whole())
    head = post(lume, f"Content-Length: {length}", "Expect: 100-Continue")
    head = head.replace(lume.key.encode(), key.format(key=lume.key).encode())

    assert (await speak(head)).status == status
    if status == 100:
        assert (await speak(head, BODY)).status == 200
        assert upstream.received[0].header("expect") is None


async def test_other_expectations_are_ignored(lume: Proxy, upstream: ScriptedUpstream, speak: Speak):
    upstream.script = lambda c: c.reply(streams.anthropic_whole())

    answer = await speak(post(lume, f"Content-Length: {len(BODY)}", "Expect: something") + BODY)

    assert answer.status == 200
    assert upstream.received[0].header("expect") is None


@pytest.mark.parametrize(
    ("coding", "coded", "status"),
    [
        ("gzip", gzip.compress(BODY), 200),
        ("zstd", zstd.compress(BODY), 200),
        ("deflate", zlib.compress(BODY), 200),
        ("br", BODY, 415),
        ("gzip", BODY, 400),
        ("gzip", TWO["gzip"], 400),
        ("zstd", TWO["zstd"], 400),
        ("gzip", gzip.compress(bytes(64 * MIB)), 413),
        ("zstd", zstd.compress(bytes(64 * MIB)), 413),
    ],
)
async def test_a_coded_body_goes_upstream_as_it_came_or_not_at_all(
    lume: Proxy, upstream: ScriptedUpstream, coding, coded, status
):
    upstream.script = lambda c: c.reply(streams.anthropic_whole())

    async with lume.post("/v1/messages", coded, headers={"Content-Encoding": coding}) as response:
        assert response.status == status, await response.text()
        assert response.headers.get("x-should-retry") == (None if status == 200 else "false")

    if status == 200:
        assert upstream.received[0].body == coded
        assert upstream.received[0].header("content-encoding") == coding
        assert (await lume.records())[0]["model"] == "claude-test-1"
    else:
        assert upstream.received == []
        assert await lume.records() == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{", 400),
        (b'{"model":5}', 400),
        (b'{"max_tokens":5}', 400),
        (b'{"model":""}', 400),
        (b'{"model":"claude-test-1","model":"claude-test-2"}', 400),
        (b'{"model":"claude-test-1\\r\\nx-evil: 1"}', 400),
        (b'{"model":"claude-test-1","a":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}", 400),
        (
            b'{"model":"claude-test-1","messages":['
            + b'{"role":"user","content":"a"},' * 300_000
            + b'{"role":"user"}]}',
            200,
        ),
    ],
)
async def test_odd_json_is_refused_or_served_but_never_a_fault(lume: Proxy, upstream: ScriptedUpstream, body, status):
    upstream.script = lambda c: c.reply(streams.anthropic_whole())
    await lume.run("credit.grant", account="tester", amount_nanousd=10**12)

    async with lume.session.post(lume.url + "/v1/messages", data=io.BytesIO(body), headers=lume.headers) as response:
        text = await response.text()
        assert response.status == status, text
        assert "x-evil" not in response.headers and "x-evil" not in text
    assert [received.body == body for received in upstream.received] == ([True] if status == 200 else [])


def test_each_error_says_what_to_do():
    errors: list[LumeError] = []
    for coding, body in (("br", b""), ("gzip", b"x"), ("gzip", TWO["gzip"]), ("gzip", gzip.compress(bytes(2 * LIMIT)))):
        with pytest.raises(LumeError) as caught:
            decoded(body, coding, LIMIT)
        errors.append(caught.value)

    assert [error.status for error in errors] == [415, 400, 400, 413]
    assert "send gzip, deflate, zstd or an uncoded body" in errors[0].message
    assert "send one gzip member or zstd frame" in errors[2].message
