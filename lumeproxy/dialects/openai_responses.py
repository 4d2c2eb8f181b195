"""OpenAI Responses: POST /v1/responses, the only API that Codex speaks.

https://platform.openai.com/docs/api-reference/responses (2026-11). Usage comes once, in the last event, which repeats the
whole answer and may be megabytes long. `response.failed` and a bare `error` end a stream without an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from lumeproxy.core.types import Asked, Terms
from lumeproxy.dialects import base, echo, openai_usage
from lumeproxy.dialects.base import Answer, Endpoint, Mark, Reading
from lumeproxy.dialects.request import MODEL_CHARS, Facts, RequestReader, any_attached, given, links
from lumeproxy.errors import InvalidRequest, LumeError

# Tools that the client itself carries out; every other kind is the provider's, which may read whole pages.
_CLIENT_TOOLS = frozenset({"function", "custom", "local_shell", "shell", "apply_patch", "namespace"})
_LAST = {"response.completed": Mark.FINAL, "response.incomplete": Mark.FINAL, "response.failed": Mark.FAILED}


class _Facts(Facts, gc=False):
    max_output_tokens: int | None = None
    service_tier: str | None = None
    background: bool | None = None


class _Part(msgspec.Struct, gc=False):
    type: str | None = None
    image_url: msgspec.Raw = msgspec.Raw()
    file_id: msgspec.Raw = msgspec.Raw()
    file_url: msgspec.Raw = msgspec.Raw()


class _Given(msgspec.Struct, gc=False):
    type: str | None = None
    content: str | list[_Part] | None = None
    output: str | list[_Part] | _Part | None = None


class _Tool(msgspec.Struct, gc=False):
    type: str | None = None


class _Outline(_Facts, gc=False):
    input: str | list[_Given] | None = None
    tools: list[_Tool] | None = None
    previous_response_id: str | None = None
    conversation: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()


class _Item(msgspec.Struct, gc=False):
    type: str | None = None


class _Response(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    usage: dict[str, Any] | None = None
    service_tier: str | None = None
    error: dict[str, Any] | None = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    sequence_number: int = 0
    delta: str | None = None
    item: _Item | None = None
    response: _Response | None = None
    code: str | None = None
    error: dict[str, Any] | None = None  # over a WebSocket the code stands in here


_EVENT = msgspec.json.Decoder(_Event)
_RESPONSE = msgspec.json.Decoder(_Response)


class ResponsesReader:
    """Reads one Responses answer; keeps its id and the last sequence number for an early ending."""

    def __init__(self) -> None:
        self.reading = Reading()
        self.response_id = ""
        self.sequence = -1

    def event(self, data: bytes) -> Mark:
        """One event; the kind is taken from the JSON, which has it in every event."""
        try:
            event = _EVENT.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            tolerant = _tolerant(data)
            if tolerant is None:
                return Mark.NONE
            event = tolerant
        self.sequence = max(self.sequence, event.sequence_number)
        if event.delta is not None:
            self.reading.output_chars += len(event.delta)
            return Mark.NONE
        return self._rare(event)

    def _rare(self, event: _Event) -> Mark:
        kind = event.type
        if kind == "response.output_item.done":
            if event.item is not None and event.item.type == "web_search_call":
                self._count_search()
        elif kind == "error":
            self.reading.error_code = _code(event.code or (event.error or {}).get("code"))
            return Mark.FAILED
        elif event.response is not None:
            self._take(event.response)
        return _LAST.get(kind, Mark.NONE)

    def oversized(self, head: bytes, tail: bytes, size: int) -> Mark:
        """The last event of a long answer: its kind stands at the beginning, its usage near the end."""
        mark = next((mark for kind, mark in _LAST.items() if b'"' + kind.encode() + b'"' in head), Mark.NONE)
        found = base.last_usage(tail) if mark is not Mark.NONE else None
        if found is None:
            self.reading.truncated = True
            self.reading.output_chars += 0 if mark is not Mark.NONE else size
            return mark
        openai_usage.take(base.loose(found), self.reading)
        return mark

    def whole(self, body: bytes) -> None:
        """A JSON answer."""
        answer = base.loose_object(body)
        self.reading.truncated = not answer
        self._take(_loose_response(answer))
        output = answer.get("output")
        items = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
        for item in items:
            if item.get("type") == "web_search_call":
                self._count_search()
            self.reading.output_chars += sum(map(len, base.texts(item)))

    def _count_search(self) -> None:
        usage = self.reading.usage
        self.reading.usage = replace(usage, web_search_requests=usage.web_search_requests + 1)

    def _take(self, response: _Response) -> None:
        reading = self.reading
        self.response_id = response.id or self.response_id
        if response.model:
            reading.model_served = base.clean(response.model, MODEL_CHARS)
        openai_usage.take(response.usage, reading)
        openai_usage.take_tier(response.service_tier, reading)
        if response.error is not None:
            reading.error_code = _code(response.error.get("code"))


def _code(stated: object) -> str:
    return base.clean(stated, base.SESSION_CHARS) if isinstance(stated, str) and stated else "error"


def _loose_response(found: dict[str, Any]) -> _Response:
    def text(name: str) -> str | None:
        return found[name] if isinstance(found.get(name), str) else None

    def mapping(name: str) -> dict[str, Any] | None:
        return found[name] if isinstance(found.get(name), dict) else None

    return _Response(text("id"), text("model"), mapping("usage"), text("service_tier"), mapping("error"))


def _tolerant(data: bytes) -> _Event | None:
    """An event in which some field is of a kind that nobody foresaw; the other fields still count."""
    loose = base.loose_object(data)
    if not loose:
        return None
    response, delta, error = loose.get("response"), loose.get("delta"), loose.get("error")
    return _Event(
        delta=delta if isinstance(delta, str) else None,
        type=loose["type"] if isinstance(loose.get("type"), str) else "",
        response=_loose_response(response) if isinstance(response, dict) else None,
        error=error if isinstance(error, dict) else None,
    )


class OpenAIResponses:
    """The dialect."""

    name = "openai_responses"
    endpoints = (Endpoint("/responses", billed=True),)
    terminal_markers = (b'"response.completed"', b'"response.incomplete"', b'"response.failed"', b'"error"')

    def __init__(self) -> None:
        self._requests: RequestReader[_Facts] = RequestReader(_Facts, _Outline)

    def ask(self, body: bytes) -> Asked:
        """Facts of a request. A background response is refused: its usage comes with a later, unbilled call."""
        request = self._requests.read(body)
        if request.background:
            raise InvalidRequest("Background responses can't be metered here; send the request without 'background'.")
        return Asked(
            model=str(request.model),
            stream=bool(request.stream),
            max_output_tokens=request.max_output_tokens,
            terms=Terms(service_tier=openai_usage.tier(request.service_tier)),
            refers_elsewhere=not isinstance(request, _Outline) or _refers_elsewhere(request),
            has_attachments=not isinstance(request, _Outline) or any_attached(_parts(request), _attached),
        )

    def to_upstream(self, body: bytes, asked: Asked, upstream_model: str | None) -> bytes:
        """The body, with another model's name where the route has one."""
        return base.with_model(body, upstream_model)

    def reader(self, asked: Asked) -> ResponsesReader:
        """A reader for one answer."""
        return ResponsesReader()

    def stripper(self, asked: Asked) -> None:
        """Nothing is added to requests, so nothing is to be taken out."""
        return None

    def error(self, error: LumeError, request_id: str, *, codex: bool = False) -> Answer:
        """The error in OpenAI's shape."""
        return openai_usage.error_answer(error, request_id, codex=codex)

    def ending(self, error: LumeError, reader: base.Reader) -> bytes:
        """`response.failed` with the one code whose text Codex shows, once and alone."""
        return base.sse(self.failed(error, reader), "response.failed")

    def failed(self, error: LumeError, reader: base.Reader) -> dict[str, Any]:
        """The event that `ending` frames."""
        response_id, sequence, model = "resp_ended", 0, ""
        if isinstance(reader, ResponsesReader):
            response_id, sequence = reader.response_id or response_id, reader.sequence + 1
            model = reader.reading.model_served
        response = {
            "id": response_id,
            "object": "response",
            "created_at": 0,
            "status": "failed",
            "error": {"code": "invalid_prompt", "message": error.message},
            "incomplete_details": None,
            "model": model,
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": None,
        }
        return {"type": "response.failed", "sequence_number": sequence, "response": response}

    def session(self, headers: Mapping[str, str]) -> tuple[str, str]:
        """Codex's or opencode's session id."""
        return openai_usage.session(headers)

    def count(self, tokens: int, request_id: str) -> None:
        """This API has no token count."""
        return None

    def request_texts(self, body: bytes) -> list[str]:
        """Instructions and input."""
        request = base.loose_object(body)
        return base.texts(request.get("instructions")) + base.texts(request.get("input"))

    def echo(self, body: bytes, asked: Asked, answer_id: str, created_s: int, path: str) -> Answer:
        """The stand-in's answer; all input counts as uncached."""
        said = echo.said(echo.newest_user_text(base.loose_object(body).get("input")))
        tokens = sum(echo.tokens(text) for text in self.request_texts(body))
        return echo.openai_responses(asked, answer_id, created_s, said, tokens)


def _parts(request: _Facts) -> Iterator[_Part]:
    if isinstance(request, _Outline) and request.input is not None and not isinstance(request.input, str):
        for item in request.input:
            for content in (item.content, item.output):
                if isinstance(content, _Part):
                    yield content
                elif content is not None and not isinstance(content, str):
                    yield from content


def _attached(part: _Part) -> bool:
    return part.type is not None and part.type not in ("input_text", "output_text", "refusal", "summary_text")


def _refers_elsewhere(request: _Outline) -> bool:
    """Whether the provider may read more than the request's bytes: earlier answers, files, URLs, its own tools."""
    if request.previous_response_id or given(request.conversation) or given(request.prompt):
        return True
    if any(tool.type not in _CLIENT_TOOLS for tool in request.tools or ()):
        return True
    if isinstance(request.input, list) and any(item.type == "item_reference" for item in request.input):
        return True
    return any(links(part.image_url) or given(part.file_id) or given(part.file_url) for part in _parts(request))
