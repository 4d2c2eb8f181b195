"""What is erased, or whose time is over, is in no file any more: not in the database, its free pages or its log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lumeproxy.core.limits import DAY_MS
from lumeproxy.dashboard import erasing
from lumeproxy.dashboard.operations import Operations
from lumeproxy.errors import Refused
from lumeproxy.store import ledger, retention
from lumeproxy.store.audit import audit
from lumeproxy.store.database import Database
from tests.dashboard.test_retention import job
from tests.store.books import DOLLAR, billed, call, remember, take
from tests.support.api import api_of
from tests.support.clock import START_MS, FakeClock
from tests.support.proxy import Proxy

ADDRESS, AGENT, SESSION = "203.0.113.77", "canary-agent/9.9", "canary-session-5f1e"
WHO: dict[str, Any] = {
    "client_address": ADDRESS,
    "user_agent": AGENT,
    "session_id": SESSION,
    "agent_id": "canary-subagent",
}
NAME, KEY_NAME = "canary-name", "canary laptop"
TRACES = (ADDRESS, AGENT, SESSION, "canary-subagent", NAME, KEY_NAME)


def found(folder: Path, traces: tuple[str, ...] = TRACES) -> set[tuple[str, str]]:
    """In which file of a folder which trace stands, in any bytes of it."""
    files = [path for path in folder.iterdir() if path.is_file()]
    return {(path.name, trace) for path in files for trace in traces if trace.encode() in path.read_bytes()}


async def filled(database: Database, operations: Operations, calls: int = 500) -> None:
    """An account with many calls, some long ago, and another whose calls look alike."""
    await operations.run("account.create", {"name": NAME, "credit_nanousd": DOLLAR})
    await operations.run("key.create", {"account": NAME, "name": KEY_NAME})

    def book(tx):
        remember(tx)
        for number in range(calls):
            call(tx, f"call_{number:05}", 4, output_tokens=1, time_ms=START_MS - number * DAY_MS // 10, **WHO)

    await database.write(book)


async def test_an_erased_account_is_found_in_no_file_while_it_is_open_or_closed(tmp_path: Path, clock: FakeClock):
    changes: list[str] = []
    database = await Database.open(tmp_path)
    operations = Operations(database, clock, on_change=lambda: changes.append("changed"))
    await filled(database, operations)
    assert {trace for _, trace in found(tmp_path)} == set(TRACES)
    before = len(changes)

    erased = await operations.run("account.erase", {"name": NAME})

    assert erased["account"] == "erased-4"
    assert erased["balance_nanousd"] == DOLLAR - 500 * 10_000
    assert len(changes) == before + 2  # closed, erased
    assert found(tmp_path) == set()
    assert await database.read(audit) == []
    await database.close()
    assert found(tmp_path) == set()


async def test_addresses_and_agents_are_found_in_no_file_when_their_day_has_passed(
    database: Database, operations: Operations, clock: FakeClock, tmp_path: Path
):
    await filled(database, operations)
    clock.advance(31 * DAY_MS)

    done = await job(database, clock).once()

    assert (done.cleared, done.deleted) == (500, 0)
    assert found(tmp_path / "data", (ADDRESS, AGENT)) == set()
    assert found(tmp_path / "data", (SESSION,)) != set()
    clock.advance(400 * DAY_MS)
    done = await job(database, clock).once()
    assert (done.cleared, done.deleted) == (0, 500)
    assert found(tmp_path / "data", (SESSION, "canary-subagent", "call_00007")) == {
        ("lumeproxy.db", "call_00007")  # in the ledger, which stays
    }


async def test_a_call_that_is_still_ending_is_waited_for(database: Database, operations: Operations, monkeypatch):
    await filled(database, operations, 1)
    await database.write(take, "running", 4)
    monkeypatch.setattr(erasing, "TRIES", 2)
    monkeypatch.setattr(erasing, "PAUSE_S", 0)
    with pytest.raises(Refused, match="is closed, but calls of it are still ending"):
        await operations.run("account.erase", {"name": NAME})

    monkeypatch.setattr(erasing, "TRIES", 10_000)
    erase = asyncio.create_task(operations.run("account.erase", {"name": NAME}))
    await database.write(ledger.settle, billed("running", 4, output_tokens=1, **WHO))
    assert (await erase)["account"] == "erased-4"
    record = (await operations.run("usage.list", {"account": "erased-4"}))[0]
    assert (record["client_address"], record["cost_nanousd"]) == ("", 10_000)


async def test_a_reader_in_the_way_of_the_log_is_not_waited_for_with_the_writer(database: Database, operations):
    await filled(database, operations, 1)

    def look(tx):
        tx.execute("BEGIN")
        tx.execute("SELECT count(*) FROM usage").fetchone()

    def patience(conn):
        return conn.execute("PRAGMA busy_timeout").fetchone()

    before = await database.between(patience)
    await database.read(look)
    await operations.run("account.create", {"name": "later"})
    assert await database.between(retention.truncate_log) is False
    assert await database.between(patience) == before
    await database.read(lambda tx: tx.execute("ROLLBACK"))
    assert await erasing.emptied(database) is True


async def test_an_account_is_erased_over_the_api_with_its_answers_kept_for_repetitions(lume: Proxy):
    api = await api_of(lume)
    await api.ask("POST", "/accounts", {"name": NAME}, idempotency_key="w1")
    await api.ask("POST", f"/accounts/{NAME}/keys", {"name": KEY_NAME}, idempotency_key="w2")
    answer = await api.ask("POST", f"/accounts/{NAME}/erase")

    assert answer.json["account"].startswith("erased-")
    assert found(lume.settings.server.data) == set()
