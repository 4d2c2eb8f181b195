"""What an upstream's answer means: whose fault it is, and whether the request may be sent again elsewhere. Pure.

A request is sent again only where it can't have been billed: it never arrived, or the answer is an error. A timeout (504,
and Cloudflare's own) says that it may still be running, and a reset after it was sent says nothing at all: those are never
repeated. Retry-After: RFC 9110 section 10.2.3 (2022-06).
"""

from __future__ import annotations

import email.utils
import enum
from collections.abc import Sequence
from dataclasses import dataclass

REFUSING = frozenset({401, 402, 403})
REPEATABLE = frozenset({500, 502, 503, 529})
SLOW_DOWN = 429
NOT_OFFERED = 501
FIRST_SERVER_ERROR = 500


class Blame(enum.Enum):
    """What an answer speaks against."""

    NOBODY = 0
    UPSTREAM = 1  # all of its credentials
    CREDENTIAL = 2  # this one, for a while: its rate limit
    REFUSED = 3  # this one: unknown, without money, not allowed


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reply's head says. `wait_ms`: how long the upstream asks to be left alone, where that is long."""

    blame: Blame
    repeat: bool
    wait_ms: int = 0


FINE = Verdict(Blame.NOBODY, repeat=False)
REFUSAL = Verdict(Blame.REFUSED, repeat=True)


def judge(status: int, wait_ms: int | None, brief_wait_ms: int) -> Verdict:
    """The verdict on a status and its Retry-After (None without one).

    A rate limit that asks for no more than `brief_wait_ms` is the client's to wait out: it stays with its prompt cache.
    """
    if status < 400:
        return FINE
    if status in REFUSING:
        return REFUSAL
    if status == SLOW_DOWN:
        if wait_ms is not None and wait_ms <= brief_wait_ms:
            return FINE
        return Verdict(Blame.CREDENTIAL, repeat=True, wait_ms=wait_ms or 0)
    if status < FIRST_SERVER_ERROR or status == NOT_OFFERED:
        return FINE
    long = wait_ms if wait_ms is not None and wait_ms > brief_wait_ms else 0
    return Verdict(Blame.UPSTREAM, repeat=status in REPEATABLE, wait_ms=long)


def asked_wait_ms(headers: Sequence[tuple[str, str]], now_ms: int) -> int | None:
    """How long a reply asks to wait, by `retry-after-ms` or `retry-after`; None where it does not say, or not so that
    it could be understood. `now_ms` is the wall clock's."""
    named = {name.lower(): value.strip() for name, value in headers if name.lower().startswith("retry-after")}
    exact, plain = named.get("retry-after-ms", ""), named.get("retry-after", "")
    try:
        if exact:
            return _positive(float(exact))
        if plain.replace(".", "", 1).isdigit():
            return _positive(float(plain) * 1000)
        return _positive(email.utils.parsedate_to_datetime(plain).timestamp() * 1000 - now_ms) if plain else None
    except (ValueError, OverflowError):
        return None


def _positive(ms: float) -> int:
    return max(0, int(ms))


def usefulness(status: int | None, wait_ms: int | None) -> int:
    """How much an answer tells a client, when several have failed and one is passed on: above all when to come back;
    then that the provider is in trouble; last what concerns the operator alone, and that nobody answered (None)."""
    if status is None:
        return 0
    if status in REFUSING:
        return 1
    if wait_ms is not None:
        return 4
    return 3 if status in (SLOW_DOWN, 529, 503) else 2
