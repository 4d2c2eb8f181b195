"""From an answer composed by a dialect to aiohttp's response, in one place. Must not decide anything."""

from __future__ import annotations

from aiohttp import web

from lumeproxy.dialects import DIALECTS
from lumeproxy.dialects.base import Answer, Dialect
from lumeproxy.errors import LumeError

CALL_ID_HEADER = "x-lume-call-id"


def render(answer: Answer, **more: str) -> web.Response:
    """A complete response; `more` are extra headers with `_` for `-`."""
    headers = dict(answer.headers)
    headers.update({name.replace("_", "-"): value for name, value in more.items()})
    return web.Response(status=answer.status, headers=headers, body=b"".join(answer.chunks))


def failed(dialect: Dialect, error: LumeError, request: web.BaseRequest, call_id: str) -> web.Response:
    """The error as the caller's dialect says it; a Codex client is told by its `originator` header."""
    codex = request.headers.get("originator", "").startswith("codex")
    response = render(dialect.error(error, call_id, codex=codex), x_lume_call_id=call_id)
    if not request.content.at_eof():
        # The rest of the body was not read; the connection can't be used for another request.
        response.force_close()
    return response


def dialect_of(request: web.BaseRequest) -> Dialect:
    """The dialect of a request whose path names none: Anthropic's clients send `anthropic-version`."""
    wanted = "anthropic_messages" if "anthropic-version" in request.headers else "openai_responses"
    return next(dialect for dialect in DIALECTS if dialect.name == wanted)
