"""The map of the API: every path, who serves it, and the one place that renders errors.

The dialect is known from the path before anything can fail. Must not know what the services behind do.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from lumeproxy import __version__
from lumeproxy.dialects.base import Dialect, Endpoint
from lumeproxy.errors import (
    CallerError,
    InvalidRequest,
    LumeError,
    NotFound,
    StoreUnavailable,
    UnsupportedEncoding,
)
from lumeproxy.logs import bug
from lumeproxy.proxy import answers
from lumeproxy.proxy.body import ClientGone
from lumeproxy.proxy.door import DIRECT
from lumeproxy.proxy.exchange import CALL_ID, Exchange, new_call_id
from lumeproxy.proxy.free import Counts, Models
from lumeproxy.proxy.incoming import printable
from lumeproxy.proxy.passage import CLIENT_CLOSED_STATUS
from lumeproxy.proxy.scripts import Scripts
from lumeproxy.proxy.websocket import WebSockets
from lumeproxy.store import accounts

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Service = Callable[[web.BaseRequest, Dialect, Endpoint], Awaitable[web.StreamResponse]]

# Users write the version twice: Claude Code adds /v1 to a base URL that already ends in it (wire.md section 1).
PREFIXES = ("/v1", "/v1/v1")

# A key that somebody wrote into a path is neither logged nor sent back.
_KEY_IN_PATH = re.compile(r"(?<![0-9A-Za-z])(lume_|sk-)[^/]*")

_HOME = (
    f"lumeproxy {__version__} is running.\n\n"
    "  POST /v1/messages            Anthropic Messages\n"
    "  POST /v1/responses           OpenAI Responses\n"
    "  POST /v1/chat/completions    OpenAI Chat Completions\n"
    "  GET  /v1/models              models your key may use\n\n"
    "  GET  /setup/claude-code.sh   set up Claude Code, codex.sh and opencode.sh the others (Windows: .ps1)\n"
)


class Site:
    """Routes and error answers; `hosts` are the Host names that are answered, None for any. `others` serve all methods of
    paths that are not the models' APIs. `pages` are the dashboard's routes; the page at / is for browsers, everything else
    gets a text there."""

    def __init__(
        self,
        *,
        exchange: Exchange,
        counts: Counts,
        models: Models,
        websockets: WebSockets,
        scripts: Scripts,
        hosts: frozenset[str] | None,
        others: Mapping[str, Handler] | None = None,
        pages: Iterable[tuple[str, str, Handler]] = (),
    ) -> None:
        self._exchange = exchange
        self._websockets = websockets
        self._counts = counts
        self._models = models
        self._scripts = scripts
        self._hosts = hosts
        self._pages = {(method, path): handler for method, path, handler in pages}
        self._front = self._pages.pop(("GET", "/"), None)
        self._others = others or {}
        self._clock = exchange.books.clock
        self._log = exchange.books.log

    def application(self, dialects: Sequence[Dialect]) -> web.Application:
        """The aiohttp application with every route."""
        app = web.Application(middlewares=[self._unrouted])

        def add(method: str, path: str, handler: Handler) -> None:
            app.router.add_route(method, path, handler, expect_handler=_expect)

        direct = app[DIRECT] = {}
        for dialect in dialects:
            for endpoint in dialect.endpoints:
                service: Service = self._exchange.serve if endpoint.billed else self._counts.serve
                for prefix in PREFIXES:
                    path, handler = prefix + endpoint.path, self._dialect_handler(service, dialect, endpoint)
                    direct[path] = handler
                    add("POST", path, handler)
        for prefix in PREFIXES:
            add("GET", prefix + "/responses", self._guarded(self._websocket))
            add("GET", prefix + "/models", self._guarded(self._models.serve))
            add("GET", prefix + "/models/{model:.+}", self._guarded(self._one_model))
        add("GET", "/setup/{script}", self._guarded(self._scripts.serve))
        add("HEAD", "/", self._guarded(self._ok, any_host=True))
        add("HEAD", "/api/hello", self._guarded(self._ok, any_host=True))
        add("GET", "/", self._guarded(self._home, any_host=True))
        add("GET", "/healthz", self._guarded(self._ok, any_host=True))
        add("GET", "/readyz", self._guarded(self._ready, any_host=True))
        for (method, path), handler in self._pages.items():
            add(method, path, self._guarded(handler))
        for path, handler in self._others.items():
            add("*", path, self._guarded(handler))
        add("*", "/{path:.*}", self._guarded(self._nothing_here))
        return app

    def _dialect_handler(
        self, service: Service, dialect: Dialect, endpoint: Endpoint, *, any_host: bool = False
    ) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            call_id = request[CALL_ID] = new_call_id(self._clock.now_ms())
            try:
                _check_framing(request)
                if not any_host:
                    self._check_host(request)
                return await service(request, dialect, endpoint)
            except ClientGone:
                return web.Response(status=CLIENT_CLOSED_STATUS)
            except LumeError as error:
                return self._failed(dialect, error, request, call_id)
            except Exception as error:
                bug(self._log, error, call_id)
                return answers.failed(dialect, _internal(call_id), request, call_id)

        return handle

    def _guarded(self, serve: Handler, *, any_host: bool = False) -> Handler:
        """A handler outside the dialects' own paths; errors take the shape of the caller's SDK. `any_host` for what
        says nothing that a foreign web page could use: health checks come under all sorts of names."""

        async def service(request: web.BaseRequest, _dialect: Dialect, _endpoint: Endpoint) -> web.StreamResponse:
            assert isinstance(request, web.Request)
            response = await serve(request)
            if not response.prepared:
                response.headers["request-id"] = response.headers["x-request-id"] = request[CALL_ID]
            return response

        async def handle(request: web.Request) -> web.StreamResponse:
            dialect = answers.dialect_of(request)
            endpoint = Endpoint(request.path, billed=False)
            return await self._dialect_handler(service, dialect, endpoint, any_host=any_host)(request)

        return handle

    @web.middleware
    async def _unrouted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What no route can match, such as CONNECT, gets our 404 and not aiohttp's."""
        if request.match_info.http_exception is None:
            return await handler(request)
        return await self._guarded(self._nothing_here)(request)

    def _failed(self, dialect: Dialect, error: LumeError, request: web.Request, call_id: str) -> web.Response:
        """An error before the hold: nothing was charged; one log line, no record."""
        write = self._log.error if isinstance(error, StoreUnavailable) else self._log.info
        self._exchange.books.tally.refused(error.code)
        write("refused", call=call_id, path=_shown_path(request), error=error.code)
        response = answers.failed(dialect, error, request, call_id)
        if isinstance(error, _BadFraming):
            response.force_close()
        return response

    def _check_host(self, request: web.Request) -> None:
        """Against DNS rebinding: a page in somebody's browser must not reach a proxy on loopback under its own name."""
        if self._hosts is None:
            return
        name = request.headers.get(hdrs.HOST, "").lower()
        host = name.rpartition(":")[0] if not name.endswith("]") and ":" in name else name
        if host not in self._hosts:
            raise _UnknownHost(
                "This proxy does not answer to that Host name. Its operator can add it to server.allowed_hosts."
            )

    async def _one_model(self, request: web.Request) -> web.StreamResponse:
        return await self._models.serve_one(request, request.match_info["model"])

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get(hdrs.UPGRADE, "").lower() == "websocket":
            return await self._websockets.serve(request)
        return await self._nothing_here(request)

    async def _nothing_here(self, request: web.Request) -> web.StreamResponse:
        raise NotFound(f"There is nothing at {request.method} {_shown_path(request)} here.")

    async def _ok(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text="ok\n")

    async def _home(self, request: web.Request) -> web.StreamResponse:
        if self._front is not None and "text/html" in request.headers.get(hdrs.ACCEPT, ""):
            self._check_host(request)
            return await self._front(request)
        return web.Response(text=_HOME)

    async def _ready(self, _request: web.Request) -> web.StreamResponse:
        """Whether the database takes writes: the thing that new calls need."""
        try:
            await self._exchange.books.database.write(accounts.probe)
        except LumeError as error:
            return web.Response(status=503, text=error.message + "\n", headers={"Retry-After": "5"})
        return web.Response(text="ready\n")


