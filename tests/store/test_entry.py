"""An entry and its balances: what moves, what only is written."""

from __future__ import annotations

import sqlite3

import pytest

from lumeproxy.store import entry, ledger
from lumeproxy.store.accounts import HOUSE_CREDIT
from lumeproxy.store.audit import audit
from tests.store import books
from tests.store.books import DOLLAR
from tests.support.clock import START_MS


def test_an_amount_leaves_one_account_and_comes_to_the_other(tx: sqlite3.Connection) -> None:
    ann = books.customer(tx, credit_nanousd=0)

    entry.move(tx, "grant", HOUSE_CREDIT, ann.id, DOLLAR, START_MS, None, "gift", "key1")

    (written,) = ledger.entries(tx, "ann")
    assert (written.kind, written.amount_nanousd, written.note) == ("grant", DOLLAR, "gift")
    assert ledger.balance(tx, "ann").balance_nanousd == DOLLAR
    assert books.sums(tx) == (0, 0)
    assert audit(tx) == []


def test_an_entry_alone_changes_no_balance_and_the_audit_finds_it(tx: sqlite3.Connection) -> None:
    ann = books.customer(tx)

    entry.enter(tx, "grant", HOUSE_CREDIT, ann.id, 7, START_MS, None)

    assert ledger.balance(tx, "ann").balance_nanousd == DOLLAR
    assert audit(tx)
    entry.credit(tx, ann.id, 7)
    entry.credit(tx, HOUSE_CREDIT, -7)
    assert audit(tx) == []


def test_no_balance_falls_below_zero(tx: sqlite3.Connection) -> None:
    ann = books.customer(tx)

    with pytest.raises(sqlite3.IntegrityError):
        entry.credit(tx, ann.id, -DOLLAR - 1)

    assert ledger.balance(tx, "ann").balance_nanousd == DOLLAR
