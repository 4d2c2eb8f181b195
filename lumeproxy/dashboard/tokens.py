"""The secrets of a browser: its session's token, the form's token that follows from it, and the cookies that hold them.

A form's token is a digest of the cookie's value: another site can send the cookie along but can't read it, so it can't
know the token. (OWASP, Cross-Site Request Forgery Prevention, 2026-11: session-bound token beside an Origin check.)
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from aiohttp import web

TOKEN_BYTES = 32
SESSION_COOKIE = "lume_session"
VISIT_COOKIE = "lume_visit"  # of a browser that is not signed in yet, for the forms that it signs in by
_HOST = "__Host-"
_HEX = frozenset("0123456789abcdef")


def cookie_name(name: str, *, secure: bool) -> str:
    """The cookie's full name: behind TLS, a prefix that browsers take from this very host over TLS only."""
    return _HOST + name if secure else name


def read(request: web.BaseRequest, name: str, *, secure: bool) -> str:
    """The token in a cookie, "" for none or what can't be one."""
    text = request.cookies.get(cookie_name(name, secure=secure), "")
    return text if len(text) == 2 * TOKEN_BYTES and _HEX.issuperset(text) else ""


def put(response: web.StreamResponse, name: str, token: str, *, secure: bool, seconds: int | None = None) -> None:
    """Give a browser a token; without `seconds`, until it is closed."""
    response.set_cookie(
        cookie_name(name, secure=secure), token, max_age=seconds, path="/", secure=secure, httponly=True, samesite="Lax"
    )


def drop(response: web.StreamResponse, name: str, *, secure: bool) -> None:
    """Take a token away from a browser."""
    response.del_cookie(cookie_name(name, secure=secure), path="/", secure=secure, httponly=True, samesite="Lax")


def digest(token: str) -> bytes:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).digest()


def form_token(token: str) -> str:
    """The token of the forms on pages that were shown to the holder of a cookie, "" where there is none."""
    return hashlib.sha256(b"form:" + token.encode()).hexdigest() if token else ""


def is_own_form(headers: Mapping[str, str], own_url: str, sent: str, expected: str) -> bool:
    """Whether a form comes from a page of ours: by its token, and by what the browser says of its origin. Only the host is
    compared, since a proxy in front may not say that it ends TLS."""
    site = headers.get("Sec-Fetch-Site", "same-origin")
    origin = headers.get("Origin")
    if site != "same-origin" or (origin is not None and _host(origin) != _host(own_url)):
        return False
    return bool(expected) and hmac.compare_digest(sent.encode("utf-8", "replace"), expected.encode())


def _host(url: str) -> str:
    """What follows the scheme, of an address without a path."""
    return url.partition("://")[2]
