"""A database of its own, and operations on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lumeproxy.dashboard.operations import Operations
from lumeproxy.store.audit import audit
from lumeproxy.store.database import Database
from tests.dashboard.browser import Site, site
from tests.support.clock import FakeClock


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database; its books must be in order when the test is over."""
    made = await Database.open(tmp_path / "data")
    yield made
    assert await made.read(audit) == []
    await made.close()


@pytest.fixture
def changes() -> list[str]:
    """Grows with every change that a server would have to obey at once."""
    return []


@pytest.fixture
def operations(database: Database, clock: FakeClock, changes: list[str]) -> Operations:
    """Operations under a clock that stands."""
    return Operations(database, clock, on_change=lambda: changes.append("changed"), base_url="http://here:1")


@pytest.fixture
async def pages(tmp_path: Path) -> AsyncIterator[Site]:
    """A running server whose pages are looked at; its books must be in order in the end."""
    async with site(tmp_path) as made:
        yield made
