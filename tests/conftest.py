"""Fixtures: a clock that stands, scripted upstreams, a running proxy, an empty ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from lumeproxy.store.audit import audit
from lumeproxy.store.database import in_memory
from tests.support.clock import FakeClock
from tests.support.proxy import Proxy, proxy
from tests.support.upstream import ScriptedUpstream


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Real clients and injected faults run only when asked for by `-m`, so that the default run needs nothing but
    Python and ends within a minute."""
    left_out = {name for name in ("e2e", "faults") if name not in (config.option.markexpr or "")}
    kept = [item for item in items if not left_out & set(item.keywords)]
    config.hook.pytest_deselected(items=[item for item in items if left_out & set(item.keywords)])
    items[:] = kept


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """A provider that plays whatever script the test sets."""
    made = ScriptedUpstream()
    await made.start()
    yield made
    await made.stop()
    assert made.errors == []


@pytest.fixture
async def lume(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Proxy]:
    """The proxy with an Anthropic and an OpenAI upstream, both played by `upstream`, and a customer with one dollar."""
    async with proxy(tmp_path, {"anthropic": upstream, "openai": upstream}, routes=ROUTES) as made:
        yield made


ROUTES = """
[[routes]]
model = "claude-test-*"
upstreams = ["anthropic"]
[[routes]]
model = "gpt-test-*"
upstreams = ["openai"]
"""


@pytest.fixture
def tx() -> Iterator[sqlite3.Connection]:
    """An empty ledger in memory; the books must be in order when the test is over."""
    conn = in_memory()
    yield conn
    assert audit(conn) == []
    conn.close()
