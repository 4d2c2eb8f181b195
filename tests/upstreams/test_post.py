"""One POST on a pooled connection: what goes out, what comes back, and what becomes of the connection."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from yarl import URL

from lumeproxy.upstreams.post import Answer, Poster
from tests.support.upstream import Connection, ScriptedUpstream


@pytest.fixture
def poster(session: aiohttp.ClientSession, upstream: ScriptedUpstream) -> Poster:
    return Poster(session, URL(upstream.url))


def pooled(session: aiohttp.ClientSession) -> int:
    """How many connections wait to be used again."""
    assert session.connector is not None
    return sum(len(waiting) for waiting in session.connector._conns.values())


async def test_head_and_body_go_out_as_they_are_given(poster: Poster, upstream: ScriptedUpstream) -> None:
    upstream.script = lambda connection: connection.reply(b"{}")

    answer = await poster.post("/v1/x?a=%2F", [("X-One", "1"), ("x-one", "2")], b"body")

    (seen,) = upstream.received
    assert (seen.target, seen.body) == ("/v1/x?a=%2F", b"body")
    assert seen.headers == [
        ("Host", upstream.url.removeprefix("http://")),
        ("X-One", "1"),
        ("x-one", "2"),
        ("Content-Length", "4"),
    ]
    assert (answer.status, answer.content_length, await answer.content.read()) == (200, 2, b"{}")


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\0b"])
async def test_no_header_smuggles_another_one(
    poster: Poster, upstream: ScriptedUpstream, session: aiohttp.ClientSession, value: str
) -> None:
    with pytest.raises(ValueError, match="header"):
        await poster.post("/", [("x-a", value)], b"")

    assert (upstream.received, pooled(session)) == ([], 0)


async def test_informational_answers_are_passed_over(poster: Poster, upstream: ScriptedUpstream) -> None:
    async def script(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    upstream.script = script

    answer = await poster.post("/", [], b"")

    assert (answer.status, await answer.content.read()) == (200, b"ok")


async def test_a_connection_goes_back_as_soon_as_its_answer_has_ended(
    poster: Poster, upstream: ScriptedUpstream, session: aiohttp.ClientSession
) -> None:
    upstream.script = lambda connection: connection.reply(b"{}")

    answer = await poster.post("/", [], b"")
    await answer.content.read()

    assert (answer.connection, pooled(session)) == (None, 1)
    answer.release()
    answer.close()
    assert pooled(session) == 1


async def test_a_connection_whose_answer_was_not_read_is_closed_and_its_reader_told(
    poster: Poster, upstream: ScriptedUpstream, session: aiohttp.ClientSession
) -> None:
    async def script(connection: Connection) -> None:
        await connection.stream_head()
        await connection.closed_by_peer()

    upstream.script = script
    answer = await poster.post("/", [], b"")
    reading = asyncio.ensure_future(answer.content.read())
    await asyncio.sleep(0)

    answer.close()

    with pytest.raises(aiohttp.ClientConnectionError, match="closed"):
        await asyncio.wait_for(reading, 5)
    assert (answer.connection, pooled(session)) == (None, 0)


async def test_a_connection_that_was_answered_before_the_body_was_taken_is_not_used_again(
    session: aiohttp.ClientSession,
) -> None:
    """What is left of the body would stand before the next request."""
    held = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nlarge")
        await held.wait()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0, limit=1 << 10)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        answer = await asyncio.wait_for(Poster(session, URL(url)).post("/", [], b"x" * 20_000_000), 5)
        assert (answer.status, await answer.content.read()) == (413, b"large")
        assert (answer.connection, pooled(session)) == (None, 0)
        held.set()


async def test_one_that_is_cancelled_while_it_waits_closes_its_connection(
    poster: Poster, upstream: ScriptedUpstream
) -> None:
    arrived, closed = asyncio.Event(), asyncio.Event()

    async def script(connection: Connection) -> None:
        arrived.set()
        await connection.closed_by_peer()
        closed.set()

    upstream.script = script
    posting: asyncio.Task[Answer] = asyncio.create_task(poster.post("/", [], b""))
    await asyncio.wait_for(arrived.wait(), 5)

    posting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await posting
    await asyncio.wait_for(closed.wait(), 5)


async def test_what_is_no_http_is_an_error_of_the_client(poster: Poster, upstream: ScriptedUpstream) -> None:
    async def script(connection: Connection) -> None:
        await connection.send(b"garbage\r\n\r\n")
        connection.writer.close()

    upstream.script = script

    with pytest.raises(aiohttp.ClientError):
        await poster.post("/", [], b"")


async def test_a_session_that_is_closed_sends_nothing(poster: Poster, session: aiohttp.ClientSession) -> None:
    await session.close()

    with pytest.raises(aiohttp.ClientConnectionError, match="closed"):
        await poster.post("/", [], b"")
