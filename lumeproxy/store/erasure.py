"""Closing an account at its owner's wish: what says who it was is erased, what the books need stays.

Kept are entries, charges and the token counts of records, as tax law asks; gone are the name, the password, sessions, the
operator's note, key names, and of each record the address, the client and its session.
"""

from __future__ import annotations

from lumeproxy.store import accounts, people
from lumeproxy.store.database import Tx, bound

_PERSONAL = ("client_address", "user_agent", "session_id", "agent_id")
_ANY = " OR ".join(f"{name} <> ''" for name in _PERSONAL)


def close(tx: Tx, account_id: int, now_ms: int) -> str:
    """Close the account, end its keys and sessions, take its name; the name that it has then. Repeating is harmless."""
    person = people.get(tx, account_id)
    accounts.set_status(tx, person.name, "closed", "closed by its owner", now_ms)
    tx.execute(
        "UPDATE keys SET revoked_ms = $1 WHERE account_id = $2 AND (revoked_ms IS NULL OR revoked_ms > $1)",
        bound(now_ms, account_id),
    )
    tx.execute("UPDATE keys SET name = '' WHERE account_id = $1", bound(account_id))
    for table in ("sessions", "links", "people"):
        tx.execute(f"DELETE FROM {table} WHERE account_id = $1", bound(account_id))
    name = f"closed-{account_id}"
    taken = tx.execute("SELECT 1 FROM accounts WHERE name = $1 AND id <> $2", bound(name, account_id)).fetchone()
    if taken is not None:
        name += f"-{now_ms}"  # somebody chose that name for an account
    tx.execute("UPDATE accounts SET name = $1 WHERE id = $2", bound(name, account_id))
    return name


def left(tx: Tx, account_id: int) -> bool:
    """Whether a record of the account still says where it came from."""
    found = tx.execute(f"SELECT 1 FROM usage WHERE account_id = $1 AND ({_ANY}) LIMIT 1", bound(account_id)).fetchone()
    return found is not None


def clear(tx: Tx, account_id: int, limit: int) -> None:
    """Clear that in so many records."""
    emptied = ", ".join(f"{name} = ''" for name in _PERSONAL)
    tx.execute(
        f"UPDATE usage SET {emptied} WHERE call_id IN"
        f" (SELECT call_id FROM usage WHERE account_id = $1 AND ({_ANY}) LIMIT $2)",
        bound(account_id, limit),
    )
