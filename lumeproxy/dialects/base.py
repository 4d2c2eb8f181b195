"""What a dialect is: a client-facing API, its requests, its answers and its errors, and nothing of the network.

A dialect is one file with one class and one line in `dialects/__init__.py`. It is pure: bytes and values in, bytes and
values out. It must not know upstreams, keys, prices or the database.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from lumeproxy.core.spans import members, splice
from lumeproxy.core.types import Asked, Terms, Usage
from lumeproxy.dialects.request import plain_json
from lumeproxy.errors import LumeError

SESSION_CHARS = 128  # of a session's or agent's id
ERROR_TEXT_CHARS = 200  # of an upstream's error text in a record


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A POST path of a dialect, without the `/v1` prefix. `billed` calls are held, metered and charged; others free."""

    path: str
    billed: bool


class Mark(enum.Enum):
    """What an event means for the end of its stream."""

    NONE = 0
    FINAL = 1  # the dialect's last event: the answer is complete
    FAILED = 2  # an error event: the upstream gave up, no last event will come


@dataclass(slots=True)
class Reading:
    """What has been learned of one answer so far. Written by a Reader only.

    `usage` holds the reported numbers, by maximum of what came (cumulative events); `input_reported` and
    `output_reported` say which sides of it the upstream has stated, `output_final` that the output number is the last
    one. `output_chars` counts the characters (text, thinking, tool arguments) of delivered output, for estimates;
    `output_bytes` all bytes of the answer fed to the reader, for the bound. `absurd` is set when a number was negative,
    shrinking, fractional or not a number.
    """

    usage: Usage = field(default_factory=Usage)
    input_reported: bool = False
    output_reported: bool = False
    output_final: bool = False
    output_chars: int = 0
    output_bytes: int = 0
    model_served: str = ""
    terms: Terms | None = None
    absurd: bool = False
    error_code: str = ""
    truncated: bool = False  # an event or body was too large to be read whole


class Reader(Protocol):
    """Reads one answer. Never raises: odd input leaves `reading` as it was, `absurd` or `truncated` set."""

    @property
    def reading(self) -> Reading:
        """What has been learned so far."""
        ...

    def event(self, data: bytes) -> Mark:
        """Take the data of one SSE event (joined `data:` lines, without the field name)."""
        ...

    def oversized(self, head: bytes, tail: bytes, size: int) -> Mark:
        """Take the first and last bytes of an event larger than the scanner keeps, and how large it was; sets
        `truncated` unless usage could be found in them all the same."""
        ...

    def whole(self, body: bytes) -> None:
        """Take a complete JSON answer (already decoded)."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer composed by us: for the echo upstream and for errors."""

    status: int
    headers: Mapping[str, str]
    chunks: tuple[bytes, ...]  # one a write: SSE events, or a single JSON body


class Stripper(Protocol):
    """Takes out of a stream what only our own splice into the request brought in."""

    def feed(self, chunk: bytes) -> bytes:
        """The bytes for the client; whole events only."""
        ...

    def flush(self) -> bytes:
        """What is left at the stream's end."""
        ...


class Dialect(Protocol):
    """A client-facing API. `terminal_markers`: bytes of which one stands in every last event."""

    @property
    def name(self) -> str:
        """The word for it in records and configuration."""
        ...

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Its paths."""
        ...

    @property
    def terminal_markers(self) -> tuple[bytes, ...]:
        """See above."""
        ...

    def ask(self, body: bytes) -> Asked:
        """Read the few needed facts. Raises InvalidRequest for bad JSON, a missing model, a field of the wrong
        type, a model given twice with different values, or a feature that could not be metered."""
        ...

    def to_upstream(self, body: bytes, asked: Asked, upstream_model: str | None) -> bytes:
        """The body to send: the same object when nothing needs to change, else with single values spliced in."""
        ...

    def reader(self, asked: Asked) -> Reader:
        """A fresh reader for one answer."""
        ...

    def stripper(self, asked: Asked) -> Stripper | None:
        """What undoes `to_upstream` in the answer's stream, None where there is nothing to undo."""
        ...

    def error(self, error: LumeError, request_id: str, *, codex: bool = False) -> Answer:
        """The error as this API's clients understand it best (design section 9), headers included."""
        ...

    def ending(self, error: LumeError, reader: Reader) -> bytes:
        """SSE bytes that end a running stream properly and say why, to be sent at an event boundary."""
        ...

    def session(self, headers: Mapping[str, str]) -> tuple[str, str]:
        """Session and agent id from the request's headers, "" where there is none."""
        ...

    def count(self, tokens: int, request_id: str) -> Answer | None:
        """The answer to a token count, None where this API has none."""
        ...

    def request_texts(self, body: bytes) -> list[str]:
        """Every piece of text in a request, for an estimate of its tokens."""
        ...

    def echo(self, body: bytes, asked: Asked, answer_id: str, created_s: int, path: str) -> Answer:
        """The built-in echo upstream's answer: the newest user text said back, with true usage."""
        ...


