"""What aiohttp does with requests that it cannot parse, made safe.

Its own answer quotes the offending line, and its own log writes the traceback: with a key in that line, both leak it
(measured, 27 of 40 odd requests). It also waits for a request's head as long as for the next request, and leaves the reader
of a body waiting whose framing breaks. There is no documented seam, so this one module swaps the class of the request
handler.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong, TransferEncodingError
from structlog.typing import FilteringBoundLogger

Handle = Callable[[Any], Awaitable[web.StreamResponse]]
# What an application serves by POST under a plain path; the router has the same, for all other spellings of it.
DIRECT = web.AppKey("direct", dict[str, Handle])

_TEXTS = {
    400: "This is not a valid HTTP request.\n",
    408: "The request did not arrive in time.\n",
    413: "The request is too large.\n",
    431: "The request's headers are too large.\n",
}


class _Handler(web.RequestHandler):  # type: ignore[type-arg,unused-ignore]
    """Answers malformed requests with a fixed text, and closes on a head that is not there in time."""

    __slots__ = ("_head_timer", "head_s")

    _head_timer: asyncio.TimerHandle | None
    head_s: float  # what a head may take

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The first head is due at once."""
        super().connection_made(transport)
        self._head_timer = self._loop.call_later(self.head_s, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nothing is due any more."""
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Watch over the head, and tell a body's reader when the parser has given up on its framing."""
        super().data_received(data)
        request = self._current_request
        if request is not None and self._messages and not request.content.is_eof():
            # Behind a body that is not complete, nothing can have been queued but the parser's error.
            request.content.set_exception(TransferEncodingError("broken"))
        if self._waiter is None or self._waiter.done():
            self._stop_head_timer()
        elif self._head_timer is None:
            self._head_timer = self._loop.call_later(self.head_s, self.force_close)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A short answer without anything of the request in it; the connection is closed."""
        kind = type(exc).__name__ if exc is not None else ""
        if isinstance(exc, LineTooLong):
            status = 431
        if status >= 500:
            self.logger.error("internal_error", error=kind)  # type: ignore[call-arg,unused-ignore]
        else:
            self.logger.info("malformed_request", status=status, error=kind)  # type: ignore[call-arg,unused-ignore]
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        response = web.Response(status=status, text=_TEXTS.get(status, "Something went wrong here.\n"))
        response.force_close()
        return response

    def log_exception(self, *args: object, **kwargs: object) -> None:
        """Keep aiohttp's own texts out of the log; the kind of error is all that is safe to say."""
        error = kwargs.get("exc_info")
        if isinstance(error, HttpProcessingError):  # a broken body that nobody reads any more
            self.logger.info("malformed_request", error=type(error).__name__)  # type: ignore[call-arg,unused-ignore]
            return
        self.logger.error("http_error", error=type(error).__name__)  # type: ignore[call-arg,unused-ignore]

    def log_debug(self, *args: object, **kwargs: object) -> None:
        """Nothing: debug texts of the HTTP layer may quote requests."""


class Runner(web.AppRunner):
    """An AppRunner whose connections are handled by _Handler, and whose application may name handlers for DIRECT paths."""

    def __init__(self, app: web.Application, log: FilteringBoundLogger, *, header_bytes: int, head_ms: int) -> None:
        self._head_s = head_ms / 1000
        self._direct = app.get(DIRECT, {})
        super().__init__(
            app,
            auto_decompress=False,
            access_log=None,
            handle_signals=False,
            handler_cancellation=False,
            keepalive_timeout=75,
            max_line_size=header_bytes,
            max_field_size=header_bytes,
            lingering_time=5,
            logger=log,
        )

    async def _make_server(self) -> web.Server:  # type: ignore[type-arg,unused-ignore]
        server = await super()._make_server()
        server.__class__ = _Server
        assert isinstance(server, _Server)
        server.head_s = self._head_s
        server.request_handler = _shortened(self._direct, server.request_handler)
        return server


def _shortened(direct: Mapping[str, Handle], routed: Handle) -> Handle:
    """Where the target is one of the direct paths as it stands, its handler, without the router's and the middlewares'
    coroutines around it (6 % of a call); all else goes the usual way."""

    def handle(request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        if request.method == "POST":
            handler = direct.get(request.raw_path.partition("?")[0])
            if handler is not None:
                return handler(request)
        return routed(request)

    return handle


class _Server(web.Server):  # type: ignore[type-arg,unused-ignore]
    """Makes our handler where aiohttp makes its own."""

    head_s: float

    def __call__(self) -> web.RequestHandler:  # type: ignore[type-arg,unused-ignore]
        handler = _Handler(self, loop=self._loop, **self._kwargs)
        handler.head_s = self.head_s
        return handler
