"""The one SQLite library of the process: Python's own, or a newer one where the extra `lumeproxy[sqlite]` brought it.

Versions up to 3.51.2 have the WAL-reset bug (sqlite.org/wal.html, 2026-11); one writer keeps it harmless, a fixed library
rules it out. The two have different exception classes and must not open one file together, so that nothing else imports
either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
else:
    try:
        from pysqlite3 import dbapi2 as sqlite3
    except ImportError:
        import sqlite3

__all__ = ["has_wal_reset_bug", "sqlite3"]


def has_wal_reset_bug(version: str) -> bool:
    """Whether an SQLite of that version is one of 3.7.0 to 3.51.2 without the backported fix (3.44.6, 3.50.7)."""
    parts = tuple(int(part) for part in version.split(".")[:3])
    fixed = (3, 44, 6) <= parts < (3, 45) or (3, 50, 7) <= parts < (3, 51)
    return (3, 7, 0) <= parts <= (3, 51, 2) and not fixed
