"""A look at a data folder that changes nothing in it, at rest and in use."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import sqlite3
from pathlib import Path

import pytest

from lumeproxy.core import apikey
from lumeproxy.store import accounts, inspection, keys, ledger
from lumeproxy.store.database import Database
from lumeproxy.store.inspection import Contents, look, read
from lumeproxy.store.migrations import known

NOW_MS = 2_000


def things(folder: Path) -> list[tuple[str, int, int]]:
    """All that is in a folder, with sizes and times of change."""
    return sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in folder.iterdir())


async def with_a_key(folder: Path) -> str:
    """A database at rest with one account, its dollar and a key; the key's id."""
    new = apikey.make(os.urandom)
    database = await Database.open(folder)
    await database.write(lambda tx: accounts.create(tx, "ann", 1_000))
    await database.write(ledger.grant, "ann", 10**9, "", None, 1_000)
    await database.write(keys.add, new.id, "ann", new.sha256, new.last4, "", (), 1_000, None)
    await database.close()
    return new.id


async def test_a_database_at_rest_is_read_and_left_as_it_was(folder):
    key_id = await with_a_key(folder)
    before = things(folder)

    found = read(folder, [key_id, "00000000"], NOW_MS)

    assert (found.error, found.version, found.problems) == ("", None, ())
    assert (found.accounts, found.keys_in_force, [key.id for key in found.keys]) == (1, 1, [key_id])
    assert things(folder) == before
    assert [name for name, _, _ in before] == ["lumeproxy.db", "lumeproxy.lock"]


async def test_a_database_in_use_is_read_beside_its_writer_with_what_was_just_committed(folder, database):
    await database.write(lambda tx: accounts.create(tx, "ann", 1_000))

    found = read(folder, [], NOW_MS)

    assert (found.error, found.problems, found.accounts, found.keys_in_force) == ("", (), 1, 0)
    assert look(folder).holder == str(os.getpid())
    assert database.look_at_files() is None
    await database.write(lambda tx: accounts.create(tx, "bob", 1_000))


async def test_a_write_ahead_log_that_a_crash_left_is_read_too(folder, database, tmp_path):
    await database.write(lambda tx: accounts.create(tx, "ann", 1_000))
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for name in ("lumeproxy.db", "lumeproxy.db-wal", "lumeproxy.lock"):
        shutil.copy(folder / name, crashed / name)

    assert read(crashed, [], NOW_MS).accounts == 1
    assert look(crashed).wal_bytes > 0


async def test_a_database_without_a_lock_beside_it_is_read_all_the_same(folder):
    await with_a_key(folder)
    (folder / "lumeproxy.lock").unlink()

    assert read(folder, [], NOW_MS).accounts == 1
    assert look(folder).holder is None
    assert not (folder / "lumeproxy.lock").exists()


async def test_the_audits_problems_are_found(folder):
    await with_a_key(folder)
    with sqlite3.connect(folder / "lumeproxy.db") as conn:
        conn.execute("UPDATE accounts SET balance_nanousd = balance_nanousd + 1 WHERE name = 'ann'")
    conn.close()

    found = read(folder, [], NOW_MS)

    assert len(found.problems) == 2
    assert found.problems[1].startswith("The account ann has a balance of 1000000001 nano-USD")


@pytest.mark.parametrize("version", [0, 99])
async def test_another_versions_database_is_told_and_not_read(folder, version):
    await with_a_key(folder)
    conn = sqlite3.connect(folder / "lumeproxy.db")
    conn.execute(f"PRAGMA user_version = {version}")
    conn.close()

    assert read(folder, [], NOW_MS) == Contents(version=version)
    assert inspection.newest_version() == len(known()) > 0


@pytest.mark.parametrize("content", [b"no database at all" * 100, None])
def test_what_cannot_be_read_is_told_in_sqlites_words(folder, content):
    folder.mkdir()
    if content is not None:
        (folder / "lumeproxy.db").write_bytes(content)

    found = read(folder, [], NOW_MS)

    assert found == Contents(error="unable to open database file" if content is None else "file is not a database")
    assert (folder / "lumeproxy.db").exists() is (content is not None)


async def test_a_damaged_page_is_a_problem_and_no_error(folder):
    await with_a_key(folder)
    file = folder / "lumeproxy.db"
    data = bytearray(file.read_bytes())
    data[4096 : 4096 + 4096] = b"\xaa" * 4096
    file.write_bytes(data)

    found = read(folder, [], NOW_MS)

    assert found.error == ""
    assert found.problems[0].startswith("The database file is damaged: ")


# --- files ---------------------------------------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_not_made_and_its_disk_is_told(folder):
    found = look(folder / "below")

    assert (found.exists, found.database_exists, found.writable, found.holder) == (False, False, True, None)
    assert (found.database_bytes, found.wal_bytes) == (0, 0)
    assert found.disk_bytes >= found.free_bytes > 0
    assert not folder.exists()


async def test_sizes_are_those_of_the_files(folder):
    await with_a_key(folder)
    (folder / "lumeproxy.db-wal").write_bytes(b"x" * 123)

    found = look(folder)

    assert (found.exists, found.database_exists, found.wal_bytes) == (True, True, 123)
    assert found.database_bytes == (folder / "lumeproxy.db").stat().st_size > 10_000


@pytest.mark.parametrize(("right", "readable", "writable"), [(os.R_OK, False, True), (os.W_OK, True, False)])
async def test_what_this_user_may_not_read_or_write_is_told(folder, monkeypatch, right, readable, writable):
    await with_a_key(folder)
    monkeypatch.setattr(os, "access", lambda path, mode: not (mode & right and path == folder / "lumeproxy.db"))

    assert (look(folder).readable, look(folder).writable) == (readable, writable)


def test_another_owner_is_told_by_name_or_number(folder, monkeypatch):
    folder.mkdir()
    assert look(folder).owner is None
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: pwd.struct_passwd(("lume", "", 1, 1, "", "", "")))
    assert look(folder).owner == "lume"

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert look(folder).owner == f"#{os.getuid()}"


def test_what_may_not_be_seen_counts_as_not_there(folder, monkeypatch):
    def closed(*_: object, **__: object) -> None:
        raise PermissionError

    for name in ("exists", "stat"):
        monkeypatch.setattr(Path, name, closed)
    monkeypatch.setattr(shutil, "disk_usage", closed)
    found = look(folder)

    assert (found.exists, found.database_bytes, found.free_bytes, found.disk_bytes) == (False, 0, 0, 0)


def test_a_holder_that_left_no_number_is_unknown(folder):
    folder.mkdir()
    lock = os.open(folder / "lumeproxy.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert look(folder).holder == "unknown"
    os.close(lock)
    assert look(folder).holder is None


def test_the_library_tells_its_version():
    assert inspection.sqlite_version().count(".") >= 1


def test_a_file_in_the_folders_place_is_told_from_a_folder(folder):
    folder.touch()

    assert (look(folder).exists, look(folder).is_folder, look(folder.parent).is_folder) == (True, False, True)


def test_where_the_folder_would_be_made_must_be_writable(folder, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder.parent)

    assert look(folder / "below").writable is False
