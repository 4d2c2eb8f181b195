"""Where the members of a JSON object stand in its bytes, so that one value can be replaced and the rest stays untouched.

RFC 8259 (2017-12). Used only when a value must be spliced; builds no values, needs no recursion. Does not validate: what
is passed on is the client's own text, and the upstream judges it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from lumeproxy.errors import InvalidRequest

# A whole string, or one structural character. Possessive, so that a hostile string costs no backtracking.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{},:]', re.DOTALL)
_SPACE = b" \t\r\n"
_KEY = re.compile(rb'[ \t\r\n]*+("[^"\\]*+(?:\\.[^"\\]*+)*+")[ \t\r\n]*+:[ \t\r\n]*+', re.DOTALL)
_NEXT = re.compile(rb"[ \t\r\n]*+([,}])")
_VALUES = msgspec.json.Decoder(dict[str, msgspec.Raw])
# A body with more colons than this may have so many members of its own that decoding them takes long.
MOST_COLONS = 200_000
# Strings and structural characters that are looked at one by one; more take longer than anybody else should wait.
MOST_TOKENS = 150_000


@dataclass(frozen=True, slots=True)
class Span:
    """One member: its key without escapes, and the offsets of key and value in the document."""

    key: str
    key_start: int
    value_start: int
    value_end: int


def top_level(body: bytes) -> list[Span]:
    """The object's own members in order, repeated keys included. Raises ValueError when it is not one object."""
    return list(members(body))


def members(body: bytes) -> Iterator[Span]:
    """As `top_level`, one after the other: who needs only the first looks no further.

    Raises InvalidRequest for one that would take too long, which none does that names each member once.
    """
    found = _by_values(body)
    yield from _by_tokens(body) if found is None else found


def _by_values(body: bytes) -> list[Span] | None:
    """The members by way of a decoder that skips their values, 50 times as fast as going through them; None where it
    can't read the body, or a key is repeated."""
    if body.count(b":") > MOST_COLONS:
        return None
    try:
        values = _VALUES.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    spans: list[Span] = []
    at = body.find(b"{") + 1
    more = bool(values)
    for raw in values.values():
        key, value = _KEY.match(body, at), bytes(raw)
        if key is None or not more or not body.startswith(value, key.end()):
            return None
        end = key.end() + len(value)
        spans.append(Span(_text(key[1]), key.start(1), key.end(), end))
        behind = _NEXT.match(body, end)
        if behind is None:
            return None
        at, more = behind.end(), behind[1] == b","
    return None if more else spans


def _by_tokens(body: bytes) -> Iterator[Span]:
    depth = 0
    key: tuple[int, int] | None = None
    value_start = -1
    for looked, match in enumerate(_TOKEN.finditer(body)):
        if looked == MOST_TOKENS:
            raise InvalidRequest("This request has too many small values to be changed on its way.")
        start = match.start()
        token = body[start]
        if token == 0x22:  # a string: at depth 1 before a colon it is a key
            if depth == 1 and key is None:
                key = (start, match.end())
        elif token in b"[{":
            if depth == 0 and token == 0x5B:
                raise ValueError("not an object")
            depth += 1
        elif token in b"]}":
            depth -= 1
            if depth == 0:
                if key is not None and value_start >= 0:
                    yield _span(body, key, value_start, start)
                if body[match.end() :].strip(_SPACE):
                    raise ValueError("bytes after the object")
                return
        elif depth == 1:
            if token == 0x3A and key is not None and value_start < 0:
                value_start = match.end()
            elif token == 0x2C:
                if key is None or value_start < 0:
                    raise ValueError("a comma without a member")
                yield _span(body, key, value_start, start)
                key, value_start = None, -1
    raise ValueError("not a complete object")


def _span(body: bytes, key: tuple[int, int], value_start: int, value_end: int) -> Span:
    while value_start < value_end and body[value_start] in _SPACE:
        value_start += 1
    while value_end > value_start and body[value_end - 1] in _SPACE:
        value_end -= 1
    return Span(_text(body[key[0] : key[1]]), key[0], value_start, value_end)


def _text(quoted: bytes) -> str:
    if b"\\" not in quoted:
        return quoted[1:-1].decode("utf-8", "replace")
    try:
        return str(json.loads(quoted))
    except ValueError:
        return quoted[1:-1].decode("utf-8", "replace")


def splice(body: bytes, changes: Iterable[tuple[int, int, bytes]]) -> bytes:
    """The body with each (start, end, new) replaced; the ranges don't overlap."""
    pieces: list[bytes] = []
    at = 0
    for start, end, new in sorted(changes):
        pieces += [body[at:start], new]
        at = end
    pieces.append(body[at:])
    return b"".join(pieces)
