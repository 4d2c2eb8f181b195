"""Which SQLite is used."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest

from lumeproxy.store import audit, backup, database, migrations, sqlite


def test_all_of_the_store_uses_one_library():
    assert {module.sqlite3 for module in (audit, backup, database, migrations)} == {sqlite.sqlite3}


def test_a_newer_library_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch):
    package, newer = ModuleType("pysqlite3"), ModuleType("pysqlite3.dbapi2")
    package.dbapi2 = newer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pysqlite3", package)
    monkeypatch.setitem(sys.modules, "pysqlite3.dbapi2", newer)
    try:
        assert importlib.reload(sqlite).sqlite3 is newer
    finally:
        monkeypatch.undo()
        importlib.reload(sqlite)
