"""Reading the few facts of a request that matter, in one pass over its bytes.

A search for a word in a body of 60 KB costs more than decoding the whole of it into a few typed fields (34 µs against 30),
so what a request names is found by decoding its outline: messages and parts with their kinds, nothing else. The body
itself is passed on as it came; what this module can't make sense of is the upstream's to judge, not ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Generic, TypeVar

import msgspec

from lumeproxy.core.spans import top_level
from lumeproxy.errors import InvalidRequest

MOST_PARTS = 10_000  # of a request's content that are looked at one by one
# Objects in a body whose outline is read. Decoding ten megabytes of `{}` into parts takes seconds, in which nobody else is
# served; of more objects than an honest request has, the outline stays unknown, which is fast and errs on the safe side.
MOST_OBJECTS = 20_000
COUNTED_BYTES = 262_144  # in which they are counted at once: of a dense body, the beginning tells
MOST_MENDED = 10_000  # halves of surrogate pairs; no tool cuts that many
MOST_ESCAPED = 100_000  # surrogates that are looked at to find those
PLAIN_BYTES = 262_144  # of a body that the standard library is asked to read; it takes a second for ten megabytes
MODEL_CHARS = 200  # of a model's name, asked or served


# Begins with a literal, which is found 30 times as fast as a run of backslashes.
_SURROGATE = re.compile(rb"\\u[dD]([89a-fA-F])[0-9a-fA-F]{2}")
# In a string a quote is escaped, so that of these only two, rare in text, can be found outside of JSON's own structure.
_OBJECT_BEGINS = (b'{"', b"{}", b"{ ", b"{\n", b"{\r", b"{\t")
_SECOND_HALF = re.compile(rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}")


class ModelName(str):
    """A request's model. A type of its own, so that its decoder is told of every one that a body names."""

    __slots__ = ()


class Facts(msgspec.Struct, gc=False):
    """The fields that a request is served by; one of a wrong type is refused. Each dialect adds its own."""

    model: ModelName | None = None
    stream: bool | None = None


F = TypeVar("F", bound=Facts)
P = TypeVar("P")


class RequestReader(Generic[F]):
    """Reads the requests of one dialect.

    `outline` is the dialect's facts with the outline of the content, `bare` the facts alone: where a request's content has
    a shape that nobody foresaw, the facts are read all the same and the outline is unknown.
    """

    def __init__(self, bare: type[F], outline: type[F]) -> None:
        self._bare_type = bare
        self._outline = msgspec.json.Decoder(outline, dec_hook=self._model)
        self._bare = msgspec.json.Decoder(bare, dec_hook=self._model)
        self._named: list[str] = []

    def read(self, body: bytes) -> F:
        """The facts: of the outline's type where that could be read, else of the bare one.

        Raises InvalidRequest, naming the field but quoting nothing: for what is no JSON, has a fact of the wrong type, no
        model, or two different ones: we would price one, the upstream serve the other.
        """
        try:
            facts = self._decoded(body)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"The request has a field of the wrong type: {error}.") from None
        except ValueError:
            raise InvalidRequest("The request body is not valid JSON.") from None
        except RecursionError:
            raise InvalidRequest("The request body is nested too deeply.") from None
        named = self._named
        if len(named) > 1 and any(name != named[0] for name in named):
            raise InvalidRequest("The request names two different models.")
        _check_name(facts.model)
        return facts

    def _decoded(self, body: bytes) -> F:
        found = self._strictly(body)
        if found is None:
            # Half of a surrogate pair, which tools do cut emoji into, is no reason to refuse what a provider may take, and
            # bytes that are no UTF-8 are none either.
            text = body if body.isascii() else body.decode("utf-8", "replace").encode()
            mended = _mended(text) or text
            found = None if mended is body else self._strictly(mended)
        if found is not None:
            return found
        if len(body) > PLAIN_BYTES:
            raise ValueError("not JSON by the strict reader, and too large for the other")
        facts = msgspec.convert(plain_json(body), self._bare_type, dec_hook=self._model)
        values = [body[span.value_start : span.value_end] for span in top_level(body) if span.key == "model"]
        self._named[:] = [str(plain_json(value)) for value in values]
        return facts

    def _strictly(self, body: bytes) -> F | None:
        """The facts by the strict decoder, None for what it can't read."""
        for decoder in (self._bare,) if _dense(body) else (self._outline, self._bare):
            self._named.clear()
            try:
                return decoder.decode(body)
            except msgspec.ValidationError:
                if decoder is self._bare:
                    raise
            except (msgspec.DecodeError, UnicodeDecodeError):
                return None
        return None

    def _model(self, _type: type, value: Any) -> ModelName:
        """Called by the decoder for each `model` at the top of the body, repeated and escaped ones included."""
        name = value if isinstance(value, str) else ""
        self._named.append(name)
        return ModelName(name)


