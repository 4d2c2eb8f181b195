"""The job that ends what is kept for a time: in small steps, resumable, harmless to repeat."""

from __future__ import annotations

import io
from typing import Any

import pytest

from lumeproxy import logs
from lumeproxy.core.limits import DAY_MS
from lumeproxy.dashboard import retention
from lumeproxy.dashboard.retention import Done, Retention, Terms
from lumeproxy.errors import StoreUnavailable
from lumeproxy.store import accounts, notices, usage
from lumeproxy.store.audit import audit
from lumeproxy.store.database import Database
from lumeproxy.store.retention import folded_day
from tests.store.books import DOLLAR, call, customer, remember
from tests.support.clock import START_MS, FakeClock

TERMS = Terms(address_days=30, usage_days=400, answer_days=7)


async def at_once(_seconds: float) -> None:
    """A pause that takes no time."""


def job(database: Database, clock: FakeClock, terms: Terms = TERMS, pause: retention.Pause = at_once) -> Retention:
    log = logs.make(level="debug", style="json", clock=clock, stream=io.StringIO())
    return Retention(database, clock, log, terms, pause)


@pytest.fixture
async def kept(database: Database) -> Database:
    """A database with a call a day for 450 days, today last."""

    def book(tx):
        ann = customer(tx, "ann", 100 * DOLLAR)
        remember(tx)
        for day in range(450):
            who: dict[str, Any] = {"client_address": "10.0.0.1", "user_agent": "x"}
            call(tx, f"c{day:03}", ann.id, output_tokens=1, time_ms=START_MS - (449 - day) * DAY_MS, **who)

    await database.write(book)
    return database


async def test_a_round_clears_and_deletes_by_the_clock_and_the_next_finds_nothing(kept: Database, clock: FakeClock):
    work = job(kept, clock)

    assert [await work.once() for _ in range(2)] == [Done(419, 49), Done(0, 0)]
    records = await kept.read(usage.find)
    assert [record["call_id"] for record in records] == [f"c{n:03}" for n in range(449, 48, -1)]
    assert [record["client_address"] for record in records] == ["10.0.0.1"] * 31 + [""] * 370
    clock.advance(DAY_MS)
    assert await work.once() == Done(1, 1)
    clock.advance(1)
    assert await work.once() == Done(1, 0)  # to the millisecond; whole records go by the day
    assert await job(kept, clock).once() == Done(0, 0)  # another start
    assert await kept.read(folded_day) == (START_MS + DAY_MS) // DAY_MS - 400
    (total,) = await kept.read(usage.totals, "model")
    assert (total["calls"], total["cost_nanousd"]) == (450, 4_500_000)


async def test_zero_keeps_for_ever(kept: Database, clock: FakeClock):
    assert await job(kept, clock, Terms(0, 0, 7)).once() == Done(0, 0)
    assert await job(kept, clock, Terms(0, 400, 7)).once() == Done(0, 49)


async def test_a_round_that_is_broken_off_anywhere_leaves_the_books_in_order_and_is_gone_on_with(kept: Database, clock):
    class Stop(Exception):
        pass

    steps, rounds = 0, 0

    async def stop(_seconds: float) -> None:
        nonlocal steps
        steps += 1
        if steps > 1:
            steps = 0
            raise Stop

    while True:
        try:
            await job(kept, clock, pause=stop).once()
        except Stop:
            rounds += 1
            if rounds % 7 == 1:
                assert await kept.read(audit) == []
            continue
        break
    assert rounds > 2
    assert await kept.read(audit) == []
    assert len(await kept.read(usage.find)) == 401


async def test_it_goes_in_small_transactions_and_pauses_after_each(kept: Database, clock, monkeypatch):
    monkeypatch.setattr(retention, "MOST_ROWS", 10)
    monkeypatch.setattr(retention, "LOOK_ROWS", 50)
    waits: list[float] = []
    sizes: list[int] = []
    write = kept.write

    async def counted(fn, *args):
        sizes.append(len(args[-1]) if isinstance(args[-1], list) else 0)
        return await write(fn, *args)

    async def pause(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(kept, "write", counted)
    await job(kept, clock, pause=pause).once()

    assert max(sizes) == 10
    assert sum(sizes) == 419 + 49
    assert len(waits) >= sum(size > 0 for size in sizes)


async def test_transactions_get_smaller_where_they_take_long(kept: Database, clock: FakeClock, monkeypatch):
    sizes: list[int] = []
    waits: list[float] = []
    write = kept.write

    async def slow(fn, *args):
        if isinstance(args[-1], list):
            sizes.append(len(args[-1]))
            clock.steady_ms += len(args[-1])  # a millisecond a row
        return await write(fn, *args)

    async def pause(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(kept, "write", slow)
    assert await job(kept, clock, pause=pause).once() == Done(419, 49)

    assert sizes[:6] == [4, 8, 12, 6, 10, 5]
    assert max(sizes) == 12
    assert waits[:3] == [0.02, 0.024, 0.036]


async def test_a_database_that_takes_no_writes_ends_a_round_and_not_the_job(kept: Database, clock, monkeypatch):
    rounds: list[float] = []

    class Enough(Exception):
        pass

    async def pause(seconds: float) -> None:
        if seconds == retention.ROUND_S:
            rounds.append(seconds)
            if len(rounds) == 2:
                raise Enough

    async def broken(*_: object) -> None:
        raise StoreUnavailable("full")

    with monkeypatch.context() as patch:
        patch.setattr(kept, "write", broken)
        with pytest.raises(Enough):
            await job(kept, clock, pause=pause).run()
    assert len(await kept.read(usage.find)) == 450
    assert await job(kept, clock).once() == Done(419, 49)


async def test_answers_and_notices_go_after_their_days(database: Database, clock: FakeClock):
    def fall(tx):
        ann = customer(tx)
        remember(tx)
        accounts.set_low_balance(tx, "ann", DOLLAR)
        call(tx, "c1", ann.id, output_tokens=1, duration_ms=0)

    await database.write(fall)
    await job(database, clock).once()
    clock.advance(7 * DAY_MS)
    await job(database, clock).once()
    assert await database.read(notices.outcomes) == {"waiting": 1}
    clock.advance(1)
    await job(database, clock).once()
    assert await database.read(notices.outcomes) == {}
