"""Every operation that changes something leaves a line of who did what, with the change or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from lumeproxy.dashboard.operations import READS, Operations
from lumeproxy.dashboard.recorded import Actor
from lumeproxy.errors import Refused
from lumeproxy.store.database import Database

DIGEST = "ab" * 32


async def lines(operations: Operations) -> list[dict[str, Any]]:
    return list(await operations.run("action.list", {}))


async def test_each_operation_leaves_one_line_with_its_subject(operations: Operations, tmp_path):
    await operations.run("account.create", {"name": "ann", "credit_nanousd": 5})
    key = await operations.run("key.create", {"account": "ann", "name": "laptop"})
    made = await operations.run("code.create", {"name": "ann", "amount_nanousd": 5, "count": 1})
    given: dict[str, dict[str, Any]] = {
        "account.admin": {"name": "ann"},
        "account.note": {"name": "ann", "note": "n"},
        "account.limit": {"name": "ann", "calls_per_minute": 5},
        "account.link": {"name": "ann"},
        "account.password": {"name": "ann", "argon2id": "$argon2id$x"},
        "account.register": {"name": "eve", "argon2id": "$argon2id$x", "version": "1"},
        "account.suspend": {"name": "ann", "reason": "r"},
        "account.resume": {"name": "ann"},
        "session.end": {"name": "ann"},
        "terms.accept": {"name": "ann", "version": "1"},
        "credit.grant": {"account": "ann", "amount_nanousd": 1},
        "code.redeem": {"account": "ann", "code": made["texts"][0]},
        "code.withdraw": {"batch": 1},
        "key.limit": {"id": key["id"], "budget_day_nanousd": 5},
        "key.rotate": {"id": key["id"], "overlap_ms": 9},
        "key.revoke": {"id": key["id"]},
        "account.close": {"name": "ann"},
        "account.erase": {"name": "eve"},
    }
    before = len(await lines(operations))
    for name, arguments in given.items():
        await operations.run(name, arguments, Actor("page", None))
        after = await lines(operations)
        assert len(after) == before + 1, name
        before += 1
        line = after[0]
        assert (line["operation"], line["via"]) == (name, "page")
        assert (line["account"] is None) == (name == "code.withdraw"), name
        assert (line["key_id"] is not None) == name.startswith("key."), name
    assert set(operations._table) - READS - given.keys() == {
        "account.create", "key.create", "code.create", "backup.run", "admin_key.create", "admin_key.revoke",
    }  # fmt: skip
    told = str(await lines(operations))
    for secret in ("argon2id", made["texts"][0], made["texts"][0].replace("-", ""), key["key"], "eve", "laptop"):
        assert secret not in told, secret
    await operations.run("backup.run", {"path": str(tmp_path / "copy.db")})
    assert len(await lines(operations)) == before


async def test_a_line_tells_what_changed_and_by_whom(operations: Operations, database: Database):
    await operations.run("account.create", {"name": "boss"})
    boss = await database.read(lambda tx: tx.execute("SELECT id FROM accounts WHERE name = 'boss'").fetchone()[0])
    await operations.run("account.create", {"name": "ann", "credit_nanousd": 5}, Actor("page", boss))
    await operations.run("credit.grant", {"account": "Ann", "amount_nanousd": 7, "note": "x"}, Actor("api", boss))

    grant, create, _ = await lines(operations)
    assert (create["actor"], create["via"], create["account"], create["before"]) == ("boss", "page", "ann", {})
    assert create["after"]["balance_nanousd"] == 5
    assert (grant["given"], grant["before"], grant["after"]) == (
        {"amount_nanousd": 7, "note": "x"}, {"balance_nanousd": 5}, {"balance_nanousd": 12},
    )  # fmt: skip


async def test_what_was_refused_leaves_no_line(operations: Operations):
    await operations.run("account.create", {"name": "ann"})
    before = await lines(operations)
    refused: dict[str, dict[str, Any]] = {
        "account.create": {"name": "ann"},
        "credit.grant": {"account": "ann", "amount_nanousd": 0},
        "account.suspend": {"name": "ann", "reason": " "},
        "key.revoke": {"id": "zzzzzzzz"},
        "code.redeem": {"account": "ann", "code": "x"},
    }
    for name, arguments in refused.items():
        with pytest.raises(Refused):
            await operations.run(name, arguments)

    assert await lines(operations) == before
