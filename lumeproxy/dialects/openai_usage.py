"""What the two OpenAI dialects share: their usage object, their error shape, their service tiers.

https://platform.openai.com/docs/api-reference (2026-11). Input counts include what was read from and written to a cache;
reasoning is a part of the output. Written tokens come with their lifetime: 30 minutes counts as our short class (5m), 12
hours as the long one (1h).
"""

from __future__ import annotations

from typing import Any

from lumeproxy.core.types import Terms, Usage
from lumeproxy.dialects import base
from lumeproxy.dialects.base import Answer, Reading
from lumeproxy.errors import (
    AccountSuspended,
    BodyTooLarge,
    CallerError,
    LumeError,
    ModelNotFound,
    OutOfCredit,
    RateLimited,
    StoreUnavailable,
    Unauthorized,
    Unreachable,
)

PROMO_CHARS = 300  # of the text that Codex shows when the credit is out

_CODES: tuple[tuple[type[LumeError], str, str | None], ...] = (
    (Unauthorized, "invalid_request_error", "invalid_api_key"),
    (OutOfCredit, "usage_limit_reached", "usage_limit_reached"),
    (AccountSuspended, "permission_error", "account_suspended"),
    (ModelNotFound, "invalid_request_error", "model_not_found"),
    (RateLimited, "rate_limit_exceeded", "rate_limit_exceeded"),
    (BodyTooLarge, "invalid_request_error", "request_too_large"),
    (Unreachable, "server_error", "server_is_overloaded"),
    (StoreUnavailable, "server_error", "server_is_overloaded"),
)


def take(stated: object, reading: Reading) -> None:
    """Take over a usage object of either API; a number that is none is ignored and marked absurd."""
    if not isinstance(stated, dict):
        return
    number, known = base.number, reading.usage
    total_in = number(stated.get("input_tokens", stated.get("prompt_tokens")), reading)
    output = number(stated.get("output_tokens", stated.get("completion_tokens")), reading)
    details = _details(stated, "input_tokens_details", "prompt_tokens_details")
    cached = number(details.get("cached_tokens"), reading) or 0
    written = number(details.get("cache_write_tokens"), reading) or 0
    lifetimes = details.get("cache_write_tokens_details")
    long = number(lifetimes.get("ttl_12h_tokens"), reading) or 0 if isinstance(lifetimes, dict) else 0
    outputs = _details(stated, "output_tokens_details", "completion_tokens_details")
    reasoning = number(outputs.get("reasoning_tokens"), reading)
    if total_in is not None:
        if cached + written > total_in or long > written:
            reading.absurd = True
            cached = min(cached, total_in)
            written = min(written, total_in - cached)
            long = min(long, written)
        reading.usage = Usage(
            input_tokens=total_in - cached - written,
            cache_read_tokens=cached,
            cache_write_5m_tokens=written - long,
            cache_write_1h_tokens=long,
            output_tokens=base.larger(known.output_tokens, output, reading),
            reasoning_tokens=base.larger(known.reasoning_tokens, reasoning, reading),
            web_search_requests=known.web_search_requests,
        )
        if total_in < known.total_input_tokens:
            reading.absurd = True
            reading.usage = known
        reading.input_reported = True
    if output is not None:
        reading.output_reported = reading.output_final = True


def _details(stated: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        found = stated.get(name)
        if isinstance(found, dict):
            return found
    return {}


def tier(word: object) -> str:
    """A service tier as pricing knows it: "auto" and "default" are the plain price."""
    return word if isinstance(word, str) and word not in ("auto", "default", "") else "standard"


def take_tier(word: object, reading: Reading) -> None:
    """The tier at which the upstream served the call."""
    if isinstance(word, str) and word != "auto":
        reading.terms = Terms(service_tier=tier(word))


def error_object(error: LumeError) -> dict[str, object]:
    """OpenAI's error object."""
    known = next(((type_, code) for kind, type_, code in _CODES if isinstance(error, kind)), None)
    if known is None:
        known = ("invalid_request_error" if isinstance(error, CallerError) else "server_error"), error.code
    return {"message": error.message, "type": known[0], "param": None, "code": known[1]}


def error_answer(error: LumeError, request_id: str, *, codex: bool) -> Answer:
    """The error with the status and headers that OpenAI's clients, Codex above all, show best (design section 9)."""
    status, body = error.status, error_object(error)
    if isinstance(error, OutOfCredit):
        status = 429
    elif isinstance(error, AccountSuspended) and codex:
        # A 403 is tried six times; this shows the bare text after one.
        status = 400
        body["code"] = "invalid_prompt"
    answer = base.json_answer(status, {"error": body}, request_id, error)
    if isinstance(error, OutOfCredit):
        return Answer(
            answer.status, {**answer.headers, "x-codex-promo-message": _one_line(error.message)}, answer.chunks
        )
    return answer


def _one_line(text: str) -> str:
    # Codex puts ", or try again later." behind it.
    return "".join(c if " " <= c <= "~" else " " for c in text)[:PROMO_CHARS].rstrip(" .")


def session(headers: Any) -> tuple[str, str]:
    """Codex's session header, or opencode's; Codex names no agents."""
    found = headers.get("session-id") or headers.get("session_id") or headers.get("x-session-id") or ""
    return base.clean(found, base.SESSION_CHARS), ""
