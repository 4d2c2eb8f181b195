"""Jobs that wait for the writer, and a batch of them in one transaction.

A batch is first tried on the event loop's thread, when all its jobs are brief: there are a dozen statements in a call, and
each that runs in another thread gives the interpreter's lock up and has to wait for it again. Only the commit, which waits
for the disk, is always made in the writer's thread. What goes wrong on the loop is undone, and the whole batch is left to
the thread. Must not know what jobs do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lumeproxy.errors import StoreUnavailable
from lumeproxy.store.sqlite import sqlite3

F = TypeVar("F", bound=Callable[..., Any])

# What SQLite says when the disk, not the statement, is at fault; primary result codes of sqlite.org/rescode.html.
_UNAVAILABLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)
BUSY_MS = 5_000
_NO_WRITES = "The proxy's database takes no writes at the moment; please try again."


def brief(fn: F) -> F:
    """Mark a transaction that touches a handful of rows by their keys: its statements may run on the event loop's thread.
    It must not wait for anything, and may be run twice (the first time undone)."""
    fn.brief = True  # type: ignore[attr-defined]
    return fn


class Job:
    """A function that waits for the writer."""

    __slots__ = ("abandoned", "args", "brief", "error", "fn", "future", "result")

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        future: asyncio.Future[Any],
        abandoned: Callable[[Any], None] | None = None,
    ) -> None:
        self.fn = fn
        self.args = args
        self.future = future
        self.abandoned = abandoned
        self.brief = getattr(fn, "brief", False)
        self.result: Any = None
        self.error: BaseException | None = None


def prepared(batch: Sequence[Job], conn: sqlite3.Connection) -> bool:
    """Run the statements of a batch, but not its commit, if that takes no time worth a thread; whether it was done. If
    not, nothing of it is left."""
    for job in batch:
        if not job.brief:
            return False
    try:
        conn.execute("BEGIN IMMEDIATE")
        for job in batch:
            job.result = job.fn(conn, *job.args)
    except Exception:
        with contextlib.suppress(sqlite3.Error):  # the thread will meet it again, and tell the jobs
            _undo(conn)
        return False
    return True


def commit(batch: Sequence[Job], conn: sqlite3.Connection) -> None:
    """Commit what was prepared. Errors are left in the jobs."""
    try:
        conn.execute("COMMIT")
    except BaseException as error:
        _fail(batch, conn, error)


def carry_out(batch: Sequence[Job], conn: sqlite3.Connection) -> None:
    """Run jobs in one transaction and commit it. Errors are left in the jobs."""
    try:
        _begin(conn)
        try:
            for job in batch:
                job.result = job.fn(conn, *job.args)
        except Exception:
            if len(batch) == 1 or not conn.in_transaction:
                raise
            # One is at fault: all over again, each apart from the others. A savepoint for each always would cost more.
            conn.execute("ROLLBACK")
            _begin(conn)
            for job in batch:
                _run_in_savepoint(job, conn)
        conn.execute("COMMIT")
    except BaseException as error:
        _fail(batch, conn, error)


def _fail(batch: Sequence[Job], conn: sqlite3.Connection, error: BaseException) -> None:
    """Nothing of the batch has happened, and each job is told."""
    _undo(conn)
    failure = _failure(error)
    for job in batch:
        job.result = None
        job.error = job.error or failure
    if isinstance(failure, StoreUnavailable):
        _write_over(conn)


def _begin(conn: sqlite3.Connection) -> None:
    """Wait for a stranger who has the file locked, which the loop's thread must not."""
    conn.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    try:
        conn.execute("BEGIN IMMEDIATE")
    finally:
        conn.execute("PRAGMA busy_timeout = 0")


def _undo(conn: sqlite3.Connection) -> None:
    # After a failed write or commit SQLite may have rolled back by itself; a second ROLLBACK would raise.
    if conn.in_transaction:
        conn.execute("ROLLBACK")


def _write_over(conn: sqlite3.Connection) -> None:
    """Commit something small after a commit that failed. What the failed one had written to the WAL may stand there whole:
    a recovery after a crash would take it for done, though its caller was told that it was not (measured: 20 of 20 refused
    grants were there after all). The next commit is written over it; on a disk that is still broken, this one fails too."""
    try:
        conn.execute("BEGIN IMMEDIATE")
        conn.execute("UPDATE accounts SET changed_ms = changed_ms + 1 WHERE id = 1")
        conn.execute("COMMIT")
    except sqlite3.Error:
        _undo(conn)


def _run_in_savepoint(job: Job, conn: sqlite3.Connection) -> None:
    conn.execute("SAVEPOINT job")
    try:
        job.result = job.fn(conn, *job.args)
    except Exception as error:
        if not conn.in_transaction:
            raise  # SQLite gave the whole transaction up: nothing of this batch is left to save
        conn.execute("ROLLBACK TO job")
        job.error = _failure(error)
    conn.execute("RELEASE job")


def _failure(error: BaseException) -> BaseException:
    """What the caller of a job is told."""
    if isinstance(error, sqlite3.Error):
        return translated(error)
    if isinstance(error, StopIteration):
        # A future refuses it with an error of its own, at which the writer would stop for ever.
        return RuntimeError(f"a transaction raised {error!r}")
    return error


def translated(error: sqlite3.Error) -> Exception:
    """StoreUnavailable where the disk is at fault; the error itself where a statement is, which is a bug."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in _UNAVAILABLE:
        return StoreUnavailable(_NO_WRITES, retry_after_s=5)
    return error
