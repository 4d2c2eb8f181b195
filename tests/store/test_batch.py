"""What runs on the loop's thread and what in the writer's, and that it makes no difference to anybody."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest

from lumeproxy.errors import OutOfCredit, StoreUnavailable
from lumeproxy.store import accounts, ledger, usage
from lumeproxy.store.batch import Job, brief, commit, prepared
from lumeproxy.store.database import FILE_NAME, Database
from tests.store import books
from tests.store.books import DOLLAR
from tests.support.clock import START_MS


@brief
def where(_tx: sqlite3.Connection, seen: list[threading.Thread]) -> None:
    seen.append(threading.current_thread())


def elsewhere(tx: sqlite3.Connection, seen: list[threading.Thread]) -> None:
    where(tx, seen)


def count(tx: sqlite3.Connection) -> int:
    found: int = tx.execute("SELECT count(*) FROM usage").fetchone()[0]
    return found


async def test_brief_transactions_run_on_the_loops_thread_and_others_in_the_writers(database: Database) -> None:
    seen: list[threading.Thread] = []
    await database.write(where, seen)
    await database.write(elsewhere, seen)
    await asyncio.gather(database.write(where, seen), database.write(elsewhere, seen))

    here = threading.current_thread()
    assert [thread is here for thread in seen] == [True, False, True, False]


async def test_a_call_is_two_brief_transactions(database: Database) -> None:
    ann = await database.write(books.customer)
    seen: list[str] = []
    await database.write(lambda tx: tx.set_trace_callback(seen.append))
    seen.clear()

    await database.write(ledger.hold, "call", ann.id, 1_000, 1_000, books.draft("call", ann.id), START_MS)
    await database.write(ledger.settle, books.billed("call", ann.id, input_tokens=1))

    assert [text for text in seen if text.startswith("PRAGMA")] == []  # which only the thread's way of beginning has
    assert seen.count("COMMIT") == 2
    assert await database.read(count) == 1


async def test_a_refused_call_spoils_no_other_of_its_batch(database: Database) -> None:
    ann = await database.write(books.customer, "ann", DOLLAR)
    poor = await database.write(books.customer, "poor", 0)

    def hold(call_id: str, account_id: int) -> asyncio.Future[ledger.HoldTaken]:
        draft = books.draft(call_id, account_id)
        return database.submit(ledger.hold, call_id, account_id, 1_000, 1_000, draft, START_MS)

    found = await asyncio.gather(
        hold("call1", ann.id), hold("call2", poor.id), hold("call3", ann.id), return_exceptions=True
    )

    assert [type(one) for one in found] == [ledger.HoldTaken, OutOfCredit, ledger.HoldTaken]
    assert (await database.read(ledger.balance, "ann")).held_nanousd == 2_000
    assert (await database.read(ledger.balance, "poor")).held_nanousd == 0


async def test_what_was_done_for_a_caller_that_left_is_told_to_its_stand_in(database: Database) -> None:
    ann = await database.write(books.customer)
    told: list[object] = []

    def hold(call_id: str, want: int) -> asyncio.Future[ledger.HoldTaken]:
        draft = books.draft(call_id, ann.id)
        return database.submit(ledger.hold, call_id, ann.id, want, want, draft, START_MS, abandoned=told.append)

    left, refused, stayed = hold("call1", 1_000), hold("call2", 2 * DOLLAR), hold("call3", 2_000)
    left.cancel()
    refused.cancel()

    assert (await stayed).amount_nanousd == 2_000
    await database.write(accounts.probe)
    assert told == [ledger.HoldTaken(1_000, DOLLAR - 1_000)]  # nothing of what was not done, nor of what was awaited


async def test_a_file_that_a_stranger_has_locked_does_not_hold_up_the_loop(database: Database, folder) -> None:
    ann = await database.write(books.customer)
    stranger = sqlite3.connect(folder / FILE_NAME, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    try:
        holding = database.submit(ledger.hold, "call", ann.id, 1_000, 1_000, books.draft("call", ann.id), START_MS)
        assert not holding.done()  # handed to the writer's thread, which waits
    finally:
        stranger.execute("ROLLBACK")
        stranger.close()

    assert (await asyncio.wait_for(holding, 10)).amount_nanousd == 1_000


def test_what_fails_on_the_loop_leaves_nothing_behind(tx: sqlite3.Connection) -> None:
    @brief
    def half(tx: sqlite3.Connection) -> None:
        accounts.create(tx, "ann", 0)
        raise ValueError("no")

    before = accounts.count(tx)
    with asyncio.Runner() as runner:
        future = runner.get_loop().create_future()
        assert prepared([Job(half, (), future)], tx) is False

    assert (accounts.count(tx), tx.in_transaction) == (before, False)


def test_a_commit_that_fails_is_told_to_all_and_nothing_of_it_stays(tx: sqlite3.Connection) -> None:
    ann = books.customer(tx)
    books.take(tx, "call", ann.id)
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        batch = [Job(ledger.settle, (books.billed("call", ann.id, input_tokens=1),), loop.create_future())]
        batch.append(Job(where, ([],), loop.create_future()))
        assert prepared(batch, tx) is True
        # A reference to nobody, which the commit finds: what a commit says when the disk is at fault, tests/faults has.
        tx.execute("PRAGMA defer_foreign_keys = ON")
        tx.execute("UPDATE usage SET account_id = 999")
        commit(batch, tx)

    assert [type(job.error) for job in batch] == [sqlite3.IntegrityError] * 2
    assert [job.result for job in batch] == [None, None]
    assert usage.get(tx, "call") is None
    assert [hold.call_id for hold in ledger.open_holds(tx)] == ["call"]


@pytest.mark.parametrize("code", ["SQLITE_FULL", "SQLITE_IOERR", "SQLITE_BUSY"])
def test_what_the_disk_refuses_is_an_outage_that_passes(code: str) -> None:
    error = sqlite3.OperationalError("no")
    error.sqlite_errorcode = getattr(sqlite3, code)

    class Broken:
        in_transaction = False

        def execute(self, _text: str) -> None:
            raise error

    with asyncio.Runner() as runner:
        job = Job(where, ([],), runner.get_loop().create_future())
        commit([job], Broken())  # type: ignore[arg-type]

    assert isinstance(job.error, StoreUnavailable)
