"""A ledger that knows the test price, and a database in a fresh folder."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lumeproxy.store.audit import audit
from lumeproxy.store.database import Database
from tests.store import books


@pytest.fixture
def tx(tx: sqlite3.Connection) -> sqlite3.Connection:
    """The empty ledger, with the price of the test model remembered."""
    books.remember(tx)
    return tx


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def database(folder: Path) -> AsyncIterator[Database]:
    """An open database; its books must be in order when the test is over."""
    made = await Database.open(folder)
    await made.write(books.remember)
    yield made
    assert await made.read(audit) == []
    await made.close()
