"""Cancelling a coroutine at a chosen point: the only way to see what each of its awaits leaves behind."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any


def cancel() -> None:
    """Cancel the running task, which takes effect where it waits next."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


class Steps:
    """Runs coroutines and acts at the `at`-th point where they wait, and at each later one if `ever_after`.

    `reached` tells how many there were."""

    def __init__(self, act: Callable[[], None] = cancel) -> None:
        self.act = act
        self.at = 0
        self.ever_after = False
        self.reached = 0

    async def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        self.reached = 0
        return await self._stepped(coroutine)

    @types.coroutine
    def _stepped(self, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        error: BaseException | None = None
        while True:
            try:
                waited_for = coroutine.send(None) if error is None else coroutine.throw(error)
            except StopIteration as end:
                return end.value
            self.reached += 1
            if self.reached == self.at or (self.ever_after and self.reached > self.at > 0):
                self.act()
            try:
                yield waited_for
                error = None
            except BaseException as thrown:
                error = thrown
