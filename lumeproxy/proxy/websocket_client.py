"""The client's end of a WebSocket: what it sends, one message at a time, whether it is still there, and writing to it.

Nothing is compressed, so that no message can grow when it is read. Must not know wire formats or calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from aiohttp import WSMsgType, web

from lumeproxy.errors import InvalidRequest
from lumeproxy.proxy.relay import FAREWELL_MS, WRITE_BYTES, ClientLeft

# How long a client may take to answer our closing.
CLOSE_S = 1.0
_CONTENT = (WSMsgType.TEXT, WSMsgType.BINARY)


class Client:
    """An accepted WebSocket. A message is always being waited for, so that pings are answered and a closing is seen while
    an answer runs; what comes ahead of its time waits here, one message, and further ones in the connection."""

    def __init__(self, request: web.BaseRequest, socket: web.WebSocketResponse, readers: asyncio.TaskGroup) -> None:
        """`readers` owns the task that waits, which ends when the connection is closed."""
        self.request = request
        self._socket = socket
        self._readers = readers
        self._ahead: asyncio.Task[Any] = readers.create_task(socket.receive())

    @staticmethod
    def accepting(request: web.BaseRequest, message_bytes: int) -> web.WebSocketResponse:
        """A response that opens a WebSocket once it is prepared. Raises InvalidRequest where the request asks for none."""
        socket = web.WebSocketResponse(
            timeout=CLOSE_S,
            compress=False,
            max_msg_size=message_bytes,
            writer_limit=WRITE_BYTES,
            decode_text=False,
        )
        if not socket.can_prepare(request).ok:
            raise InvalidRequest("This is not a WebSocket handshake that RFC 6455 allows.")
        return socket

    @property
    def gone(self) -> bool:
        """Whether it has left, or said that it will."""
        ahead = self._ahead
        return self.request.transport is None or (ahead.done() and ahead.result().type not in _CONTENT)

    def arrival(self) -> asyncio.Future[Any]:
        """Done when there is a message to take, or the client has left. Not to be cancelled."""
        return self._ahead

    def take(self) -> bytes:
        """The text message that has arrived. Raises ClientLeft, InvalidRequest for a binary one."""
        if self.gone:
            raise ClientLeft
        message = self._ahead.result()
        self._ahead = self._readers.create_task(self._socket.receive())
        if message.type is WSMsgType.BINARY:
            raise InvalidRequest("Messages here are text.")
        data: bytes = message.data
        return data

    async def write(self, data: bytes, *, binary: bool = False) -> None:
        """Send a message; waits for as long as the client takes nothing. Raises ClientLeft."""
        try:
            await self._socket.send_frame(data, WSMsgType.BINARY if binary else WSMsgType.TEXT)
        except ConnectionError:
            raise ClientLeft from None

    async def farewell(self, data: bytes) -> None:
        """Send a last message, where the client takes it soon."""
        await self._within(FAREWELL_MS / 1000, self.write(data))

    async def close(self, code: int) -> None:
        """Say that it is over, and wait a moment for the answer; harmless to repeat."""
        await self._within(CLOSE_S, self._socket.close(code=code))

    async def _within(self, seconds: float, last_words: Awaitable[object]) -> None:
        """Try, and drop a client that takes nothing any more."""
        try:
            async with asyncio.timeout(seconds):
                await last_words
        except (TimeoutError, ClientLeft):
            self.cut()
        except asyncio.CancelledError:
            self.cut()
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled this: aiohttp keeps a wait for the client that was cancelled before (see relay.end_early).

    def cut(self) -> None:
        """Drop the connection, with what was not sent yet."""
        if self.request.transport is not None:
            self.request.transport.abort()
