"""OpenAI Responses over a WebSocket: the same requests and events as over HTTP, one a message, without SSE's framing.

https://developers.openai.com/api/docs/guides/websocket-mode and /api/reference/resources/responses/websocket-events
(2026-11). A client sends `response.create`, whose fields are a request's; each answer comes as events up to its last one.
With `generate: false` the provider only takes the input in, and answers with an id to go on from. Newer parts of the API
start answers of the provider's own accord (`response.steer`); nobody has held credit for those, so they are refused. Must
not know sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from lumeproxy.core.spans import top_level
from lumeproxy.core.types import Asked
from lumeproxy.dialects import base
from lumeproxy.dialects.base import Endpoint, Reader
from lumeproxy.dialects.openai_responses import OpenAIResponses, ResponsesReader
from lumeproxy.errors import InvalidRequest, LumeError

CREATE, PROCESSED = "response.create", "response.processed"
_PROCESSED_FIELDS = ["response_id", "type"]
# An error's headers stand in the event; these are what Codex and the SDKs act upon or show.
_HEADERS = ("retry-after", "x-should-retry", "x-request-id", "x-codex-promo-message")
_METADATA = "x-codex-turn-metadata"  # JSON
LANE_CHARS = 128  # of a stream_id that our own events repeat


class _Envelope(msgspec.Struct, gc=False):
    type: str | None = None
    generate: bool | None = None
    previous_response_id: str | None = None
    stream_id: str | None = None


class _Kind(msgspec.Struct, gc=False):
    type: str = ""
    status: int | None = None


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_KIND = msgspec.json.Decoder(_Kind)


@dataclass(frozen=True, slots=True)
class Asking:
    """What a `response.create` asks for. `generates`: False for a warm-up; `follows`: the id of the answer that it goes on
    from, "" for none; `lane`: the `stream_id` that events of its answer carry, "" for none."""

    asked: Asked
    generates: bool
    follows: str
    lane: str


class OpenAIWebSocket:
    """The messages of this transport; all else is the dialect's."""

    def __init__(self) -> None:
        self.dialect = OpenAIResponses()
        self.endpoint: Endpoint = self.dialect.endpoints[0]

    def model_announced(self, headers: Mapping[str, str]) -> str:
        """The model that a client says it will ask for when it opens a connection, "" where it does not; Codex does."""
        named = base.loose_object(headers.get(_METADATA, "").encode("utf-8", "replace")).get("model")
        return named if isinstance(named, str) else ""

    def read(self, message: bytes) -> Asking | None:
        """A client's message: what it asks for, None for one that asks for nothing and only has to be passed on.

        Raises InvalidRequest, as the dialect's `ask`, and for every message whose cost could not be metered.
        """
        try:
            envelope = _ENVELOPE.decode(message)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            envelope = _loose_envelope(message)
        if envelope.type == PROCESSED and _members(message) == _PROCESSED_FIELDS:
            return None
        if envelope.type != CREATE:
            raise InvalidRequest(f"Of a client's WebSocket messages only {CREATE} can be metered, and is passed on.")
        asked = replace(self.dialect.ask(message), stream=True)  # answers always stream here
        lane = base.clean(envelope.stream_id or "", LANE_CHARS)
        return Asking(asked, envelope.generate is not False, envelope.previous_response_id or "", lane)

    def starts_answer(self, message: bytes) -> bool:
        """Whether a provider's message belongs to an answer, and does not just tell something about the connection."""
        return _kind(message).type.startswith("response.")

    def refusal(self, message: bytes) -> tuple[int, str, str] | None:
        """Status, code and text of a provider's error event, None for any other message; status 0 where it has none."""
        kind = _kind(message)
        return (kind.status or 0, *base.error_facts(message)) if kind.type == "error" else None

    def answer_id(self, reader: Reader) -> str:
        """The id by which a later request can go on from an answer, "" when none was seen."""
        return reader.response_id if isinstance(reader, ResponsesReader) else ""

    def error(self, error: LumeError, call_id: str, *, codex: bool, lane: str = "") -> bytes:
        """An error instead of an answer: what HTTP would have said, status and headers included, in one event."""
        answer = self.dialect.error(error, call_id, codex=codex)
        body = base.loose_object(b"".join(answer.chunks))
        headers = {name: value for name, value in answer.headers.items() if name in _HEADERS}
        return _message({"type": "error", "status": answer.status, **body, "headers": headers}, lane)

    def ending(self, error: LumeError, reader: Reader, *, lane: str = "") -> bytes:
        """The event that ends an answer early and says why."""
        return _message(self.dialect.failed(error, reader), lane)


def _message(event: dict[str, Any], lane: str) -> bytes:
    return msgspec.json.encode({**event, "stream_id": lane} if lane else event)


def _members(message: bytes) -> list[str]:
    return sorted(span.key for span in top_level(message))


def _loose_envelope(message: bytes) -> _Envelope:
    """As strictly typed fields, of a message that the strict decoder can't read: the dialect decides what is wrong."""
    found = base.loose_object(message)
    names = ("type", "previous_response_id", "stream_id")
    texts = {name: found[name] for name in names if isinstance(found.get(name), str)}
    return _Envelope(generate=False if found.get("generate") is False else None, **texts)


def _kind(message: bytes) -> _Kind:
    try:
        return _KIND.decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        found = base.loose_object(message)
        kind, status = found.get("type"), found.get("status")
        number = status if isinstance(status, int) and not isinstance(status, bool) else None
        return _Kind(kind if isinstance(kind, str) else "", number)
