"""The format of redeem codes: 16 characters of Crockford's base32 in groups of four, 80 random bits.

https://www.crockford.com/base32.html (2026-11-24): without I, L, O and U, so that a code can be read to somebody. What is
read in small letters, with other spaces, or as O for 0 is the same code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CHARS = 16
_BYTES = _CHARS * 5 // 8
_AS_MEANT = str.maketrans("OIL", "011", "- \t\r\n")


def make(random_bytes: Callable[[int], bytes]) -> str:
    """A new code from a source of random bytes, as XXXX-XXXX-XXXX-XXXX."""
    number = int.from_bytes(random_bytes(_BYTES))
    chars = "".join(_ALPHABET[number >> 5 * place & 31] for place in reversed(range(_CHARS)))
    return "-".join(chars[at : at + 4] for at in range(0, _CHARS, 4))


def digest(text: str) -> bytes:
    """What is stored of a code, however it was typed: 32 bytes of SHA-256."""
    return hashlib.sha256(text.upper().translate(_AS_MEANT).encode("utf-8", "replace")).digest()
