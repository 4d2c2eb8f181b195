"""How fast a key may call and how many calls an account may have running. Decides from values and a clock; no I/O.

Both are for abuse and for clients gone wild (a Codex that compacted in a loop made 2,990 calls in 150 s), not for billing:
credit is enforced in the ledger. Must not know dialects, prices or the database.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lumeproxy.clock import Clock
from lumeproxy.errors import RateLimited
from lumeproxy.store.keys import StoredKey

MINUTE_MS = 60_000
# Buckets kept before those that have filled up again, and so say nothing any more, are dropped.
REMEMBERED_KEYS = 10_000
# What a client is told to wait for another of its calls to end; nobody knows how long one takes.
SLOT_WAIT_S = 5


class Pace:
    """Counts calls by key and by account; 0 turns a limit off."""

    def __init__(self, clock: Clock, *, calls_per_minute: int, concurrent_calls: int) -> None:
        self._clock = clock
        self._per_minute = calls_per_minute
        self._concurrent = concurrent_calls
        # A key's bucket holds calls times MINUTE_MS, so that a millisecond adds exactly `calls_per_minute` to it.
        self._buckets: dict[str, tuple[int, int]] = {}
        self._running: dict[int, int] = {}

    @contextlib.contextmanager
    def slot(self, key: StoredKey) -> Iterator[None]:
        """Let one call run inside the block. Raises RateLimited, with the true wait, where a limit is reached; then
        nothing was counted."""
        running = self._running.get(key.account_id, 0)
        if self._concurrent and running >= self._concurrent:
            raise RateLimited(
                f"This account has {running} calls running, which is its limit; wait for one to end.",
                retry_after_s=SLOT_WAIT_S,
            )
        if self._per_minute:
            self._draw(key.id)
        self._running[key.account_id] = running + 1
        try:
            yield
        finally:
            left = self._running[key.account_id] - 1
            if left:
                self._running[key.account_id] = left
            else:
                del self._running[key.account_id]

    def _draw(self, key_id: str) -> None:
        """Take one call out of the key's bucket, which holds a minute's worth and refills evenly."""
        now_ms, full = self._clock.monotonic_ms(), self._per_minute * MINUTE_MS
        level, at_ms = self._buckets.get(key_id, (full, now_ms))
        level = min(full, level + (now_ms - at_ms) * self._per_minute)
        if level < MINUTE_MS:
            wait_ms = -(-(MINUTE_MS - level) // self._per_minute)
            raise RateLimited(
                f"This key may make {self._per_minute} calls a minute, and has made them; please wait.",
                retry_after_s=max(1, -(-wait_ms // 1000)),
            )
        if key_id not in self._buckets and len(self._buckets) >= REMEMBERED_KEYS:
            self._drop_full(now_ms, full)
        self._buckets[key_id] = (level - MINUTE_MS, now_ms)

    def _drop_full(self, now_ms: int, full: int) -> None:
        kept = {
            key_id: (level, at_ms)
            for key_id, (level, at_ms) in self._buckets.items()
            if level + (now_ms - at_ms) * self._per_minute < full
        }
        self._buckets = kept if len(kept) < REMEMBERED_KEYS else {}