# --- shared by the dialects --------------------------------------------------------------------------------------------


def error_facts(body: bytes) -> tuple[str, str]:
    """Code and text of an upstream's error answer, each "" when it has none; both APIs put them under `error`."""
    error = loose_object(body).get("error")
    if isinstance(error, str):
        return "", clean(error, ERROR_TEXT_CHARS)
    if not isinstance(error, dict):
        return "", ""
    code = error.get("code") or error.get("type") or ""
    text = error.get("message") or ""
    return (
        clean(code, SESSION_CHARS) if isinstance(code, str) else "",
        clean(text, ERROR_TEXT_CHARS) if isinstance(text, str) else "",
    )


def clean(text: str, limit: int) -> str:
    """Text for a record: printable characters only, at most `limit` of them."""
    return "".join(c for c in text[:limit] if c.isprintable())


def with_model(body: bytes, upstream_model: str | None) -> bytes:
    """The body with the value of `model` replaced in place; the same object when there is nothing to replace."""
    if upstream_model is None:
        return body
    value = msgspec.json.encode(upstream_model)
    named = (span for span in members(body) if span.key == "model")
    # Named once, as nearly always, it is found near the beginning, and the rest need not be looked through.
    once = body.count(b'"model"') == 1 and b"\\u006" not in body
    found = [next(named)] if once else list(named)
    return splice(body, [(span.value_start, span.value_end, value) for span in found])


def loose(data: bytes) -> Any:
    """Any JSON value, as far as it can be had; None for what is none."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return plain_json(data)
    except (ValueError, RecursionError):
        return None


def loose_object(data: bytes) -> dict[str, Any]:
    """A JSON object, empty for anything else."""
    found = loose(data)
    return found if isinstance(found, dict) else {}


def number(value: object, reading: Reading) -> int | None:
    """A token count as an upstream stated it; None, and `absurd` set, for what is none. A missing one is just None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        reading.absurd = True
        return None
    return value


def larger(known: int, stated: int | None, reading: Reading) -> int:
    """The larger of a count so far and a new one: counts are cumulative, one that shrinks is absurd."""
    if stated is None:
        return known
    if stated < known:
        reading.absurd = True
        return known
    return stated


def last_usage(tail: bytes) -> bytes | None:
    """The JSON of the last `"usage": {…}` in the end of an event that was too large to keep, None without one."""
    at = tail.rfind(b'"usage"')
    start = tail.find(b"{", at) if at >= 0 else -1
    if start < 0 or tail[at + 7 : start].strip() != b":":
        return None
    depth = 0
    for index in range(start, min(len(tail), start + 4096)):
        depth += {0x7B: 1, 0x7D: -1}.get(tail[index], 0)
        if depth == 0:
            return tail[start : index + 1]
    return None


def sse(data: object, name: str = "") -> bytes:
    """One event of our own as bytes."""
    encoded = data if isinstance(data, bytes) else msgspec.json.encode(data)
    return (b"event: " + name.encode() + b"\n" if name else b"") + b"data: " + encoded + b"\n\n"


def json_answer(status: int, body: object, request_id: str, error: LumeError | None = None) -> Answer:
    """A JSON answer with both request ids and, for an error, the headers that tell a client whether to come again."""
    headers = {"content-type": "application/json", "request-id": request_id, "x-request-id": request_id}
    if error is not None:
        if error.final:
            headers["x-should-retry"] = "false"
        if error.retry_after_s is not None:
            headers["retry-after"] = str(error.retry_after_s)
    return Answer(status, headers, (msgspec.json.encode(body),))


def texts(node: object) -> list[str]:
    """Every string under the keys that hold text, in whatever nesting a request has it."""
    found: list[str] = []
    stack = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, list):
            stack.extend(reversed(item))
        elif isinstance(item, dict):
            stack.extend(
                item[key]
                for key in ("arguments", "output", "input", "content", "text", "thinking", "system")
                if key in item
            )
    return found
