"""The one writer: group commit, what fails, what is cancelled, and who may open the file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lumeproxy.errors import ConfigError, Refused, StoreUnavailable
from lumeproxy.store import accounts, batch, ledger, usage
from lumeproxy.store.audit import audit
from lumeproxy.store.database import Database, bound, in_memory
from lumeproxy.store.lock import Locked
from tests.store import books
from tests.store.books import DOLLAR, Gate

ROOT = Path(__file__).parents[2]
BALLAST = "x" * 100_000


def put(tx, name):
    accounts.create(tx, name, 0)
    return name


def put_and_fail(tx, name, error):
    put(tx, name)
    raise error


def write_much(tx, name="big"):
    tx.execute("INSERT INTO prices (version, price, first_used_ms) VALUES ($1, $2, 0)", bound(name, BALLAST))


def names(tx):
    return [account.name for account in accounts.list_all(tx)]


def listen(tx, seen):
    """From now on the writer's statements are put down in `seen`."""
    tx.set_trace_callback(seen.append)


async def together(database, *jobs):
    """Submit jobs so that they wait in one queue; what each came to."""
    await asyncio.sleep(0)  # the writer looks for more once what it did has been told
    gate = Gate(database)
    futures = [database.submit(*job) for job in jobs]
    gate.open()
    return await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 10)


# --- group commit ------------------------------------------------------------------------------------------------------


async def test_jobs_that_wait_together_are_committed_together(database):
    seen = []
    await database.write(listen, seen)

    found = await together(database, *[(put, f"a{n:02}") for n in range(50)])

    assert found == [f"a{n:02}" for n in range(50)]
    assert seen.count("COMMIT") == 3  # that of `listen`, the gate's, and one for all fifty
    assert await database.read(names) == found


async def test_a_batch_has_a_limit_and_the_rest_follows(folder):
    database = await Database.open(folder, batch_limit=10)
    seen = []
    await database.write(listen, seen)

    await together(database, *[(put, f"a{n}") for n in range(25)])

    assert seen.count("COMMIT") == 2 + 3
    assert len(await database.read(names)) == 25
    await database.close()


async def test_a_failing_job_fails_alone(database):
    found = await together(
        database, (put, "ann"), (put_and_fail, "bob", ValueError("no")), (put, "ann"), (put, "cy"),
    )  # fmt: skip

    assert found[0] == "ann"
    assert repr(found[1]) == "ValueError('no')"
    assert isinstance(found[2], Refused)
    assert found[3] == "cy"
    assert await database.read(names) == ["ann", "cy"]


async def test_a_failing_statement_is_an_error_of_its_own_and_no_outage(database):
    found = await together(
        database, (put, "ann"), (lambda tx: tx.execute("INSERT INTO holds VALUES (1, 2, 3, 4, 5, 6, 7)"),)
    )

    assert found[0] == "ann"
    assert isinstance(found[1], sqlite3.IntegrityError)
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await database.write(lambda tx: tx.execute("SELECT * FROM nowhere"))


async def test_a_job_alone_that_fails_leaves_nothing(database):
    with pytest.raises(ValueError, match="no"):
        await database.write(put_and_fail, "ann", ValueError("no"))

    assert await database.read(names) == []


async def test_an_error_that_no_future_can_carry_does_not_stop_the_writer(database):
    for _ in range(2):
        found = await together(database, (put, "ann"), (lambda tx: next(tx.execute("SELECT 1 WHERE 0")),))
        assert repr(found[1]) == "RuntimeError('a transaction raised StopIteration()')"
    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(database.write(lambda tx: next(iter(()))), 10)

    assert await database.read(names) == ["ann"]


async def test_what_is_not_an_exception_fails_the_batch_and_the_writer_lives(database):
    found = await together(database, (put, "ann"), (put_and_fail, "bob", GeneratorExit()))

    assert [type(one) for one in found] == [GeneratorExit, GeneratorExit]
    assert await database.read(names) == []
    assert await database.write(put, "ann") == "ann"


