"""How many calls an upstream has running at once, and a short, fair queue before it: first come, first served.

A call that finds no place waits for a moment and then goes elsewhere, or is told to come again. Must not know why there is
a limit, nor who calls.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque


class Slots:
    """The places at one upstream; `limit` 0 is no limit, and may change at any time."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many calls stand in the queue."""
        return len(self._waiting)

    def free(self) -> bool:
        """Whether a call may go at once."""
        return not self.limit or (self.running < self.limit and not self._waiting)

    async def enter(self, *, wait_ms: int, queue_calls: int) -> bool:
        """Take a place, which `leave` gives back; False where none came free in time, or too many are waiting."""
        if self.free():
            self.running += 1
            return True
        if not wait_ms or len(self._waiting) >= queue_calls:
            return False
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(wait_ms / 1000):
                await place
        except TimeoutError:
            # One that was given in the very moment in which the patience ended is a place all the same.
            return self._given_up(place)
        except asyncio.CancelledError:
            if self._given_up(place):
                self.leave()
            raise
        return True

    def _given_up(self, place: asyncio.Future[None]) -> bool:
        """Leave the queue; whether the place had been given already."""
        if place.done() and not place.cancelled():
            return True
        with contextlib.suppress(ValueError):  # `leave` has passed over it
            self._waiting.remove(place)
        return False

    def leave(self) -> None:
        """Give a place back; the first in the queue has it."""
        self.running -= 1
        while self._waiting and (not self.limit or self.running < self.limit):
            place = self._waiting.popleft()
            if not place.done():  # else its call has just been cancelled
                self.running += 1
                place.set_result(None)
