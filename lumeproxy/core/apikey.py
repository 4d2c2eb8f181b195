"""The format of our API keys: `lume_` + 8 public id + `_` + 32 random base62 + 6 base62 of a CRC-32.

As GitHub's tokens (github.blog, "Behind GitHub's new authentication token formats", 2021-04-05): the prefix lets scanners
find a leaked key, the checksum lets us refuse a typo without a look-up. Only the SHA-256 is stored; a slow hash would
protect guessable secrets, which 190 random bits are not, and cost 50 ms a call.

For leak scanners: lume_(admin_)?[0-9A-Za-z]{8}_[0-9A-Za-z]{38}
"""

from __future__ import annotations

import hashlib
import hmac
import zlib
from collections.abc import Callable
from dataclasses import dataclass

PREFIX = "lume_"
ADMIN_PREFIX = "lume_admin_"  # of a key of the admin API, which makes no calls; else as the others
ID_CHARS = 8
SECRET_CHARS = 32
CHECK_CHARS = 6
_REST_CHARS = ID_CHARS + 1 + SECRET_CHARS + CHECK_CHARS
LENGTH = len(PREFIX) + _REST_CHARS

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_UNBIASED = 248  # the largest multiple of 62 in a byte; bytes above are drawn again


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made; `text` is the secret, to be shown once."""

    id: str
    text: str
    sha256: bytes
    last4: str


def make(random_bytes: Callable[[int], bytes], prefix: str = PREFIX) -> NewKey:
    """A new key from a source of random bytes."""
    key_id = _base62(random_bytes, ID_CHARS)
    body = f"{prefix}{key_id}_{_base62(random_bytes, SECRET_CHARS)}"
    text = body + _checksum(body)
    return NewKey(key_id, text, digest(text), text[-4:])


def id_in(text: str, prefix: str = PREFIX) -> str:
    """What stands where a key has its public id; whether it is one, `parse` or a known digest tells."""
    return text[len(prefix) : len(prefix) + ID_CHARS]


def parse(text: str, prefix: str = PREFIX) -> str | None:
    """The public id of a well-formed key of that kind, None for anything else: wrong length, alphabet or checksum."""
    if len(text) != len(prefix) + _REST_CHARS or not text.isascii() or not text.startswith(prefix):
        return None
    key_id = id_in(text, prefix)
    if (
        text[len(prefix) + ID_CHARS] != "_"
        or not key_id.isalnum()
        or text[-CHECK_CHARS:] != _checksum(text[:-CHECK_CHARS])
    ):
        return None
    return key_id


def digest(text: str) -> bytes:
    """What is stored of a key: 32 bytes of SHA-256."""
    return hashlib.sha256(text.encode()).digest()


def verify(text: str, sha256: bytes) -> bool:
    """Whether the text is the key of that digest, in time that does not depend on where they differ."""
    return hmac.compare_digest(digest(text), sha256)


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    digits = []
    for _ in range(CHECK_CHARS):
        number, rest = divmod(number, 62)
        digits.append(_ALPHABET[rest])
    return "".join(reversed(digits))


def _base62(random_bytes: Callable[[int], bytes], count: int) -> str:
    chars: list[str] = []
    while len(chars) < count:
        chars += [_ALPHABET[byte % 62] for byte in random_bytes(count) if byte < _UNBIASED]
    return "".join(chars[:count])
