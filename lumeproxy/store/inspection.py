"""A look at a data folder that changes nothing in it, whether a server uses it or not: for `lumeproxy doctor`.

The database is opened by SQLite, read-only (see `database`). A read-only connection on a database at rest would leave an
empty -wal and -shm beside it, so there, with the folder's lock shared meanwhile, it is opened as one that can't change
(sqlite.org/uri.html, `immutable`, 2026-11): a server that starts just now waits for the lock, as it does for any command.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lumeproxy.store import accounts, keys
from lumeproxy.store.audit import audit
from lumeproxy.store.database import FILE_NAME
from lumeproxy.store.keys import StoredKey
from lumeproxy.store.lock import LOCK_NAME
from lumeproxy.store.migrations import known
from lumeproxy.store.sqlite import sqlite3

READ_MS = 5_000  # for a lock of SQLite's own: a checkpoint, a recovery


@dataclass(frozen=True, slots=True)
class Folder:
    """The files of a data folder: sizes in bytes, 0 for none. Of `disk_bytes`, `free_bytes` are left for us. `is_folder` is
    False where there is a file in its place; `readable` and `writable` are told for this user of what is there, or of where
    it would be made. `owner` is another user's name whom the folder belongs to, None where it is ours.

    `holder` is the process that has the folder's lock, as far as it can be told ("unknown"), None where nobody has it.
    """

    exists: bool
    is_folder: bool
    owner: str | None
    readable: bool
    writable: bool
    database_exists: bool
    database_bytes: int
    wal_bytes: int
    free_bytes: int
    disk_bytes: int
    holder: str | None


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a database. `error` says why it can't be read, `version` is None for this program's own, else the one that
    an older or a newer program wrote; then nothing else is known. `problems` are the audit's, `keys` those of the ids asked
    for."""

    error: str = ""
    version: int | None = None
    problems: tuple[str, ...] = ()
    accounts: int = 0
    keys_in_force: int = 0
    keys: tuple[StoredKey, ...] = ()


def newest_version() -> int:
    """The version of the database that this program writes."""
    return len(known())


def sqlite_version() -> str:
    """The version of the SQLite library in use."""
    return sqlite3.sqlite_version


def look(folder: Path) -> Folder:
    """The files and the disk. What may not be seen counts as not there."""
    database = folder / FILE_NAME
    try:
        usage = shutil.disk_usage(_existing(folder))
    except OSError:
        free = total = 0
    else:
        free, total = usage.free, usage.total
    files = [path for path in (folder, database) if _exists(path)] or [_existing(folder)]
    return Folder(
        exists=_exists(folder),
        is_folder=not _exists(folder) or folder.is_dir(),
        owner=_other_owner(folder),
        readable=all(os.access(path, os.R_OK if path == database else os.R_OK | os.X_OK) for path in files),
        writable=all(os.access(path, os.W_OK) for path in files),
        database_exists=_exists(database),
        database_bytes=_size(database),
        wal_bytes=_size(database.with_name(FILE_NAME + "-wal")),
        free_bytes=free,
        disk_bytes=total,
        holder=_holder(folder),
    )


def read(folder: Path, key_ids: Iterable[str], now_ms: int) -> Contents:
    """Open the database, audit it, count what is in force, find these keys. It takes as long as the audit."""
    try:
        with _at_rest(folder) as at_rest, _opened(folder, immutable=at_rest) as tx:
            tx.execute(f"PRAGMA busy_timeout = {READ_MS}")
            version: int = tx.execute("PRAGMA user_version").fetchone()[0]
            if version != len(known()):
                return Contents(version=version)
            problems = tuple(audit(tx))
            if problems:
                return Contents(problems=problems)  # what is there may not be fit to be read further
            found = tuple(key for key_id in key_ids if (key := keys.find(tx, key_id)) is not None)
            return Contents(accounts=accounts.count(tx), keys_in_force=keys.count_in_force(tx, now_ms), keys=found)
    except sqlite3.Error as error:
        return Contents(error=str(error))


@contextlib.contextmanager
def _at_rest(folder: Path) -> Iterator[bool]:
    """Whether nobody uses the database and no -wal waits to be read; as long as the block lasts, nobody will."""
    lock, at_rest = None, False
    try:
        with contextlib.suppress(OSError):
            lock = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            at_rest = not _exists(folder / (FILE_NAME + "-wal"))
        yield at_rest
    finally:
        if lock is not None:
            os.close(lock)


@contextlib.contextmanager
def _opened(folder: Path, *, immutable: bool) -> Iterator[sqlite3.Connection]:
    uri = (folder / FILE_NAME).absolute().as_uri() + "?mode=ro" + ("&immutable=1" if immutable else "")
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def _holder(folder: Path) -> str | None:
    try:
        lock = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
    finally:
        os.close(lock)
    return None


def _other_owner(folder: Path) -> str | None:
    try:
        owner = folder.stat().st_uid
    except OSError:
        return None
    if owner == os.geteuid():
        return None
    try:
        return pwd.getpwuid(owner).pw_name
    except KeyError:
        return f"#{owner}"  # as sudo takes a user without a name


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists: what will be made lies on its disk."""
    return next((path for path in (folder, *folder.parents) if _exists(path)), folder)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
