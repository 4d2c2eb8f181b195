"""Upstreams that the operator has switched off, by name: remembered until switched on again."""

from __future__ import annotations

from lumeproxy.store.database import Tx, bound


def names(tx: Tx) -> dict[str, int]:
    """All of them, with the time since which (epoch ms)."""
    return dict(tx.execute("SELECT name, disabled_ms FROM disabled_upstreams ORDER BY name").fetchall())


def add(tx: Tx, name: str, now_ms: int) -> dict[str, int]:
    """Switch one off; repeating keeps the first time. All of them then."""
    tx.execute(
        "INSERT INTO disabled_upstreams (name, disabled_ms) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
        bound(name, now_ms),
    )
    return names(tx)


def remove(tx: Tx, name: str) -> dict[str, int]:
    """Switch one on; repeating changes nothing. All that are off then."""
    tx.execute("DELETE FROM disabled_upstreams WHERE name = $1", bound(name))
    return names(tx)
