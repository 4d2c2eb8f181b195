"""The watch over running calls: whom it interrupts, when, and what it keeps of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lumeproxy.proxy.live import Cause, LiveCall, LiveCalls, Patience, Stage
from tests.support.clock import FakeClock

PATIENCE = Patience(first_byte_ms=600, stream_idle_ms=300, client_stall_ms=60, call_ms=10_000, drain_ms=15)


class Watched:
    """A set of calls under the watch, each a task that waits for ever and notes its being cancelled."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.kept: list[list[tuple[str, Any]]] = []
        self.live = LiveCalls(clock, PATIENCE, checkpoint_ms=2000, keep=self.kept.append)
        self.tasks: list[asyncio.Task[None]] = []
        self.gone: set[str] = set()
        self.points: dict[str, Any] = {}

    def begin(self, call_id: str, account_id: int = 1, key_id: str = "k1") -> LiveCall:
        task = asyncio.ensure_future(wait_for_ever())
        self.tasks.append(task)
        call = LiveCall(
            call_id=call_id,
            account_id=account_id,
            key_id=key_id,
            task=task,
            gone=lambda: call_id in self.gone,
            checkpoint=lambda: self.points.pop(call_id, None),
            started_ms=self.clock.monotonic_ms(),
        )
        self.live.add(call)
        return call

    async def after(self, ms: int) -> None:
        self.clock.advance(ms)
        self.live.look()
        await asyncio.sleep(0)


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


@pytest.fixture
async def watched(clock: FakeClock):
    made = Watched(clock)
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


@pytest.mark.parametrize(
    ("stage", "patience_ms", "cause"),
    [
        (Stage.FIRST_BYTE, 600, Cause.UPSTREAM_SILENT),
        (Stage.UPSTREAM, 300, Cause.UPSTREAM_SILENT),
        (Stage.CLIENT, 60, Cause.CLIENT_STALLED),
        (Stage.OURSELVES, 10**9, None),
    ],
)
async def test_each_stage_has_its_patience(
    watched: Watched, stage: Stage, patience_ms: int, cause: Cause | None
) -> None:
    call = watched.begin("a")
    call.stage = stage

    await watched.after(patience_ms)
    assert (call.cause, call.task.cancelling()) == (None, 0)
    await watched.after(1)

    assert call.cause is cause
    assert call.task.done() is (cause is not None)


async def test_progress_renews_the_patience_until_the_whole_takes_too_long(watched: Watched) -> None:
    call = watched.begin("a")
    call.stage = Stage.CLIENT
    for _ in range(10_000 // 50):
        call.progress += 1
        await watched.after(50)
        assert call.cause is None
    call.progress += 1

    await watched.after(1)

    assert call.cause is Cause.TOO_LONG


@pytest.mark.parametrize("stage", [Stage.UPSTREAM, Stage.CLIENT])
async def test_a_client_that_leaves_is_seen_with_the_next_look(watched: Watched, stage: Stage) -> None:
    stays, leaves = watched.begin("a"), watched.begin("b")
    stays.stage = leaves.stage = stage
    watched.gone.add("b")

    await watched.after(0)

    assert (stays.cause, leaves.cause) == (None, Cause.CLIENT_GONE)
    assert (stays.task.done(), leaves.task.done()) == (False, True)


@pytest.mark.parametrize("later", [Stage.FIRST_BYTE, Stage.UPSTREAM, Stage.CLIENT])
async def test_before_the_reply_a_clients_leaving_is_noted_and_waited_out(watched: Watched, later: Stage) -> None:
    """The request is on its way and billed: what the reply says is worth `drain_ms`, however far the reply gets."""
    call = watched.begin("a")
    watched.gone.add("a")
    await watched.after(5)
    assert (call.cause, call.task.done()) == (Cause.CLIENT_GONE, False)
    call.stage = later

    await watched.after(15)
    assert not call.task.done()
    await watched.after(1)

    assert call.task.done()


async def test_a_call_is_interrupted_once_and_never_while_it_settles(watched: Watched) -> None:
    first, settling = watched.begin("a"), watched.begin("b")
    settling.stage = Stage.OURSELVES
    watched.gone |= {"a", "b"}

    for call in (first, settling):
        call.interrupt(Cause.SUSPENDED)
        call.interrupt(Cause.STOPPING)

    assert (first.cause, first.task.cancelling()) == (Cause.SUSPENDED, 1)
    assert (settling.cause, settling.task.cancelling()) == (None, 0)


async def test_calls_are_interrupted_by_account_by_key_or_all(watched: Watched) -> None:
    one, two, three = watched.begin("a", 1, "k1"), watched.begin("b", 1, "k2"), watched.begin("c", 2, "k3")
    assert watched.live.key_ids() == {"k1", "k2", "k3"}

    watched.live.interrupt_key("k2", Cause.REVOKED)
    assert [call.cause for call in (one, two, three)] == [None, Cause.REVOKED, None]
    watched.live.interrupt_account(1, Cause.SUSPENDED)
    assert [call.cause for call in (one, two, three)] == [Cause.SUSPENDED, Cause.REVOKED, None]
    watched.live.interrupt_account(None, Cause.STOPPING)

    assert [call.cause for call in (one, two, three)] == [Cause.SUSPENDED, Cause.REVOKED, Cause.STOPPING]
    watched.live.remove(two)
    assert watched.live.key_ids() == {"k1", "k3"}


async def test_checkpoints_are_collected_every_two_seconds_and_urgent_ones_at_once(watched: Watched) -> None:
    calm, urgent = watched.begin("a"), watched.begin("b")
    calm.stage = urgent.stage = Stage.OURSELVES
    watched.points = {"a": 1, "b": 2}
    urgent.urgent = True

    await watched.after(1999)
    assert watched.kept == [[("b", 2)]]
    assert not urgent.urgent
    await watched.after(1)
    assert watched.kept == [[("b", 2)], [("a", 1)]]
    await watched.after(2000)

    assert len(watched.kept) == 2  # nothing new, nothing written


async def test_emptied_waits_for_the_last_call(watched: Watched) -> None:
    await watched.live.emptied()
    one, two = watched.begin("a"), watched.begin("b")
    waiting = asyncio.ensure_future(watched.live.emptied())
    watched.tasks.append(waiting)
    watched.live.remove(one)
    watched.live.remove(one)
    await asyncio.sleep(0)
    assert (len(watched.live), waiting.done()) == (1, False)

    watched.live.remove(two)

    await asyncio.wait_for(waiting, 1)
    assert len(watched.live) == 0


async def test_the_watch_looks_by_itself(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lumeproxy.proxy.live.WATCH_MS", 1)
    call = watched.begin("a")
    call.stage = Stage.CLIENT
    watched.gone.add("a")
    watched.tasks.append(asyncio.ensure_future(watched.live.watch()))

    await asyncio.wait_for(asyncio.gather(call.task, return_exceptions=True), 5)

    assert call.cause is Cause.CLIENT_GONE
