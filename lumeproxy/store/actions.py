"""What was done by whom: a line for each operation that changes something, in the transaction of the change, for ever.

`before` and `after` hold what differs of the account or key that it was done to. Names are looked up when a line is shown,
so that a closed account's name need not stay here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from lumeproxy.store.database import Tx, bound


@dataclass(frozen=True, slots=True)
class Subject:
    """What an operation is done to: an account, perhaps one of its keys, or neither."""

    account_id: int | None = None
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """A line: who (None: a command on the server itself), by which way, what, to whom."""

    id: int
    time_ms: int
    via: str
    actor: str | None
    operation: str
    account: str | None
    key_id: str | None
    given: dict[str, Any]
    before: dict[str, Any]
    after: dict[str, Any]


# What is watched of a subject, by table. Names, notes and model patterns are not: they may say who somebody is, and a line
# outlives the account that is erased.
_ACCOUNT = "status", "reason", "balance_nanousd", "calls_per_minute", "concurrent_calls"
_PERSON = ("role",)
_KEY = (
    "expires_ms", "revoked_ms", "calls_per_minute", "concurrent_calls", "day_nanousd", "week_nanousd",
    "month_nanousd", "total_nanousd",
)  # fmt: skip


def subject(tx: Tx, account_name: str | None, key_id: str | None) -> Subject:
    """The rows of a name and a key's id, as far as they exist."""
    if key_id is not None:
        row = tx.execute("SELECT account_id, id FROM keys WHERE id = $1", bound(key_id)).fetchone()
        return Subject() if row is None else Subject(*row)
    if account_name is not None:
        row = tx.execute(
            "SELECT id FROM accounts WHERE name = $1 AND kind = 'customer'", bound(account_name.lower())
        ).fetchone()
        return Subject() if row is None else Subject(row[0])
    return Subject()


def snapshot(tx: Tx, of: Subject) -> dict[str, Any]:
    """What is watched of a subject, {} for none."""
    found: dict[str, Any] = {}
    if of.key_id is not None:
        found |= _row(tx, "keys", "id", of.key_id, _KEY)
    elif of.account_id is not None:
        found |= _row(tx, "accounts", "id", of.account_id, _ACCOUNT)
        found |= _row(tx, "people", "account_id", of.account_id, _PERSON)
        found["keys"] = [
            row[0]
            for row in tx.execute(
                "SELECT id FROM keys WHERE account_id = $1 AND revoked_ms IS NULL ORDER BY id", bound(of.account_id)
            )
        ]
    return found


def add(
    tx: Tx,
    now_ms: int,
    via: str,
    actor_id: int | None,
    operation: str,
    of: Subject,
    given: dict[str, Any],
    before: dict[str, Any],
    after: dict[str, Any],
) -> None:
    """Write a line; of `before` and `after` only what differs."""
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    texts = [
        msgspec.json.encode(value).decode()
        for value in (
            given,
            {name: before[name] for name in changed if name in before},
            {name: after[name] for name in changed if name in after},
        )
    ]
    tx.execute(
        "INSERT INTO actions (time_ms, via, actor_id, operation, account_id, key_id, given, before, after)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        bound(now_ms, via, actor_id, operation, of.account_id, of.key_id, *texts),
    )


def find(tx: Tx, limit: int, before_id: int | None = None, account_id: int | None = None) -> list[Action]:
    """Lines, newest first: of an account or all, those before a line."""
    mine = " AND x.account_id = $3" if account_id is not None else ""
    rows = tx.execute(
        "SELECT x.id, x.time_ms, x.via, b.name, x.operation, a.name, x.key_id, x.given, x.before, x.after FROM actions x"
        " LEFT JOIN accounts b ON b.id = x.actor_id LEFT JOIN accounts a ON a.id = x.account_id"
        f" WHERE x.id < $1{mine} ORDER BY x.id DESC LIMIT $2",
        bound(2**62 if before_id is None else before_id, limit, account_id),
    )
    return [Action(*row[:7], *(msgspec.json.decode(text) for text in row[7:])) for row in rows]


def _row(tx: Tx, table: str, key: str, value: object, names: tuple[str, ...]) -> dict[str, Any]:
    row = tx.execute(f"SELECT {', '.join(names)} FROM {table} WHERE {key} = $1", bound(value)).fetchone()
    return {} if row is None else dict(zip(names, row, strict=True))
