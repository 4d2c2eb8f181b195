"""Whether the database's files are still the ones that were opened.

A deleted -wal or -shm is silent: the server commits on into an unlinked file, and after a crash all since the last
checkpoint is gone, with an integrity check that says ok (measured). So their places are looked at, by name and never by
opening them: closing any descriptor of a database file drops SQLite's locks (sqlite.org/howtocorrupt.html, 2026-11).
"""

from __future__ import annotations

from pathlib import Path

SUFFIXES = ("", "-wal", "-shm")

_Place = tuple[int, int]


class Files:
    """The files of one open database, as they were when this was made."""

    def __init__(self, database: Path) -> None:
        self._opened = {path: _place(path) for path in (database.with_name(database.name + s) for s in SUFFIXES)}

    def changed(self) -> str | None:
        """The name of one that was removed or replaced, None while all are in place."""
        return next((path.name for path, place in self._opened.items() if _place(path) != place), None)


def _place(path: Path) -> _Place | None:
    """Device and inode, None for a file that is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