async def test_urgent_jobs_go_before_those_that_wait(database):
    order = []
    gate = Gate(database)
    futures = [database.submit(lambda _tx, n=n: order.append(n)) for n in range(3)]
    futures += [database.submit_urgent(lambda _tx, n=n: order.append(n)) for n in (10, 11)]
    gate.open()
    await asyncio.gather(*futures)

    assert order == [10, 11, 0, 1, 2]


async def test_a_full_queue_refuses_at_once_but_for_urgent_jobs(folder):
    database = await Database.open(folder, queue_limit=3)
    gate = Gate(database)
    waiting = [database.submit(put, f"a{n}") for n in range(3)]

    with pytest.raises(StoreUnavailable, match="overloaded") as refused:
        database.submit(put, "more")
    urgent = database.submit_urgent(put, "urgent")
    gate.open()
    await asyncio.gather(*waiting, urgent)

    assert refused.value.retry_after_s == 1
    assert await database.write(put, "later") == "later"
    assert await database.read(names) == ["a0", "a1", "a2", "later", "urgent"]
    await database.close()


# --- cancelled callers -------------------------------------------------------------------------------------------------


async def test_a_job_whose_caller_left_is_carried_out(database):
    gate = Gate(database)
    caller = asyncio.create_task(database.write(put, "ann"))
    await asyncio.sleep(0)
    caller.cancel()
    gate.open()

    with pytest.raises(asyncio.CancelledError):
        await caller
    await database.write(put, "bob")
    assert await database.read(names) == ["ann", "bob"]


async def hold_and_settle(database, account_id, n, *, leave_while_settling):
    call_id = f"call{n:04}"
    await database.write(books.take, call_id, account_id)
    if leave_while_settling:
        asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
    await database.write(ledger.settle, books.billed(call_id, account_id, input_tokens=100))


async def test_a_storm_of_1100_cancelled_callers_leaves_the_books_exact(database):
    ann = await database.write(books.customer, "ann", 10 * DOLLAR)
    gate = Gate(database)
    tasks = [
        asyncio.create_task(hold_and_settle(database, ann.id, n, leave_while_settling=n % 12 >= 6)) for n in range(1200)
    ]
    await asyncio.sleep(0)
    for n, task in enumerate(tasks):
        if 1 <= n % 12 < 6:
            task.cancel()
    gate.open()

    ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
    await database.write(accounts.probe)  # what was submitted before it is done

    assert sum(isinstance(one, asyncio.CancelledError) for one in ended) == 1100
    assert sum(one is None for one in ended) == 100
    balance = await database.read(ledger.balance, "ann")
    assert balance.balance_nanousd == 10 * DOLLAR - 700 * 100_000  # 100 stayed, 600 left with their charge under way
    assert balance.held_nanousd == 500 * 1_000_000  # 500 left while their holds waited
    assert len(await database.read(usage.find)) == 700
    assert await database._writer.run(lambda conn: conn.in_transaction) is False


@pytest.mark.parametrize("seed", [1, 2])
async def test_callers_that_are_cancelled_at_any_moment_leave_the_books_exact(database, seed):
    ann = await database.write(books.customer, "ann", 10 * DOLLAR)
    chance = random.Random(seed)
    tasks = [asyncio.create_task(hold_and_settle(database, ann.id, n, leave_while_settling=False)) for n in range(1000)]
    waiting = list(tasks)
    chance.shuffle(waiting)
    while waiting:
        for task in waiting[:20]:
            task.cancel()
        del waiting[:20]
        await database.write(accounts.probe)
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
    await database.write(accounts.probe)

    settled = len(await database.read(usage.find))
    still_open = len(await database.read(ledger.open_holds))
    balance = await database.read(ledger.balance, "ann")
    assert 0 < settled < 1000
    assert (balance.balance_nanousd, balance.held_nanousd) == (10 * DOLLAR - settled * 100_000, still_open * 1_000_000)
    assert await database._writer.run(lambda conn: conn.in_transaction) is False


# --- the disk ----------------------------------------------------------------------------------------------------------


def limit_pages(tx, room):
    pages = tx.execute("PRAGMA page_count").fetchone()[0]
    tx.execute(f"PRAGMA max_page_count = {pages + room}")


