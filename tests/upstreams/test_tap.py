"""Bytes handed on in the callback in which they come, and the connection given back as it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest

from lumeproxy.upstreams.tap import Tap, tappable
from tests.support.upstream import Connection, Script, ScriptedUpstream


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False) as made:
        yield made


@pytest.fixture
def go() -> asyncio.Event:
    """Set once the reply's head has come and is tapped; a script waits for it before it sends the body."""
    return asyncio.Event()


async def tapped(
    session: aiohttp.ClientSession,
    upstream: ScriptedUpstream,
    go: asyncio.Event,
    script: Script,
    take: Callable[[bytes], bool],
) -> aiohttp.ClientResponse:
    """Ask, then tap until that ends; the response as it is then."""
    upstream.script = script
    response = await session.post(upstream.url)
    transport = _transport(response)
    inner = transport.get_protocol()
    tap = asyncio.ensure_future(Tap(response.content, transport, take).ended())
    asyncio.get_running_loop().call_soon(go.set)
    try:
        await asyncio.wait_for(tap, 10)
    except BaseException:
        response.close()
        raise
    finally:
        assert transport.get_protocol() is (None if transport.is_closing() else inner)
        assert type(response.content) is aiohttp.StreamReader
    return response


def _transport(response: aiohttp.ClientResponse) -> asyncio.Transport:
    assert response.connection is not None
    transport = response.connection.transport
    assert transport is not None
    return transport


class Taken:
    """A taker that keeps what it gets and has enough after so many bytes."""

    def __init__(self, enough: int = 1 << 60) -> None:
        self.pieces: list[bytes] = []
        self.came = asyncio.Event()
        self.enough = enough

    def __call__(self, piece: bytes) -> bool:
        self.pieces.append(piece)
        self.came.set()
        return len(self.all) < self.enough

    @property
    def all(self) -> bytes:
        return b"".join(self.pieces)


def answer(go: asyncio.Event, pieces: list[bytes], taken: Taken | None = None) -> Script:
    """A chunked answer; with `taken`, each piece waits until the one before has come."""

    async def script(connection: Connection) -> None:
        await connection.stream_head()
        await go.wait()
        for piece in pieces:
            await connection.chunk(piece)
            if taken is not None:
                await taken.came.wait()
                taken.came.clear()
        await connection.end()

    return script


async def test_each_piece_is_taken_as_it_comes_and_the_connection_is_reused(session, upstream, go):
    for _ in range(3):
        taken = Taken()
        response = await tapped(session, upstream, go, answer(go, [b"one", b"two", b"three"], taken), taken)

        go.clear()
        assert taken.pieces == [b"one", b"two", b"three"]
        assert response.content.at_eof()
        assert await response.content.readany() == b""
    assert len(upstream.received) == 3
    assert len(session.connector._conns) == 1


