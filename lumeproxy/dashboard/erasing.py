"""`account.erase`: closes an account and takes away all that points to a person or a machine; the ledger stays.

Its records are wiped in small batches, so that no call waits for them; one that is broken off goes on where it stopped when
it is asked for again. Old pages are overwritten by SQLite (secure_delete) and the write-ahead log is emptied at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from lumeproxy.clock import Clock
from lumeproxy.dashboard import arguments as args
from lumeproxy.dashboard import shown
from lumeproxy.errors import Refused
from lumeproxy.store import retention
from lumeproxy.store.database import Database
from lumeproxy.store.retention import START

BATCH_ROWS = 200  # of records changed in one transaction: about 2 ms
LOOK_ROWS = 2000  # of records looked at in one read
# The calls of an account that was closed just now end within a second; a reader in the way of the log within less.
TRIES, PAUSE_S = 50, 0.1


class Erasing:
    """The operation on one database; `on_change` makes the running server obey a closed account."""

    def __init__(self, database: Database, clock: Clock, on_change: Callable[[], None]) -> None:
        self._database = database
        self._clock = clock
        self._on_change = on_change

    def table(self) -> args.Table:
        """The operation by name."""
        return {"account.erase": (args.Name, self._erase)}

    async def _erase(self, given: args.Name) -> Any:
        account = await self._database.write(retention.close, given.name, self._clock.now_ms())
        self._on_change()
        for _ in range(TRIES):
            if not await self._database.read(retention.open_calls, account.id):
                break
            await asyncio.sleep(PAUSE_S)
        else:
            raise Refused(
                f"The account {account.name} is closed, but calls of it are still ending; erase it again in a moment."
            )
        place, more = START, True
        while more:
            look = await self._database.read(retention.with_traces, account.id, place, LOOK_ROWS)
            place, more = look.place, look.more
            for at in range(0, len(look.call_ids), BATCH_ROWS):
                await self._database.write(retention.wipe, look.call_ids[at : at + BATCH_ROWS])
        erased = await self._database.write(retention.erase, account.id, self._clock.now_ms())
        self._on_change()
        await emptied(self._database)
        return shown.account(erased)


async def emptied(database: Database) -> bool:
    """Empty the write-ahead log, trying again while a reader is in the way; False when one stayed there."""
    for _ in range(TRIES):
        if await database.between(retention.truncate_log):
            return True
        await asyncio.sleep(PAUSE_S)
    return False
