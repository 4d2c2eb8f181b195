"""Redeem codes and the log, as operations."""

from __future__ import annotations

import pytest

from lumeproxy.core import redeem
from lumeproxy.dashboard.operations import Operations
from lumeproxy.errors import Missing, Refused
from lumeproxy.store.database import Database
from tests.support.clock import START_MS


async def test_the_texts_of_codes_are_in_the_answer_and_nowhere_else(operations: Operations, database: Database):
    made = await operations.run("code.create", {"name": "spring", "amount_nanousd": 5, "count": 3})

    assert len(set(made["texts"])) == 3
    assert (made["id"], made["kind"], made["codes"], made["redeemed"]) == (1, "credit", 3, 0)
    stored = await database.read(lambda tx: tx.execute("SELECT sha256, last4 FROM codes").fetchall())
    assert {(redeem.digest(text), text[-4:]) for text in made["texts"]} == set(stored)
    for answer in (await operations.run("code.list", {}), await operations.run("code.show", {"batch": 1})):
        assert not any(text in str(answer) for text in made["texts"])


async def test_a_code_is_redeemed_and_told_at_once(operations: Operations, changes: list[str]):
    await operations.run("account.create", {"name": "ann"})
    made = await operations.run("code.create", {"name": "b", "amount_nanousd": 5, "count": 2})
    changes.clear()

    assert await operations.run("code.redeem", {"account": "ann", "code": made["texts"][0]}) == {
        "account": "ann",
        "amount_nanousd": 5,
    }
    assert changes == ["changed"]
    shown = await operations.run("code.show", {"batch": 1})
    assert [(one["account"], one["redeemed_ms"]) for one in shown["each"]] == [("ann", START_MS), (None, None)]
    assert (await operations.run("code.withdraw", {"batch": 1}))["withdrawn_ms"] == START_MS
    with pytest.raises(Refused):
        await operations.run("code.redeem", {"account": "ann", "code": made["texts"][1]})


@pytest.mark.parametrize(
    ("name", "arguments", "kind"),
    [
        ("code.create", {"name": "b", "amount_nanousd": 1, "count": 0}, Refused),
        ("code.create", {"name": "b", "amount_nanousd": 1, "count": 1001}, Refused),
        ("code.create", {"name": "b", "amount_nanousd": 1, "count": 1, "kind": "gift"}, Refused),
        ("code.create", {"name": "b", "amount_nanousd": 1.5, "count": 1}, Refused),
        ("code.show", {"batch": 9}, Missing),
        ("code.withdraw", {"batch": 9}, Missing),
        ("code.redeem", {"account": "nobody", "code": "x"}, Missing),
        ("action.list", {"limit": 1001}, Refused),
    ],
)
async def test_what_makes_no_sense_is_refused(operations: Operations, name, arguments, kind):
    with pytest.raises(kind):
        await operations.run(name, arguments)
