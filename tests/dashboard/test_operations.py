"""What an operator can do: arguments are checked, answers are plain, changes are in force at once."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest

from lumeproxy import __version__
from lumeproxy.core import apikey
from lumeproxy.dashboard.arguments import LAST_MS
from lumeproxy.dashboard.operations import PAGE_ROWS, READS, Operations
from lumeproxy.errors import Missing, Refused
from lumeproxy.store import keys
from lumeproxy.store.database import Database
from tests.support.clock import START_MS, FakeClock

DAY_MS = 86_400_000
LIMITS = (
    "calls_per_minute", "concurrent_calls", "budget_day_nanousd", "budget_week_nanousd", "budget_month_nanousd",
    "budget_total_nanousd",
)  # fmt: skip
ALL_LIMITS = {name: number for number, name in enumerate(LIMITS, 1)}


async def test_a_server_tells_its_version_and_where_it_is_reached(operations: Operations):
    assert await operations.run("server.show", {}) == {
        "version": __version__,
        "base_url": "http://here:1",
        "process_id": os.getpid(),
    }


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("account.create", {}, "missing required field `name`"),
        ("account.create", {"name": 5}, "Expected `str`, got `int`"),
        ("account.create", {"name": "a", "credit": 1}, "unknown field `credit`"),
        ("account.create", {"name": "a", "credit_nanousd": 1.5}, "Expected `int`"),
        ("account.create", {"name": "a", "credit_nanousd": True}, "Expected `int`"),
        ("account.create", {"name": "a", "credit_nanousd": -1}, "above $0"),
        ("account.create", {"name": "a", "credit_nanousd": 10**30}, "at most $1,000,000.00"),
        ("account.suspend", {"name": "ann", "reason": ""}, "needs a reason"),
        ("account.suspend", {"name": "ann", "reason": "r" * 501}, "length <= 500"),
        ("key.create", {"account": "ann", "models": "claude-*"}, "Expected `array`"),
        ("key.create", {"account": "ann", "expires_ms": START_MS}, "has expired already"),
        ("key.create", {"account": "ann", "expires_ms": LAST_MS + 1}, "<= 253402300799999"),
        ("key.rotate", {"id": "x", "overlap_ms": -1}, ">= 0"),
        ("credit.grant", {"account": "ann", "amount_nanousd": 0}, "above $0"),
        ("credit.grant", {"account": "ann", "amount_nanousd": 10**16}, "at most $1,000,000.00"),
        ("credit.grant", {"account": "ann", "amount_nanousd": 1, "note": "n" * 501}, "length <= 500"),
        ("credit.entries", {"account": "ann", "limit": -1}, ">= 1"),
        ("usage.list", {"limit": 0}, ">= 1"),
        ("usage.list", {"since_ms": 10**30}, "<= 253402300799999"),
        ("usage.totals", {"by": "account_id"}, "can't be grouped by 'account_id'"),
    ],
)
async def test_wrong_arguments_are_refused_with_a_sentence_and_change_nothing(
    operations: Operations, name, arguments, told, changes
):
    await operations.run("account.create", {"name": "ann"})
    before = await operations.run("account.list", {})

    with pytest.raises(Refused) as refused:
        await operations.run(name, arguments)

    assert told in refused.value.message
    assert await operations.run("account.list", {}) == before
    assert changes == []


async def test_there_is_no_other_operation(operations: Operations):
    with pytest.raises(Missing, match="There is no operation account.delete"):
        await operations.run("account.delete", {})


async def test_what_changes_something_is_no_read(operations: Operations):
    assert sorted(set(operations._table) - READS) == [
        "account.admin", "account.close", "account.create", "account.erase", "account.limit", "account.link",
        "account.note", "account.password", "account.register", "account.resume", "account.suspend", "admin_key.create",
        "admin_key.revoke", "backup.run", "code.create", "code.redeem", "code.withdraw", "credit.grant", "key.create",
        "key.limit", "key.revoke", "key.rotate", "session.end", "terms.accept",
    ]  # fmt: skip


async def test_an_account_and_its_first_credit_are_one_change(operations: Operations):
    made = await operations.run("account.create", {"name": "Ann", "credit_nanousd": 7, "idempotency_key": "k"})

    assert made == {
        "account": "ann",
        "status": "active",
        "reason": "",
        "balance_nanousd": 7,
        "held_nanousd": 0,
        "available_nanousd": 7,
        "created_ms": START_MS,
        "calls_per_minute": None,
        "concurrent_calls": None,
        "low_balance_nanousd": None,
    }
    with pytest.raises(Refused, match="key was used before"):
        await operations.run("account.create", {"name": "bob", "credit_nanousd": 8, "idempotency_key": "k"})
    assert [a["account"] for a in await operations.run("account.list", {})] == ["ann"]


async def test_a_grant_that_is_repeated_is_given_once(operations: Operations):
    await operations.run("account.create", {"name": "ann"})
    grant = {"account": "ann", "amount_nanousd": 5, "note": "n", "idempotency_key": "once"}

    answers = [await operations.run("credit.grant", grant) for _ in range(2)]

    assert [answer["balance_nanousd"] for answer in answers] == [5, 5]
    with pytest.raises(Refused, match="used before"):
        await operations.run("credit.grant", {**grant, "amount_nanousd": 6})
    (entry,) = await operations.run("credit.entries", {"account": "ann"})
    assert (entry["kind"], entry["amount_nanousd"], entry["note"], entry["time_ms"]) == ("grant", 5, "n", START_MS)


async def test_a_change_of_an_accounts_state_is_announced(operations: Operations, changes):
    await operations.run("account.create", {"name": "ann"})
    told = [
        await operations.run("account.suspend", {"name": "ann", "reason": " unpaid "}),
        await operations.run("account.resume", {"name": "ann"}),
        await operations.run("account.close", {"name": "ann"}),
    ]

    assert [(a["status"], a["reason"]) for a in told] == [
        ("suspended", "unpaid"),
        ("active", ""),
        ("closed", "closed by the operator"),
    ]
    assert len(changes) == 3
    with pytest.raises(Missing):
        await operations.run("account.suspend", {"name": "bob", "reason": "x"})
    assert len(changes) == 3


async def test_a_keys_text_is_in_the_answer_and_nowhere_else(operations: Operations, database: Database):
    await operations.run("account.create", {"name": "ann"})

    made = await operations.run("key.create", {"account": "ann", "name": "laptop", "models": ["claude-*"]})

    stored = await database.read(keys.get, made["id"])
    assert apikey.verify(made["key"], stored.sha256)
    secret = made["key"].rpartition("_")[2]
    assert secret not in json.dumps(await operations.run("account.show", {"name": "ann"}))
    dump = await database.read(lambda tx: "".join(tx.iterdump()))
    assert stored.sha256.hex().upper() in dump
    assert secret not in dump


async def test_a_listed_key_is_known_by_its_id_and_last_four(operations: Operations, clock: FakeClock, changes):
    await operations.run("account.create", {"name": "ann"})
    made = await operations.run("key.create", {"account": "ann", "expires_ms": START_MS + 1})

    (listed,) = (await operations.run("account.show", {"name": "ann"}))["keys"]

    assert listed == {
        "id": made["id"],
        "account": "ann",
        "account_status": "active",
        "name": "",
        "last4": made["key"][-4:],
        "created_ms": START_MS,
        "expires_ms": START_MS + 1,
        "revoked_ms": None,
        "models": [],
        "budget_left_nanousd": None,
        **dict.fromkeys(LIMITS),
    }
    assert await operations.run("key.list", {}) == await operations.run("key.list", {"account": "ann"}) == [listed]
    clock.advance(5)
    assert (await operations.run("key.revoke", {"id": made["id"]}))["revoked_ms"] == START_MS + 5
    clock.advance(5)
    assert (await operations.run("key.revoke", {"id": made["id"]}))["revoked_ms"] == START_MS + 5
    assert changes == ["changed"] * 3


async def test_a_key_is_replaced_in_one_step_once(operations: Operations, clock: FakeClock):
    await operations.run("account.create", {"name": "ann"})
    old = await operations.run(
        "key.create",
        {"account": "ann", "name": "n", "models": ["m"], "expires_ms": START_MS + 2 * DAY_MS, **ALL_LIMITS},
    )
    clock.advance(1)

    new = await operations.run("key.rotate", {"id": old["id"], "overlap_ms": DAY_MS})

    assert {**new, "id": 0, "key": 0} == {
        "id": 0, "key": 0, "account": "ann", "name": "n", "models": ["m"], "expires_ms": START_MS + 2 * DAY_MS,
        "replaces": old["id"], **ALL_LIMITS,
    }  # fmt: skip
    first, second = await operations.run("key.list", {})
    assert (first["revoked_ms"], second["revoked_ms"]) == (START_MS + 1 + DAY_MS, None)
    with pytest.raises(Refused, match="is revoked or replaced already"):
        await operations.run("key.rotate", {"id": old["id"]})
    clock.advance(2 * DAY_MS)
    with pytest.raises(Refused, match="has expired"):
        await operations.run("key.rotate", {"id": new["id"]})
    assert len(await operations.run("key.list", {})) == 2


async def test_a_keys_limits_are_set_one_by_one(operations: Operations, changes):
    await operations.run("account.create", {"name": "ann"})
    made = await operations.run("key.create", {"account": "ann", "budget_day_nanousd": 5})
    assert {name: made[name] for name in LIMITS} == {**dict.fromkeys(LIMITS), "budget_day_nanousd": 5}
    before = len(changes)

    changed = await operations.run("key.limit", {"id": made["id"], "calls_per_minute": 0, "budget_month_nanousd": 9})
    assert {name: changed[name] for name in LIMITS if changed[name] is not None} == {
        "calls_per_minute": 0, "budget_day_nanousd": 5, "budget_month_nanousd": 9,
    }  # fmt: skip
    assert len(changes) == before + 1
    (listed,) = await operations.run("key.list", {})
    assert listed["budget_left_nanousd"] == 5
    changed = await operations.run("key.limit", {"id": made["id"], "budget_day_nanousd": None})
    assert changed["budget_day_nanousd"] is None
    for wrong in ({"id": "nobody00"}, {"id": made["id"], "budget_day_nanousd": -1}, {"id": made["id"], "budget": 1}):
        with pytest.raises(Refused):
            await operations.run("key.limit", wrong)


async def test_an_accounts_limits_are_set_one_by_one(operations: Operations):
    await operations.run("account.create", {"name": "ann"})

    await operations.run("account.limit", {"name": "ann", "calls_per_minute": 60})
    await operations.run("account.limit", {"name": "ann", "concurrent_calls": 4})
    shown = await operations.run("account.show", {"name": "ann"})
    assert (shown["calls_per_minute"], shown["concurrent_calls"]) == (60, 4)
    await operations.run("account.limit", {"name": "ann", "calls_per_minute": None})
    (shown,) = await operations.run("account.list", {})
    assert (shown["calls_per_minute"], shown["concurrent_calls"]) == (None, 4)


async def test_the_first_account_its_credit_and_its_key_are_one_change(operations: Operations, database: Database):
    text = await operations.first("me", 7)

    shown = await operations.run("account.show", {"name": "me"})
    assert (shown["balance_nanousd"], [key["id"] for key in shown["keys"]]) == (7, [apikey.parse(text)])
    with pytest.raises(Refused, match="must be above"):
        await operations.first("you", 0)
    assert [a["account"] for a in await operations.run("account.list", {})] == ["me"]


async def test_a_key_of_a_closed_account_is_not_replaced_and_stays_as_it_is(operations: Operations):
    await operations.run("account.create", {"name": "ann"})
    old = await operations.run("key.create", {"account": "ann"})
    await operations.run("account.close", {"name": "ann"})

    with pytest.raises(Refused, match="is closed"):
        await operations.run("key.rotate", {"id": old["id"]})

    (listed,) = await operations.run("key.list", {})
    assert listed["revoked_ms"] is None


async def test_keys_come_from_the_given_randomness(database: Database, clock: FakeClock):
    bytes_of = itertools.cycle(range(62))
    operations = Operations(
        database, clock, on_change=lambda: None, random_bytes=lambda n: bytes(next(bytes_of) for _ in range(n))
    )
    await operations.run("account.create", {"name": "ann"})

    made = await operations.run("key.create", {"account": "ann"})

    assert made["key"].startswith("lume_01234567_89ABCDEF")
    assert await operations.run("server.show", {}) == {
        "version": __version__,
        "base_url": None,
        "process_id": os.getpid(),
    }


async def test_lists_are_cut_at_a_page(operations: Operations, database: Database, monkeypatch):
    asked: list[object] = []

    async def read(_fn, *arguments):
        asked.append(arguments[-1] if arguments[-1] is not None else arguments[1])
        return []

    monkeypatch.setattr(database, "read", read)
    for limit in (None, 3, PAGE_ROWS + 1):
        await operations.run("usage.list", {"limit": limit})
    await operations.run("credit.entries", {"account": "ann", "limit": PAGE_ROWS + 1})
    monkeypatch.undo()

    assert asked == [PAGE_ROWS, 3, PAGE_ROWS, PAGE_ROWS]


async def test_an_audit_names_what_is_wrong(operations: Operations, database: Database):
    assert await operations.run("audit.run", {}) == {"ok": True, "problems": []}
    await operations.run("account.create", {"name": "ann"})
    await database.write(lambda tx: tx.execute("UPDATE accounts SET balance_nanousd = 1 WHERE name = 'ann'"))

    found = await operations.run("audit.run", {})

    assert found["ok"] is False
    assert found["problems"][1] == "The account ann has a balance of 1 nano-USD, its entries sum to 0."
    await database.write(lambda tx: tx.execute("UPDATE accounts SET balance_nanousd = 0 WHERE name = 'ann'"))


async def test_a_backup_that_is_not_sound_is_refused(operations: Operations, database: Database, tmp_path: Path):
    target = str(tmp_path / "copy.db")
    assert await operations.run("backup.run", {"path": target}) == {"file": target, "ok": True}
    with pytest.raises(Refused, match="does not overwrite"):
        await operations.run("backup.run", {"path": target})

    await database.write(lambda tx: tx.execute("UPDATE accounts SET balance_nanousd = 1 WHERE id = 1"))
    with pytest.raises(Refused, match=r"other\.db was written but is not sound: The balances of all accounts sum to 1"):
        await operations.run("backup.run", {"path": str(tmp_path / "other.db")})
    await database.write(lambda tx: tx.execute("UPDATE accounts SET balance_nanousd = 0 WHERE id = 1"))
