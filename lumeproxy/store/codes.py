"""Redeem codes: batches of them, who redeemed which. A code gives its credit once, to one account.

Of a code only its SHA-256 is here. A code of an `invite` batch gives it to the account that is made by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lumeproxy.errors import Missing, Refused
from lumeproxy.store import accounts, ledger
from lumeproxy.store.database import Tx, bound

NAME_CHARS = 64
CODES_OF_BATCH = 1000
KINDS = ("credit", "invite")
_NO_CODE = "This code is not valid: it is unknown, used, expired or withdrawn."


@dataclass(frozen=True, slots=True)
class Batch:
    """Codes that were made together, each worth `amount_nanousd`; how many there are, and how many were redeemed."""

    id: int
    name: str
    kind: str
    amount_nanousd: int
    created_ms: int
    expires_ms: int | None
    withdrawn_ms: int | None
    codes: int
    redeemed: int


@dataclass(frozen=True, slots=True)
class Code:
    """One code of a batch, by its last four characters."""

    last4: str
    redeemed_ms: int | None
    account: str | None


def add(
    tx: Tx,
    name: str,
    kind: str,
    amount_nanousd: int,
    digests: Sequence[tuple[bytes, str]],
    now_ms: int,
    expires_ms: int | None,
) -> Batch:
    """A new batch of codes, each by its digest and last four characters. Raises Refused for values that make no sense."""
    if not name.strip() or len(name) > NAME_CHARS:
        raise Refused(f"A batch needs a name of at most {NAME_CHARS} characters.")
    if not 1 <= len(digests) <= CODES_OF_BATCH:
        raise Refused(f"A batch has 1 to {CODES_OF_BATCH} codes.")
    if not 0 <= amount_nanousd <= ledger.MAX_GRANT_NANOUSD or (kind == "credit" and not amount_nanousd):
        raise Refused("A code's credit must be above $0 and at most $1,000,000.")
    if expires_ms is not None and expires_ms <= now_ms:
        raise Refused("A code that has expired already is of no use.")
    made = tx.execute(
        "INSERT INTO batches (name, kind, amount_nanousd, created_ms, expires_ms) VALUES ($1, $2, $3, $4, $5) RETURNING id",
        bound(name.strip(), kind, amount_nanousd, now_ms, expires_ms),
    ).fetchone()
    tx.executemany(
        "INSERT INTO codes (sha256, batch_id, last4) VALUES ($1, $2, $3)",
        [bound(sha256, made[0], last4) for sha256, last4 in digests],
    )
    return get(tx, made[0])


def get(tx: Tx, batch_id: int) -> Batch:
    """A batch. Raises Missing."""
    found = _batches(tx, "WHERE b.id = $1", batch_id)
    if not found:
        raise Missing("There is no such batch of codes.")
    return found[0]


def list_all(tx: Tx) -> list[Batch]:
    """All batches, newest first."""
    return _batches(tx, "", 0)


def codes_of(tx: Tx, batch_id: int) -> list[Code]:
    """A batch's codes, the redeemed ones first. Raises Missing."""
    get(tx, batch_id)
    rows = tx.execute(
        "SELECT c.last4, c.redeemed_ms, a.name FROM codes c LEFT JOIN accounts a ON a.id = c.account_id"
        " WHERE c.batch_id = $1 ORDER BY c.redeemed_ms IS NULL, c.redeemed_ms, c.last4",
        bound(batch_id),
    )
    return [Code(*row) for row in rows]


def withdraw(tx: Tx, batch_id: int, now_ms: int) -> Batch:
    """End a batch: what was not redeemed can't be any more. Raises Missing."""
    batch = get(tx, batch_id)
    tx.execute("UPDATE batches SET withdrawn_ms = $1 WHERE id = $2 AND withdrawn_ms IS NULL", bound(now_ms, batch.id))
    return get(tx, batch_id)


def redeem(tx: Tx, sha256: bytes, account_name: str, kind: str, now_ms: int) -> Batch:
    """Give a code's credit to an account. Raises Refused for what is no valid code of this kind; Missing."""
    account = accounts.get(tx, account_name)
    row = tx.execute(
        "UPDATE codes SET redeemed_ms = $1, account_id = $2 WHERE sha256 = $3 AND redeemed_ms IS NULL AND batch_id IN"
        " (SELECT id FROM batches WHERE kind = $4 AND withdrawn_ms IS NULL AND (expires_ms IS NULL OR expires_ms > $1))"
        " RETURNING batch_id",
        bound(now_ms, account.id, sha256, kind),
    ).fetchone()
    if row is None:
        raise Refused(_NO_CODE)
    batch = get(tx, row[0])
    if batch.amount_nanousd:
        ledger.grant(tx, account.name, batch.amount_nanousd, f"code of {batch.name}", f"code:{sha256.hex()}", now_ms)
    return batch


def _batches(tx: Tx, where: str, batch_id: int) -> list[Batch]:
    rows = tx.execute(
        "SELECT b.id, b.name, b.kind, b.amount_nanousd, b.created_ms, b.expires_ms, b.withdrawn_ms, count(c.sha256),"
        f" count(c.redeemed_ms) FROM batches b LEFT JOIN codes c ON c.batch_id = b.id {where}"
        " GROUP BY b.id ORDER BY b.id DESC",
        bound(batch_id),
    )
    return [Batch(*row) for row in rows]
