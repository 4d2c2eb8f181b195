"""OpenAI Chat Completions: POST /v1/chat/completions.

https://platform.openai.com/docs/api-reference/chat (2026-11). A stream states its usage only when asked by
`stream_options.include_usage`, in a last chunk without choices; a client that did not ask must not see it. So it is asked
for upstream and taken out again: the one place where an answer's bytes are changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from lumeproxy.core.spans import splice, top_level
from lumeproxy.core.sse import BLANK_LINE
from lumeproxy.core.types import Asked, Terms
from lumeproxy.dialects import base, echo, openai_usage
from lumeproxy.dialects.base import Answer, Endpoint, Mark, Reading
from lumeproxy.dialects.request import MODEL_CHARS, Facts, RequestReader, any_attached, given, links
from lumeproxy.errors import LumeError

_INCLUDE = b'"include_usage":true'
_NO_USAGE = re.compile(rb',\s*+"usage"\s*+:\s*+null')
# An event above this passes through the stripper as it is; a usage chunk is a few hundred bytes.
STRIPPED_EVENT_BYTES = 1 << 20


class _StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


class _Facts(Facts, gc=False):
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    service_tier: str | None = None
    stream_options: _StreamOptions | None = None


class _Part(msgspec.Struct, gc=False):
    image_url: msgspec.Raw = msgspec.Raw()
    input_audio: msgspec.Raw = msgspec.Raw()
    file: msgspec.Raw = msgspec.Raw()


class _Said(msgspec.Struct, gc=False):
    content: str | list[_Part] | None = None


class _Outline(_Facts, gc=False):
    messages: list[_Said] | None = None
    web_search_options: msgspec.Raw = msgspec.Raw()


class _Function(msgspec.Struct, gc=False):
    arguments: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    function: _Function | None = None


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Message | None = None
    message: _Message | None = None


class _Chunk(msgspec.Struct, gc=False):
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    service_tier: str | None = None
    error: Any = None


_CHUNK = msgspec.json.Decoder(_Chunk)


class ChatReader:
    """Reads one Chat Completions answer."""

    def __init__(self) -> None:
        self.reading = Reading()

    def event(self, data: bytes) -> Mark:
        """One chunk, or `[DONE]`."""
        if data.strip() == b"[DONE]":
            return Mark.FINAL
        chunk = _chunk(data)
        if chunk is None:
            return Mark.NONE
        self._take(chunk)
        if chunk.error is not None:
            code = chunk.error.get("code") or chunk.error.get("type") if isinstance(chunk.error, dict) else None
            self.reading.error_code = base.clean(code, base.SESSION_CHARS) if isinstance(code, str) else "error"
            return Mark.FAILED
        return Mark.NONE

    def oversized(self, head: bytes, tail: bytes, size: int) -> Mark:
        """A delta beyond the limit: its length counts as output."""
        self.reading.output_chars += size
        self.reading.truncated = True
        return Mark.NONE

    def whole(self, body: bytes) -> None:
        """A JSON answer."""
        chunk = _chunk(body)
        if chunk is None:
            self.reading.truncated = True
        else:
            self._take(chunk)

    def _take(self, chunk: _Chunk) -> None:
        reading = self.reading
        if chunk.choices:
            for choice in chunk.choices:
                message = choice.delta or choice.message
                if message is not None:
                    reading.output_chars += _chars(message)
        if chunk.model and not reading.model_served:
            reading.model_served = base.clean(chunk.model, MODEL_CHARS)
        if chunk.usage is not None:
            openai_usage.take(chunk.usage, reading)
        if chunk.service_tier is not None:
            openai_usage.take_tier(chunk.service_tier, reading)


def _chars(message: _Message) -> int:
    chars = len(message.content or "") + len(message.reasoning_content or "") + len(message.refusal or "")
    for call in message.tool_calls or ():
        if call.function is not None:
            chars += len(call.function.arguments or "")
    return chars


def _chunk(data: bytes) -> _Chunk | None:
    """A chunk's few fields; where one is of a kind that nobody foresaw, the others still count. None: no JSON object."""
    try:
        return _CHUNK.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        loose = base.loose_object(data)
    if not loose:
        return None
    model, usage, tier = loose.get("model"), loose.get("usage"), loose.get("service_tier")
    return _Chunk(
        model=model if isinstance(model, str) else None,
        choices=[_Choice(delta=_Message(content="".join(base.texts(_messages(loose.get("choices"))))))],
        usage=usage if isinstance(usage, dict) else None,
        service_tier=tier if isinstance(tier, str) else None,
        error=loose.get("error"),
    )


