"""A code gives its credit once, to one account, while its batch is in force."""

from __future__ import annotations

import pytest

from lumeproxy.errors import Missing, Refused
from lumeproxy.store import accounts, codes, ledger
from lumeproxy.store.codes import Batch, Code

DIGESTS = [(bytes([number]) * 32, f"000{number}") for number in range(3)]


@pytest.fixture
def ann(tx):
    return accounts.create(tx, "ann", 1)


def batch(tx, **given):
    values = {
        "name": "spring",
        "kind": "credit",
        "amount_nanousd": 5,
        "digests": DIGESTS,
        "now_ms": 1,
        "expires_ms": 100,
    }
    return codes.add(tx, **{**values, **given})


def test_a_code_gives_its_credit_once(tx, ann):
    made = batch(tx)
    assert made == Batch(1, "spring", "credit", 5, 1, 100, None, 3, 0)

    assert codes.redeem(tx, DIGESTS[1][0], "ann", "credit", 50).redeemed == 1
    accounts.create(tx, "bob", 1)
    for name in ("ann", "bob"):
        with pytest.raises(Refused, match="used, expired or withdrawn"):
            codes.redeem(tx, DIGESTS[1][0], name, "credit", 51)

    assert ledger.balance(tx, "ann").balance_nanousd == 5
    assert ledger.balance(tx, "bob").balance_nanousd == 0
    (entry,) = ledger.entries(tx, "ann")
    assert (entry.kind, entry.note) == ("grant", "code of spring")
    assert codes.codes_of(tx, 1) == [Code("0001", 50, "ann"), Code("0000", None, None), Code("0002", None, None)]


@pytest.mark.parametrize(
    ("given", "kind", "at_ms", "withdraw"),
    [
        ({}, "credit", 100, False),
        ({}, "credit", 2, True),
        ({}, "invite", 2, False),
        ({"kind": "invite"}, "credit", 2, False),
    ],
)
def test_a_code_that_is_not_in_force_gives_nothing(tx, ann, given, kind, at_ms, withdraw):
    made = batch(tx, **given)
    if withdraw:
        assert codes.withdraw(tx, made.id, 2).withdrawn_ms == 2
        assert codes.withdraw(tx, made.id, 3).withdrawn_ms == 2

    with pytest.raises(Refused):
        codes.redeem(tx, DIGESTS[0][0], "ann", kind, at_ms)
    with pytest.raises(Refused):
        codes.redeem(tx, b"9" * 32, "ann", "credit", at_ms)
    assert ledger.balance(tx, "ann").balance_nanousd == 0


def test_an_invite_may_be_worth_nothing_a_credit_not(tx, ann):
    batch(tx, kind="invite", amount_nanousd=0)

    assert codes.redeem(tx, DIGESTS[0][0], "ann", "invite", 2).amount_nanousd == 0
    assert ledger.entries(tx, "ann") == []
    with pytest.raises(Refused, match="above \\$0"):
        batch(tx, amount_nanousd=0)


@pytest.mark.parametrize(
    "given",
    [{"name": " "}, {"name": "n" * 65}, {"digests": []}, {"digests": DIGESTS * 400}, {"amount_nanousd": -1},
     {"amount_nanousd": 10**16}, {"expires_ms": 1}],
)  # fmt: skip
def test_what_makes_no_batch_is_refused(tx, given):
    with pytest.raises(Refused):
        batch(tx, **given)

    assert codes.list_all(tx) == []


def test_there_is_no_other_batch_and_a_closed_account_gets_none(tx, ann):
    batch(tx)
    for look in (codes.get, codes.codes_of):
        with pytest.raises(Missing):
            look(tx, 2)
    accounts.set_status(tx, "ann", "closed", "", 2)
    tx.execute("SAVEPOINT job")  # as the writer does
    with pytest.raises(Refused, match="closed"):
        codes.redeem(tx, DIGESTS[0][0], "ann", "credit", 2)
    tx.execute("ROLLBACK TO job")
    assert codes.get(tx, 1).redeemed == 0
