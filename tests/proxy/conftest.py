"""Speaking to the running proxy by bytes, for requests that no client library would send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.proxy import Proxy
from tests.support.upstream import ScriptedUpstream
from tests.support.websocket import SocketProvider, SocketProxy, answering, messages, proxied

PATIENCE_S = 10


@dataclass
class Raw:
    """One answer off the wire."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    wire: bytes

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


async def spoken(port: int, data: bytes, then: bytes = b"", *, to_end: bool = False) -> Raw:
    """Send bytes and read one answer. `then` is sent once the server has asked for it (100 Continue); with `to_end` the
    server has to close the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    try:
        async with asyncio.timeout(PATIENCE_S):
            writer.write(data)
            if then:
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
                writer.write(then)
            head = await reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")[:-2]
            headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
            size = next((value for name, value in headers if name.lower() == "content-length"), "0")
            body = await reader.readexactly(0 if first.split(" ")[1] == "100" else int(size))
            rest = await reader.read() if to_end else b""
            return Raw(int(first.split(" ")[1]), headers, body, head + body + rest)
    finally:
        writer.close()


Speak = Callable[..., Awaitable[Raw]]


@pytest.fixture
def speak(lume: Proxy) -> Speak:
    async def say(data: bytes, then: bytes = b"", *, to_end: bool = False) -> Raw:
        return await spoken(lume.server.port, data, then, to_end=to_end)

    return say


@pytest.fixture
def provider(upstream: ScriptedUpstream) -> SocketProvider:
    """What plays the WebSockets of `upstream`; it answers with two words until a test says otherwise."""
    made = SocketProvider(answering(messages()))
    upstream.script = made.serve
    return made


@pytest.fixture
async def socketed(tmp_path: Path, upstream: ScriptedUpstream, provider: SocketProvider) -> AsyncIterator[SocketProxy]:
    """The proxy before a provider of WebSockets, with a customer who has one dollar."""
    async with proxied(tmp_path, upstream) as made:
        yield made