def _messages(choices: object) -> list[object]:
    found = []
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            found += [choice[name] for name in ("delta", "message") if name in choice]
    return found


class UsageStripper:
    """Takes the usage chunk and the empty usage members out of a stream whose client did not ask for them."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> bytes:
        """The bytes for the client: whole events, unchanged but for what is taken out."""
        self._buffer += chunk
        out = bytearray()
        while (end := _event_end(self._buffer)) > 0:
            out += _stripped(bytes(self._buffer[:end]))
            del self._buffer[:end]
        if len(self._buffer) > STRIPPED_EVENT_BYTES:
            out += self._buffer
            self._buffer.clear()
        return bytes(out)

    def flush(self) -> bytes:
        """What was left of an unfinished event."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest


def _event_end(buffer: bytearray) -> int:
    """The offset after the first event's blank line, 0 when there is none yet."""
    if b"\r" not in buffer:
        return buffer.find(b"\n\n") + 2 if b"\n\n" in buffer else 0
    blank = BLANK_LINE.search(buffer)
    return 0 if blank is None else blank.end()


def _ends_the_object(rest: bytes) -> bool:
    """Whether only plain members of the outermost object follow: what stands before them is then one of its members too.
    Nearly all chunks are of this form, and need not be looked through from their beginning."""
    return (
        rest.endswith(b"}")
        and rest[:1] in (b",", b"}")
        and rest.count(b"}") == 1
        and not any(mark in rest for mark in (b"{", b"[", b"]", b'"usage"'))
    )


def _stripped(event: bytes) -> bytes:
    # A blank line of CRs and LFs may have been cut in its middle: then the event begins with the rest of it.
    if b'"usage"' not in event or not event.lstrip(b"\r\n").startswith(b"data:"):
        return event
    nothing = _NO_USAGE.search(event)
    if nothing is not None and _ends_the_object(event[nothing.end() :].rstrip()):
        return event[: nothing.start()] + event[nothing.end() :]
    start = event.find(b"{")
    end = event.rfind(b"}") + 1
    try:
        members = top_level(event[start:end]) if start > 0 else []
    except ValueError:
        return event
    for index, span in enumerate(members):
        if span.key != "usage":
            continue
        value = event[start + span.value_start : start + span.value_end]
        if value != b"null":
            choices = next((s for s in members if s.key == "choices"), None)
            empty = (
                choices is not None
                and not event[start + choices.value_start + 1 : start + choices.value_end - 1].strip()
            )
            return event[: len(event) - len(event.lstrip(b"\r\n"))] if empty else event
        # With the member goes one comma: the one before it, or behind it when it is the first.
        if index:
            previous = members[index - 1].value_end
            return splice(event, [(start + previous, start + span.value_end, b"")])
        following = members[1].key_start if len(members) > 1 else span.value_end
        return splice(event, [(start + span.key_start, start + following, b"")])
    return event


