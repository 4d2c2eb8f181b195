"""Who an account is on the pages: role, password, the operator's note, the terms that were accepted.

An account without a row of its own is a user without a password. A password is here only as its argon2id text, which is
made and checked elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from lumeproxy.errors import Missing, Refused
from lumeproxy.store import accounts
from lumeproxy.store.database import Tx, bound

ROLES = ("user", "admin")
NOTE_CHARS = 2000


@dataclass(frozen=True, slots=True)
class Person:
    """An account as the pages see it; `accepted` is the version of the terms that was accepted last, "" for none."""

    account_id: int
    name: str
    status: str
    reason: str
    role: str
    has_password: bool
    note: str
    accepted: str

    @property
    def is_admin(self) -> bool:
        """Whether this is an operator's account."""
        return self.role == "admin"


_SELECT = """
    SELECT a.id, a.name, a.status, a.reason, coalesce(p.role, 'user'), p.password IS NOT NULL, coalesce(p.note, ''),
        coalesce((SELECT version FROM acceptances WHERE account_id = a.id ORDER BY time_ms DESC, version LIMIT 1), '')
    FROM accounts a LEFT JOIN people p ON p.account_id = a.id
"""


def get(tx: Tx, account_id: int) -> Person:
    """The person of an account's id. Raises Missing."""
    row = tx.execute(_SELECT + " WHERE a.id = $1 AND a.kind = 'customer'", bound(account_id)).fetchone()
    if row is None:
        raise Missing("There is no such account.")
    fields = list(row)
    fields[5] = bool(fields[5])
    return Person(*fields)


def of(tx: Tx, name: str) -> Person:
    """The person of an account's name. Raises Missing."""
    return get(tx, accounts.get(tx, name).id)


def set_role(tx: Tx, name: str, role: str) -> Person:
    """Make an account an operator's, or a user's again; what it is signed in as ends. Raises Missing, Refused for an
    account that is not active."""
    person = of(tx, name)
    if role == "admin" and person.status != "active":
        raise Refused(f"The account {person.name} is {person.status}.")
    _put(tx, person.account_id, "role", role)
    if role != person.role:
        tx.execute("DELETE FROM sessions WHERE account_id = $1", bound(person.account_id))
    return get(tx, person.account_id)


def set_note(tx: Tx, name: str, note: str) -> Person:
    """Keep what the operator wants to remember of an account; nobody else sees it. Raises Missing."""
    person = of(tx, name)
    _put(tx, person.account_id, "note", note[:NOTE_CHARS])
    return get(tx, person.account_id)


def set_password(tx: Tx, account_id: int, password: str | None) -> None:
    """Keep a password's argon2id text, or none."""
    _put(tx, account_id, "password", password)


def password(tx: Tx, name: str) -> tuple[int, str] | None:
    """Account id and argon2id text of a name, None where there is no such account or it has no password."""
    row: tuple[int, str] | None = tx.execute(
        "SELECT a.id, p.password FROM accounts a JOIN people p ON p.account_id = a.id"
        " WHERE a.name = $1 AND a.kind = 'customer' AND p.password IS NOT NULL",
        bound(name.lower()),
    ).fetchone()
    return row


def accept(tx: Tx, account_id: int, version: str, now_ms: int) -> None:
    """Note that an account accepted the terms of a version; the first time counts."""
    tx.execute(
        "INSERT INTO acceptances (account_id, version, time_ms) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        bound(account_id, version, now_ms),
    )


def has_accepted(tx: Tx, account_id: int, version: str) -> bool:
    """Whether an account accepted the terms of a version."""
    found = tx.execute(
        "SELECT 1 FROM acceptances WHERE account_id = $1 AND version = $2", bound(account_id, version)
    ).fetchone()
    return found is not None


def acceptances(tx: Tx, account_id: int) -> list[dict[str, object]]:
    """What an account accepted, and when, oldest first."""
    rows = tx.execute(
        "SELECT version, time_ms FROM acceptances WHERE account_id = $1 ORDER BY time_ms, version", bound(account_id)
    )
    return [{"version": version, "time_ms": time_ms} for version, time_ms in rows]


def _put(tx: Tx, account_id: int, column: str, value: object) -> None:
    tx.execute(
        f"INSERT INTO people (account_id, {column}) VALUES ($1, $2)"
        f" ON CONFLICT (account_id) DO UPDATE SET {column} = excluded.{column}",
        bound(account_id, value),
    )
