"""A copy of the database while it is in use: VACUUM INTO, then checked. Our own code never reads the live file."""

from __future__ import annotations

import os
from pathlib import Path

from lumeproxy.errors import Refused
from lumeproxy.store.audit import audit
from lumeproxy.store.database import Tx, bound
from lumeproxy.store.sqlite import sqlite3


def backup(tx: Tx, target: str) -> None:
    """Write a compact copy to a new file, outside any transaction; it is on the disk when this returns.

    Raises Refused where there is a file already or it can't be written; then no part of a copy is left behind.
    """
    path = Path(target).absolute()
    try:
        # Ours from the first byte and readable by us only; VACUUM INTO takes an empty file.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise Refused(f"There is a file {path} already; a backup does not overwrite.") from None
    except OSError as error:
        raise Refused(f"The backup {path} can't be written: {error.strerror}.") from None
    try:
        tx.execute("VACUUM INTO $1", bound(str(path)))
        # SQLite does not sync this file (sqlite.org/lang_vacuum.html).
        _sync(path)
        _sync(path.parent)
    except (sqlite3.Error, OSError) as error:
        path.unlink(missing_ok=True)
        raise Refused(f"The backup {path} can't be written: {error}.") from None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check(target: str) -> list[str]:
    """What is wrong with a backup: the audit's problems."""
    connection = sqlite3.connect(f"{Path(target).absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        return audit(connection)
    finally:
        connection.close()
