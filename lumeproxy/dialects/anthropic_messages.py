"""Anthropic Messages: POST /v1/messages and /v1/messages/count_tokens.

https://docs.anthropic.com/en/api/messages and /messages-streaming (2026-11), and what was measured of its real clients.
Usage is stated twice in a stream: the input side in `message_start`, cumulative numbers in each `message_delta`.
`input_tokens` excludes what was read from or written to a cache.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from lumeproxy.core.types import Asked, Terms, Usage
from lumeproxy.dialects import base, echo
from lumeproxy.dialects.base import Answer, Endpoint, Mark, Reading
from lumeproxy.dialects.request import MODEL_CHARS, Facts, RequestReader, given
from lumeproxy.errors import (
    AccountSuspended,
    BodyTimeout,
    BodyTooLarge,
    CallerError,
    LumeError,
    ModelNotFound,
    NotFound,
    OutOfCredit,
    RateLimited,
    StoreUnavailable,
    Unauthorized,
    Unreachable,
)

# Tools that the client itself carries out; every other kind with a name is the provider's, which may read whole pages.
_CLIENT_TOOLS = ("custom", "bash_", "text_editor_", "computer_", "memory_")

_TYPES: tuple[tuple[type[LumeError], str], ...] = (
    (Unauthorized, "authentication_error"),
    (OutOfCredit, "billing_error"),
    (AccountSuspended, "permission_error"),
    (ModelNotFound, "not_found_error"),
    (NotFound, "not_found_error"),
    (RateLimited, "rate_limit_error"),
    (BodyTooLarge, "request_too_large"),
    (BodyTimeout, "timeout_error"),
    (Unreachable, "overloaded_error"),
    (StoreUnavailable, "overloaded_error"),
)


class _Facts(Facts, gc=False):
    max_tokens: int | None = None
    speed: str | None = None
    inference_geo: str | None = None


class _Part(msgspec.Struct, gc=False):
    type: str | None = None
    content: str | list[_Part] | None = None
    source: msgspec.Raw = msgspec.Raw()


class _Said(msgspec.Struct, gc=False):
    content: str | list[_Part] | None = None


class _Tool(msgspec.Struct, gc=False):
    type: str | None = None


class _Outline(_Facts, gc=False):
    system: str | list[_Part] | None = None
    messages: list[_Said] | None = None
    tools: list[_Tool] | None = None
    container: msgspec.Raw = msgspec.Raw()
    mcp_servers: msgspec.Raw = msgspec.Raw()


class _Delta(msgspec.Struct, gc=False):
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None


class _Block(msgspec.Struct, gc=False):
    text: str | None = None
    thinking: str | None = None
    input: msgspec.Raw = msgspec.Raw()


class _Message(msgspec.Struct, gc=False):
    model: str | None = None
    usage: dict[str, Any] | None = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int = 0
    delta: _Delta | None = None
    message: _Message | None = None
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


class _Whole(msgspec.Struct, gc=False):
    model: str | None = None
    usage: dict[str, Any] | None = None
    content: list[_Block] | None = None


_EVENT = msgspec.json.Decoder(_Event)
_WHOLE = msgspec.json.Decoder(_Whole)


class AnthropicReader:
    """Reads one Messages answer. `open_block` is the index of the content block now open, None between blocks."""

    def __init__(self, asked: Terms) -> None:
        self.reading = Reading()
        self._asked = asked
        self.open_block: int | None = None

    def event(self, data: bytes) -> Mark:
        """One event; the kind is taken from the JSON, which has it in every event."""
        try:
            event = _EVENT.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            tolerant = _tolerant(data)
            if tolerant is None:
                return Mark.NONE
            event = tolerant
        kind = event.type
        if kind == "content_block_delta":
            delta = event.delta
            if delta is not None:
                self.reading.output_chars += len(delta.text or delta.thinking or delta.partial_json or "")
            return Mark.NONE
        return self._rare(kind, event)

    def _rare(self, kind: str, event: _Event) -> Mark:
        if kind == "content_block_start":
            self.open_block = event.index
        elif kind == "content_block_stop":
            self.open_block = None
        elif kind == "message_start":
            if event.message is not None:
                self.reading.model_served = base.clean(event.message.model or "", MODEL_CHARS)
                self._take(event.message.usage)
        elif kind == "message_delta":
            self._take(event.usage, final=True)
        elif kind == "message_stop":
            return Mark.FINAL
        elif kind == "error":
            error = event.error or {}
            code = error.get("type")
            self.reading.error_code = base.clean(code, base.SESSION_CHARS) if isinstance(code, str) else "error"
            return Mark.FAILED
        return Mark.NONE

    def oversized(self, head: bytes, tail: bytes, size: int) -> Mark:
        """A block or delta beyond the limit: its length counts as output, nothing in it ends the stream."""
        self.reading.output_chars += size
        self.reading.truncated = True
        if b'"message_stop"' in head:
            return Mark.FINAL
        return Mark.NONE

    def whole(self, body: bytes) -> None:
        """A JSON answer."""
        try:
            answer = _WHOLE.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            found = base.loose_object(body)
            self.reading.truncated = not found
            model, usage = found.get("model"), found.get("usage")
            answer = _Whole(
                model=model if isinstance(model, str) else None, usage=usage if isinstance(usage, dict) else None
            )
            self.reading.output_chars += sum(map(len, base.texts(found.get("content"))))
        self.reading.model_served = base.clean(answer.model or "", MODEL_CHARS)
        self._take(answer.usage, final=True)
        for block in answer.content or ():
            self.reading.output_chars += len(block.text or block.thinking or "") + len(given(block.input))

    def _take(self, stated: dict[str, Any] | None, *, final: bool = False) -> None:
        """Take over what a usage object states; a side that it does not mention stays as it was."""
        if not stated:
            return
        reading, known = self.reading, self.reading.usage
        number = base.number
        fresh = number(stated.get("input_tokens"), reading)
        read = number(stated.get("cache_read_input_tokens"), reading)
        written = number(stated.get("cache_creation_input_tokens"), reading)
        five, hour = _split(stated.get("cache_creation"), written, known, reading)
        output = number(stated.get("output_tokens"), reading)
        details = stated.get("output_tokens_details")
        thinking = number(details.get("thinking_tokens"), reading) if isinstance(details, dict) else None
        tools = stated.get("server_tool_use")
        searches = number(tools.get("web_search_requests"), reading) if isinstance(tools, dict) else None
        reading.usage = Usage(
            input_tokens=base.larger(known.input_tokens, fresh, reading),
            cache_read_tokens=base.larger(known.cache_read_tokens, read, reading),
            cache_write_5m_tokens=base.larger(known.cache_write_5m_tokens, five, reading),
            cache_write_1h_tokens=base.larger(known.cache_write_1h_tokens, hour, reading),
            output_tokens=base.larger(known.output_tokens, output, reading),
            reasoning_tokens=base.larger(known.reasoning_tokens, thinking, reading),
            web_search_requests=base.larger(known.web_search_requests, searches, reading),
        )
        reading.input_reported = reading.input_reported or fresh is not None or read is not None
        if output is not None:
            reading.output_reported = True
            reading.output_final = reading.output_final or final
        self._take_terms(stated)

    def _take_terms(self, stated: dict[str, Any]) -> None:
        words = {name: stated[name] for name in Terms.__slots__ if isinstance(stated.get(name), str)}
        if words:
            # What the answer does not state was served as asked.
            self.reading.terms = replace(self.reading.terms or self._asked, **words)


def _split(detail: object, written: int | None, known: Usage, reading: Reading) -> tuple[int | None, int | None]:
    """Written tokens by lifetime. The split stands in message_start and is missing from later totals: a total that has
    not grown keeps it, and what no lifetime accounts for counts as 5 minutes."""
    five = hour = None
    if isinstance(detail, dict):
        five = base.number(detail.get("ephemeral_5m_input_tokens"), reading)
        hour = base.number(detail.get("ephemeral_1h_input_tokens"), reading)
    if written is None:
        return five, hour
    if five is None and hour is None:
        return (max(known.cache_write_5m_tokens, written - known.cache_write_1h_tokens), None)
    return max(five or 0, written - (hour or 0)), hour


def _tolerant(data: bytes) -> _Event | None:
    """An event in which some field is of a kind that nobody foresaw; the other fields still count."""
    loose = base.loose_object(data)
    if not loose:
        return None
    event = _Event(delta=_Delta(text="".join(base.texts(loose.get("delta")))))
    if isinstance(loose.get("type"), str):
        event.type = loose["type"]
    if isinstance(loose.get("index"), int):
        event.index = loose["index"]
    for name in ("usage", "error"):
        if isinstance(loose.get(name), dict):
            setattr(event, name, loose[name])
    message = loose.get("message")
    if isinstance(message, dict):
        model, usage = message.get("model"), message.get("usage")
        event.message = _Message(model if isinstance(model, str) else None, usage if isinstance(usage, dict) else None)
    return event


class AnthropicMessages:
    """The dialect."""

    name = "anthropic_messages"
    endpoints = (Endpoint("/messages", billed=True), Endpoint("/messages/count_tokens", billed=False))
    terminal_markers = (b"message_stop", b'"error"')

    def __init__(self) -> None:
        self._requests: RequestReader[_Facts] = RequestReader(_Facts, _Outline)

    def ask(self, body: bytes) -> Asked:
        """Facts of a request; everything else is the upstream's to judge."""
        request = self._requests.read(body)
        sources = _sources(request) if isinstance(request, _Outline) else []
        return Asked(
            model=str(request.model),
            stream=bool(request.stream),
            max_output_tokens=request.max_tokens,
            terms=Terms(
                service_tier="standard",  # "auto" may be served at either; the reply says which, and is charged by it
                speed=request.speed or "standard",
                inference_geo=request.inference_geo or "",
            ),
            refers_elsewhere=not isinstance(request, _Outline) or _refers_elsewhere(request, sources),
            has_attachments=not isinstance(request, _Outline) or bool(sources),
        )

    def to_upstream(self, body: bytes, asked: Asked, upstream_model: str | None) -> bytes:
        """The body, with another model's name where the route has one."""
        return base.with_model(body, upstream_model)

    def reader(self, asked: Asked) -> AnthropicReader:
        """A reader for one answer."""
        return AnthropicReader(asked.terms)

    def stripper(self, asked: Asked) -> None:
        """Nothing is added to requests, so nothing is to be taken out."""
        return None

    def error(self, error: LumeError, request_id: str, *, codex: bool = False) -> Answer:
        """The error in Anthropic's shape."""
        body = {
            "type": "error",
            "error": {"type": _type(error), "message": error.message},
            "request_id": request_id,
        }
        return base.json_answer(error.status, body, request_id, error)

    def ending(self, error: LumeError, reader: base.Reader) -> bytes:
        """Close the open block, then say why: inside an open block Claude Code would send the whole call again."""
        out = b""
        if isinstance(reader, AnthropicReader) and reader.open_block is not None:
            stop = {"type": "content_block_stop", "index": reader.open_block}
            out = base.sse(stop, "content_block_stop")
        return out + base.sse({"type": "error", "error": {"type": _type(error), "message": error.message}}, "error")

    def session(self, headers: Mapping[str, str]) -> tuple[str, str]:
        """Claude Code's ids, or opencode's session."""
        session = headers.get("x-claude-code-session-id") or headers.get("x-session-id") or ""
        agent = headers.get("x-claude-code-agent-id") or ""
        return base.clean(session, base.SESSION_CHARS), base.clean(agent, base.SESSION_CHARS)

    def count(self, tokens: int, request_id: str) -> Answer:
        """The answer of count_tokens."""
        return base.json_answer(200, {"input_tokens": tokens}, request_id)

    def request_texts(self, body: bytes) -> list[str]:
        """System prompt, messages and tools; a tool's schema counts as its JSON text."""
        request = base.loose_object(body)
        found = base.texts(request.get("system")) + base.texts(request.get("messages"))
        tools = request.get("tools")
        if tools:
            found.append(json.dumps(tools))
        return found

    def echo(self, body: bytes, asked: Asked, answer_id: str, created_s: int, path: str) -> Answer:
        """The stand-in's answer; all input counts as uncached."""
        tokens = sum(echo.tokens(text) for text in self.request_texts(body))
        if path.endswith("/count_tokens"):
            return Answer(200, echo.HEADERS, (msgspec.json.encode({"input_tokens": tokens}),))
        said = echo.said(echo.newest_user_text(base.loose_object(body).get("messages")))
        return echo.anthropic_messages(asked, answer_id, said, tokens)


def _sources(request: _Outline) -> list[bytes]:
    """Where images and documents come from, those inside tool results included."""
    found: list[bytes] = []
    stack = [said.content for said in request.messages or ()]
    stack.append(request.system)
    while stack:
        content = stack.pop()
        if content is None or isinstance(content, str):
            continue
        for part in content:
            source = given(part.source)
            if source:
                found.append(source)
            elif part.type == "container_upload":
                found.append(b'{"type":"file"}')
            if part.content is not None:
                stack.append(part.content)
    return found


def _refers_elsewhere(request: _Outline, sources: list[bytes]) -> bool:
    """Whether the provider may read more than the request's bytes: URLs, files, its own tools."""
    if given(request.container) or given(request.mcp_servers):
        return True
    if any(tool.type is not None and not tool.type.startswith(_CLIENT_TOOLS) for tool in request.tools or ()):
        return True
    return any(base.loose_object(source).get("type") not in ("base64", "text", "content") for source in sources)


def _type(error: LumeError) -> str:
    for kind, name in _TYPES:
        if isinstance(error, kind):
            return name
    return "invalid_request_error" if isinstance(error, CallerError) else "api_error"
