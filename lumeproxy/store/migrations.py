"""Bringing a database file to this version: numbered .sql files, each in one transaction with the version it leads to.

A kill leaves the old version or the new one, never something between. A file of a newer program is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lumeproxy.errors import ConfigError
from lumeproxy.store.sqlite import sqlite3


def known() -> list[str]:
    """The texts of all migrations in order; the n-th leads to version n."""
    return [file.read_text("utf-8") for file in sorted(Path(__file__).parent.glob("[0-9][0-9][0-9][0-9]_*.sql"))]


def migrate(connection: sqlite3.Connection, migrations: Sequence[str]) -> int:
    """Apply what is missing; the version then. Raises ConfigError for a file newer than `migrations`."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise ConfigError(
            f"The database was written by a newer lumeproxy (version {version}, this one knows {len(migrations)}); "
            "start that one, or restore a backup made before the upgrade."
        )
    for number, text in enumerate(migrations[version:], version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements(text):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return len(migrations)


def statements(text: str) -> Iterator[str]:
    """The single statements of a script; a trigger's own semicolons don't end one."""
    pending = ""
    for line in text.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending.strip()
            pending = ""
    if pending.strip() and not all(line.startswith("--") for line in pending.strip().splitlines()):
        raise ValueError("a migration ends within a statement")