@contextlib.contextmanager
def no_file_larger_than(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_refuses_with_nothing_done_and_the_same_connection_recovers(database):
    await database.write(limit_pages, 0)

    with pytest.raises(StoreUnavailable, match="takes no writes") as refused:
        await database.write(write_much)
    await database.write(lambda tx: tx.execute("PRAGMA max_page_count = 1000000"))

    assert refused.value.retry_after_s == 5
    assert await database.read(lambda tx: tx.execute("SELECT count(*) FROM prices").fetchone()[0]) == 1
    assert await database.write(put, "ann") == "ann"


async def test_a_job_that_fills_the_disk_spoils_no_other_of_its_batch_without_saying_so(database):
    await database.write(limit_pages, 2)

    found = await together(database, (put, "ann"), (write_much,), (put, "bob"))
    await database.write(lambda tx: tx.execute("PRAGMA max_page_count = 1000000"))

    assert isinstance(found[1], StoreUnavailable)
    acknowledged = [one for one in found if isinstance(one, str)]
    assert await database.read(names) == acknowledged
    assert all(isinstance(one, (str, StoreUnavailable)) for one in found)


async def test_a_commit_that_the_disk_refuses_fails_the_whole_batch_and_the_next_one_works(database, folder):
    # The write fails within COMMIT: SQLite has rolled back by itself, a second ROLLBACK would raise.
    seen = []
    await database.write(listen, seen)
    with no_file_larger_than((folder / "lumeproxy.db-wal").stat().st_size):
        found = await together(database, (put, "ann"), (put_and_fail, "bob", ValueError("own")), (put, "cy"))
    assert [type(one) for one in found] == [StoreUnavailable, ValueError, StoreUnavailable]
    assert seen[-1] == "COMMIT"

    assert await database.read(names) == []
    assert await together(database, (put, "ann"), (put, "cy")) == ["ann", "cy"]


async def test_a_disk_that_fails_within_a_job_loses_the_whole_batch_and_says_so(database, folder):
    # So much that SQLite must write before the commit; it gives the whole transaction up.
    def write_more_than_the_cache(tx):
        tx.execute("PRAGMA cache_size = 10")
        for n in range(20):
            write_much(tx, f"big{n}")

    with no_file_larger_than((folder / "lumeproxy.db-wal").stat().st_size):
        found = await together(database, (put, "ann"), (write_more_than_the_cache,), (put, "cy"))

    assert [type(one) for one in found] == [StoreUnavailable] * 3
    assert await database.read(names) == []
    assert await database.write(put, "ann") == "ann"


async def test_a_disk_that_became_read_only_is_an_outage_that_passes(database):
    await database.write(lambda tx: tx.execute("PRAGMA query_only = ON"))
    with pytest.raises(StoreUnavailable, match="takes no writes"):
        await database.write(put, "ann")

    await database._writer.run(lambda conn: conn.execute("PRAGMA query_only = OFF"))
    assert await database.write(put, "ann") == "ann"


async def test_a_stranger_that_locks_the_file_is_an_outage_that_passes(database, folder, monkeypatch):
    monkeypatch.setattr(batch, "BUSY_MS", 1)
    stranger = sqlite3.connect(folder / "lumeproxy.db", isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        await database.write(put, "ann")

    stranger.close()
    assert await database.write(put, "ann") == "ann"


async def test_unknown_sqlite_errors_are_bugs_and_stay_what_they_are(database):
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await database.read(lambda tx: tx.execute("SELECT * FROM nowhere"))
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await database.outside(lambda tx: tx.execute("SELECT * FROM nowhere"))


# --- reading -----------------------------------------------------------------------------------------------------------


async def test_the_reader_cannot_write(database):
    for reading in (database.read, database.outside):
        with pytest.raises(StoreUnavailable):
            await reading(put, "ann")

    assert await database.read(names) == []


async def test_the_reader_sees_what_was_committed_and_nothing_else(database):
    await database.write(put, "ann")
    gate = threading.Event()
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(tx):
        put(tx, "bob")
        loop.call_soon_threadsafe(begun.set)
        assert gate.wait(10)

    writing = database.submit(slow)
    await asyncio.wait_for(begun.wait(), 10)
    during = await database.read(names)
    gate.set()
    await writing

    assert during == ["ann"]
    assert await database.read(names) == ["ann", "bob"]


async def test_neither_writes_nor_short_reads_wait_for_a_long_read(database):
    done = threading.Event()
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def long(tx):
        before = names(tx)
        loop.call_soon_threadsafe(begun.set)
        assert done.wait(10)
        return before, tx.in_transaction

    reading = asyncio.create_task(database.outside(long))
    await asyncio.wait_for(begun.wait(), 10)
    await asyncio.wait_for(database.write(put, "ann"), 5)
    assert await asyncio.wait_for(database.read(names), 5) == ["ann"]
    done.set()

    assert await reading == ([], False)


# --- opening and closing -----------------------------------------------------------------------------------------------


async def test_the_connection_is_set_up_for_money(database):
    def pragmas(tx):
        wanted = (
            "journal_mode",
            "synchronous",
            "foreign_keys",
            "secure_delete",
            "journal_size_limit",
            "wal_autocheckpoint",
            "busy_timeout",
        )
        return [tx.execute(f"PRAGMA {name}").fetchone()[0] for name in wanted]

    assert await database.write(pragmas) == ["wal", 2, 1, 1, 64 * 1024 * 1024, 250, 0]


async def test_folder_and_files_are_for_their_owner_only(folder):
    before = os.umask(0)
    try:
        database = await Database.open(folder)
        await database.write(put, "ann")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.iterdir()]}
        await database.close()
        after = os.umask(0)
    finally:
        os.umask(before)

    assert modes == {
        "data": 0o700,
        "lumeproxy.lock": 0o600,
        "lumeproxy.db": 0o600,
        "lumeproxy.db-wal": 0o600,
        "lumeproxy.db-shm": 0o600,
    }
    assert after == 0


