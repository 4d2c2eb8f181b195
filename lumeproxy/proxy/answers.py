"""From an answer composed by a dialect to aiohttp's response, in one place. Must not decide anything."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from lumeproxy.core.headers import for_client
from lumeproxy.dialects import DIALECTS
from lumeproxy.dialects.base import Answer, Dialect
from lumeproxy.errors import LumeError
from lumeproxy.proxy.incoming import printable

CALL_ID_HEADER = "x-lume-call-id"
REQUEST_IDS = ("request-id", "x-request-id")  # Anthropic's and OpenAI's name for it; every answer carries both
_SURROGATE = re.compile(r"[\ud800-\udfff]")  # which stands for a byte that could not be decoded


class Headed(Protocol):
    """Whatever came with headers: a reply, or an opened WebSocket."""

    headers: Sequence[tuple[str, str]]


def request_id(reply: Headed) -> str:
    """The provider's own id of the request, "" when it names none."""
    return next((printable(value) for name, value in reply.headers if name.lower() in REQUEST_IDS), "")


def headers_for_client(reply: Headed, call_id: str) -> list[tuple[str, str]]:
    """The upstream's headers that pass, both request ids, ours. One whose bytes are not UTF-8 can't be written again as
    it came, and is left out."""
    headers = [(name, value) for name, value in for_client(reply.headers) if not _SURROGATE.search(value)]
    names = {name.lower() for name, _ in headers}
    if not names.issuperset(REQUEST_IDS):
        own = request_id(reply) or call_id
        headers += [(name, own) for name in REQUEST_IDS if name not in names]
    headers.append((CALL_ID_HEADER, call_id))
    return headers


def render(answer: Answer, **more: str) -> web.Response:
    """A complete response; `more` are extra headers with `_` for `-`."""
    headers = dict(answer.headers)
    headers.update({name.replace("_", "-"): value for name, value in more.items()})
    return web.Response(status=answer.status, headers=headers, body=b"".join(answer.chunks))


def is_codex(request: web.BaseRequest) -> bool:
    """Whether the client is Codex, which says so in its `originator` header."""
    return request.headers.get("originator", "").startswith("codex")


def failed(dialect: Dialect, error: LumeError, request: web.BaseRequest, call_id: str) -> web.Response:
    """The error as the caller's dialect says it."""
    response = render(dialect.error(error, call_id, codex=is_codex(request)), x_lume_call_id=call_id)
    if not request.content.at_eof():
        # The rest of the body was not read; the connection can't be used for another request.
        response.force_close()
    return response


def dialect_of(request: web.BaseRequest) -> Dialect:
    """The dialect of a request whose path names none: Anthropic's clients send `anthropic-version`."""
    wanted = "anthropic_messages" if "anthropic-version" in request.headers else "openai_responses"
    return next(dialect for dialect in DIALECTS if dialect.name == wanted)
