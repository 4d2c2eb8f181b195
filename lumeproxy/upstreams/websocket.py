"""A WebSocket to an upstream over HTTP/1.1: RFC 6455 (2011-12), without extensions, whole messages, nothing followed.

aiohttp's own `ws_connect` follows redirects and adds headers, so each opening goes through a session of its own that does
neither; connections come from the one pool. Errors of aiohttp become ours here. Must not know dialects.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import WSMsgType

from lumeproxy.upstreams.base import CutShort, Message, NotReached
from lumeproxy.upstreams.http import AUTOMATIC, HttpUpstream, safe, spelled_alike

# How long an upstream is given to answer our closing, before the connection is dropped.
CLOSE_S = 0.5


class _Redirected(aiohttp.ClientError):
    """The upstream wants us to go elsewhere."""


class _Opening:
    """Stands around the request that opens a WebSocket: keeps the answer's headers, goes nowhere else."""

    def __init__(self) -> None:
        self.headers: tuple[tuple[str, str], ...] = ()

    async def __call__(
        self, request: aiohttp.ClientRequest, send: Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]
    ) -> aiohttp.ClientResponse:
        response = await send(request)
        if 300 <= response.status < 400:
            response.close()
            raise _Redirected
        self.headers = tuple(response.headers.items())
        return response


@dataclass(frozen=True, slots=True)
class WebSocketLimits:
    """Of a message that an upstream sends, of one header line of its handshake, and of the time until that is done."""

    message_bytes: int
    header_bytes: int
    connect_ms: int


class HttpDialer:
    """Opens WebSockets to an HttpUpstream, with the operator's credential."""

    def __init__(self, upstream: HttpUpstream, session: aiohttp.ClientSession, limits: WebSocketLimits) -> None:
        self._upstream = upstream
        self._session = session
        self._limits = limits

    async def dial(self, headers: Sequence[tuple[str, str]], path: str, query: str) -> HttpSocket:
        """See the protocol."""
        url, named, secrets = self._upstream.addressed(headers, path, query)
        name, limits, opening = self._upstream.name, self._limits, _Opening()
        try:
            async with (
                asyncio.timeout(limits.connect_ms / 1000),
                aiohttp.ClientSession(
                    connector=self._session.connector,
                    connector_owner=False,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    timeout=aiohttp.ClientTimeout(total=None),
                    skip_auto_headers=AUTOMATIC,
                    max_line_size=limits.header_bytes,
                    max_field_size=limits.header_bytes,
                    middlewares=(opening,),
                ) as session,
            ):
                socket = await session.ws_connect(
                    url,
                    headers=spelled_alike(named),
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
                    max_msg_size=limits.message_bytes,
                    decode_text=False,
                )
        except aiohttp.WSServerHandshakeError as error:
            raise NotReached(
                f"The upstream {name} refused a WebSocket with status {error.status}.", sent=True
            ) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise NotReached(
                f"The upstream {name} can't be reached by WebSocket: {type(error).__name__}.", sent=False
            ) from None
        return HttpSocket(name, socket, safe(opening.headers, secrets))


class HttpSocket:
    """An open WebSocket."""

    def __init__(
        self, name: str, socket: aiohttp.ClientWebSocketResponse[bool], headers: Sequence[tuple[str, str]]
    ) -> None:
        self.headers = headers
        self._name = name
        self._socket = socket
        self._ahead: asyncio.Task[Any] | None = None

    async def send(self, data: bytes) -> None:
        """See the protocol."""
        try:
            await self._socket.send_frame(data, WSMsgType.TEXT)
        except (aiohttp.ClientError, OSError):
            raise NotReached(f"The upstream {self._name} closed its WebSocket.", sent=True) from None

    async def receive(self) -> Message:
        """See the protocol."""
        if self._ahead is None:
            message = await self._socket.receive()
        else:
            await asyncio.wait((self._ahead,))
            message, self._ahead = self._ahead.result(), None
        if message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY:
            return Message(message.data, message.type is WSMsgType.BINARY)
        raise CutShort(_told(message))

    def arrival(self, readers: asyncio.TaskGroup) -> asyncio.Future[Any]:
        """See the protocol."""
        if self._ahead is None:
            self._ahead = readers.create_task(self._socket.receive())
        return self._ahead

    async def close(self) -> None:
        """See the protocol."""
        with contextlib.suppress(TimeoutError):
            # aiohttp's own limit is between two messages, of which a provider may go on sending.
            async with asyncio.timeout(CLOSE_S):
                await self._socket.close()


def _told(message: Any) -> str:
    """How a connection came to its end, in a word for a record."""
    if message.type is WSMsgType.ERROR:
        return type(message.data).__name__
    return f"closed with {message.data}" if message.type is WSMsgType.CLOSE else "closed"
