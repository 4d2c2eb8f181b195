"""Bytes that no honest side sends: coded answers nobody asked for, bombs, bodies made to be slow, streams that are noise.

They pass as they came, or are refused shortly; the meter never raises, memory stays bounded, the loop does not stand still.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import random
import re
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from backports import zstd

from tests.faults.conftest import Report, times
from tests.faults.product import Product, session
from tests.faults.test_load import ANSWER, MB, ask, events, forget_peak, memory, probed, quiet, records_of, served
from tests.support import calls
from tests.support.upstream import Connection

HANG_S = times(10, 60)
pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]


@dataclass
class Got:
    """An answer as a client saw it."""

    status: int
    digest: str
    size: int
    call_id: str
    whole: bool
    text: bytes = b""


async def fetch(client: aiohttp.ClientSession, url: str, data: Any, headers: dict[str, str]) -> Got:
    """Take an answer of any size; only its digest is kept, and its first bytes."""
    seen, size, text, whole = hashlib.sha256(), 0, b"", True
    async with client.post(url, data=data, headers=headers) as response:
        try:
            async for piece in response.content.iter_any():
                seen.update(piece)
                size += len(piece)
                if len(text) < 4096:
                    text += piece
        except aiohttp.ClientPayloadError:
            whole = False
        call_id = response.headers.get("x-lume-call-id", "")
        return Got(response.status, seen.hexdigest(), size, call_id, whole, text)


async def record_of(made: Product, got: Got) -> dict[str, Any]:
    await quiet(made)
    return next(record for record in await records_of(made) if record["call_id"] == got.call_id)


# --- 32: coded answers ------------------------------------------------------------------------------------------------


def gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """One gzip stream, flushed after each piece as servers do."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    for piece in pieces:
        yield packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()


def zstandard(pieces: Iterable[bytes]) -> Iterator[bytes]:
    packer = zstd.ZstdCompressor()
    for piece in pieces:
        yield packer.compress(piece, zstd.ZstdCompressor.FLUSH_BLOCK)
    yield packer.flush()


