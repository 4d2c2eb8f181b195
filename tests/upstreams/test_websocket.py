"""A WebSocket to an upstream: whom it goes to and with what, what breaks it, and that it is never led elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from lumeproxy.upstreams import openai
from lumeproxy.upstreams.base import Access, CutShort, Message, NotReached
from lumeproxy.upstreams.websocket import HttpDialer, WebSocketLimits
from tests.support.upstream import Connection, ScriptedUpstream
from tests.support.websocket import BINARY, PING, PONG, Peer, SocketProvider, frame

LIMITS = WebSocketLimits(message_bytes=1000, header_bytes=8192, connect_ms=2000)
HEADERS = [("X-Twice", "a"), ("x-twice", "b"), ("openai-beta", "x")]


async def silent(peer: Peer) -> None:
    await peer.receive()


@pytest.fixture
def provider(upstream: ScriptedUpstream) -> SocketProvider:
    made = SocketProvider(silent)
    upstream.script = made.serve
    return made


@pytest.fixture
async def dialer(session: aiohttp.ClientSession, upstream: ScriptedUpstream) -> AsyncIterator[HttpDialer]:
    yield HttpDialer(
        openai.make("main", Access(upstream.url, ("operator-secret",)), frozenset(), session), session, LIMITS
    )


async def dial(dialer: HttpDialer) -> Any:
    return await dialer.dial(HEADERS, "/responses", "a=b%20c")


async def test_the_handshake_carries_the_credential_and_nothing_of_its_own(
    dialer: HttpDialer, provider: SocketProvider
) -> None:
    socket = await dial(dialer)
    await socket.close()

    (opening,) = provider.openings
    assert (opening.method, opening.target) == ("GET", "/v1/responses?a=b%20c")
    names = {name.lower() for name, _ in opening.headers}
    assert names == {"host", "x-twice", "openai-beta", "authorization", "accept-encoding", "upgrade", "connection",
                     "sec-websocket-version", "sec-websocket-key"}  # fmt: skip
    assert [value for name, value in opening.headers if name.lower() == "x-twice"] == ["a", "b"]
    assert opening.header("authorization") == "Bearer operator-secret"


async def test_the_answers_headers_are_there_but_for_one_that_repeats_the_credential(
    dialer: HttpDialer, provider: SocketProvider
) -> None:
    provider.extra = {"x-request-id": "r", "x-echo": "it is operator-secret"}
    socket = await dial(dialer)
    await socket.close()

    named = {name.lower(): value for name, value in socket.headers}
    assert named["x-request-id"] == "r"
    assert "x-echo" not in named


async def test_messages_go_whole_both_ways(dialer: HttpDialer, provider: SocketProvider) -> None:
    async def play(peer: Peer) -> None:
        assert await peer.receive() == "\u00e9".encode() * 40_000
        await peer.connection.send(frame(b"one ", first=0) + frame(b"message", 0))
        await peer.connection.send(frame(b"\0", BINARY) + frame(b"", 1))
        await peer.receive()

    provider.script = play
    socket = await dial(dialer)
    await socket.send("\u00e9".encode() * 40_000)

    assert [await socket.receive() for _ in range(3)] == [Message(b"one message"), Message(b"\0", True), Message(b"")]
    await socket.close()


async def test_what_arrives_while_it_is_only_waited_for_is_not_lost(
    dialer: HttpDialer, provider: SocketProvider
) -> None:
    async def play(peer: Peer) -> None:
        await peer.receive()
        await peer.send(b"one", b"two")
        await peer.receive()

    provider.script = play
    async with asyncio.TaskGroup() as readers:
        socket = await dial(dialer)
        arrival = socket.arrival(readers)
        assert socket.arrival(readers) is arrival
        done, _ = await asyncio.wait((arrival,), timeout=0.01)
        assert not done
        await socket.send(b"go")
        await asyncio.wait((arrival,))
        assert [(await socket.receive()).data for _ in range(2)] == [b"one", b"two"]
        socket.arrival(readers)
        await socket.close()  # ends the reader too


async def test_pings_are_answered(dialer: HttpDialer, provider: SocketProvider) -> None:
    async def play(peer: Peer) -> None:
        await peer.connection.send(frame(b"there?", PING))
        assert await peer.frame() == (PONG, b"there?")
        await peer.send(b"yes")
        await peer.receive()

    provider.script = play
    socket = await dial(dialer)
    assert await socket.receive() == Message(b"yes")
    await socket.close()


@pytest.mark.parametrize(
    ("bytes_", "told"),
    [
        (frame((1000).to_bytes(2), 8), "closed with 1000"),
        (b"", "closed"),
        (frame(b"x" * 1001), "WebSocketError"),
        (frame(b"\xff\xfe"), None),  # not looked into: whoever reads the message says what is wrong with it
        (b"\xff\xff\xff\xff", "WebSocketError"),
        (frame(b"half", first=0), "closed"),
    ],
)
async def test_an_end_or_garbage_is_told_in_a_word(
    dialer: HttpDialer, provider: SocketProvider, bytes_: bytes, told: str | None
) -> None:
    async def play(peer: Peer) -> None:
        await peer.connection.send(bytes_)
        if told not in ("closed", None):
            await peer.receive()

    provider.script = play
    socket = await dial(dialer)
    if told is None:
        assert await socket.receive() == Message(b"\xff\xfe")
        told = "closed"
    for word in (told, "closed"):  # and stays so
        with pytest.raises(CutShort) as caught:
            await socket.receive()
        assert str(caught.value) == word
    with pytest.raises(NotReached):
        await socket.send(b"x")
    await socket.close()


@pytest.mark.parametrize("status", [200, 204, 400, 401, 426, 503])
async def test_a_refused_handshake_is_told_with_its_status(
    dialer: HttpDialer, upstream: ScriptedUpstream, status: int
) -> None:
    upstream.script = lambda c: c.reply(b"" if status == 204 else b'{"error": "operator-secret"}', status)

    with pytest.raises(NotReached) as caught:
        await dial(dialer)

    assert caught.value.message == f"The upstream main refused a WebSocket with status {status}."


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(dialer: HttpDialer, upstream: ScriptedUpstream, status: int) -> None:
    upstream.script = lambda c: c.reply(b"", status, {"location": upstream.url + "/elsewhere"})

    with pytest.raises(NotReached, match="can't be reached by WebSocket"):
        await dial(dialer)

    assert len(upstream.received) == 1


async def test_a_wrong_proof_of_the_handshake_is_refused(dialer: HttpDialer, upstream: ScriptedUpstream) -> None:
    async def lie(connection: Connection) -> None:
        await connection.head(101, {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": "x"})
        await connection.closed_by_peer()

    upstream.script = lie
    with pytest.raises(NotReached, match="refused"):
        await dial(dialer)


async def test_an_upstream_that_hangs_up_stays_silent_or_is_not_there_is_not_reached(
    session: aiohttp.ClientSession, upstream: ScriptedUpstream
) -> None:
    made = openai.make("main", Access(upstream.url, ("operator-secret",)), frozenset(), session)
    short = HttpDialer(made, session, WebSocketLimits(message_bytes=1000, header_bytes=8192, connect_ms=50))

    async def hang_up(connection: Connection) -> None:
        connection.abort()

    async def stay_silent(connection: Connection) -> None:
        await connection.closed_by_peer()

    for script in (hang_up, stay_silent):
        upstream.script = script
        with pytest.raises(NotReached):
            await dial(short)
    await upstream.stop()
    with pytest.raises(NotReached):
        await dial(short)
    await upstream.start()


async def test_closing_does_not_wait_for_a_provider_that_goes_on_talking(
    dialer: HttpDialer, provider: SocketProvider
) -> None:
    async def play(peer: Peer) -> None:
        try:
            while not peer.connection.writer.is_closing():
                await peer.send(b"x" * 900)
        except ConnectionError:
            return

    provider.script = play
    socket = await dial(dialer)
    await socket.receive()
    async with asyncio.timeout(3):
        await socket.close()
    await socket.close()
