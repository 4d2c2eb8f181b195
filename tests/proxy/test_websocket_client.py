"""The client's end: what can be taken when, whether it is there, and how it is told good-bye."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from lumeproxy.errors import InvalidRequest
from lumeproxy.proxy.relay import ClientLeft
from lumeproxy.proxy.websocket_client import Client

Play = Callable[[Client], Awaitable[None]]
Talk = Callable[[aiohttp.ClientWebSocketResponse], Awaitable[None]]


async def meet(play: Play, talk: Talk) -> None:
    """Let a server's end do one thing and a real client another; what either raises is raised here."""
    done = asyncio.get_running_loop().create_future()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = Client.accepting(request, 1000)
        await response.prepare(request)
        try:
            async with asyncio.TaskGroup() as readers:
                client = Client(request, response, readers)
                try:
                    await play(client)
                finally:
                    await client.close(1000)
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)
        return response

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{port}/") as socket:
            talking = asyncio.ensure_future(talk(socket))
            await asyncio.wait((talking, done), timeout=6, return_when=asyncio.FIRST_EXCEPTION)
            socket._response.close()
            await asyncio.gather(talking, done)
    finally:
        await runner.cleanup()


async def test_messages_are_taken_one_after_the_other_as_they_came() -> None:
    async def play(client: Client) -> None:
        taken = []
        for _ in range(3):
            await asyncio.wait((client.arrival(),))
            taken.append(client.take())
        assert taken == [b"one", "zw\u00f6lf".encode(), b""]
        await client.write(b"\xc3\xa9")
        await client.write(b"\0\xff", binary=True)

    async def talk(socket: Any) -> None:
        for text in ("one", "zw\u00f6lf", ""):
            await socket.send_str(text)
        assert await socket.receive_str() == "\u00e9"
        assert await socket.receive_bytes() == b"\0\xff"

    await meet(play, talk)


async def test_a_binary_message_is_refused_and_the_next_one_is_taken() -> None:
    async def play(client: Client) -> None:
        await asyncio.wait((client.arrival(),))
        with pytest.raises(InvalidRequest):
            client.take()
        await asyncio.wait((client.arrival(),))
        assert client.take() == b"text"

    async def talk(socket: Any) -> None:
        await socket.send_bytes(b"binary")
        await socket.send_str("text")
        await socket.receive()

    await meet(play, talk)


@pytest.mark.parametrize("how", ["closes", "drops", "sends too much", "sends no text"])
async def test_a_client_that_has_left_is_gone_whichever_way_it_went(how: str) -> None:
    async def play(client: Client) -> None:
        before = client.gone
        await client.write(b"here")
        await asyncio.wait((client.arrival(),))
        assert (before, client.gone) == (False, True)
        with pytest.raises(ClientLeft):
            client.take()
        with pytest.raises(ClientLeft):
            await client.write(b"anybody?")
        await client.farewell(b"good-bye")

    async def talk(socket: Any) -> None:
        await socket.receive()
        if how == "closes":
            await socket.close()
        elif how == "drops":
            socket._response.close()
        elif how == "sends too much":
            await socket.send_str("x" * 1001)
        else:
            await socket.send_frame(b"x", aiohttp.WSMsgType.CONTINUATION)
        await socket.receive()

    await meet(play, talk)


async def test_a_client_that_takes_nothing_is_not_waited_for_when_told_good_bye() -> None:
    taken = asyncio.Event()

    async def play(client: Client) -> None:
        async with asyncio.timeout(5):
            try:
                async with asyncio.timeout(0.05):
                    while True:
                        await client.write(b"x" * 100_000)
            except TimeoutError:
                pass
            await client.farewell(b"x" * 100_000)  # finds the wait that was cancelled, or runs into its own limit
            await asyncio.wait((client.arrival(),))  # which is told of the end, like everybody who waits
        assert client.gone
        taken.set()

    async def talk(socket: Any) -> None:
        socket._response.connection.transport.pause_reading()
        await asyncio.wait_for(taken.wait(), 6)

    await meet(play, talk)


async def test_a_farewell_that_is_cancelled_from_outside_stays_cancelled() -> None:
    cut = asyncio.Event()

    async def play(client: Client) -> None:
        async def say() -> None:
            while True:
                await client.write(b"x" * 100_000)

        filling = asyncio.ensure_future(say())
        await asyncio.wait((filling,), timeout=0.05)
        saying = asyncio.ensure_future(client.farewell(b"x" * 100_000))
        await asyncio.sleep(0)
        saying.cancel()
        filling.cancel()
        ended = await asyncio.gather(saying, filling, return_exceptions=True)
        assert [type(error) for error in ended] == [asyncio.CancelledError] * 2
        client.cut()
        cut.set()

    async def talk(socket: Any) -> None:
        socket._response.connection.transport.pause_reading()
        await asyncio.wait_for(cut.wait(), 6)

    await meet(play, talk)
