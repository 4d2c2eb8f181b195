"""A copy of the database while it is in use: VACUUM INTO, then checked. Our own code never reads the live file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lumeproxy.errors import Refused
from lumeproxy.store.audit import audit
from lumeproxy.store.database import Tx, bound


def backup(tx: Tx, target: str) -> None:
    """Write a compact copy to a new file, outside any transaction. Raises Refused where there is a file already or it
    can't be written."""
    path = Path(target)
    if path.exists():
        raise Refused(f"There is a file {path} already; a backup does not overwrite.")
    try:
        tx.execute("VACUUM INTO $1", bound(str(path)))
        path.chmod(0o600)
    except (sqlite3.Error, OSError) as error:
        raise Refused(f"The backup {path} can't be written: {error}.") from None


def check(target: str) -> list[str]:
    """What is wrong with a backup: the audit's problems."""
    connection = sqlite3.connect(f"{Path(target).absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        return audit(connection)
    finally:
        connection.close()