def python(code, *arguments, timeout=20):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )


OPEN = """
import asyncio, sys
from pathlib import Path
from lumeproxy.store.database import Database

async def main():
    database = await Database.open(Path(sys.argv[1]))
    {then}

asyncio.run(main())
"""


async def test_a_second_process_is_refused_with_a_sentence(database, folder):
    second = python(OPEN.format(then="print('open')"), folder)

    assert second.returncode == 1
    assert second.stdout == ""
    assert second.stderr.splitlines()[-1] == (
        f"lumeproxy.store.lock.Locked: Another lumeproxy (process {os.getpid()}) uses the data folder {folder}; "
        "stop that one or choose another folder with --data."
    )
    with pytest.raises(Locked):
        await Database.open(folder)
    assert await database.write(put, "ann") == "ann"


async def test_the_lock_is_free_after_close_and_the_data_is_there(folder):
    for n in range(3):
        database = await Database.open(folder)
        await database.write(put, f"a{n}")
        await database.close()

    database = await Database.open(folder)
    assert await database.read(names) == ["a0", "a1", "a2"]
    await database.close()


async def test_close_carries_out_what_is_queued(folder):
    database = await Database.open(folder)
    gate = Gate(database)
    futures = [database.submit(put, f"a{n:03}") for n in range(200)]
    closing = asyncio.create_task(database.close())
    await asyncio.sleep(0)
    gate.open()
    await asyncio.wait_for(closing, 10)

    assert [future.result() for future in futures] == [f"a{n:03}" for n in range(200)]
    again = await Database.open(folder)
    assert len(await again.read(names)) == 200
    await again.close()


async def test_a_closed_database_takes_nothing_and_may_be_closed_again(folder):
    database = await Database.open(folder)
    await database.close()
    await database.close()

    for way in (database.read, database.write, database.outside):
        with pytest.raises(StoreUnavailable, match="closed"):
            await way(names)
    for submit in (database.submit, database.submit_urgent):
        with pytest.raises(StoreUnavailable, match="closed"):
            submit(names)


