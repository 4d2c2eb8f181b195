"""One entry of the ledger and the two balances that it moves. Must not know why."""

from __future__ import annotations

from lumeproxy.store.database import Tx, positional

_ENTER = positional(
    "INSERT INTO entries (time_ms, kind, from_account, to_account, amount_nanousd, call_id, idempotency_key, note)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
)
_CREDIT = positional("UPDATE accounts SET balance_nanousd = balance_nanousd + $1 WHERE id = $2")


def move(
    tx: Tx,
    kind: str,
    from_account: int,
    to_account: int,
    amount_nanousd: int,
    at_ms: int,
    call_id: str | None,
    note: str = "",
    idempotency_key: str | None = None,
) -> None:
    """Write an entry, and change both balances by it."""
    enter(tx, kind, from_account, to_account, amount_nanousd, at_ms, call_id, note, idempotency_key)
    credit(tx, from_account, -amount_nanousd)
    credit(tx, to_account, amount_nanousd)


def enter(
    tx: Tx,
    kind: str,
    from_account: int,
    to_account: int,
    amount_nanousd: int,
    at_ms: int,
    call_id: str | None,
    note: str = "",
    idempotency_key: str | None = None,
) -> None:
    """Write an entry; the balances are the caller's to change, in the same transaction."""
    tx.execute(_ENTER, (at_ms, kind, from_account, to_account, amount_nanousd, call_id, idempotency_key, note))


def credit(tx: Tx, account_id: int, amount_nanousd: int) -> None:
    """Change one balance by an amount, below zero for what goes out."""
    tx.execute(_CREDIT, (amount_nanousd, account_id))
