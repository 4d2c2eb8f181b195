"""Bytes pass untouched, both ways, whatever they are and however they are cut."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import sys
import zlib
from collections.abc import Callable

import pytest

from tests.conftest import ROUTES
from tests.support import streams
from tests.support.calls import (
    ANTHROPIC,
    BILL,
    CHAT,
    PATHS,
    RESPONSES,
    ask,
    ending,
    events,
    model,
    settled,
    tokens_in,
    tokens_out,
    whole,
)
from tests.support.client import take
from tests.support.proxy import Proxy, proxy
from tests.support.upstream import Connection, ScriptedUpstream

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


ODD = (
    b'"big":123456789012345678901234567890,"tiny":1E-400,"half":"\\ud83d","nul":"\\u0000",\t "same":1,\r\n"same":2,'
    b'"deep":' + b"[" * 200 + b"]" * 200 + b',"text":"'
)
FILL = 'na\u00efve \u65e5\u672c \U0001f600 \\" / \\/ '.encode()
BODIES = {
    "odd spacing, repeated keys, big numbers": lambda m: (
        b' \r\n{ "model" :\t"' + m + b'" , ' + ODD + FILL * 8000 + b'"\n}\n '
    ),
    "half a surrogate pair in raw bytes": lambda m: (
        b'{"model":"' + m + b'","x":"\xed\xa0\xbd' + b"y" * 200_000 + b'\xff\xfe"}'
    ),
    "an escaped key": lambda m: b'{"mod\\u0065l":"' + m + b'","x":"' + FILL * 8000 + b'"}',
}


@pytest.mark.parametrize("kind", BODIES)
async def test_a_request_body_arrives_as_it_was_sent(lume: Proxy, upstream: ScriptedUpstream, kind: str) -> None:
    upstream.script = lambda c: c.reply(whole(ANTHROPIC))
    for path in PATHS:
        body = BODIES[kind](model(path).encode())
        assert len(body) > 190_000

        taken = await take(lume.post(path, body, headers={"Content-Type": "application/json; charset=x"}))

        assert taken.status == 200, taken.body
        seen = upstream.received[-1]
        assert digest(seen.body) == digest(body)
        assert (seen.target, seen.header("content-type")) == (path, "application/json; charset=x")
        assert seen.header("accept-encoding") == "identity"


async def test_a_compressed_request_goes_on_compressed_and_is_understood(
    lume: Proxy, upstream: ScriptedUpstream
) -> None:
    upstream.script = lambda c: c.reply(whole(ANTHROPIC))
    plain = ask(ANTHROPIC, x="y" * 50_000)
    for coding, compress in (("gzip", gzip.compress), ("zstd", zstd.compress), ("deflate", zlib.compress)):
        body = compress(plain)

        taken = await take(lume.post(ANTHROPIC, body, headers={"Content-Encoding": coding}))

        assert taken.status == 200
        assert (upstream.received[-1].body, upstream.received[-1].header("content-encoding")) == (body, coding)
    assert [r["model"] for r in await lume.records()] == ["claude-test-1"] * 3


async def test_a_body_of_32_mib_passes(lume: Proxy, upstream: ScriptedUpstream) -> None:
    body = b'{"model":"claude-test-1","max_tokens":1,"x":"' + b"y" * (32 * 1024 * 1024 - 47) + b'"}'
    assert len(body) == 32 * 1024 * 1024
    upstream.script = lambda c: c.reply(whole(ANTHROPIC))
    await lume.grant(10**12)

    taken = await take(lume.post(ANTHROPIC, io.BytesIO(body)))

    assert taken.status == 200, taken.body
    assert digest(upstream.received[0].body) == digest(body)


ANSWERS = {
    "odd": b'\n{"usage" : {"input_tokens":100 , "output_tokens":20}, "usage2":1e999, ' + ODD + FILL * 9000 + b'"}\r\n',
    "no JSON at all": bytes(range(256)) * 900,
    "large": b'{"usage":{"input_tokens":100,"output_tokens":20},"x":"' + FILL * 40_000 + b'"}',
    "empty": b"",
}


@pytest.mark.parametrize("framing", ["content-length", "chunked", "close"])
async def test_a_whole_answer_arrives_as_it_was_sent(lume: Proxy, upstream: ScriptedUpstream, framing: str) -> None:
    body = b""

    async def answer(c: Connection) -> None:
        headers = {"content-type": "application/json", "x-note": "kept"}
        if framing == "content-length":
            return await c.reply(body, headers=headers)
        if framing == "close":
            await c.head(200, {**headers, "connection": "close"})
            await c.send(body)
            return c.writer.close()
        await c.head(200, {**headers, "transfer-encoding": "chunked"})
        for at in range(0, len(body), 50_000):
            await c.chunk(body[at : at + 50_000])
        return await c.end()

    upstream.script = answer
    for kind, body in ANSWERS.items():
        taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC, stream=False)))

        assert (taken.status, taken.clean, taken.headers["x-note"]) == (200, True, "kept"), kind
        assert digest(taken.body) == digest(body), kind
        record = await settled(lume)
        assert record["ending"] == "complete"
        assert record["settled_by"] == ("reported" if kind in ("odd", "large") else "estimate"), kind


# --- streams -----------------------------------------------------------------------------------------------------------


ODDITIES = [b": hello", b"id: 7\nretry: 10\n: no data", b"event:ping\ndata:{}\ndata", b"event: \xff\ndata"]
USED = b'"usage":{"input_tokens":100,"output_tokens":20,"prompt_tokens":100,"completion_tokens":20}}'
SHORT = {
    RESPONSES: [b'data:{"delta":"w"}', b'data: {"type":"response.completed",\ndata:"response":{' + USED + b"}"],
    CHAT: [b'data: {"choices":[{"delta":{"content":"w"}}]}', b"data: {" + USED, b"data:[DONE]"],
}


def odd_stream(path: str, end: bytes) -> bytes:
    """A stream with everything that the format allows: comments, ids, retry, several data lines, a ping."""
    made = ODDITIES + (SHORT.get(path) or events(path, ["w"]))
    return b"".join(one.rstrip(b"\n").replace(b"\n", end) + 2 * end for one in made)


@pytest.mark.parametrize(
    ("path", "end", "bom"), [(ANTHROPIC, b"\r\n", b"\xef\xbb\xbf"), (RESPONSES, b"\n", b""), (CHAT, b"\r", b"")]
)
async def test_a_stream_cut_at_any_position_passes_untouched_and_is_read_right(
    lume: Proxy, upstream: ScriptedUpstream, path: str, end: bytes, bom: bytes
) -> None:
    stream = bom + odd_stream(path, end)
    seen = {at: asyncio.Event() for at in range(1, len(stream))}

    async def answer(c: Connection) -> None:
        at = int(c.received.header("x-cut-at") or 0)
        await c.stream_head()
        await c.chunk(stream[:at])
        await seen[at].wait()  # so that the two parts are read apart
        await c.chunk(stream[at:])
        await c.end()

    async def call(at: int) -> None:
        got = b""
        asked = ask(path)
        async with lume.post(path, asked, headers={"x-cut-at": str(at)}) as response:
            async for piece in response.content.iter_any():
                got += piece
                seen[at].set()
        assert got == stream, at

    upstream.script = answer
    await lume.grant(10**12)
    for start in range(1, len(stream), 10):
        await asyncio.gather(*map(call, range(start, min(start + 10, len(stream)))))

    found = {(r["ending"], r["settled_by"], r["cost_nanousd"]) for r in await lume.records()}
    assert found == {("complete", "reported", 100 * 1000 + 20 * 10_000)}


async def test_only_the_usage_that_we_asked_for_is_taken_out_of_a_chat_stream(
    lume: Proxy, upstream: ScriptedUpstream
) -> None:
    sent = b'{ "stream" : true , "model":"gpt-test-1",\n "messages":[1e400, "\\ud83d"] }'
    upstream.script = lambda c: c.stream(streams.chat())

    taken = await take(lume.post(CHAT, sent))

    as_if_unasked = [one.replace(b', "usage": null', b"") for one in streams.chat(usage=None)]
    assert taken.body == b"".join(as_if_unasked)
    asked = upstream.received[0].body
    assert asked.replace(b'"stream_options":{"include_usage":true},', b"") == sent
    assert (await lume.records())[0]["cost_nanousd"] == BILL[CHAT]


async def test_an_upstreams_model_name_is_the_only_thing_spliced(tmp_path, upstream: ScriptedUpstream) -> None:
    sent = b'{"x" : "gpt-test-1" ,"model"\n:  "gpt-test-1" , "model2":[{"model":"gpt-test-1"}]}'
    upstream.script = lambda c: c.reply(whole(RESPONSES))

    routes = ROUTES.replace('upstreams = ["openai"]', 'upstreams = ["openai"]\nupstream_model = "served-\u00e9"')
    async with proxy(tmp_path, {"anthropic": upstream, "openai": upstream}, routes=routes) as lume:
        taken = await take(lume.post(RESPONSES, gzip.compress(sent), headers={"Content-Encoding": "gzip"}))

    assert taken.status == 200, taken.body
    assert upstream.received[0].body == sent.replace(b':  "gpt-test-1"', ':  "served-\u00e9"'.encode())
    assert upstream.received[0].header("content-encoding") is None


# --- answers that are compressed all the same --------------------------------------------------------------------------


def members(data: bytes) -> bytes:
    return gzip.compress(data[:100]) + gzip.compress(data[100:])


def frames(data: bytes) -> bytes:
    return zstd.compress(data[:100]) + zstd.compress(data[100:])


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip in two members": ("gzip", members),
    "deflate": ("deflate", zlib.compress),
    "zstd": ("zstd", zstd.compress),
    "zstd in two frames": ("ZSTD", frames),
}


@pytest.mark.parametrize("kind", CODINGS)
async def test_a_compressed_answer_passes_as_it_is_and_is_metered_exactly(
    lume: Proxy, upstream: ScriptedUpstream, kind: str
) -> None:
    coding, compress = CODINGS[kind]
    sent = b""

    async def answer(c: Connection) -> None:
        headers = {"content-encoding": coding}
        if b'"stream": true' in c.received.body or b'"stream":true' in c.received.body:
            return await c.stream([sent[at : at + 37] for at in range(0, len(sent), 37)], headers)
        return await c.reply(sent, headers=headers)

    upstream.script = answer
    for path in PATHS:
        for streamed in (True, False):
            sent = compress(b"".join(events(path)) if streamed else whole(path))
            # Nothing can be taken out of a coded stream, so that this client gets a usage chunk that it did not ask for.
            asked = {"model": model(path), "stream": streamed, "messages": []}
            taken = await take(lume.post(path, asked, headers={"Accept-Encoding": "gzip, br"}))

            assert (taken.body, taken.clean, taken.headers["content-encoding"]) == (sent, True, coding)
    costs = sorted((r["ending"], r["settled_by"], r["cost_nanousd"]) for r in await lume.records())
    assert costs == sorted([("complete", "reported", BILL[path]) for path in PATHS] * 2)


@pytest.mark.parametrize("streamed", [True, False])
async def test_an_unknown_coding_passes_as_it_is_and_is_estimated(
    lume: Proxy, upstream: ScriptedUpstream, streamed: bool
) -> None:
    coded = bytes(range(256)) * 4

    async def answer(c: Connection) -> None:
        if streamed:
            return await c.stream([coded[:500], coded[500:]], {"content-encoding": "br"})
        return await c.reply(coded, headers={"content-encoding": "br"})

    upstream.script = answer
    asked = ask(RESPONSES, stream=streamed)

    taken = await take(lume.post(RESPONSES, asked))

    assert (taken.body, taken.clean, taken.headers["content-encoding"]) == (coded, True, "br")
    record = await settled(lume)
    assert ending(record) == ("complete", "estimate", True)
    # A byte that can't be read counts as a character.
    counted = tokens_in(RESPONSES, asked), tokens_out(RESPONSES, 1024)
    assert (record["input_tokens"], record["output_tokens"]) == counted
    assert record["cost_nanousd"] == counted[0] * 1000 + counted[1] * 10_000


@pytest.mark.parametrize("size", [5_000, 60_000])
async def test_a_burst_of_one_byte_chunks_flows_on(lume: Proxy, upstream: ScriptedUpstream, size: int) -> None:
    """aiohttp holds its parser back above so many chunks, and lets it go on within a read."""
    events = streams.anthropic(["x" * size])
    framed = b"".join(b"1\r\n%c\r\n" % byte for byte in b"".join(events))

    async def script(connection: Connection) -> None:
        await connection.stream_head()
        await connection.send(framed)
        await connection.end()

    upstream.script = script
    async with asyncio.timeout(10):
        taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC)))

    assert taken.body == b"".join(events)