class _UnknownHost(CallerError):
    """A Host header that names somebody else's site."""

    status = 403
    code = "unknown_host"


class _BadFraming(InvalidRequest):
    """Where this request ends is a matter of opinion; nothing more is read from its connection."""


def _check_framing(request: web.Request) -> None:
    """Refuse what aiohttp's parser lets through although another server on the way might read it differently."""
    headers = request.headers
    if request.version not in (HttpVersion10, HttpVersion11):
        raise _BadFraming("This is not an HTTP/1.1 request.")
    if hdrs.TRANSFER_ENCODING in headers and (
        headers[hdrs.TRANSFER_ENCODING].lower() != "chunked" or request.version == HttpVersion10
    ):
        raise _BadFraming("The only transfer-encoding that is taken here is chunked, over HTTP/1.1.")
    if hdrs.CONTENT_ENCODING in headers and len(headers.getall(hdrs.CONTENT_ENCODING)) > 1:
        raise UnsupportedEncoding("The request has more than one content-encoding header; send one.")


async def _expect(_request: web.Request) -> None:
    """Nothing yet: whoever reads the body asks for it. Expectations other than 100-continue are ignored."""


def _shown_path(request: web.Request) -> str:
    return printable(_KEY_IN_PATH.sub(r"\1...", request.path))


def _internal(call_id: str) -> LumeError:
    return LumeError(f"Something went wrong inside this proxy. Tell your operator this id: {call_id}")
