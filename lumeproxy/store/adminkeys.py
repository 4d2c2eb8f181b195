"""Admin keys: credentials of the admin API. They belong to no account and make no calls; the secret is never here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lumeproxy.errors import Missing, Refused
from lumeproxy.store.database import Tx, bound

NAME_CHARS = 100
_COLUMNS = "id, sha256, last4, name, may_change, created_ms, expires_ms, revoked_ms"


@dataclass(frozen=True, slots=True)
class AdminKey:
    """A row; `may_change` is false for a key that only reads."""

    id: str
    sha256: bytes
    last4: str
    name: str
    may_change: bool
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None

    def in_force(self, now_ms: int) -> bool:
        """Whether it is neither expired nor revoked by now."""
        return all(end is None or now_ms < end for end in (self.expires_ms, self.revoked_ms))


def add(tx: Tx, key: AdminKey) -> AdminKey:
    """Store a new key's digest. Raises Refused for a name that is too long."""
    if len(key.name) > NAME_CHARS:
        raise Refused(f"A key has a name of at most {NAME_CHARS} characters.")
    tx.execute(
        f"INSERT INTO admin_keys ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        bound(key.id, key.sha256, key.last4, key.name, int(key.may_change), key.created_ms, key.expires_ms, None),
    )
    return key


def find(tx: Tx, key_id: str) -> AdminKey | None:
    """The key of that id, None when there is none."""
    row = tx.execute(f"SELECT {_COLUMNS} FROM admin_keys WHERE id = $1", bound(key_id)).fetchone()
    return None if row is None else _key(row)


def list_all(tx: Tx) -> list[AdminKey]:
    """All admin keys, oldest first."""
    return [_key(row) for row in tx.execute(f"SELECT {_COLUMNS} FROM admin_keys ORDER BY created_ms, id")]


def revoke(tx: Tx, key_id: str, now_ms: int) -> AdminKey:
    """End a key; an earlier end stays. Raises Missing."""
    tx.execute("UPDATE admin_keys SET revoked_ms = $1 WHERE id = $2 AND revoked_ms IS NULL", bound(now_ms, key_id))
    key = find(tx, key_id)
    if key is None:
        raise Missing(f"There is no admin key {key_id[:8]}.")
    return key


def _key(row: tuple[Any, ...]) -> AdminKey:
    key_id, sha256, last4, name, may_change, *times = row
    return AdminKey(key_id, sha256, last4, name, bool(may_change), *times)