async def test_what_comes_in_one_read_is_taken_in_one_piece(session, upstream, go):
    async def script(connection: Connection) -> None:
        await connection.stream_head()
        await go.wait()
        await connection.send(b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n")

    taken = Taken()
    await tapped(session, upstream, go, script, taken)

    assert taken.pieces == [b"abc"]


async def test_every_split_of_the_framing_gives_the_same_bytes(session, upstream, go):
    framed = b"3\r\none\r\nA;x=1\r\n0123456789\r\n0\r\n\r\n"
    for at in range(1, len(framed)):
        taken = Taken()

        async def script(connection: Connection, at: int = at, taken: Taken = taken) -> None:
            await connection.stream_head()
            await go.wait()
            await connection.send(framed[:at])
            for _ in range(20):
                await asyncio.sleep(0)
            await connection.send(framed[at:])

        response = await tapped(session, upstream, go, script, taken)
        go.clear()
        assert taken.all == b"one0123456789", at
        assert response.content.at_eof()


async def test_what_comes_after_enough_stays_in_the_reader(session, upstream, go):
    taken = Taken(enough=3)
    response = await tapped(session, upstream, go, answer(go, [b"one", b"two", b"three"]), taken)

    rest = taken.all
    while piece := await response.content.readany():
        rest += piece
    assert rest == b"onetwothree"
    assert len(taken.all) >= 3


async def test_the_upstream_is_held_back_once_enough_was_taken(session, upstream, go):
    handed = 0

    async def script(connection: Connection) -> None:
        nonlocal handed
        await connection.stream_head()
        await go.wait()
        for _ in range(1000):
            await connection.chunk(b"x" * 65_536)
            handed += 1

    taken = Taken(enough=1)
    response = await tapped(session, upstream, go, script, taken)
    for _ in range(200):
        await asyncio.sleep(0)

    assert not _transport(response).is_reading()
    assert handed < 1000
    response.close()


async def test_it_can_be_tapped_again_and_again(session, upstream, go):
    go.set()
    upstream.script = answer(go, [bytes([65 + n]) * 1000 for n in range(26)])
    response = await session.post(upstream.url)
    got = b""
    while not response.content.at_eof():
        got += response.content.read_nowait()
        if tappable(response.content):
            taken = Taken(enough=1)
            await asyncio.wait_for(Tap(response.content, _transport(response), taken).ended(), 10)
            got += taken.all

    assert got == b"".join(bytes([65 + n]) * 1000 for n in range(26))


async def test_a_body_of_known_length_ends_with_its_last_byte(session, upstream, go):
    async def script(connection: Connection) -> None:
        await connection.head(200, {"content-length": "6"})
        await go.wait()
        await connection.send(b"abc")
        await connection.send(b"def")

    taken = Taken()
    response = await tapped(session, upstream, go, script, taken)

    assert taken.all == b"abcdef"
    assert response.content.at_eof()


async def test_a_body_that_the_close_delimits_ends_with_it(session, upstream, go):
    async def script(connection: Connection) -> None:
        await connection.head(200, {"connection": "close"})
        await go.wait()
        await connection.send(b"abc")
        connection.writer.close()

    taken = Taken()
    response = await tapped(session, upstream, go, script, taken)

    assert taken.all == b"abc"
    assert await response.content.readany() == b""


@pytest.mark.parametrize("fault", ["reset", "close", "framing"])
async def test_a_broken_answer_ends_the_tap_and_is_the_readers_error(session, upstream, go, fault):
    async def script(connection: Connection) -> None:
        await connection.stream_head()
        await go.wait()
        await connection.chunk(b"abc")
        if fault == "framing":
            await connection.send(b"zz\r\n")
        elif fault == "reset":
            connection.abort()
        connection.writer.close()

    taken = Taken()
    response = await tapped(session, upstream, go, script, taken)

    assert taken.all in (b"abc", b"")
    if fault != "framing":  # of which aiohttp does not tell its reader; upstreams.http does
        with pytest.raises(aiohttp.ClientError):
            while await response.content.readany():
                pass
    response.close()


async def test_what_the_taker_raises_is_raised_to_its_owner_and_harms_no_connection(session, upstream, go):
    def broken(_piece: bytes) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await tapped(session, upstream, go, answer(go, [b"one", b"two"]), broken)


async def test_a_cancelled_tap_gives_the_connection_back(session, upstream, go):
    upstream.script = answer(go, [b"one"] * 3)
    response = await session.post(upstream.url)
    transport = _transport(response)
    inner, begun = transport.get_protocol(), asyncio.Event()
    tap = Tap(response.content, transport, lambda _piece: True)
    task = asyncio.ensure_future(tap.ended())
    asyncio.get_running_loop().call_soon(begun.set)
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert transport.get_protocol() is inner
    assert type(response.content) is aiohttp.StreamReader
    response.close()


async def test_only_a_plain_reader_that_runs_is_tapped(session, upstream):
    upstream.script = lambda c: c.reply(b"")
    async with session.post(upstream.url) as response:
        assert not tappable(response.content)
