"""The one read-write connection, its writer, and the read-only connection beside it.

A transaction is one function on the connection's thread; functions that wait together are committed together (group
commit), each in a savepoint of its own, so that one that fails fails alone. This is safety first: SQLite up to 3.51.2 can
lose commits in WAL mode when two connections write (sqlite.org/wal.html, "WAL-reset bug", 2026-11), and an aiosqlite
connection shared by statement is left inside a transaction when a caller is cancelled.

No code here ever opens, copies or checksums the database file itself: closing any descriptor of it drops SQLite's POSIX
locks (sqlite.org/howtocorrupt.html). The lock against a second process is `flock` on a file of its own.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, TypeVarTuple

import aiosqlite

from lumeproxy.core.metrics import Histogram
from lumeproxy.errors import ConfigError, StoreUnavailable
from lumeproxy.store.batch import BUSY_MS, Job, carry_out, commit, prepared, translated
from lumeproxy.store.files import Files
from lumeproxy.store.lock import locked
from lumeproxy.store.migrations import known, migrate
from lumeproxy.store.sqlite import has_wal_reset_bug, sqlite3

Tx: TypeAlias = sqlite3.Connection
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

FILE_NAME = "lumeproxy.db"
# The WAL is cut back to this after a checkpoint; one long read once let it grow and it would stay so for ever.
JOURNAL_BYTES = 64 * 1024 * 1024
# After so many pages (1 MB) the WAL goes into the database and is written from its beginning again; with SQLite's own 4 MB
# it would fill a disk of that size first.
CHECKPOINT_PAGES = 250
QUEUE_LIMIT = 4096
BATCH_LIMIT = 64
# Pages kept in memory: of ten million records with ten thousand accounts, a call touches a dozen anywhere in the file.
CACHE_KIB = 8_192
# Turns of the loop that a batch waits for more jobs when there were more of late; a turn is 10 µs when nothing else is to
# be done, and milliseconds when much is. Saves a tenth of the commits at 8 connections, and 5 % of a call.
TURNS_WAITED = 3

_PLACES = tuple(str(number) for number in range(1, 65))


def positional(text: str) -> str:
    """A statement with its places in SQLite's own spelling, for what runs in every call: its values are then given as a
    tuple, in order, which saves a look-up by name for each (8 µs of 23 for a usage record)."""
    return text.replace("$", "?")


def bound(*values: object) -> dict[str, object]:
    """Values for `$1`, `$2`, … of a statement. One text then serves SQLite and, later, PostgreSQL."""
    return dict(zip(_PLACES, values, strict=False))


class _Connection(aiosqlite.Connection):
    """aiosqlite's thread and queue, given whole functions. They are protected names, hence the pinned version."""

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, 64)
        # A process that ends without `close` must end: what is not committed by then was never promised to anybody.
        self._thread.daemon = True

    def post(self, fn: Callable[[sqlite3.Connection], object]) -> None:
        """Queue a function of the raw connection whose end nobody is told of by a future: it must tell itself."""
        self._tx.put_nowait((None, partial(fn, self._conn)))

    @property
    def raw(self) -> sqlite3.Connection:
        """The connection itself, for use while nothing is queued that uses it."""
        return self._conn

    def run(self, fn: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Queue a function of the raw connection; the future holds its result."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._tx.put_nowait((future, partial(fn, self._conn)))
        return future


class Database:
    """The database of one data folder, open in this process and no other."""

    def __init__(
        self,
        uri: str,
        files: Files,
        writer: _Connection,
        reader: _Connection,
        lock: int,
        *,
        queue_limit: int,
        batch_limit: int,
        version: str,
    ) -> None:
        self._uri = uri
        self._files = files
        self._lost: str | None = None
        self._writer = writer
        self._reader = reader
        self._lock: int | None = lock
        self._queue_limit = queue_limit
        self._batch_limit = batch_limit
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Job] = deque()
        self._urgent: deque[Job] = deque()
        self._in_flight = False
        self._expected = 1
        self._turns = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._closing = asyncio.Lock()
        self.sqlite_version = version
        self._between: deque[tuple[Callable[[Tx], Any], asyncio.Future[Any]]] = deque()
        self.commit_times, self._launched_s = Histogram(), 0.0

    @classmethod
    async def open(cls, folder: Path, *, queue_limit: int = QUEUE_LIMIT, batch_limit: int = BATCH_LIMIT) -> Database:
        """Open or create the database in a folder.

        Raises ConfigError where another process has it, the folder can't be written, or the file is from a newer
        version; the sentence names the folder and the mend.
        """
        lock = locked(folder)
        writer = reader = None
        try:
            uri = (folder / FILE_NAME).absolute().as_uri()
            writer = await _opened(partial(_create, uri))
            await writer.run(_prepare)
            reader = await _opened(partial(_read_only, uri))
            version = await reader.run(lambda conn: conn.execute("SELECT sqlite_version()").fetchone()[0])
        except BaseException as error:
            for connection in (reader, writer):
                if connection is not None:
                    await connection.close()
            os.close(lock)
            if isinstance(error, sqlite3.Error):
                raise ConfigError(f"The database {folder / FILE_NAME} can't be opened: {error}.") from None
            raise
        files = Files(folder / FILE_NAME)
        return cls(uri, files, writer, reader, lock, queue_limit=queue_limit, batch_limit=batch_limit, version=version)

    @property
    def has_wal_reset_bug(self) -> bool:
        """Whether this SQLite may lose commits where two connections write."""
        return has_wal_reset_bug(self.sqlite_version)

    def queue_length(self) -> int:
        """How many transactions wait for the writer, without those that it is at."""
        return len(self._waiting) + len(self._urgent)

    async def between(self, fn: Callable[[Tx], T]) -> T:
        """Run a short function on the writer's connection between two batches, for what SQLite does in no transaction."""
        self._check_open()
        future: asyncio.Future[T] = self._loop.create_future()
        self._between.append((fn, future))
        self._start()
        try:
            return await future
        except sqlite3.Error as error:
            raise translated(error) from None

    def submit(
        self, fn: Callable[[Tx, *Ts], T], *args: *Ts, abandoned: Callable[[T], None] | None = None
    ) -> asyncio.Future[T]:
        """Queue a transaction now; it runs even if nobody waits for the future any more: if that was cancelled by the time
        of the commit, `abandoned` is told the result.

        Raises StoreUnavailable at once when the queue is full or the database closed. The future raises what the
        function raised, or StoreUnavailable when the disk took no commit: then nothing of it happened.
        """
        if self._lost is not None:
            raise StoreUnavailable("The proxy's database can't be written at the moment; please try again.",
                                   retry_after_s=30)  # fmt: skip
        if len(self._waiting) >= self._queue_limit:
            raise StoreUnavailable("The proxy is overloaded; please try again.", retry_after_s=1)
        return self._enqueue(self._waiting, fn, args, abandoned)

    def submit_urgent(self, fn: Callable[[Tx, *Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """As `submit`, before all that is not urgent and never refused for a full queue: open calls settle first."""
        return self._enqueue(self._urgent, fn, args)

    def look_at_files(self) -> str | None:
        """Refuse all new writes once a file of the database was removed or replaced; its name, the first time that this is
        seen. Open calls settle on: closing the database cleanly saves what they write."""
        if self._lost is not None:
            return None
        self._lost = self._files.changed()
        return self._lost

    async def write(self, fn: Callable[[Tx, *Ts], T], *args: *Ts) -> T:
        """Run a transaction and wait until it is committed. Raises as `submit`."""
        return await self.submit(fn, *args)

    async def read(self, fn: Callable[[Tx, *Ts], T], *args: *Ts) -> T:
        """Run a function on the read-only connection. Raises StoreUnavailable where the disk is at fault."""
        self._check_open()
        try:
            return await self._reader.run(lambda conn: fn(conn, *args))
        except sqlite3.Error as error:
            raise translated(error) from None

    async def outside(self, fn: Callable[[Tx, *Ts], T], *args: *Ts) -> T:
        """Run a long function outside any transaction, on a read-only connection of its own: neither writes nor short
        reads wait for it (VACUUM INTO took 150 ms for 48 MB)."""
        self._check_open()
        connection = None
        try:
            connection = await _opened(partial(_read_only, self._uri))
            return await connection.run(lambda conn: fn(conn, *args))
        except sqlite3.Error as error:
            raise translated(error) from None
        finally:
            if connection is not None:
                await connection.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("The database is closed.", retry_after_s=1)

    async def close(self) -> None:
        """Carry out what is queued, then close both connections and give up the lock. Harmless to repeat: a second
        call waits for the first, and takes up what one that was cancelled left undone."""
        self._closed = True
        async with self._closing:
            if self._lock is None:
                return
            await self._idle.wait()
            await self._reader.close()
            await self._writer.close()
            os.close(self._lock)
            self._lock = None

    # --- group commit --------------------------------------------------------------------------------------------------

    def _enqueue(
        self,
        queue: deque[Job],
        fn: Callable[..., T],
        args: tuple[Any, ...],
        abandoned: Callable[[T], None] | None = None,
    ) -> asyncio.Future[T]:
        self._check_open()
        future: asyncio.Future[T] = self._loop.create_future()
        queue.append(Job(fn, args, future, abandoned))
        self._start()
        return future

    def _start(self) -> None:
        if not self._in_flight:
            self._in_flight = True
            self._idle.clear()
            self._launch()

    def _launch(self) -> None:
        """Carry out the next batch. There is at most one on its way, and until it has landed the connection is its own."""
        if self._between:
            fn, future = self._between.popleft()
            self._writer.run(fn).add_done_callback(partial(self._passed, future))
            return
        waiting = self.queue_length()
        if 0 < waiting < self._expected and self._turns < TURNS_WAITED:
            # More are about to come, as many as lately; on a busy loop they are here within a turn or two.
            self._turns += 1
            self._loop.call_soon(self._launch)
            return
        self._turns = 0
        self._expected = max(waiting, self._expected - 1)
        batch: list[Job] = []
        for queue in (self._urgent, self._waiting):
            while queue and len(batch) < self._batch_limit:
                batch.append(queue.popleft())
        if not batch:
            self._in_flight = False
            self._idle.set()
            return
        self._launched_s = self._loop.time()
        rest = commit if prepared(batch, self._writer.raw) else carry_out
        self._writer.post(partial(self._finish, rest, batch))

    def _finish(self, rest: Callable[[list[Job], Tx], None], batch: list[Job], conn: Tx) -> None:
        """In the writer's thread: do what is left of a batch, and tell the loop once for all its jobs."""
        try:
            rest(batch, conn)
        except BaseException as error:
            for job in batch:
                job.error = job.error or error
        self._loop.call_soon_threadsafe(self._landed, batch)

    def _passed(self, future: asyncio.Future[Any], done: asyncio.Future[Any]) -> None:
        """Hand on what came of a function between two batches."""
        if not future.done():
            error = done.exception()
            if error is None:
                future.set_result(done.result())
            else:
                future.set_exception(error)
        self._launch()

    def _landed(self, batch: list[Job]) -> None:
        self.commit_times.observe(self._loop.time() - self._launched_s)
        for job in batch:
            if job.future.done():  # its caller was cancelled; what the job did stays done
                if job.error is None and job.abandoned is not None:
                    self._loop.call_soon(job.abandoned, job.result)
                continue
            if job.error is None:
                job.future.set_result(job.result)
            else:
                job.future.set_exception(job.error)
        # Not at once: what the callers do with their results may be committed with it (0.6 commits a call for 0.95).
        self._loop.call_soon(self._launch)


def unattended(future: asyncio.Future[Any]) -> None:
    """A callback for a write that nobody waits for: takes note of its failure, so that asyncio does not complain of it."""
    if not future.cancelled():
        future.exception()


# --- opening -----------------------------------------------------------------------------------------------------------


async def _opened(connector: Callable[[], sqlite3.Connection]) -> _Connection:
    connection = _Connection(connector)
    await connection
    return connection


def _create(uri: str) -> sqlite3.Connection:
    before = os.umask(0o077)
    try:
        return _connect(uri)
    finally:
        os.umask(before)


def _read_only(uri: str) -> sqlite3.Connection:
    return _connect(uri + "?mode=ro")


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=256)


def _prepare(conn: sqlite3.Connection) -> None:
    """Set the file up, and this connection to it; the file is created with the first statement, readable by us only."""
    before = os.umask(0o077)
    try:
        conn.execute(f"PRAGMA busy_timeout = {BUSY_MS}")  # until all is set up; see `batch` for later
        conn.execute("PRAGMA journal_mode = WAL")
        # FULL: with NORMAL, 754 of 1,000 power-loss images lost acknowledged commits, with FULL none of 3,000.
        conn.execute("PRAGMA synchronous = FULL")
        conn.execute("PRAGMA foreign_keys = ON")
        conn.execute("PRAGMA secure_delete = ON")
        conn.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        conn.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES}")
        conn.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        migrate(conn, known())
        conn.execute("PRAGMA busy_timeout = 0")
    finally:
        os.umask(before)


def in_memory() -> sqlite3.Connection:
    """A fresh database of this version without a file, for the ledger's own tests."""
    conn = sqlite3.connect(":memory:", isolation_level=None)
    conn.execute("PRAGMA foreign_keys = ON")
    migrate(conn, known())
    return conn
