"""Long lists part by part: complete, in order, stable while rows are added, one list's cursor no other's."""

from __future__ import annotations

from typing import Any

import pytest

from lumeproxy.dashboard.operations import Operations
from lumeproxy.errors import InvalidArguments, Missing, Refused
from lumeproxy.store.database import Database
from tests.store.books import call, remember
from tests.support.clock import FakeClock

NAMES = ["ann", "bob", "cid", "dan", "eve"]


@pytest.fixture
async def filled(operations: Operations, database: Database, clock: FakeClock) -> Operations:
    """Five accounts, with two keys each, and ten calls, half of them at one moment."""
    for name in NAMES:
        await operations.run("account.create", {"name": name, "credit_nanousd": 10**9})
        for _ in range(2):
            await operations.run("key.create", {"account": name})
    ids = {name: 4 + number for number, name in enumerate(NAMES)}  # behind the house's three

    def book(tx):
        remember(tx)
        for number in range(10):
            at = clock.now_ms() + max(0, number - 4)
            call(tx, f"c{number}", ids[NAMES[number % 2]], output_tokens=1, time_ms=at)

    await database.write(book)
    return operations


async def walked(operations: Operations, name: str, limit: int, **arguments: Any) -> list[Any]:
    """All parts of a list."""
    parts, cursor = [], None
    while True:
        part = await operations.run(name, {**arguments, "limit": limit, "cursor": cursor})
        parts.append(part["items"])
        cursor = part["next_cursor"]
        if cursor is None:
            return parts


@pytest.mark.parametrize("limit", [1, 3, 5, 100])
async def test_every_row_is_in_one_part(filled: Operations, limit):
    async def lists(name: str, field: str, **arguments: Any) -> list[Any]:
        parts = await walked(filled, name, limit, **arguments)
        assert all(len(part) == limit for part in parts[:-1])
        assert 0 < len(parts[-1]) <= limit
        return [row[field] for part in parts for row in part]

    assert await lists("account.page", "account") == NAMES
    all_keys = [key["id"] for key in await filled.run("key.list", {})]
    assert await lists("key.page", "id") == all_keys
    assert await lists("key.page", "id", account="Bob") == [
        k["id"] for k in await filled.run("key.list", {"account": "bob"})
    ]
    assert await lists("usage.page", "call_id") == [f"c{n}" for n in range(9, -1, -1)]
    assert await lists("usage.page", "call_id", account="ann") == ["c8", "c6", "c4", "c2", "c0"]
    entries = [entry["id"] for entry in await filled.run("credit.entries", {"account": "ann"})]
    assert len(entries) == 6
    assert await lists("credit.page", "id", account="ann") == entries


async def test_a_list_from_a_time_on(filled: Operations, clock: FakeClock):
    parts = await walked(filled, "usage.page", 2, since_ms=clock.now_ms() + 3)

    assert [[row["call_id"] for row in part] for part in parts] == [["c9", "c8"], ["c7"]]


async def test_rows_that_come_meanwhile_neither_repeat_nor_hide_one(filled: Operations, database: Database, clock):
    first = await filled.run("usage.page", {"limit": 4})
    accounts = await filled.run("account.page", {"limit": 2})
    await filled.run("account.create", {"name": "aaa"})
    await filled.run("account.create", {"name": "bzz"})
    await database.write(lambda tx: call(tx, "new", 4, output_tokens=1, time_ms=clock.now_ms() + 99))

    rest = await filled.run("usage.page", {"limit": 100, "cursor": first["next_cursor"]})
    assert [row["call_id"] for row in first["items"] + rest["items"]] == [f"c{n}" for n in range(9, -1, -1)]
    after = await filled.run("account.page", {"cursor": accounts["next_cursor"]})
    assert [row["account"] for row in accounts["items"] + after["items"]] == ["ann", "bob", "bzz", "cid", "dan", "eve"]


async def test_a_cursor_of_one_account_opens_nothing_of_another(filled: Operations):
    for name in ("credit.page", "usage.page", "key.page"):
        part = await filled.run(name, {"account": "ann", "limit": 1})
        with pytest.raises(InvalidArguments, match="does not belong"):
            await filled.run(name, {"account": "bob", "cursor": part["next_cursor"]})
        with pytest.raises(Missing):
            await filled.run(name, {"account": "nobody"})
    with pytest.raises(Refused, match="<= 1000"):
        await filled.run("usage.page", {"limit": 1001})


async def test_sums_have_a_name_and_days_are_those_of_one_account(filled: Operations):
    sums = await filled.run("usage.summary", {"by": "account"})
    days = await filled.run("usage.days", {"account": "ann"})

    assert sums["by"] == "account"
    assert [(group["name"], group["calls"], group["cost_nanousd"]) for group in sums["groups"]] == [
        ("ann", 5, 50_000), ("bob", 5, 50_000)]  # fmt: skip
    assert [(day["calls"], day["cost_nanousd"], "account_id" in day) for day in days] == [(5, 50_000, False)]
    with pytest.raises(Refused, match="Invalid enum value"):
        await filled.run("usage.summary", {"by": "client_address"})
    key = (await filled.run("key.list", {"account": "eve"}))[0]
    assert await filled.run("key.show", {"id": key["id"]}) == key
