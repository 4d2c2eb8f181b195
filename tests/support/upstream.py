"""A provider on a real socket that does exactly what a test scripts, byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass
class Received:
    """A request as it came over the wire."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return found[0] if found else None


@dataclass
class Connection:
    """One request on one connection, to be answered by the script."""

    received: Received
    writer: asyncio.StreamWriter
    reader: asyncio.StreamReader

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int = 200, headers: dict[str, str] | list[tuple[str, str]] | None = None) -> None:
        pairs = list(headers.items()) if isinstance(headers, dict) else headers or []
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in pairs)]
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n")

    async def reply(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        given = {"content-type": "application/json", **(headers or {}), "content-length": str(len(body))}
        await self.head(status, given)
        await self.send(body)

    async def stream_head(self, headers: dict[str, str] | None = None) -> None:
        await self.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked", **(headers or {})})

    async def chunk(self, data: bytes) -> None:
        await self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def end(self) -> None:
        await self.send(b"0\r\n\r\n")

    async def stream(self, chunks: list[bytes], headers: dict[str, str] | None = None) -> None:
        await self.stream_head(headers)
        for data in chunks:
            await self.chunk(data)
        await self.end()

    def abort(self) -> None:
        self.writer.transport.abort()

    async def closed_by_peer(self) -> None:
        """Wait until the proxy has closed its end."""
        while True:
            try:
                if not await self.reader.read(65536):
                    return
            except ConnectionError:
                return


Script = Callable[[Connection], Awaitable[None]]


@dataclass
class ScriptedUpstream:
    """Listens on loopback; `script` answers each request, `received` keeps them."""

    script: Script | None = None
    received: list[Received] = field(default_factory=list)
    port: int = 0
    errors: list[BaseException] = field(default_factory=list)
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=64 * 1024 * 1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                received = await self._receive(reader)
                self.received.append(received)
                assert self.script is not None
                await self.script(Connection(received, writer, reader))
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        except BaseException as error:
            self.errors.append(error)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _receive(self, reader: asyncio.StreamReader) -> Received:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = [(line.partition(":")[0], line.partition(":")[2].strip()) for line in head[1:] if line]
        named = {name.lower(): value for name, value in headers}
        body = b""
        if "content-length" in named:
            body = await reader.readexactly(int(named["content-length"]))
        elif named.get("transfer-encoding") == "chunked":
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
        return Received(method, target, headers, body)
