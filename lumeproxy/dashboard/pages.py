"""The pages' one way in: who is it, may they, is the form ours; and the one way out: headers, errors as pages.

Every route of the table passes through `_serve`, so that no page can forget a guard. Must not know what a page shows.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from urllib.parse import parse_qsl, quote

from aiohttp import hdrs, web

from lumeproxy.dashboard import tokens
from lumeproxy.dashboard.route import Access, Route
from lumeproxy.dashboard.tokens import SESSION_COOKIE, VISIT_COOKIE
from lumeproxy.dashboard.visit import HEADERS, Desk, Visit
from lumeproxy.errors import BodyTimeout, BodyTooLarge, CallerError, InvalidRequest, LumeError
from lumeproxy.logs import bug
from lumeproxy.store import sessions

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

FORM_BYTES = 65_536
FORM_FIELDS = 100
FORM_S = 20
# A session's last use is written down at most so often.
TOUCH_MS = 600_000

_FOR_EVER = "public, max-age=31536000, immutable"


class NotYours(CallerError):
    """A page that this session may not see, or a form that does not come from a page of ours."""

    status = 403
    code = "forbidden"


class _SignIn(CallerError):
    """Nobody is signed in."""

    status = 401
    code = "not_signed_in"


class Pages:
    """Serves a table of routes."""

    def __init__(self, desk: Desk, table: Sequence[Route]) -> None:
        self._desk = desk
        self.table = table
        # Pages link to what there is.
        desk.renderer.offer({route.path for route in table if route.method == "GET"})

    def handlers(self) -> Iterator[tuple[str, str, Handler]]:
        """Method, path and handler of every route, and of the static files."""
        for route in self.table:
            yield route.method, route.path, partial(self._serve, route)
        yield "GET", "/static/{name}", self._static

    def end(self) -> None:
        """End what would run on: the server stops."""
        self._desk.ending.set()

    async def _static(self, request: web.Request) -> web.StreamResponse:
        file = self._desk.renderer.files.get(request.match_info["name"])
        if file is None:
            return web.Response(status=404, text="There is no such file.\n", headers=HEADERS)
        cached = {"Cache-Control": _FOR_EVER if request.query_string else "no-cache"}
        return web.Response(body=file.body, content_type=file.content_type, charset="utf-8", headers=HEADERS | cached)

    async def _serve(self, route: Route, request: web.Request) -> web.StreamResponse:
        visit = Visit(self._desk, request, "")
        try:
            response = await self._answered(route, visit)
        except LumeError as error:
            response = self._failed(visit, error)
        except Exception as error:
            bug(self._desk.log, error, f"page {route.method} {route.path}")
            response = self._failed(
                visit, LumeError("Something went wrong in the server; its operator finds it in the log.")
            )
        if not response.prepared:
            visit.harden(response)
        return response

    async def _answered(self, route: Route, visit: Visit) -> web.StreamResponse:
        new_token = await self._recognise(visit)
        if route.method == "POST":
            visit.form = await _form(visit.request)
            sent, expected = visit.form.pop("token", ""), tokens.form_token(visit.token)
            if not tokens.is_own_form(visit.request.headers, visit.base_url, sent, expected):
                raise NotYours(
                    "This form has grown old, or does not come from here. Go back, reload the page, try again."
                )
        turned_away = self._guard(route, visit)
        response = turned_away or await route.serve(visit)
        if new_token and not response.prepared:
            tokens.put(response, VISIT_COOKIE, visit.token, secure=self._desk.rules.secure)
        return response

    async def _recognise(self, visit: Visit) -> bool:
        """Find out who it is; whether a browser that nobody knows was given a token of its own."""
        secure = self._desk.rules.secure
        now_ms = visit.now_ms
        token = tokens.read(visit.request, SESSION_COOKIE, secure=secure)
        if token:
            digest = tokens.digest(token)
            found = await visit.read(sessions.find, digest, now_ms)
            if found is not None:
                visit.token, (visit.session, visit.person) = token, found
                if now_ms - visit.session.seen_ms > TOUCH_MS:
                    await self._desk.database.write(sessions.touch, digest, now_ms)
                return False
        visit.token = tokens.read(visit.request, VISIT_COOKIE, secure=secure)
        if visit.token:
            return False
        visit.token = os.urandom(tokens.TOKEN_BYTES).hex()
        return True

    def _guard(self, route: Route, visit: Visit) -> web.Response | None:
        """Turn away whoever may not see the page; None for whoever may."""
        if route.access is Access.OPEN:
            return None
        if visit.person is None:
            if route.method != "GET":
                raise _SignIn("You are not signed in any more. Sign in and try again.")
            return visit.to("/sign-in?next=" + quote(visit.request.path_qs, safe="/"))
        if visit.person.status != "active" and route.access is not Access.SIGNED_IN:
            reason = f": {visit.person.reason}" if visit.person.reason else "."
            raise NotYours(f"This account is {visit.person.status}{reason}")
        if route.access is Access.SIGNED_IN:
            return None
        if visit.person.accepted != self._desk.texts.version:
            return visit.to("/accept")
        if route.access is Access.OPERATOR and not visit.operates:
            raise NotYours(
                "These pages are the operator's. Sign in with your password or a link; an API key is not enough for them."
                if visit.person.is_admin
                else "These pages are the operator's."
            )
        return None

    def _failed(self, visit: Visit, error: LumeError) -> web.Response:
        response = visit.page("error.html", status=error.status, message=error.message, status_code=error.status)
        if error.retry_after_s is not None:
            response.headers[hdrs.RETRY_AFTER] = str(error.retry_after_s)
        if not visit.request.content.at_eof():
            response.force_close()
        return response


async def _form(request: web.Request) -> dict[str, str]:
    """The fields of a form. Raises for one that is too large, does not arrive, or is no form."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise InvalidRequest("This is not a form.")
    body = bytearray()
    try:
        async with asyncio.timeout(FORM_S):
            async for piece in request.content.iter_any():
                body += piece
                if len(body) > FORM_BYTES:
                    raise BodyTooLarge("This form is too large.")
    except TimeoutError:
        raise BodyTimeout("The form did not arrive.") from None
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FORM_FIELDS)
    except (UnicodeDecodeError, ValueError):
        raise InvalidRequest("This is not a form.") from None
    return {name: value.replace("\x00", "") for name, value in fields}
