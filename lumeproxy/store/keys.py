"""API keys: the public id, the digest, and whose they are. The secret itself is never here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from lumeproxy.core.limits import NO_BUDGET, USUAL, Budget, Limits
from lumeproxy.errors import Missing, Refused
from lumeproxy.store import accounts, budgets
from lumeproxy.store.database import Tx, bound

NAME_CHARS = 64
MODEL_PATTERNS = 50  # more than anybody lists by hand, and still quick to match on each call

_SELECT = """
    SELECT k.id, k.account_id, a.name, a.status, k.sha256, k.last4, k.name, k.created_ms, k.expires_ms, k.revoked_ms,
        k.models, k.calls_per_minute, k.concurrent_calls, a.calls_per_minute, a.concurrent_calls, k.day_nanousd,
        k.week_nanousd, k.month_nanousd, k.total_nanousd
    FROM keys k JOIN accounts a ON a.id = k.account_id
"""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key with its account's name, status and limits; `models` are patterns, none means all."""

    id: str
    account_id: int
    account_name: str
    account_status: str
    sha256: bytes
    last4: str
    name: str
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None
    models: tuple[str, ...]
    limits: Limits = USUAL
    account_limits: Limits = USUAL
    budget: Budget = NO_BUDGET

    @property
    def has_end(self) -> bool:
        """Whether the key expires, or is revoked from some time on."""
        return self.expires_ms is not None or self.revoked_ms is not None


def add(
    tx: Tx,
    key_id: str,
    account_name: str,
    sha256: bytes,
    last4: str,
    name: str,
    models: tuple[str, ...],
    created_ms: int,
    expires_ms: int | None,
    limits: Limits = USUAL,
    budget: Budget = NO_BUDGET,
) -> StoredKey:
    """Store a new key's digest. Raises Missing for the account, Refused where it is closed or a field is no good."""
    account = accounts.get(tx, account_name)
    if account.status == "closed":
        raise Refused(f"The account {account.name} is closed; it gets no new keys.")
    if len(name) > NAME_CHARS or len(models) > MODEL_PATTERNS:
        raise Refused(
            f"A key has a name of at most {NAME_CHARS} characters and at most {MODEL_PATTERNS} model patterns."
        )
    tx.execute(
        "INSERT INTO keys (id, account_id, sha256, last4, name, models, created_ms, expires_ms)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        bound(
            key_id,
            account.id,
            sha256,
            last4,
            name,
            msgspec.json.encode(models).decode(),
            created_ms,
            expires_ms,
        ),
    )
    return limit(tx, key_id, limits, budget)


def limit(tx: Tx, key_id: str, limits: Limits, budget: Budget) -> StoredKey:
    """Set what a key may do at most; in force at once, for running calls too. Raises Missing."""
    budgets.put(tx, key_id, budget)
    tx.execute(
        "UPDATE keys SET calls_per_minute = $1, concurrent_calls = $2 WHERE id = $3",
        bound(limits.calls_per_minute, limits.concurrent_calls, key_id),
    )
    return get(tx, key_id)


def find(tx: Tx, key_id: str) -> StoredKey | None:
    """The key of that id, None when there is none."""
    row = tx.execute(_SELECT + " WHERE k.id = $1", bound(key_id)).fetchone()
    return None if row is None else _key(row)


def ids(tx: Tx) -> list[str]:
    """The ids of all keys, those that have ended included."""
    return [row[0] for row in tx.execute("SELECT id FROM keys")]


def get(tx: Tx, key_id: str) -> StoredKey:
    """The key of that id. Raises Missing."""
    key = find(tx, key_id)
    if key is None:
        raise Missing(f"There is no key {key_id[:8]}.")
    return key


def list_all(tx: Tx, account_name: str | None = None) -> list[StoredKey]:
    """All keys, or those of an account (Missing where it does not exist), oldest first."""
    if account_name is None:
        return [_key(row) for row in tx.execute(_SELECT + " ORDER BY k.created_ms, k.id")]
    account = accounts.get(tx, account_name)
    return [
        _key(row) for row in tx.execute(_SELECT + " WHERE a.id = $1 ORDER BY k.created_ms, k.id", bound(account.id))
    ]


def page(tx: Tx, account_name: str | None, after: tuple[int, str], limit: int) -> list[StoredKey]:
    """So many keys of an account (Missing where it does not exist) or all, oldest first, those behind a place: when one was
    made, and its id."""
    mine = "" if account_name is None else " AND k.account_id = $4"
    account_id = 0 if account_name is None else accounts.get(tx, account_name).id
    rows = tx.execute(
        _SELECT + f" WHERE (k.created_ms, k.id) > ($1, $2){mine} ORDER BY k.created_ms, k.id LIMIT $3",
        bound(*after, limit, account_id),
    )
    return [_key(row) for row in rows]


def revoke(tx: Tx, key_id: str, at_ms: int) -> StoredKey:
    """End a key at a time, at once or after an overlap; an earlier end stays. Raises Missing."""
    key = get(tx, key_id)
    if key.revoked_ms is None or key.revoked_ms > at_ms:
        tx.execute("UPDATE keys SET revoked_ms = $1 WHERE id = $2", bound(at_ms, key_id))
    return get(tx, key_id)


def count_in_force(tx: Tx, now_ms: int) -> int:
    """How many keys can be used now."""
    found: int = tx.execute(
        "SELECT count(*) FROM keys k JOIN accounts a ON a.id = k.account_id WHERE a.status = 'active'"
        " AND (k.revoked_ms IS NULL OR k.revoked_ms > $1) AND (k.expires_ms IS NULL OR k.expires_ms > $1)",
        bound(now_ms),
    ).fetchone()[0]
    return found


def not_in_force(tx: Tx, ids: Iterable[str], now_ms: int) -> list[str]:
    """Those of the keys that are revoked or expired by now, or whose account is not active."""
    ended = (
        "SELECT 1 FROM keys k JOIN accounts a ON a.id = k.account_id"
        " WHERE k.id = $1 AND (k.revoked_ms <= $2 OR k.expires_ms <= $2 OR a.status <> 'active')"
    )
    return [key_id for key_id in ids if tx.execute(ended, bound(key_id, now_ms)).fetchone()]


def _key(row: tuple[Any, ...]) -> StoredKey:
    fields: list[Any] = list(row[:10])
    fields += [
        tuple(msgspec.json.decode(row[10], type=list[str])),
        Limits(*row[11:13]),
        Limits(*row[13:15]),
        Budget(*row[15:]),
    ]
    return StoredKey(*fields)
