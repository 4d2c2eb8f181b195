"""Endless work beside a block: it begins with the block, is cancelled at its end, and a bug in it ends the block."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any


@contextlib.asynccontextmanager
async def background(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Endless work beside the server; a bug in it ends the server."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in work]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
    except BaseExceptionGroup as several:
        # The group wraps whatever ends the block, also a plain sentence about a setting; its reader wants that alone.
        raise several.exceptions[0] from None
