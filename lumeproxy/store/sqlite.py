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

__all__ = ["sqlite3"]
