"""OpenAI Responses: POST /v1/responses, the only API that Codex speaks.

https://platform.openai.com/docs/api-reference/responses (2026-11). Usage comes once, in the last event, which repeats the
whole answer and may be megabytes long. `response.failed` and a bare `error` end a stream without an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from lumeproxy.core.types import Asked, Terms
from lumeproxy.dialects import base, openai_usage
from lumeproxy.dialects.base import Answer, Endpoint, Mark, Reading
from lumeproxy.errors import InvalidRequest, LumeError

_ELSEWHERE = (b'"previous_response_id"', b'"conversation"', b'"prompt"', b'"file_id"', b'"file_url"', b'"image_url"',
              b'"web_search', b'"file_search"', b'"code_interpreter"', b'"mcp"', b'"image_generation"',
              b'"computer_use', b'"item_reference"')  # fmt: skip
_LAST = {"response.completed": Mark.FINAL, "response.incomplete": Mark.FINAL, "response.failed": Mark.FAILED}


class _Request(msgspec.Struct):
    model: Any = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    service_tier: str | None = None
    background: bool | None = None


class _Item(msgspec.Struct):
    type: str | None = None


class _Response(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    usage: dict[str, Any] | None = None
    service_tier: str | None = None
    error: dict[str, Any] | None = None


class _Event(msgspec.Struct):
    type: str = ""
    sequence_number: int = 0
    delta: str | None = None
    item: _Item | None = None
    response: _Response | None = None
    code: str | None = None


_REQUEST = msgspec.json.Decoder(_Request)
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
            self.reading.error_code = base.clean(event.code or "error", base.SESSION_CHARS)
            return Mark.FAILED
        elif event.response is not None:
            self._take(event.response)
        return _LAST.get(kind, Mark.NONE)

    def oversized(self, head: bytes, tail: bytes) -> Mark:
        """The last event of a long answer: its kind stands at the beginning, its usage near the end."""
        mark = next((mark for kind, mark in _LAST.items() if b'"' + kind.encode() + b'"' in head), Mark.NONE)
        found = base.last_usage(tail) if mark is not Mark.NONE else None
        if found is None:
            self.reading.truncated = True
            self.reading.output_chars += 0 if mark is not Mark.NONE else len(tail)
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
            reading.model_served = base.clean(response.model, base.MODEL_CHARS)
        openai_usage.take(response.usage, reading)
        openai_usage.take_tier(response.service_tier, reading)
        if response.error is not None:
            code = response.error.get("code")
            reading.error_code = base.clean(code, base.SESSION_CHARS) if isinstance(code, str) else "error"


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
    response, delta = loose.get("response"), loose.get("delta")
    return _Event(
        delta=delta if isinstance(delta, str) else None,
        type=loose["type"] if isinstance(loose.get("type"), str) else "",
        response=_loose_response(response) if isinstance(response, dict) else None,
    )


class OpenAIResponses:
    """The dialect."""

    name = "openai_responses"
    endpoints = (Endpoint("/responses", billed=True),)
    terminal_markers = (b'"response.completed"', b'"response.incomplete"', b'"response.failed"', b'"error"')

    def ask(self, body: bytes) -> Asked:
        """Facts of a request. A background response is refused: its usage comes with a later, unbilled call."""
        request = base.decoded_request(body, _REQUEST)
        model = base.checked_model(request.model)
        base.refuse_two_models(body)
        if request.background:
            raise InvalidRequest("Background responses can't be metered here; send the request without 'background'.")
        return Asked(
            model=model,
            stream=bool(request.stream),
            max_output_tokens=request.max_output_tokens,
            terms=Terms(service_tier=openai_usage.tier(request.service_tier)),
            refers_elsewhere=any(word in body for word in _ELSEWHERE),
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
        event = {"type": "response.failed", "sequence_number": sequence, "response": response}
        return base.sse(event, "response.failed")

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
        said = base.echoed(base.newest_user_text(base.loose_object(body).get("input")))
        answer = "".join(said)
        tokens_in = sum(base.echo_tokens(text) for text in self.request_texts(body))
        tokens_out = base.echo_tokens(answer)
        usage = {
            "input_tokens": tokens_in,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": tokens_out,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tokens_in + tokens_out,
        }
        part = {"type": "output_text", "text": answer, "annotations": []}
        item = {
            "type": "message",
            "id": "msg_" + answer_id,
            "status": "completed",
            "role": "assistant",
            "content": [part],
        }
        response = {
            "id": "resp_" + answer_id,
            "object": "response",
            "created_at": created_s,
            "status": "completed",
            "error": None,
            "incomplete_details": None,
            "model": asked.model,
            "output": [item],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": usage,
        }
        if not asked.stream:
            return Answer(200, base.ECHO_HEADERS, (msgspec.json.encode(response),))
        return Answer(200, base.ECHO_STREAM_HEADERS, tuple(_echo_events(response, item, part, said)))


def _echo_events(response: dict[str, Any], item: dict[str, Any], part: dict[str, Any], said: list[str]) -> list[bytes]:
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**item, "status": "in_progress", "content": []},
        },
        {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
    ]
    events += [{"type": "response.output_text.delta", **at, "delta": word} for word in said]
    events += [
        {"type": "response.output_text.done", **at, "text": part["text"]},
        {"type": "response.content_part.done", **at, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response},
    ]
    return [base.sse({**event, "sequence_number": n}, event["type"]) for n, event in enumerate(events)]
