"""Accounts and keys as operations answer them: plain JSON values under the names that outsiders rely on."""

from __future__ import annotations

from typing import Any

from lumeproxy.store import budgets
from lumeproxy.store.accounts import Account
from lumeproxy.store.database import Tx
from lumeproxy.store.keys import StoredKey


def account(found: Account) -> dict[str, Any]:
    """An account; its balance is low where it is below the threshold, which only the database knows if it is the usual."""
    return {
        "account": found.name,
        "status": found.status,
        "reason": found.reason,
        "balance_nanousd": found.balance_nanousd,
        "held_nanousd": found.held_nanousd,
        "available_nanousd": found.available_nanousd,
        "created_ms": found.created_ms,
        "calls_per_minute": found.limits.calls_per_minute,
        "concurrent_calls": found.limits.concurrent_calls,
        "low_balance_nanousd": found.low_balance_nanousd,
    }


def key(found: StoredKey) -> dict[str, Any]:
    """A key, without its secret."""
    return {
        "id": found.id,
        "account": found.account_name,
        "account_status": found.account_status,
        "name": found.name,
        "last4": found.last4,
        "created_ms": found.created_ms,
        "expires_ms": found.expires_ms,
        "revoked_ms": found.revoked_ms,
        "models": list(found.models),
        **limits(found),
    }


def key_and_left(tx: Tx, found: StoredKey, now_ms: int) -> dict[str, Any]:
    """A key, and what is left of its budget if it has one."""
    left = budgets.left(tx, found.id, now_ms) if found.budget else None
    return {**key(found), "budget_left_nanousd": None if left is None else left.left_nanousd}


def limits(found: StoredKey) -> dict[str, int | None]:
    """What a key may use at most."""
    return {
        "calls_per_minute": found.limits.calls_per_minute,
        "concurrent_calls": found.limits.concurrent_calls,
        **{f"budget_{period}_nanousd": amount for period, amount in found.budget.periods()},
    }
