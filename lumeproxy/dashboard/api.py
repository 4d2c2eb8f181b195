"""The admin API over HTTP: from a request to an operation and back, by the table of routes. Every answer is JSON, every
error `{"error": {"code", "message"}}`. Must not know what the operations do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import web
from structlog.typing import FilteringBoundLogger

from lumeproxy.clock import Clock
from lumeproxy.dashboard import openapi, repeats
from lumeproxy.dashboard.adminkeys import AdminAuth
from lumeproxy.dashboard.operations import Operations
from lumeproxy.dashboard.recorded import Actor
from lumeproxy.dashboard.routes import PREFIX, Route, Who, allowed
from lumeproxy.errors import (
    BodyTimeout,
    BodyTooLarge,
    Forbidden,
    InvalidArguments,
    InvalidRequest,
    LumeError,
    MethodNotAllowed,
    NotFound,
    Unauthorized,
    UnsupportedEncoding,
)
from lumeproxy.logs import bug
from lumeproxy.store.database import Database

JSON = "application/json"
_NUMBER = re.compile(r"-?[0-9]{1,19}")
EXACT = 2**53  # up to here a float holds every whole number
_SAFE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


class Api:
    """Serves everything below PREFIX. `address` tells whom a request comes from, `body_bytes` and `body_idle_ms` limit what
    it may send."""

    def __init__(
        self,
        operations: Operations,
        database: Database,
        auth: AdminAuth,
        clock: Clock,
        log: FilteringBoundLogger,
        *,
        address: Callable[[web.BaseRequest], str],
        body_bytes: int,
        body_idle_ms: int,
    ) -> None:
        self._operations = operations
        self._database = database
        self._auth = auth
        self._clock = clock
        self._log = log
        self._address = address
        self._body_bytes = body_bytes
        self._body_idle_s = body_idle_ms / 1000
        self._document = msgspec.json.encode(openapi.document())
        self._page = openapi.page()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one request, whatever it is."""
        try:
            response = await self._answer(request)
        except LumeError as error:
            response = failed(error)
        except ConnectionError:  # the client left in the middle of its body; nobody reads this
            response = failed(InvalidRequest("The body broke off."))
        except Exception as error:
            bug(self._log, error, PREFIX)
            response = failed(LumeError("Something went wrong in the server; its log says where."))
        if not request.content.at_eof():
            response.force_close()  # the rest of the body was not read
        return response

    async def _answer(self, request: web.Request) -> web.Response:
        parts = _parts(request)
        if parts in ([], [""]):
            return self._public(request, self._page.encode(), "text/html", {"Content-Security-Policy": openapi.POLICY})
        if parts == ["openapi.json"]:
            return self._public(request, self._document, JSON, {})
        routes = allowed(parts)
        if not routes:
            raise NotFound("There is nothing at this path of the admin API; GET /api/v1/ lists what there is.")
        method = "GET" if request.method == "HEAD" else request.method
        if method not in routes:
            return _other_method(method, _methods(routes))
        route, values = routes[method]
        admin_key, text = await self._auth.caller(request.headers, self._address(request))
        if route.who is Who.CHANGE and not admin_key.may_change:
            raise Forbidden("This admin key only reads; the route changes something.")
        word = _idempotency_key(request) if route.repeatable else None
        arguments = {**await self._given(request, route), **values}
        replayed = False
        if word is None:
            answer = await self._operations.run(route.operation, arguments, Actor(f"api {admin_key.id}"))
        else:
            if "idempotency_key" in route.takes.__struct_fields__:
                # The ledger keeps it for ever, so that credit is given once also when the answer is forgotten.
                arguments["idempotency_key"] = f"{admin_key.id}:{word}"
            answer, replayed = await repeats.run_once(
                self._database, self._clock, self._operations, (admin_key.id, text), word, route.operation, arguments
            )
        if route.who is Who.CHANGE:
            self._log.info("operation", name=route.operation, admin_key=admin_key.id, replayed=replayed)
        shown = msgspec.convert(answer, route.answers)
        response = web.Response(status=route.status, body=msgspec.json.encode(shown), content_type=JSON, headers=_SAFE)
        if replayed:
            response.headers["idempotency-replayed"] = "true"
        return response

    def _public(self, request: web.Request, body: bytes, kind: str, more: dict[str, str]) -> web.Response:
        if request.method not in ("GET", "HEAD"):
            return _other_method(request.method, ["GET", "HEAD", "OPTIONS"])
        charset = "utf-8" if kind == "text/html" else None
        return web.Response(body=body, content_type=kind, charset=charset, headers={**_SAFE, **more})

    async def _given(self, request: web.Request, route: Route) -> dict[str, Any]:
        """The arguments beside the path. Raises InvalidArguments, and as `_body`."""
        try:
            if route.method == "GET":
                query = request.rel_url.query
                if len(set(query)) != len(query):
                    raise InvalidArguments("A parameter stands in the query more than once.")
                values = {n: int(v) if n in route.numbers and _NUMBER.fullmatch(v) else v for n, v in query.items()}
                given = msgspec.convert(values, route.given)
            else:
                # A change that needs nothing may come without a body.
                document = msgspec.json.decode(await self._body(request) or b"{}")
                given = msgspec.convert(_whole(document), route.given)
        except msgspec.ValidationError as error:
            raise InvalidArguments(f"{error}.") from None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise InvalidRequest("The body is not a JSON document.") from None
        found: dict[str, Any] = msgspec.to_builtins(given)
        return found

    async def _body(self, request: web.Request) -> bytes:
        """The body. Raises BodyTooLarge, BodyTimeout, UnsupportedEncoding."""
        if request.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
            raise UnsupportedEncoding("Send the body of a request to the admin API uncompressed.")
        too_large = BodyTooLarge(f"A request to the admin API has at most {self._body_bytes:,} bytes.")
        if request.content_length is not None and request.content_length > self._body_bytes:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_idle_s):
                async for piece in request.content.iter_any():
                    body += piece
                    if len(body) > self._body_bytes:
                        raise too_large
        except TimeoutError:
            raise BodyTimeout("The body did not arrive in time.") from None
        except web.RequestPayloadError:
            raise InvalidRequest("The body broke off.") from None
        return bytes(body)