class OpenAIChat:
    """The dialect."""

    name = "openai_chat"
    endpoints = (Endpoint("/chat/completions", billed=True),)
    terminal_markers = (b"[DONE]", b'"error"')

    def __init__(self) -> None:
        self._requests: RequestReader[_Facts] = RequestReader(_Facts, _Outline)

    def ask(self, body: bytes) -> Asked:
        """Facts of a request."""
        request = self._requests.read(body)
        limit = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
        if limit is not None and request.n is not None and request.n > 1:
            limit *= request.n
        return Asked(
            model=str(request.model),
            stream=bool(request.stream),
            max_output_tokens=limit,
            terms=Terms(service_tier=openai_usage.tier(request.service_tier)),
            refers_elsewhere=not isinstance(request, _Outline) or _refers_elsewhere(request),
            has_attachments=not isinstance(request, _Outline) or any_attached(_parts(request), _attached),
            wants_usage_chunk=bool(request.stream_options is not None and request.stream_options.include_usage),
        )

    def to_upstream(self, body: bytes, asked: Asked, upstream_model: str | None) -> bytes:
        """The body, with another model's name where the route has one, asking for usage where the client did not."""
        body = base.with_model(body, upstream_model)
        return body if not asked.stream or asked.wants_usage_chunk else _asking_for_usage(body)

    def reader(self, asked: Asked) -> ChatReader:
        """A reader for one answer."""
        return ChatReader()

    def stripper(self, asked: Asked) -> UsageStripper | None:
        """Takes out what `to_upstream` asked for."""
        return None if not asked.stream or asked.wants_usage_chunk else UsageStripper()

    def error(self, error: LumeError, request_id: str, *, codex: bool = False) -> Answer:
        """The error in OpenAI's shape."""
        return openai_usage.error_answer(error, request_id, codex=codex)

    def ending(self, error: LumeError, reader: base.Reader) -> bytes:
        """An error chunk, and no `[DONE]`, which would say that the answer is complete."""
        return base.sse({"error": openai_usage.error_object(error)})

    def session(self, headers: Mapping[str, str]) -> tuple[str, str]:
        """The client's session id, where it sends one."""
        return openai_usage.session(headers)

    def count(self, tokens: int, request_id: str) -> None:
        """This API has no token count."""
        return None

    def request_texts(self, body: bytes) -> list[str]:
        """All messages."""
        return base.texts(base.loose_object(body).get("messages"))

    def echo(self, body: bytes, asked: Asked, answer_id: str, created_s: int, path: str) -> Answer:
        """The stand-in's answer; all input counts as uncached."""
        said = echo.said(echo.newest_user_text(base.loose_object(body).get("messages")))
        tokens = sum(echo.tokens(text) for text in self.request_texts(body))
        # The body that arrives here asks for usage where the client did not: the answer is stripped like a provider's.
        return echo.openai_chat(
            asked, answer_id, created_s, said, tokens, states_usage=self.ask(body).wants_usage_chunk
        )


def _parts(request: _Facts) -> Iterator[_Part]:
    if isinstance(request, _Outline):
        for said in request.messages or ():
            if said.content is not None and not isinstance(said.content, str):
                yield from said.content


def _attached(part: _Part) -> bool:
    return any(given(value) for value in (part.image_url, part.input_audio, part.file))


def _refers_elsewhere(request: _Outline) -> bool:
    """Whether the provider may read more than the request's bytes: URLs, files, the web."""
    if given(request.web_search_options):
        return True
    return any(links(part.image_url) or _names_file(part.file) for part in _parts(request))


def _names_file(file: msgspec.Raw) -> bool:
    text = given(file)
    return bool(text) and "file_data" not in base.loose_object(text)


def _asking_for_usage(body: bytes) -> bytes:
    """The body with `stream_options.include_usage` set to true, in place where `stream_options` exists."""
    if b"stream_options" not in body:
        at = body.index(b"{") + 1
        comma = b"" if body[at:].lstrip().startswith(b"}") else b","
        return splice(body, [(at, at, b'"stream_options":{' + _INCLUDE + b"}" + comma)])
    members = [span for span in top_level(body) if span.key == "stream_options"]
    changes = []
    for span in members:
        value = body[span.value_start : span.value_end]
        if not value.startswith(b"{"):
            changes.append((span.value_start, span.value_end, b"{" + _INCLUDE + b"}"))
            continue
        inner = [s for s in top_level(value) if s.key == "include_usage"]
        if inner:
            changes += [(span.value_start + s.value_start, span.value_start + s.value_end, b"true") for s in inner]
        else:
            comma = b"," if value[1:-1].strip() else b""
            changes.append((span.value_start + 1, span.value_start + 1, _INCLUDE + comma))
    if not members:
        at = body.index(b"{") + 1
        comma = b"," if top_level(body) else b""
        changes.append((at, at, b'"stream_options":{' + _INCLUDE + b"}" + comma))
    return splice(body, changes)
