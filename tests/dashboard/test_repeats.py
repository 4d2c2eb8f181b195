"""A change under one word is done once, whatever its operation writes."""

from __future__ import annotations

import asyncio

import pytest

from lumeproxy.dashboard import repeats
from lumeproxy.dashboard.operations import Operations
from lumeproxy.errors import Missing, Refused
from lumeproxy.store.database import Database
from tests.support.clock import FakeClock

TEXT = "lume_admin_abcdefgh_secret"


@pytest.fixture
async def admin(operations: Operations) -> tuple[str, str]:
    made = await operations.run("admin_key.create", {})
    await operations.run("account.create", {"name": "ann"})
    return made["id"], made["key"]


async def test_the_same_answer_comes_again_and_another_request_is_refused(database: Database, clock, operations, admin):
    async def once(word: str, operation: str, **arguments):
        return await repeats.run_once(database, clock, operations, admin, word, operation, arguments)

    first = await once("w1", "key.create", account="ann", models=["m*"], budget_day_nanousd=5)
    await operations.run("key.revoke", {"id": first[0]["id"]})
    assert await once("w1", "key.create", account="ann", models=["m*"], budget_day_nanousd=5) == (first[0], True)
    for other in ({"account": "ann", "models": ["m"]}, {"account": "bob", "models": ["m*"], "budget_day_nanousd": 5}):
        with pytest.raises(Refused, match="used before, for another request"):
            await once("w1", "key.create", **other)
    with pytest.raises(Refused, match="used before"):
        await once("w1", "account.create", name="bob")
    rotated, _ = await once("w2", "key.create", account="ann")
    again = [await once("w3", "key.rotate", id=rotated["id"]) for _ in range(2)]
    assert [replayed for _, replayed in again] == [False, True]
    assert again[0][0] == again[1][0]
    assert len(await operations.run("key.list", {})) == 3


async def test_what_was_refused_leaves_no_trace(database: Database, clock, operations, admin):
    for _ in range(2):
        with pytest.raises(Missing):
            await repeats.run_once(database, clock, operations, admin, "w", "key.create", {"account": "nobody"})

    assert await database.read(lambda tx: tx.execute("SELECT count(*) FROM repeats").fetchone()) == (0,)


async def test_the_same_request_many_times_at_once_makes_one_key(database: Database, clock, operations, admin):
    ask = {"account": "ann"}
    runs = [repeats.run_once(database, clock, operations, admin, "w", "key.create", ask) for _ in range(10)]
    answers = await asyncio.gather(*runs)

    assert len({answer["key"] for answer, _ in answers}) == 1
    assert [replayed for _, replayed in answers].count(False) == 1
    assert len(await operations.run("key.list", {})) == 1


async def test_later_writes_of_an_operation_happen_with_the_first_and_not_again(
    database: Database, clock: FakeClock, operations, admin
):
    class Twice:
        def __init__(self, database):
            self.database = database

        def on(self, view, _random):
            return Twice(view)

        async def run(self, _name, arguments, _actor):
            made = await Operations(self.database, clock, on_change=lambda: None).run("credit.grant", arguments)
            await self.database.write(
                lambda tx: tx.execute("UPDATE usual SET low_balance_nanousd = 1 + low_balance_nanousd")
            )
            return made

    ask = {"account": "ann", "amount_nanousd": 5}
    for _ in range(3):
        await repeats.run_once(database, clock, Twice(database), admin, "w", "x", ask)  # type: ignore[arg-type]

    assert await database.read(lambda tx: tx.execute("SELECT low_balance_nanousd FROM usual").fetchone()) == (1,)
    assert (await operations.run("credit.balance", {"account": "ann"}))["balance_nanousd"] == 5