async def test_who_closes_second_waits_for_the_first(folder):
    database = await Database.open(folder)
    gate = Gate(database)
    closing = [asyncio.create_task(database.close()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in closing)
    gate.open()
    await asyncio.wait_for(asyncio.gather(*closing), 10)

    await (await Database.open(folder)).close()


@pytest.mark.parametrize("turns", [1, 2, 3, 4, 5])
async def test_a_close_that_was_cancelled_is_finished_by_the_next(folder, turns):
    database = await Database.open(folder)
    database.submit(put, "ann")
    closing = asyncio.create_task(database.close())
    for _ in range(turns):
        await asyncio.sleep(0)
    closing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await closing
    await asyncio.wait_for(database.close(), 10)

    again = await Database.open(folder)
    assert await again.read(names) == ["ann"]
    await again.close()


@pytest.mark.parametrize("turns", [1, 2, 3, 5, 8])
async def test_an_open_that_was_cancelled_leaves_the_folder_free(folder, turns):
    opening = asyncio.create_task(Database.open(folder))
    for _ in range(turns):
        await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening

    again = await Database.open(folder)
    assert await again.read(names) == []
    await again.close()


@pytest.mark.parametrize(
    ("then", "code"),
    [
        ("await database.close()", 0),
        ("raise LookupError('lost')", 1),
        ("sys.exit(3)", 3),
        ("globals().update(kept=database)", 0),
        ("database.submit(lambda tx: sum(range(10**7)))", 0),
    ],
    ids=["closed", "raised", "exited", "forgotten", "busy"],
)
def test_a_process_ends_whether_or_not_it_closed_the_database(folder, then, code):
    assert python(OPEN.format(then=then), folder, timeout=10).returncode == code


async def test_a_newer_file_is_refused_and_left_alone(folder):
    database = await Database.open(folder)
    await database.write(lambda tx: tx.execute("PRAGMA user_version = 99"))
    await database.close()

    for _ in range(2):
        with pytest.raises(ConfigError, match=r"newer lumeproxy \(version 99"):
            await Database.open(folder)


async def test_what_is_no_database_is_refused_with_its_name(folder):
    folder.mkdir()
    (folder / "lumeproxy.db").write_bytes(b"no database at all" * 1000)

    with pytest.raises(ConfigError, match=r"lumeproxy\.db can't be opened: file is not a database"):
        await Database.open(folder)


async def test_a_folder_that_cannot_be_written_is_refused_with_the_mend(tmp_path, folder):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(ConfigError, match="there is a file in its place; choose another with --data"):
        await Database.open(tmp_path / "file")
    with no_file_larger_than(0), pytest.raises(ConfigError, match=r"data can't be written \(File too large\)"):
        await Database.open(folder)
    await (await Database.open(folder)).close()


async def test_folders_with_odd_names_are_opened_as_they_are(tmp_path):
    odd = tmp_path / "50% off?#1 ü"
    database = await Database.open(odd)
    await database.write(put, "ann")

    assert (odd / "lumeproxy.db").exists()
    assert await database.read(names) == ["ann"]
    await database.close()


@pytest.mark.parametrize(
    ("version", "bug"),
    [
        ("3.6.23", False), ("3.7.0", True), ("3.40.1", True), ("3.44.5", True), ("3.44.6", False), ("3.44.7", False),
        ("3.45.0", True), ("3.50.6", True), ("3.50.7", False), ("3.51.0", True), ("3.51.2", True), ("3.51.3", False),
        ("3.52.0", False), ("3.53.1", False), ("4.0.0", False),
    ],
)  # fmt: skip
async def test_the_wal_reset_bug_is_known_by_version(database, version, bug):
    database.sqlite_version = version

    assert database.has_wal_reset_bug is bug


async def test_the_version_is_that_of_the_library(database):
    assert database.sqlite_version == sqlite3.sqlite_version


def test_a_ledger_in_memory_is_of_this_version_and_checks_its_references():
    conn = in_memory()

    assert conn.execute("PRAGMA user_version").fetchone()[0] >= 1
    assert conn.execute("PRAGMA foreign_keys").fetchone()[0] == 1
    assert audit(conn) == []
    conn.close()