def brotli(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """True brotli of uncompressed meta-blocks (RFC 7932, 2016-07): window bits once, then length and bytes a piece."""
    text = b"".join(pieces)
    assert 0 < len(text) <= 1 << 16
    # Least significant bit first: WBITS 0, ISLAST 0, MNIBBLES 00, MLEN - 1 in 16 bits, ISUNCOMPRESSED 1.
    yield ((len(text) - 1) << 4 | 1 << 20).to_bytes(3, "little") + text
    yield b"\x03"  # ISLAST, ISLASTEMPTY


CODINGS = {"gzip": gzipped, "br": brotli, "zstd": zstandard}


async def test_coded_streams_pass_untouched_and_are_billed(report: Report) -> None:
    """Check 32, first half. What this proxy can't decode (br) is marked as an estimate."""
    identical, exact, marked = 0, 0, 0
    async with served() as made, session() as client:
        for path in calls.PATHS:
            for coding, code in CODINGS.items():
                chunks = list(code(events(path)))

                async def coded(connection: Connection, chunks=chunks, coding=coding) -> None:
                    await connection.stream(chunks, {"content-encoding": coding})

                made.upstream.script = coded
                got = await fetch(client, made.url + path, ask(path), made.headers)
                identical += got.digest == hashlib.sha256(b"".join(chunks)).hexdigest()
                record = await record_of(made, got)
                if coding == "br":
                    marked += bool(record["estimated"] and record["cost_nanousd"] > 0)
                else:
                    assert record["ending"] == "complete"
                    exact += record["cost_nanousd"] == calls.BILL[path]
    report(
        "32 coded streams unasked",
        9,
        "9 of 9 identical; gzip and zstd exact, br marked",
        f"{identical} identical, {exact} of 6 exact, {marked} of 3 marked",
    )
    assert (identical, exact, marked) == (9, 6, 3)


def bomb(size: int, coding: str, first: bytes) -> bytes:
    """Something short that becomes `size` bytes."""
    zeros = bytes(MB)
    if coding == "gzip":
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        pieces = [packer.compress(first), *(packer.compress(zeros) for _ in range(size // MB)), packer.flush()]
    else:
        heavy = zstd.ZstdCompressor()
        pieces = [heavy.compress(first), *(heavy.compress(zeros) for _ in range(size // MB)), heavy.flush()]
    return b"".join(pieces)


async def test_a_bomb_in_an_answer_passes_and_stays_small(report: Report) -> None:
    """Check 32, second half. Control: unpacked, each is what it says."""
    size = times(256, 1024) * MB
    identical, most, slowest, unpacked = 0, 0, 0.0, 0
    seen = []
    async with served() as made, session() as client:
        for streamed in (True, False):
            for coding in ("gzip", "zstd"):
                packed = bomb(size, coding, b"".join(events(calls.ANTHROPIC)[:2]) + b"data: ")
                unpacked += _unpacked(packed, coding) >= size
                head = {"content-encoding": coding}

                async def exploding(connection: Connection, packed=packed, head=head, streamed=streamed) -> None:
                    if streamed:
                        await connection.stream([packed[at : at + 8192] for at in range(0, len(packed), 8192)], head)
                    else:
                        await connection.reply(packed, headers=head)

                made.upstream.script = exploding
                before = forget_peak(made.pid)
                async with probed(made) as stalls:
                    got = await fetch(
                        client, made.url + calls.ANTHROPIC, ask(calls.ANTHROPIC, stream=streamed), made.headers
                    )
                identical += got.digest == hashlib.sha256(packed).hexdigest()
                grown = memory(made.pid, "VmHWM") - before
                seen.append(
                    f"{'stream' if streamed else 'json'} {coding} {grown / MB:+.0f} MB {stalls.worst_ms():.0f} ms"
                )
                most, slowest = max(most, grown), max(slowest, stalls.worst_ms())
                record = await record_of(made, got)
                assert record["estimated"]
    report(
        f"32 bomb of {size // MB} MB in an answer",
        4,
        "4 of 4 identical, RSS + <= 16 MB, loop stall <= 100 ms; control: all unpack to more",
        f"{identical} identical; {', '.join(seen)}; control: {unpacked}",
    )
    assert identical == unpacked == 4
    assert most <= 16 * MB
    assert slowest <= 100


def _unpacked(packed: bytes, coding: str) -> int:
    if coding == "gzip":
        inflate, size, rest = zlib.decompressobj(31), 0, packed
        while rest:
            size += len(inflate.decompress(rest, MB))
            rest = inflate.unconsumed_tail
        return size
    frame, size, rest = zstd.ZstdDecompressor(), 0, packed
    while not frame.eof:
        size += len(frame.decompress(rest, MB))
        rest = b""
    return size


# --- 33: bodies -------------------------------------------------------------------------------------------------------


async def test_coded_requests_pass_or_are_refused(report: Report) -> None:
    """Check 33, first part: the same bytes and the header go upstream; an unknown coding or a broken one is refused."""
    passed, refused = 0, 0
    async with served() as made, session() as client:
        for path in calls.PATHS:
            made.upstream.script = lambda c, path=path: c.stream(events(path))
            plain = ask(path)
            for coding, packed in (("gzip", gzip.compress(plain)), ("zstd", zstd.compress(plain)), ("identity", plain)):
                headers = {**made.headers, "Content-Encoding": coding}
                got = await fetch(client, made.url + path, packed, headers)
                received = made.upstream.received[-1]
                assert received.body == packed
                assert received.header("content-encoding") == coding
                passed += (await record_of(made, got))["cost_nanousd"] == calls.BILL[path]
            before = len(made.upstream.received)
            for coding, packed, status in (
                ("br", plain, 415),
                ("gzip", plain, 400),
                ("gzip", gzip.compress(plain)[:-4], 400),
                ("gzip", gzip.compress(plain) * 2, 400),
                ("gzip, gzip, gzip", plain, 415),
                ("zstd", zstd.compress(plain)[:-3], 400),
            ):
                got = await fetch(client, made.url + path, packed, {**made.headers, "Content-Encoding": coding})
                refused += got.status == status
            assert len(made.upstream.received) == before
    report("33 coded requests", 27, "9 passed as sent and exact, 18 refused", f"{passed} exact, {refused} refused")
    assert (passed, refused) == (9, 18)


@dataclass(frozen=True)
class Hostile:
    """A body that is cheap to send and could be dear to read, and the answer that is right for it."""

    path: str
    body: bytes
    status: int
    coding: str = ""


def request(path: str, content: bytes) -> bytes:
    """A streamed request with this JSON for its content."""
    name = b"input" if path == calls.RESPONSES else b"messages"
    return b'{"model":"%b","stream":true,"%b":%b}' % (calls.model(path).encode(), name, content)


def hostile_bodies() -> dict[str, Hostile]:
    """By name: bombs, and of each dialect ten megabytes of all that is small."""
    giga, many = times(256, 1024) * MB, 10 * MB
    inner = bomb(giga, "gzip", b"{")
    prose = request(calls.ANTHROPIC, b'[{"role":"user","content":"' + b"a" * (30 * MB) + b'"}]')
    found = {
        "gzip bomb": Hostile(calls.ANTHROPIC, inner, 413, "gzip"),
        "zstd bomb": Hostile(calls.ANTHROPIC, bomb(giga, "zstd", b"{"), 413, "zstd"),
        "gzip in gzip bomb": Hostile(calls.ANTHROPIC, gzip.compress(inner), 413, "gzip, gzip"),
        "30 MB in gzip": Hostile(calls.ANTHROPIC, gzip.compress(prose, 1), 200, "gzip"),
    }
    message, part = b'{"role":"user","content":"a"}', b'{"type":"text","text":"a"}'
    messages = (message + b",") * (many // len(message)) + message
    parts = (part + b",") * (many // len(part)) + part
    contents = {
        "1 MB deep": (b"[" * MB + b"]" * MB, 400),
        "1 MB of deep objects": (b'{"a":' * 200_000 + b"1" + b"}" * 200_000, 400),
        "10 MB of tiny messages": (b"[" + messages + b"]", 200),
        "10 MB of tiny messages, one is none": (b"[" + messages + b",1]", 200),
        "10 MB of tiny parts": (b'[{"role":"user","content":[' + parts + b"]}]", 200),
        "10 MB of numbers": (b"[" + b"1," * (many // 2) + b"1]", 200),
        "10 MB of members": (b"1," + b",".join(b'"%d":1' % n for n in range(many // 12)) + b',"z":2', 200),
        "10 MB of escapes": (b'"' + b"\\n" * (many // 2) + b'"', 200),
        "10 MB of empty parts": (b'[{"role":"user","content":[' + b"{}," * (many // 3) + b"{}]}]", 200),
        "10 MB of items with a part": (b"[" + b'{"content":[{}]},' * (many // 17) + b"{}]", 200),
        "10 MB, a byte that is no UTF-8": (b'[{"role":"user","content":"\xff"},' + messages + b"]", 200),
        "10 MB, half a surrogate": (b'[{"role":"user","content":"\\ud800"},' + messages + b"]", 200),
    }
    for path in calls.PATHS:
        for name, (content, status) in contents.items():
            found[f"{path.rpartition('/')[2]}: {name}"] = Hostile(path, request(path, content), status)
    # Something has to be put into this one, for which the place must be found.
    spliced = request(calls.CHAT, b"[" + messages + b'],"stream_options":{}')
    found["completions: 10 MB of tiny messages, to be changed"] = Hostile(calls.CHAT, spliced, 400)
    return found


async def test_hostile_bodies_neither_fill_the_memory_nor_block_the_loop(report: Report) -> None:
    """Check 33, second part. Control: a body of the same size that is one string, as honest ones nearly are."""
    wrong: list[str] = []
    spans: dict[str, tuple[float, float]] = {}
    most: dict[str, float] = {}
    async with served() as made, session() as client:
        made.upstream.script = lambda c: c.stream(events(c.received.target))
        prose = Hostile(calls.ANTHROPIC, ask(calls.ANTHROPIC, system="a " * (5 * MB)), 200)
        async with probed(made) as stalls:
            for name, it in ({"control": prose} | hostile_bodies()).items():
                before, start = forget_peak(made.pid), time.monotonic()
                headers = {**made.headers, **({"Content-Encoding": it.coding} if it.coding else {})}
                # Sent in pieces: in one, our own loop would do nothing else meanwhile.
                got = await fetch(client, made.url + it.path, _pieces(it.body), headers)
                spans[name] = (start, time.monotonic())
                most[name] = (memory(made.pid, "VmHWM") - before) / MB
                if got.status != it.status:
                    wrong.append(f"{name}: {got.status}")
                made.upstream.received.clear()
                await asyncio.sleep(0.1)
    stood = {name: stalls.worst_ms(*span) for name, span in spans.items()}
    slow = sorted((name for name, ms in stood.items() if ms > 100), key=lambda name: -stood[name])
    bombs = max(grown for name, grown in most.items() if "bomb" in name)
    report(
        "33 hostile bodies",
        len(stood) - 1,
        "0 wrong answers, bombs RSS + <= 40 MB, loop stall <= 100 ms; control: 10 MB of prose",
        f"{len(wrong)} wrong, bombs {bombs:+.0f} MB, {len(slow)} stalls > 100 ms "
        f"({', '.join(f'{name} {stood[name]:.0f} ms' for name in slow[:4])}); control: {stood['control']:.0f} ms",
    )
    assert wrong == []
    assert bombs <= 40
    assert {name: round(stood[name]) for name in slow} == {}


async def _pieces(body: bytes) -> Any:
    for at in range(0, len(body), 1 << 18):
        yield body[at : at + (1 << 18)]
        await asyncio.sleep(0)


# --- 34: streams ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Garbage:
    """A stream: chunks as the upstream sends them, and whether a reader by the letter of SSE finds the whole bill in it."""

    chunks: list[bytes]
    exact: bool


def garbage(path: str, dice: random.Random) -> dict[str, Garbage]:
    """Twenty streams that are not as they should be."""
    good = events(path)
    text = b"".join(good)
    bom = b"\xef\xbb\xbf"
    word = ANSWER.encode()
    big = times(40, 100) * MB
    ones = times(100_000, 1_000_000)
    crlf = text.replace(b"\n", b"\r\n")
    noise = dice.randbytes(300_000)

    def split(data: bytes, size: int = 1) -> list[bytes]:
        return [data[at : at + size] for at in range(0, len(data), size)]

    return {
        "byte order mark": Garbage([bom + text], True),
        "two byte order marks": Garbage([bom * 2 + text], True),
        "CR only": Garbage([text.replace(b"\n", b"\r")], True),
        "CR only, byte by byte": Garbage(split(text.replace(b"\n", b"\r")), True),
        "CRLF": Garbage([crlf], True),
        "CRLF, byte by byte": Garbage(split(crlf), True),
        "CRLF split between chunks": Garbage([part for part in re.split(rb"(?<=\r)", crlf) if part], True),
        "lines that end in all three ways": Garbage([text.replace(b"\n", b"\r\n", 3).replace(b"\n", b"\r", 2)], True),
        "no last newline": Garbage([text[:-1]], True),
        "no newline at all at its end": Garbage([text.rstrip(b"\n")], True),
        "NUL in the text": Garbage([text.replace(word, b"\0" + word)], True),
        "NUL between events": Garbage([b"\0\n\n" + text.replace(b"\n\n", b"\n\n\0: \n\n", 1)], True),
        "bad UTF-8 in the text": Garbage([text.replace(word, b"\xff\xfe\xc3(" + word)], True),
        "comments, ids, retries, unknown fields": Garbage(
            [b": hello\n\nid: 1\nretry: 5\n\nfoo: bar\n\n" + b"\n\n\n".join(good) + b": bye\n\n"], True),
        "data without a space, in two lines": Garbage(
            [text.replace(b"data: ", b"data:").replace(b", ", b",\ndata:", 1)], True),
        "a line without an end": Garbage([good[0], b"data: ", *([b"x" * 65_536] * (big // 65_536))], False),
        "a huge event before the rest": Garbage([good[0], b": " + b"y" * (big // 4) + b"\n\n", *good[1:]], True),
        "chunks of one byte": Garbage(
            [*split(text[: -len(good[-1])]), b":", *([b"z"] * ones), b"\n", b"\n", good[-1]], True),
        "noise": Garbage(split(noise, 997), False),
        "noise behind the end": Garbage([text, noise], True),
    }  # fmt: skip


async def test_garbage_streams_pass_unchanged(report: Report, dice: random.Random) -> None:
    """Check 34. Where the usage can be read by the letter of SSE, the charge is exact; else it is marked."""
    identical, exact, marked, total, readable = 0, 0, 0, 0, 0
    most, where, wrong = 0, "", []
    async with served() as made, session() as client:
        for path in calls.PATHS:
            for name, it in garbage(path, dice).items():
                total += 1
                readable += it.exact

                async def script(connection: Connection, it=it) -> None:
                    await connection.stream_head()
                    batch = bytearray()
                    for chunk in it.chunks:
                        batch += b"%x\r\n%b\r\n" % (len(chunk), chunk)
                        if len(batch) > 16_384 or len(it.chunks) < 5000:
                            await connection.send(bytes(batch))
                            batch.clear()
                    await connection.send(bytes(batch) + b"0\r\n\r\n")

                made.upstream.script = script
                sent = hashlib.sha256(b"".join(it.chunks)).hexdigest()
                before = forget_peak(made.pid)
                try:
                    async with asyncio.timeout(HANG_S):
                        got = await fetch(client, made.url + path, ask(path), made.headers)
                except TimeoutError:
                    wrong.append(f"{path} {name}: hangs")
                    continue
                grown = memory(made.pid, "VmHWM") - before
                if grown > most:
                    most, where = grown, f"{path} {name}"
                identical += got.digest == sent
                record = await record_of(made, got)
                right = record["cost_nanousd"] == calls.BILL[path] and record["ending"] == "complete"
                exact += it.exact and right
                # Noise in which nothing can be read as an answer is charged nothing, and never passes for a complete one.
                told = record["ending"] == "cut_by_upstream" and (record["estimated"] or not record["cost_nanousd"])
                marked += not it.exact and told
                if got.digest != sent or not (right if it.exact else told):
                    ending = (record["ending"], record["settled_by"], record["cost_nanousd"], got.size)
                    wrong.append(f"{path} {name}: {ending}")
    report(
        "34 garbage streams",
        total,
        f"{total} identical, {readable} exact, the rest marked, RSS + <= 8 MB",
        f"{identical} identical, {exact} exact, {marked} marked, {most / MB:+.1f} MB ({where})",
    )
    assert wrong == []
    assert identical == total == 60
    assert most <= 8 * MB


async def test_bursts_of_tiny_chunks_do_not_hang(report: Report, dice: random.Random) -> None:
    """Check 34 once more: thousands of one-byte chunks that arrive together, where HTTP libraries stop reading for a while.
    Whether it is met depends on where the reads fall, so that it takes several tries."""
    tries = times(30, 600)
    hung, identical = 0, 0
    async with served() as made, session() as client:

        async def bursting(connection: Connection) -> None:
            path, _, size = connection.received.target.partition("?")
            *most, last = events(path)
            text = b"".join(most) + b":" + b"z" * int(size) + b"\n\n"
            await connection.stream_head()
            wire = b"".join(b"1\r\n%c\r\n" % byte for byte in text)
            for at in range(0, len(wire), 16_386):
                await connection.send(wire[at : at + 16_386])
            await connection.chunk(last)
            await connection.end()

        made.upstream.script = bursting
        for n in range(tries):
            path, size = calls.PATHS[n % 3], dice.randrange(5_000, 10_000)
            *most, last = events(path)
            sent = b"".join(most) + b":" + b"z" * size + b"\n\n" + last
            try:
                async with asyncio.timeout(2):
                    got = await fetch(client, f"{made.url}{path}?{size}", ask(path), made.headers)
                    identical += got.digest == hashlib.sha256(sent).hexdigest()
            except TimeoutError:
                hung += 1
            if hung == 5:
                break
    report("34 bursts of tiny chunks", tries, f"{tries} identical, 0 hang", f"{identical} identical, {hung} hang")
    assert hung == 0
    assert identical == tries
