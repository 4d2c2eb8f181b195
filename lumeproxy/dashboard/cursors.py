"""Cursors: where a part of a list ended, in a form that callers keep and give back, not read.

A cursor holds the place of the last row, not a number of rows: what is added or deleted meanwhile neither repeats a row nor
skips one. It belongs to its list and its filters and is refused for any other, such as another account's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any

import msgspec

from lumeproxy.errors import InvalidArguments

_REFUSAL = "This cursor does not belong to this list; leave it out to begin at the front."


def sealed(place: Any, *of: object) -> str:
    """The cursor of a place in the list `of` (its name and filters)."""
    return base64.urlsafe_b64encode(msgspec.json.encode([_mark(of), place])).decode().rstrip("=")


def opened(cursor: str, kind: Any, *of: object) -> Any:
    """The place in a list, of a type that msgspec can check. Raises InvalidArguments for what is no cursor of this list."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        mark, place = msgspec.json.decode(text, type=tuple[str, kind])
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise InvalidArguments(_REFUSAL) from None
    if mark != _mark(of):
        raise InvalidArguments(_REFUSAL)
    return place


def _mark(of: tuple[object, ...]) -> str:
    return hashlib.sha256(repr(of).encode()).hexdigest()[:12]
