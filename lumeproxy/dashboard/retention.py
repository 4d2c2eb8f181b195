"""The job that ends what is kept for a time: addresses and user agents first, then whole usage records; and that sums up
days which are over.

It works in small transactions with pauses between them, so that calls are not delayed; it may be broken off anywhere, and
goes on from what it finds. When it has taken something away it empties the write-ahead log, in which old pages still lie.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from lumeproxy.clock import Clock
from lumeproxy.core.limits import DAY_MS, day_of
from lumeproxy.dashboard.erasing import emptied
from lumeproxy.errors import StoreUnavailable
from lumeproxy.store import notices, repeats, retention, rollups
from lumeproxy.store.database import Database
from lumeproxy.store.retention import START

ROUND_S = 3600.0
# Changed in one transaction: as many as take less than LONG_MS, since calls wait for it. Deleting is slow where pages have
# to be read from the disk (measured: 100 rows of ten million took up to 300 ms), clearing takes a millisecond for 100.
MOST_ROWS, LEAST_ROWS, LONG_MS = 100, 4, 8
LOOK_ROWS = 2000  # read at once
PAUSE_S = (
    0.02  # between two transactions, and three times as long as one took: the writer is the calls' most of the time
)

Pause = Callable[[float], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Terms:
    """Days for which something is kept; 0 for ever."""

    address_days: int
    usage_days: int
    answer_days: int


@dataclass(frozen=True, slots=True)
class Done:
    """How many records a round has cleared and deleted."""

    cleared: int
    deleted: int


class Retention:
    """The job of one server."""

    def __init__(
        self, database: Database, clock: Clock, log: FilteringBoundLogger, terms: Terms, pause: Pause = asyncio.sleep
    ) -> None:
        self._database = database
        self._clock = clock
        self._log = log
        self._terms = terms
        self._pause = pause
        # A call that a crash left open is settled at the start, long after its time: so each start looks at all records.
        self._looked = START
        self._dirty = True
        self._rows = LEAST_ROWS

    async def run(self) -> None:
        """A round at the start and then each hour, for ever."""
        while True:
            try:
                await self.once()
            except StoreUnavailable as error:
                self._log.error("retention_waits", reason=error.code)  # the next round finds what is left
            await self._pause(ROUND_S)

    async def once(self) -> Done:
        """One round. Raises StoreUnavailable; what was done until then stays done."""
        now_ms = self._clock.now_ms()
        done = Done(await self._clear(now_ms), await self._fold(now_ms))
        while await self._database.write(rollups.sum_next, day_of(now_ms) - 1):
            await self._pause(PAUSE_S)
        if await self._database.read(notices.unseen):  # nobody is told of them; their time runs all the same
            await self._database.write(notices.stamp, now_ms)
        before_ms = now_ms - self._terms.answer_days * DAY_MS
        for forget in (repeats.forget, notices.forget):
            while await self._database.write(forget, before_ms, MOST_ROWS) == MOST_ROWS:
                await self._pause(PAUSE_S)
        if done.cleared or done.deleted:
            self._log.info("retention", cleared_records=done.cleared, deleted_records=done.deleted)
            self._dirty = True
        if self._dirty:
            self._dirty = not await emptied(self._database)
        return done

    async def _clear(self, now_ms: int) -> int:
        if not self._terms.address_days:
            return 0
        before_ms, cleared, more = now_ms - self._terms.address_days * DAY_MS, 0, True
        while more:
            look = await self._database.read(retention.with_address, self._looked, before_ms, LOOK_ROWS)
            await self._each(look.call_ids, lambda batch: self._database.write(retention.clear, batch))
            cleared += len(look.call_ids)
            self._looked, more = look.place, look.more
            await self._pause(PAUSE_S)
        return cleared

    async def _fold(self, now_ms: int) -> int:
        if not self._terms.usage_days:
            return 0
        day, deleted = day_of(now_ms) - self._terms.usage_days, 0
        while old := await self._database.read(retention.older, day, LOOK_ROWS):
            await self._each(old, lambda batch: self._database.write(retention.fold, day, batch))
            deleted += len(old)
        return deleted

    async def _each(self, call_ids: list[str], write: Callable[[list[str]], Awaitable[None]]) -> None:
        """Change records in transactions that stay short."""
        at = 0
        while at < len(call_ids):
            batch = call_ids[at : at + self._rows]
            at += len(batch)
            self._dirty = True
            began_ms = self._clock.monotonic_ms()
            await write(batch)
            took_ms = self._clock.monotonic_ms() - began_ms
            self._rows = (
                max(LEAST_ROWS, self._rows // 2) if took_ms > LONG_MS else min(MOST_ROWS, self._rows + LEAST_ROWS)
            )
            await self._pause(max(PAUSE_S, 3 * took_ms / 1000))
