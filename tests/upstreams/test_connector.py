"""Connections that read little at once, plain and over TLS, and whose receive buffer is small."""

from __future__ import annotations

import asyncio
import socket
from asyncio import sslproto

import pytest

from lumeproxy.compose import make_session
from lumeproxy.settings import load
from lumeproxy.upstreams import anthropic
from lumeproxy.upstreams.base import Access
from lumeproxy.upstreams.connector import READ_BYTES
from lumeproxy.upstreams.http import HttpReply
from tests.support.upstream import Connection, ScriptedUpstream

pytestmark = pytest.mark.timeout(30)


async def test_no_read_is_larger_than_it_may_be(session, upstream: ScriptedUpstream, request_of):
    """Control: all of it waits in the socket at once, and asyncio's default would take it in one read."""
    sent = asyncio.Event()

    async def answer(c: Connection) -> None:
        await c.head(200, {"content-type": "text/event-stream", "content-length": "60000"})
        await c.send(b"a" * 60_000)
        sent.set()

    upstream.script = answer
    reply = await anthropic.make("main", Access(upstream.url, ("k",)), frozenset(), session).send(request_of())
    assert isinstance(reply, HttpReply)
    reply.pause()
    await asyncio.wait_for(sent.wait(), 5)
    sizes = []
    while piece := await reply.read():
        sizes.append(len(piece))

    assert sum(sizes) == 60_000
    assert max(sizes) <= READ_BYTES


async def test_the_kernels_buffer_is_as_small_as_set(tmp_path, upstream: ScriptedUpstream, request_of):
    async def answer(c: Connection) -> None:
        await c.stream_head()
        await c.closed_by_peer()

    upstream.script = answer
    for size in (16_384, 65_536):
        settings = load(data=tmp_path, environ={"LUMEPROXY_LIMITS__RECEIVE_BUFFER_BYTES": str(size)})
        async with make_session(settings) as session:
            reply = await anthropic.make("main", Access(upstream.url, ("k",)), frozenset(), session).send(request_of())
            assert isinstance(reply, HttpReply)
            connection = reply._response.connection
            assert connection is not None
            assert connection.transport is not None
            sock = connection.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * size
            reply.close()


async def test_a_connection_over_tls_has_no_large_buffer(session):
    """asyncio would give each 256 KiB, written to from the first to the last byte, and keep it."""
    assert session.connector is not None
    assert sslproto.SSLProtocol.max_size == READ_BYTES
