"""What a client saw of an answer: its bytes, and whether it ended as its framing says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.support.proxy import Proxy


@dataclass
class Taken:
    """An answer, read to its end. `clean`: the end came as announced, not by a broken connection."""

    status: int
    headers: Any
    body: bytes
    clean: bool

    def json(self) -> Any:
        return json.loads(self.body)


async def take(context: Any) -> Taken:
    """Send a request made by `Proxy.post` and read its answer to the end, whatever that is."""
    async with context as response:
        body = bytearray()
        try:
            async for piece in response.content.iter_any():
                body += piece
        except aiohttp.ClientPayloadError:
            return Taken(response.status, response.headers, bytes(body), False)
        return Taken(response.status, response.headers, bytes(body), True)


@dataclass
class Wire(asyncio.Protocol):
    """A client without a library: raw bytes both ways. `watch` is called in the very moment in which bytes arrive."""

    watch: Callable[[bytes], None] | None = None
    data: bytearray = field(default_factory=bytearray)
    error: BaseException | None = None
    transport: Any = None
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        if self.watch is not None:
            self.watch(bytes(self.data))
        self._arrived.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self.closed.set()
        self._arrived.set()

    @property
    def head(self) -> bytes:
        return bytes(self.data).partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        """The answer's body so far, without its framing."""
        body = bytes(self.data).partition(b"\r\n\r\n")[2]
        return dechunked(body)[0] if b"chunked" in self.head.lower() else body

    @property
    def clean(self) -> bool:
        """Whether a chunked answer has come to its last chunk."""
        return dechunked(bytes(self.data).partition(b"\r\n\r\n")[2])[1]

    async def sees(self, marker: bytes) -> bool:
        """Wait until these bytes have come, or the connection is closed; whether they have come."""
        while marker not in self.data and not self.closed.is_set():
            self._arrived.clear()
            await asyncio.wait_for(self._arrived.wait(), 10)
        return marker in self.data

    async def until(self, marker: bytes) -> None:
        """Wait until these bytes have come, as they must."""
        assert await self.sees(marker), bytes(self.data)

    async def ended(self) -> None:
        """Wait until the other side has closed the connection."""
        await asyncio.wait_for(self.closed.wait(), 10)


def dechunked(body: bytes) -> tuple[bytes, bool]:
    """The payload of a chunked body, and whether its last chunk has come."""
    out = bytearray()
    while body:
        line, found, body = body.partition(b"\r\n")
        if not found:
            break
        size = int(line, 16)
        if size == 0:
            return bytes(out), True
        out += body[:size]
        body = body[size + 2 :]
    return bytes(out), False


async def dial(
    lume: Proxy,
    path: str,
    body: Any,
    *,
    watch: Callable[[bytes], None] | None = None,
    version: str = "1.1",
    sock: Any = None,
    announced: int | None = None,
) -> Wire:
    """Connect (over `sock` when one is given) and send a POST, of whose body more may be `announced` than is sent; the
    proxy's end closes what is still open."""
    loop = asyncio.get_running_loop()
    target = {"sock": sock} if sock is not None else {"host": "127.0.0.1", "port": lume.server.port}
    _, wire = await loop.create_connection(lambda: Wire(watch), **target)
    lume.at_end(wire.transport.abort)
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/{version}",
        "Host: 127.0.0.1",
        "Connection: close",
        f"Authorization: Bearer {lume.key}",
        f"Content-Length: {len(text) if announced is None else announced}",
    ]
    wire.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + text)
    return wire
