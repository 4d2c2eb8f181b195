"""Notices of low balances that wait to be delivered. A trigger of the migration writes them, in the transaction that takes
a balance below its threshold; they wait here until somebody has taken them, or nobody has for too long."""

from __future__ import annotations

from dataclasses import dataclass

from lumeproxy.store.database import Tx, bound

WAITING, DELIVERED, GIVEN_UP = "waiting", "delivered", "given_up"


@dataclass(frozen=True, slots=True)
class Notice:
    """A balance that fell below its threshold, when that was seen (epoch ms); `tries` have failed so far."""

    id: str
    account: str
    balance_nanousd: int
    threshold_nanousd: int
    time_ms: int
    tries: int


def set_usual(tx: Tx, low_balance_nanousd: int) -> None:
    """Set the threshold of all accounts that have none of their own; 0 for none."""
    tx.execute("UPDATE usual SET low_balance_nanousd = $1 WHERE id = 1", bound(low_balance_nanousd))


def usual(tx: Tx) -> int:
    """The threshold of accounts that have none of their own."""
    found: int = tx.execute("SELECT low_balance_nanousd FROM usual WHERE id = 1").fetchone()[0]
    return found


def unseen(tx: Tx) -> bool:
    """Whether there is one that has no time yet."""
    return tx.execute("SELECT 1 FROM notices WHERE outcome = 'waiting' AND time_ms IS NULL").fetchone() is not None


def stamp(tx: Tx, now_ms: int) -> None:
    """Note when those were seen that had not been."""
    tx.execute("UPDATE notices SET time_ms = $1 WHERE outcome = 'waiting' AND time_ms IS NULL", bound(now_ms))


def due(tx: Tx, now_ms: int, limit: int) -> list[Notice]:
    """Those that have a time and may be tried now, the longest waiting first."""
    rows = tx.execute(
        "SELECT n.id, a.name, n.balance_nanousd, n.threshold_nanousd, n.time_ms, n.tries FROM notices n"
        " JOIN accounts a ON a.id = n.account_id WHERE n.outcome = 'waiting' AND n.next_ms <= $1 AND n.time_ms IS NOT NULL"
        " ORDER BY n.next_ms, n.time_ms LIMIT $2",
        bound(now_ms, limit),
    )
    return [Notice(*row) for row in rows]


def end(tx: Tx, notice_id: str, outcome: str) -> None:
    """Note that a notice was delivered or given up."""
    tx.execute("UPDATE notices SET outcome = $1 WHERE id = $2 AND outcome = 'waiting'", bound(outcome, notice_id))


def put_off(tx: Tx, notice_id: str, next_ms: int) -> None:
    """Note that a try has failed, and when the next is due."""
    tx.execute("UPDATE notices SET tries = tries + 1, next_ms = $1 WHERE id = $2", bound(next_ms, notice_id))


def forget(tx: Tx, before_ms: int, limit: int) -> int:
    """Drop at most so many that are older, however they ended; how many it were."""
    return tx.execute(
        "DELETE FROM notices WHERE id IN (SELECT id FROM notices WHERE time_ms < $1 LIMIT $2)", bound(before_ms, limit)
    ).rowcount


def outcomes(tx: Tx) -> dict[str, int]:
    """How many there are by what became of them."""
    return dict(tx.execute("SELECT outcome, count(*) FROM notices GROUP BY outcome"))
