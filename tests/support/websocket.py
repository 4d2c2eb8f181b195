"""A provider of WebSockets that does exactly what a test scripts, frame by frame, and keeps a ledger of what it claimed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tests.support import streams
from tests.support.proxy import Proxy, proxy
from tests.support.upstream import Connection, ScriptedUpstream

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def messages(words: list[str] | None = None, **options: Any) -> list[bytes]:
    """A Responses answer as messages: the events of `streams.responses` without their framing."""
    return [event.partition(b"data: ")[2].rstrip(b"\n") for event in streams.responses(words, **options)]


def warmed(answer_id: str = "resp_warm", usage: Any = None) -> list[bytes]:
    """The answer to a warm-up."""
    response = {"id": answer_id, "object": "response", "output": [], "usage": usage}
    return [
        json.dumps({"type": kind, "response": response}).encode() for kind in ("response.created", "response.completed")
    ]


def create(text: str = "hi", model: str = "gpt-test-1", **more: Any) -> bytes:
    """A request for an answer."""
    return json.dumps({"type": "response.create", "model": model, "input": text, **more}).encode()


def frame(data: bytes, opcode: int = TEXT, *, first: int = 0x80) -> bytes:
    """One unmasked frame; `first` is the first byte without the opcode."""
    size = len(data)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2) if size < 65536 else b"\x7f" + size.to_bytes(8)
    return bytes([first | opcode]) + length + data


@dataclass
class Peer:
    """One WebSocket that the proxy has opened."""

    connection: Connection
    provider: SocketProvider

    async def frame(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload, unmasked."""
        reader = self.connection.reader
        first, second = await reader.readexactly(2)
        assert first & 0x80 and second & 0x80, "the proxy sends whole messages, masked"
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8))
        mask = await reader.readexactly(4)
        data = await reader.readexactly(size)
        return first & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))

    async def receive(self) -> bytes | None:
        """The next text message, None when the proxy has closed, cleanly or not."""
        try:
            opcode, data = await self.frame()
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        if opcode == CLOSE:
            await self.close(int.from_bytes(data[:2]))
            return None
        assert opcode == TEXT
        self.provider.messages.append(data)
        return data

    async def send(self, *events: bytes) -> None:
        """Send text messages; the usage that they claim goes into the ledger."""
        for event in events:
            await self.connection.send(frame(event))
            usage = _usage(event)
            if usage is not None:
                self.provider.claimed.append(usage)

    async def close(self, code: int = 1000) -> None:
        """Say that it is over, and drop the connection."""
        await self.connection.send(frame(code.to_bytes(2), CLOSE))
        self.connection.writer.close()


def _usage(event: bytes) -> Any:
    """The usage that an event claims, None for most."""
    try:
        found = json.loads(event)
    except ValueError:
        return None
    response = found.get("response") if isinstance(found, dict) else None
    return response.get("usage") if isinstance(response, dict) else None


@dataclass
class SocketProvider:
    """`script` plays each WebSocket; `openings` are their handshakes, `messages` all that came, `claimed` the usages."""

    script: Callable[[Peer], Awaitable[None]]
    openings: list[Any] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    claimed: list[Any] = field(default_factory=list)
    extra: dict[str, str] = field(default_factory=dict)  # headers of the handshake's answer

    async def serve(self, connection: Connection) -> None:
        """The script of a ScriptedUpstream."""
        received = connection.received
        self.openings.append(received)
        key = received.header("sec-websocket-key")
        assert received.method == "GET" and key is not None
        accept = base64.b64encode(hashlib.sha1(key.encode() + MAGIC).digest()).decode()
        await connection.head(
            101, {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept, **self.extra}
        )
        await self.script(Peer(connection, self))
        connection.writer.close()


def answering(*answers: list[bytes]) -> Callable[[Peer], Awaitable[None]]:
    """A script that gives one answer a message, the last one again and again."""

    async def play(peer: Peer) -> None:
        at = 0
        while await peer.receive() is not None:
            await peer.send(*answers[min(at, len(answers) - 1)])
            at += 1

    return play


@contextlib.asynccontextmanager
async def proxied(folder: Path, upstream: ScriptedUpstream, **options: Any) -> AsyncIterator[SocketProxy]:
    """The proxy before an OpenAI upstream that offers WebSockets."""
    environ = {"LUMEPROXY_UPSTREAMS__OPENAI__WEBSOCKET": "true", "LUMEPROXY_LIMITS__FAILED_KEYS_PER_MINUTE": "0"}
    options.setdefault("routes", '[[routes]]\nmodel = "gpt-test-*"\nupstreams = ["openai"]\n')
    async with proxy(folder, {"openai": upstream}, environ=environ, **options) as lume:
        yield SocketProxy(**{field.name: getattr(lume, field.name) for field in fields(lume)})


@dataclass
class SocketProxy(Proxy):
    """A running proxy whose clients may open WebSockets."""

    def socket(self, path: str = "/v1/responses", **options: Any) -> Any:
        """Open one: await it, or enter it."""
        headers = {**self.headers, **options.pop("headers", {})}
        return self.session.ws_connect(self.url + path, headers=headers, **options)
