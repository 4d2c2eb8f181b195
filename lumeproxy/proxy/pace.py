"""How fast a key, an account or an address may call, and how many calls each may have running. Values and a clock; no I/O.

All are for abuse and for clients gone wild (a Codex that compacted in a loop made 2,990 calls in 150 s), not for billing:
credit and budgets are enforced in the ledger. Must not know dialects, prices or the database.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator

from lumeproxy.clock import Clock
from lumeproxy.core.limits import USUAL, Limits
from lumeproxy.errors import RateLimited
from lumeproxy.proxy.guessing import group
from lumeproxy.store.keys import StoredKey

MINUTE_MS = 60_000
# Buckets kept before those that have filled up again, and so say nothing any more, are dropped.
REMEMBERED_BUCKETS = 10_000
# What a client is told to wait for another of its calls to end; nobody knows how long one takes.
SLOT_WAIT_S = 5


class Pace:
    """Counts calls by key, by account and by address; `key`, `account` and `address` are the usual limits of each."""

    def __init__(self, clock: Clock, *, key: Limits, account: Limits, address: Limits) -> None:
        self._key = _Counts(clock, "key", key)
        self._account = _Counts(clock, "account", account)
        self._address = _Counts(clock, "address", address)

    @contextlib.contextmanager
    def slot(self, key: StoredKey, address: str) -> Iterator[None]:
        """Let one call run inside the block. Raises RateLimited, with the true wait, where a limit is reached; then
        nothing was counted."""
        found = [
            self._account.part(key.account_id, key.account_limits),
            self._key.part(key.id, key.limits),
            self._address.part(group(address), USUAL) if self._address.counts else None,
        ]
        parts = [part for part in found if part is not None]
        for part in parts:
            part.check()
        for part in parts:
            part.enter()
        try:
            yield
        finally:
            for part in parts:
                part.leave()


class _Counts:
    """Buckets and running calls of all keys, or of all accounts, or of all addresses."""

    def __init__(self, clock: Clock, word: str, usual: Limits) -> None:
        self.clock = clock
        self.word = word
        self.usual = usual
        self.running: dict[Hashable, int] = {}
        # Calls times MINUTE_MS, so that a millisecond adds exactly `calls_per_minute`; when; and the limit of then.
        self.buckets: dict[Hashable, tuple[int, int, int]] = {}

    @property
    def counts(self) -> bool:
        """Whether there is any usual limit."""
        return bool(self.usual.calls_per_minute or self.usual.concurrent_calls)

    def part(self, name: Hashable, own: Limits) -> _Part | None:
        """What counts a call of that name, None where nothing limits it."""
        limits = own.over(self.usual)
        per_minute, concurrent = limits.calls_per_minute or 0, limits.concurrent_calls or 0
        return _Part(self, name, per_minute, concurrent) if per_minute or concurrent else None

    def drop_full(self, now_ms: int) -> None:
        kept = {
            name: (level, at_ms, per_minute)
            for name, (level, at_ms, per_minute) in self.buckets.items()
            if level + (now_ms - at_ms) * per_minute < per_minute * MINUTE_MS
        }
        self.buckets = kept if len(kept) < REMEMBERED_BUCKETS else {}


class _Part:
    """One key, account or address for the time of one call."""

    __slots__ = ("_concurrent", "_counts", "_level", "_name", "_now_ms", "_per_minute")

    def __init__(self, counts: _Counts, name: Hashable, per_minute: int, concurrent: int) -> None:
        self._counts = counts
        self._name = name
        self._per_minute = per_minute
        self._concurrent = concurrent
        self._level = self._now_ms = 0

    def check(self) -> None:
        """Raise RateLimited where one more call is one too many."""
        counts, word = self._counts, self._counts.word
        if self._concurrent and counts.running.get(self._name, 0) >= self._concurrent:
            raise RateLimited(
                f"This {word} has {self._concurrent} calls running, which is its limit; wait for one to end.",
                retry_after_s=SLOT_WAIT_S,
            )
        if self._per_minute:
            self._now_ms, full = counts.clock.monotonic_ms(), self._per_minute * MINUTE_MS
            level, at_ms, _ = counts.buckets.get(self._name, (full, self._now_ms, 0))
            self._level = min(full, level + (self._now_ms - at_ms) * self._per_minute)
            if self._level < MINUTE_MS:
                wait_ms = -(-(MINUTE_MS - self._level) // self._per_minute)
                raise RateLimited(
                    f"This {word} may make {self._per_minute} calls a minute, and has made them; please wait.",
                    retry_after_s=max(1, -(-wait_ms // 1000)),
                )

    def enter(self) -> None:
        """Count the call, after all checks have passed and with no wait in between."""
        counts = self._counts
        if self._per_minute:
            if self._name not in counts.buckets and len(counts.buckets) >= REMEMBERED_BUCKETS:
                counts.drop_full(self._now_ms)
            counts.buckets[self._name] = (self._level - MINUTE_MS, self._now_ms, self._per_minute)
        if self._concurrent:
            counts.running[self._name] = counts.running.get(self._name, 0) + 1

    def leave(self) -> None:
        """The call has ended."""
        if self._concurrent:
            running = self._counts.running
            if running[self._name] == 1:
                del running[self._name]
            else:
                running[self._name] -= 1