def _whole(value: Any) -> Any:
    """A JSON value in which 5.0 is 5: the same number to JSON Schema. A float that may not be exact stays one."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= EXACT:
        return int(value)
    if isinstance(value, list):
        return [_whole(one) for one in value]
    if isinstance(value, dict):
        return {name: _whole(one) for name, one in value.items()}
    return value


def failed(error: LumeError) -> web.Response:
    """An error as this API says it."""
    body = msgspec.json.encode({"error": {"code": error.code, "message": error.message}})
    response = web.Response(status=error.status, body=body, content_type=JSON, headers=_SAFE)
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = 'Bearer realm="lumeproxy admin API"'
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def _parts(request: web.Request) -> list[str]:
    """The parts of the path below PREFIX. A name may hold any character, written as %2F and the like."""
    raw = request.rel_url.raw_path.removeprefix(PREFIX).removeprefix("/")
    try:
        return [unquote(part, errors="strict") for part in raw.split("/")]
    except UnicodeDecodeError:
        raise NotFound("The path is not UTF-8.") from None


def _methods(routes: dict[str, Any]) -> list[str]:
    return sorted({*routes, *(["HEAD"] if "GET" in routes else []), "OPTIONS"})


def _other_method(method: str, methods: list[str]) -> web.Response:
    headers = {"Allow": ", ".join(methods)}
    if method == "OPTIONS":
        return web.Response(status=204, headers={**_SAFE, **headers})
    response = failed(MethodNotAllowed(f"This path takes {headers['Allow']}."))
    response.headers.update(headers)
    return response


def _idempotency_key(request: web.Request) -> str | None:
    values = request.headers.getall("Idempotency-Key", [])
    if not values:
        return None
    word = values[0]
    if (
        len(values) > 1
        or not 0 < len(word) <= openapi.IDEMPOTENCY_CHARS
        or not all("!" <= char <= "~" for char in word)
    ):
        raise InvalidArguments(
            f"The Idempotency-Key must be one word of at most {openapi.IDEMPOTENCY_CHARS} printable ASCII characters."
        )
    return word