def _check_name(model: ModelName | None) -> None:
    if not model:
        raise InvalidRequest("The request names no model; set the field 'model'.")
    # U+FFFD is what a half of a surrogate pair was mended to; a name that holds one is not what the upstream will read.
    if len(model) > MODEL_CHARS or not model.isprintable() or "\ufffd" in model:
        raise InvalidRequest("The field 'model' is not a model's name.")


def _dense(body: bytes) -> bool:
    """Whether a body has more objects than are decoded one by one."""
    found = 0
    for at in range(0, len(body), COUNTED_BYTES) if len(body) > 2 * MOST_OBJECTS else ():
        window = body[at : at + COUNTED_BYTES + 1]
        braces = window.count(b"{")
        found += braces if braces < 100 else sum(map(window.count, _OBJECT_BEGINS))
        if found > MOST_OBJECTS:
            return True
    return False


def _mended(body: bytes) -> bytes | None:
    """The body with each half of a surrogate pair replaced by U+FFFD, None where there is none or are too many.

    The standard library reads such a body too, but takes a second and eight times its size for 10 MB.
    """
    mended: bytearray | None = None
    behind = count = 0
    for looked, found in enumerate(_SURROGATE.finditer(body)):
        if looked == MOST_ESCAPED:
            return None
        start, end = found.span()
        if start < behind or _is_escaped(body, start):
            continue  # the second half of a pair, or no escape but a backslash and a u
        if found[1] in b"89abAB" and _SECOND_HALF.match(body, end):
            behind = end + 6
            continue
        count += 1
        if count > MOST_MENDED:
            return None
        mended = bytearray(body) if mended is None else mended
        mended[start:end] = b"\\ufffd"
    return None if mended is None else bytes(mended)


def _is_escaped(body: bytes, at: int) -> bool:
    """Whether an odd number of backslashes stands before this one."""
    width = 64
    while True:
        before = body[max(0, at - width) : at]
        run = len(before) - len(before.rstrip(b"\\"))
        if run < width:
            return run % 2 == 1
        width *= 16


def plain_json(data: bytes) -> Any:
    """The standard library's reading, which takes lone surrogates; NaN and Infinity stay no JSON. Raises ValueError,
    RecursionError."""
    return json.loads(data.decode("utf-8", "replace"), parse_constant=_no_constant)


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def any_attached(parts: Iterator[P], is_attached: Callable[[P], bool]) -> bool:
    """Whether a part is an attachment. Of more parts than anybody sends it is assumed, which costs less than a look at
    each."""
    some = list(islice(parts, MOST_PARTS))
    return len(some) == MOST_PARTS or any(map(is_attached, some))


def given(value: msgspec.Raw) -> bytes:
    """The JSON of a field that is only looked at on demand, b"" where it is missing or null. (A Raw can't be optional.)"""
    text = bytes(value)
    return b"" if text == b"null" else text


def links(value: msgspec.Raw) -> bool:
    """Whether a part's source is an address to be fetched rather than data: it stands at the beginning of either."""
    return b"http" in given(value)[:200]
