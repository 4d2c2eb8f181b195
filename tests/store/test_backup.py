"""A backup is whole, checked, private and new, and nobody waits for it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from lumeproxy.errors import Refused
from lumeproxy.store import accounts, backup, ledger, usage
from lumeproxy.store.database import Database
from tests.store import books
from tests.store.books import DOLLAR


@pytest.fixture
def target(tmp_path):
    return tmp_path / "copy.db"


async def serve(database, account_id, name, calls):
    for n in range(calls):
        await database.write(books.take, f"{name}-{n}", account_id)
        await database.write(ledger.settle, books.billed(f"{name}-{n}", account_id, input_tokens=10))


async def test_a_backup_under_concurrent_writes_is_sound_each_time(database, tmp_path):
    ann = await database.write(books.customer)
    writing = asyncio.gather(*(serve(database, ann.id, f"call{n}", 40) for n in range(8)))
    targets = [str(tmp_path / f"copy{n}.db") for n in range(10)]
    for target in targets:
        await database.outside(backup.backup, target)
    await writing

    assert [backup.check(target) for target in targets] == [[]] * 10
    counts = []
    for target in targets:
        copy = sqlite3.connect(f"file:{target}?mode=ro", uri=True)
        counts.append(len(usage.find(copy)))
        spent = DOLLAR - ledger.balance(copy, "ann").balance_nanousd
        assert spent == counts[-1] * 10_000
        copy.close()
    assert counts == sorted(counts)
    assert len(await database.read(usage.find)) == 320


async def test_writes_go_on_while_a_backup_runs_and_are_not_in_it(database, target):
    ann = await database.write(books.customer)
    begun, written = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(tx):
        looks = 0

        def in_the_middle():
            nonlocal looks
            looks += 1
            if looks == 60:
                loop.call_soon_threadsafe(begun.set)
                assert written.wait(10)
            return 0

        tx.execute("SELECT 1 FROM accounts").fetchall()  # so that reading the schema is not counted
        tx.set_progress_handler(in_the_middle, 20)
        backup.backup(tx, str(target))

    running = asyncio.create_task(database.outside(slow))
    await asyncio.wait_for(begun.wait(), 10)
    await asyncio.wait_for(serve(database, ann.id, "call", 5), 10)
    written.set()
    await running

    assert len(await database.read(usage.find)) == 5
    copy = sqlite3.connect(target)
    assert usage.find(copy) == []
    copy.close()
    assert backup.check(str(target)) == []


async def test_a_backup_opens_as_a_database_with_everything_in_it(database, target, tmp_path):
    ann = await database.write(books.customer)
    await database.write(books.call, "call1", ann.id)
    await database.write(books.take, "call2", ann.id)
    await database.outside(backup.backup, str(target))

    restored = tmp_path / "restored"
    restored.mkdir()
    target.rename(restored / "lumeproxy.db")
    again = await Database.open(restored)
    assert await again.read(usage.get, "call1") == await database.read(usage.get, "call1")
    assert await again.read(ledger.open_holds) == await database.read(ledger.open_holds)
    assert await again.read(accounts.list_all) == await database.read(accounts.list_all)
    await again.close()


@pytest.mark.parametrize("content", [b"", b"precious"])
async def test_a_backup_overwrites_nothing(database, target, content):
    target.write_bytes(content)

    with pytest.raises(Refused, match=r"copy\.db already; a backup does not overwrite"):
        await database.outside(backup.backup, str(target))

    assert target.read_bytes() == content


async def test_a_backup_goes_through_no_link_and_not_onto_the_database(database, folder, target):
    target.symlink_to(folder / "elsewhere.db")
    for path in (target, folder / "lumeproxy.db", folder):
        with pytest.raises(Refused, match="already"):
            await database.outside(backup.backup, str(path))

    assert not (folder / "elsewhere.db").exists()


async def test_a_place_that_cannot_be_written_is_refused(database, tmp_path):
    for path in (tmp_path / "nowhere" / "copy.db", Path("/proc/copy.db"), tmp_path / ("x" * 300)):
        with pytest.raises(Refused, match="can't be written"):
            await database.outside(backup.backup, str(path))


def watched(tx, target, modes, stop_after=10**9):
    """A backup whose file is looked at while it is written, and given up after so many looks."""

    def look():
        modes.append(stat.S_IMODE(target.stat().st_mode))
        return len(modes) > stop_after

    tx.set_progress_handler(look, 20)
    backup.backup(tx, str(target))


async def test_a_backup_is_for_its_owner_only_from_its_first_byte(database, target):
    modes = []
    before = os.umask(0)
    try:
        await database.outside(watched, target, modes)
    finally:
        os.umask(before)

    assert len(modes) > 5
    assert set(modes) == {0o600}
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


async def test_a_backup_that_broke_off_leaves_nothing_behind(database, target):
    with pytest.raises(Refused, match=r"copy\.db can't be written: interrupted"):
        await database.outside(watched, target, [], 60)

    assert sorted(path.name for path in target.parent.iterdir()) == ["data"]
    await database.outside(backup.backup, str(target))
    assert backup.check(str(target)) == []


async def test_a_backup_is_on_the_disk_before_it_is_reported(database, target, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))

    await database.outside(backup.backup, str(target))

    assert synced == [target.stat().st_ino, target.parent.stat().st_ino]


async def test_a_relative_name_is_a_file_and_never_an_address(database, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    await database.outside(backup.backup, "file:odd?mode=memory")

    assert backup.check("file:odd?mode=memory") == []
    assert (tmp_path / "file:odd?mode=memory").stat().st_size > 4096


async def test_a_backup_that_was_altered_or_damaged_is_not_sound(database, target):
    await database.write(books.customer)
    await database.outside(backup.backup, str(target))
    copy = sqlite3.connect(target)
    copy.execute("UPDATE accounts SET balance_nanousd = balance_nanousd + 1 WHERE name = 'ann'")
    copy.commit()
    copy.close()

    assert backup.check(str(target))[0] == "The balances of all accounts sum to 1 nano-USD instead of zero."

    target.write_bytes(b"\xff" * 8192)
    assert backup.check(str(target)) == ["The database file is damaged: file is not a database."]
