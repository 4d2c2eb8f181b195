"""The id of a call, which is also its hold's and its usage record's.

`call_` + 10 characters of milliseconds + 16 random ones, Crockford base 32: sorts by time, so that the index of ten
million records grows at one end, and cannot be guessed (80 bit). Never taken from a client: Codex repeats its own.
"""

from __future__ import annotations

PREFIX = "call_"
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
RANDOM_BYTES = 10
# Two characters at a time: an id is made for every request, and this is five times as fast as one by one.
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_SHIFTS = tuple(range(120, -1, -10))


def make(now_ms: int, random: bytes) -> str:
    """A new id from epoch ms and RANDOM_BYTES random bytes."""
    number = now_ms << 80 | int.from_bytes(random[:RANDOM_BYTES], "big")
    return PREFIX + "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])
