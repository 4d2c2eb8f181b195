"""What changes with an Idempotency-Key came to, so that a repetition gets the same answer.

Written in the transaction of the change itself: there is never one without the other. Must not know what the changes are.
"""

from __future__ import annotations

from dataclasses import dataclass

from lumeproxy.store.database import Tx, bound


@dataclass(frozen=True, slots=True)
class Repeat:
    """A change that was made: by which key, under which word, of which arguments, with what result (JSON), for whom.
    A key that was made with it is derived from the nonce."""

    admin_key_id: str
    idempotency_key: str
    arguments_sha256: bytes
    nonce: bytes
    result: str
    account: str
    created_ms: int


def find(tx: Tx, admin_key_id: str, idempotency_key: str) -> Repeat | None:
    """The change of that key and word, None when there was none."""
    row = tx.execute(
        "SELECT admin_key_id, idempotency_key, arguments_sha256, nonce, result, account, created_ms FROM repeats"
        " WHERE admin_key_id = $1 AND idempotency_key = $2",
        bound(admin_key_id, idempotency_key),
    ).fetchone()
    return None if row is None else Repeat(*row)


def put(tx: Tx, repeat: Repeat) -> None:
    """Keep a change that is new."""
    tx.execute(
        "INSERT INTO repeats (admin_key_id, idempotency_key, arguments_sha256, nonce, result, account, created_ms)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        bound(
            repeat.admin_key_id,
            repeat.idempotency_key,
            repeat.arguments_sha256,
            repeat.nonce,
            repeat.result,
            repeat.account,
            repeat.created_ms,
        ),
    )


def forget(tx: Tx, before_ms: int, limit: int) -> int:
    """Drop at most so many that are older; how many it were."""
    return tx.execute(
        "DELETE FROM repeats WHERE (admin_key_id, idempotency_key) IN"
        " (SELECT admin_key_id, idempotency_key FROM repeats WHERE created_ms < $1 LIMIT $2)",
        bound(before_ms, limit),
    ).rowcount


def forget_account(tx: Tx, account: str) -> None:
    """Drop all that name an account."""
    tx.execute("DELETE FROM repeats WHERE account = $1", bound(account))
