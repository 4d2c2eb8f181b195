"""Asks an upstream for its list of models, and learns from the answer whether it can be reached, whether it takes the
operator's credential, what models it has, and what time it is there.

GET {base}/models, the one question that costs nothing: https://docs.anthropic.com/en/api/models-list and
https://platform.openai.com/docs/api-reference/models/list (2026-11). A provider that has no such list (404) can be reached,
its credential is not checked; one that gives its list to anybody (OpenRouter, most local servers) does not check it either,
so that an accepted question is asked once more without the credential. Nothing of an answer is kept but the models' names;
an error is told in our own words. For `doctor`, and for whoever wants to know what an upstream has.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from lumeproxy.clock import Clock
from lumeproxy.upstreams import anthropic
from lumeproxy.upstreams.base import CutShort
from lumeproxy.upstreams.http import HttpReply, HttpUpstream

PATH = "/models"
# What each kind needs besides its credential; Anthropic lists 20 models a page unless asked for more.
_QUERY = {anthropic.KIND: "limit=1000"}
_HEADERS: dict[str, Sequence[tuple[str, str]]] = {anthropic.KIND: (("anthropic-version", "2023-06-01"),)}
MOST_MODELS = 10_000
NAME_CHARS = 256  # a longer name, or one that can't be printed, is no model's
_REFUSED = frozenset({401, 402, 403})  # the operator's credential, or the balance behind it
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What came of it.

    `reachable`: it spoke HTTP with us; `status` is what it answered. `credential_ok` is None where it was not checked,
    `models` None where the answer was no list. `date_ms` is the time there by its Date header, `at_ms` the time here at
    that moment; `latency_ms` until its headers came. `redirects_to` is an origin, "" where there is none. `error` is a
    clause without a full stop and without anything that the upstream said, "" when all went well.
    """

    reachable: bool
    status: int | None = None
    credential_ok: bool | None = None
    models: tuple[str, ...] | None = None
    latency_ms: int | None = None
    date_ms: int | None = None
    at_ms: int
    redirects_to: str = ""
    error: str = ""


async def probe(
    upstream: HttpUpstream, clock: Clock, *, timeout_ms: int, body_bytes: int, credential: int = 1
) -> Probe:
    """Ask an upstream with its credential of that number, within `timeout_ms` for each of at most two questions and
    reading at most `body_bytes`.

    Never raises for what an upstream does.
    """
    found = await _asked(upstream, clock, timeout_ms, body_bytes, credential)
    if found.status != 200 or found.models is None:
        return found
    bare = await _asked(upstream, clock, timeout_ms, body_bytes, None)
    # Only a plain refusal says that the first answer was for the credential's sake.
    return replace(found, credential_ok=True if bare.status in _REFUSED else None)


async def _asked(
    upstream: HttpUpstream, clock: Clock, timeout_ms: int, body_bytes: int, credential: int | None
) -> Probe:
    began_ms = clock.monotonic_ms()
    found: Probe | None = None
    query, headers = _QUERY.get(upstream.kind, ""), _HEADERS.get(upstream.kind, ())
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            reply = await upstream.get(PATH, query, headers, credential)
            try:
                found = _judged(reply, at_ms=clock.now_ms(), latency_ms=clock.monotonic_ms() - began_ms)
                if found.status != 200:
                    return found
                body = await _body(reply, body_bytes)
            finally:
                reply.close()
    except (aiohttp.ClientError, OSError, CutShort) as error:  # a TimeoutError is an OSError
        if found is None:
            return Probe(reachable=False, at_ms=clock.now_ms(), error=why(error, timeout_ms))
        return replace(found, error="it broke off its list of models")
    models = None if body is None or reply.encoding else model_names(body)
    return replace(found, models=models, error="" if models is not None else "what it answered is no list of models")


def _judged(reply: HttpReply, *, at_ms: int, latency_ms: int) -> Probe:
    """What status and headers say."""
    status, error, redirects_to = reply.status, "", ""
    named = {name.lower(): value for name, value in reply.headers}
    if status in _REDIRECTS:
        redirects_to = _origin(named.get("location", ""))
        error = "it redirects, which is not followed"
    elif status != 200:
        error = f"it answers {status}"
    return Probe(
        reachable=True,
        status=status,
        credential_ok=False if status in _REFUSED else None,
        latency_ms=latency_ms,
        # A cache's answer carries the time at which it was made.
        date_ms=None if named.get("age", "0") != "0" else date_ms(named.get("date", "")),
        at_ms=at_ms,
        redirects_to=redirects_to,
        error=error,
    )


async def _body(reply: HttpReply, limit_bytes: int) -> bytes | None:
    """The whole body, None where it is too long. Raises CutShort."""
    body = bytearray()
    while piece := await reply.read():
        body += piece
        if len(body) > limit_bytes:
            return None
    return bytes(body)


def model_names(body: bytes) -> tuple[str, ...] | None:
    """The names in a list of models, in its order, each once; None for what is none. Takes a bare array too, as some
    compatible servers send it."""
    try:
        tree: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    items = tree.get("data") if isinstance(tree, dict) else tree
    if not isinstance(items, list):
        return None
    names = (item.get("id") for item in items[:MOST_MODELS] if isinstance(item, dict))
    return tuple(dict.fromkeys(n for n in names if isinstance(n, str) and 0 < len(n) <= NAME_CHARS and n.isprintable()))


def date_ms(header: str) -> int | None:
    """A Date header as epoch milliseconds, None for what is none."""
    try:
        found = parsedate_to_datetime(header)
    except (ValueError, IndexError, OverflowError):
        return None
    known = found if found.tzinfo is not None else found.replace(tzinfo=datetime.UTC)
    return int(known.timestamp()) * 1000


def why(error: BaseException, timeout_ms: int) -> str:
    """Why there is no answer, in a clause."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            reason = getattr(error.certificate_error, "verify_message", "")
            return f"its certificate is not trusted: {reason}" if reason else "its certificate is not trusted"
        case aiohttp.ClientConnectorDNSError():
            return f"the name {error.host} can't be resolved"
        case aiohttp.ClientConnectorSSLError() | ssl.SSLError():
            return "it does not speak TLS as we do; is https right?"
        case aiohttp.ConnectionTimeoutError():
            return "can't connect: nobody answers"
        case aiohttp.ClientConnectorError():
            # asyncio's own texts name the address; of several addresses that all fail, it tells no number.
            number = error.os_error.errno
            return f"can't connect: {os.strerror(number) if number else 'none of its addresses answers'}"
        case TimeoutError():
            return f"no answer within {timeout_ms / 1000:g} s"
        case aiohttp.ServerDisconnectedError() | ConnectionError():
            return "it closed the connection without an answer"
        case _:
            return "its answer is no HTTP"


def _origin(location: str) -> str:
    """Scheme, host and port of an address, "" for what is none; the rest is not ours to show."""
    try:
        url = URL(location)
        return str(url.origin()) if url.absolute and url.host else ""
    except ValueError:
        return ""
