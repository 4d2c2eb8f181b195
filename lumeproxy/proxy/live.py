"""The calls that are running now, and the one task that watches over them.

aiohttp tells a handler nothing of a client that left and has no time limit for reading or writing; one task looks at all
open calls every WATCH_MS instead of a timer per call and chunk. It also collects the meters' checkpoints. It only ever
interrupts; what an interruption costs is decided in the exchange. Must not know dialects or prices.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lumeproxy.clock import Clock
from lumeproxy.store.ledger import CheckPoint

# How often the watch looks: a client's leaving is seen within this time, at 1,000 open calls for about 1 % of a core.
WATCH_MS = 50


class Cause(enum.Enum):
    """Why a running call is interrupted."""

    CLIENT_GONE = "client_gone"
    CLIENT_STALLED = "client_stalled"
    UPSTREAM_SILENT = "upstream_silent"
    TOO_LONG = "too_long"
    SUSPENDED = "suspended"
    REVOKED = "revoked"
    STOPPING = "stopping"


class Stage(enum.Enum):
    """Whom a call waits for, which decides how long it may."""

    FIRST_BYTE = 0
    UPSTREAM = 1
    CLIENT = 2
    OURSELVES = 3  # settling or draining: not to be interrupted


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call may make no progress, by stage, last in all, and how long a reply
    is awaited for a client that has left; ms."""

    first_byte_ms: int
    stream_idle_ms: int
    client_stall_ms: int
    call_ms: int
    drain_ms: int


class LiveCall:
    """A running call as the watch sees it.

    The exchange counts `progress` up and sets `stage`; `checkpoint` gives what is to be kept in case the process dies,
    None when nothing is new. `cause` is set once, when the call is interrupted.
    """

    __slots__ = ("account_id", "call_id", "cause", "checkpoint", "gone", "key_id", "progress", "seen", "seen_ms", "stage",
                 "started_ms", "task", "urgent")  # fmt: skip

    def __init__(
        self,
        *,
        call_id: str,
        account_id: int,
        key_id: str,
        task: asyncio.Task[object],
        gone: Callable[[], bool],
        checkpoint: Callable[[], CheckPoint | None],
        started_ms: int,
    ) -> None:
        self.call_id = call_id
        self.account_id = account_id
        self.key_id = key_id
        self.task = task
        self.gone = gone
        self.checkpoint = checkpoint
        self.started_ms = started_ms
        self.stage = Stage.FIRST_BYTE
        self.progress = 0
        self.seen = 0
        self.seen_ms = started_ms
        self.cause: Cause | None = None
        self.urgent = False  # the input usage has just become known: checkpoint it with the next look

    def interrupt(self, cause: Cause) -> None:
        """Stop waiting, unless the call is settling already or was interrupted before.

        A client that left before the reply began is only noted: the request is on its way and will be billed, so the
        exchange waits for what the reply says, until the watch's patience with it ends.
        """
        if self.cause is None and self.stage is not Stage.OURSELVES:
            self.cause = cause
            if cause is not Cause.CLIENT_GONE or self.stage is not Stage.FIRST_BYTE:
                self.task.cancel()


class LiveCalls:
    """All running calls of the process."""

    def __init__(
        self,
        clock: Clock,
        patience: Patience,
        *,
        checkpoint_ms: int,
        keep: Callable[[list[tuple[str, CheckPoint]]], None],
    ) -> None:
        self._clock = clock
        self._patience = patience
        self._checkpoint_ms = checkpoint_ms
        self._keep = keep
        self._calls: dict[str, LiveCall] = {}
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._next_checkpoint_ms = clock.monotonic_ms() + checkpoint_ms

    def __len__(self) -> int:
        """How many calls are running."""
        return len(self._calls)

    def add(self, call: LiveCall) -> None:
        """Begin to watch a call."""
        self._calls[call.call_id] = call
        self._emptied.clear()

    def remove(self, call: LiveCall) -> None:
        """The call has ended and is settled."""
        self._calls.pop(call.call_id, None)
        if not self._calls:
            self._emptied.set()

    def interrupt_account(self, account_id: int | None, cause: Cause) -> None:
        """Interrupt the calls of one account, or all with None."""
        for call in tuple(self._calls.values()):
            if account_id is None or call.account_id == account_id:
                call.interrupt(cause)

    def interrupt_key(self, key_id: str, cause: Cause) -> None:
        """Interrupt the calls that were made with one key."""
        for call in tuple(self._calls.values()):
            if call.key_id == key_id:
                call.interrupt(cause)

    def key_ids(self) -> set[str]:
        """The keys of the running calls."""
        return {call.key_id for call in self._calls.values()}

    async def emptied(self) -> None:
        """Wait until no call runs."""
        await self._emptied.wait()

    async def watch(self) -> None:
        """Look at all calls for ever; the owner of the task cancels it."""
        while True:
            await asyncio.sleep(WATCH_MS / 1000)
            self.look()

    def look(self) -> None:
        """One round: interrupt whoever must be, hand over the checkpoints that are due."""
        now_ms = self._clock.monotonic_ms()
        for call in tuple(self._calls.values()):
            self._judge(call, now_ms)
        due = now_ms >= self._next_checkpoint_ms
        if due:
            self._next_checkpoint_ms = now_ms + self._checkpoint_ms
        self._collect(call for call in self._calls.values() if due or call.urgent)

    def _collect(self, calls: Iterable[LiveCall]) -> None:
        rows = []
        for call in calls:
            call.urgent = False
            point = call.checkpoint()
            if point is not None:
                rows.append((call.call_id, point))
        if rows:
            self._keep(rows)

    def _judge(self, call: LiveCall, now_ms: int) -> None:
        if call.stage is Stage.OURSELVES:
            return
        if call.cause is not None:
            # Only noted, when the reply had not begun (see interrupt): cancelled calls settle, and are not seen here.
            if now_ms - call.seen_ms > self._patience.drain_ms:
                call.task.cancel()
            return
        if call.gone():
            call.seen_ms = now_ms
            call.interrupt(Cause.CLIENT_GONE)
            return
        if now_ms - call.started_ms > self._patience.call_ms:
            call.interrupt(Cause.TOO_LONG)
            return
        if call.progress != call.seen:
            call.seen, call.seen_ms = call.progress, now_ms
            return
        idle_ms = now_ms - call.seen_ms
        if call.stage is Stage.CLIENT:
            if idle_ms > self._patience.client_stall_ms:
                call.interrupt(Cause.CLIENT_STALLED)
        elif call.stage is Stage.UPSTREAM:
            if idle_ms > self._patience.stream_idle_ms:
                call.interrupt(Cause.UPSTREAM_SILENT)
        elif idle_ms > self._patience.first_byte_ms:
            call.interrupt(Cause.UPSTREAM_SILENT)
