"""Accounts and keys under the names that outsiders rely on."""

from __future__ import annotations

from lumeproxy.core.limits import Budget, Limits
from lumeproxy.dashboard import shown
from lumeproxy.store import accounts, keys
from tests.store.books import DIGEST, DOLLAR, call, customer, remember
from tests.support.clock import START_MS


def test_an_account_has_its_money_its_limits_and_its_threshold(tx):
    customer(tx)
    accounts.limit(tx, "ann", Limits(3, 0))

    assert shown.account(accounts.set_low_balance(tx, "ann", 5)) == {
        "account": "ann", "status": "active", "reason": "", "balance_nanousd": DOLLAR, "held_nanousd": 0,
        "available_nanousd": DOLLAR, "created_ms": START_MS, "calls_per_minute": 3, "concurrent_calls": 0,
        "low_balance_nanousd": 5,
    }  # fmt: skip


def test_a_key_has_no_secret_and_what_is_left_of_its_budget(tx):
    ann = customer(tx)
    remember(tx)
    limits = (("m*",), START_MS, None, Limits(1, None), Budget(total_nanousd=50_000))
    key = keys.add(tx, "key00001", "ann", DIGEST, "wxyz", "laptop", *limits)
    call(tx, "c1", ann.id, output_tokens=2)

    found = shown.key_and_left(tx, key, START_MS)
    assert found == {
        "id": "key00001", "account": "ann", "account_status": "active", "name": "laptop", "last4": "wxyz",
        "created_ms": START_MS, "expires_ms": None, "revoked_ms": None, "models": ["m*"], "calls_per_minute": 1,
        "concurrent_calls": None, "budget_day_nanousd": None, "budget_week_nanousd": None, "budget_month_nanousd": None,
        "budget_total_nanousd": 50_000, "budget_left_nanousd": 30_000,
    }  # fmt: skip
    other = keys.add(tx, "key00002", "ann", DIGEST, "wxyz", "", (), START_MS, None)
    assert shown.key_and_left(tx, other, START_MS)["budget_left_nanousd"] is None
