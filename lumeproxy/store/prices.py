"""The prices that bills were made by, each under the digest of its own terms, kept for ever so that `audit` can recompute
any bill from its record."""

from __future__ import annotations

from lumeproxy.core.pricing import cost, decode_price
from lumeproxy.core.types import Usage
from lumeproxy.store.database import Tx, bound


def remember(tx: Tx, version: str, price: str, now_ms: int) -> None:
    """Keep a price's text under its version; repeating changes nothing."""
    tx.execute(
        "INSERT INTO prices (version, price, first_used_ms) VALUES ($1, $2, $3) ON CONFLICT (version) DO NOTHING",
        bound(version, price, now_ms),
    )


def load(tx: Tx, version: str) -> str | None:
    """The price's text, None for an unknown version."""
    row = tx.execute("SELECT price FROM prices WHERE version = $1", bound(version)).fetchone()
    return None if row is None else str(row[0])


def bill(tx: Tx, version: str, usage: Usage, multiplier_ppm: int) -> int | None:
    """What the usage costs by a price, nano-USD; None for an unknown version."""
    text = load(tx, version)
    return None if text is None else cost(decode_price(text), usage, multiplier_ppm)
