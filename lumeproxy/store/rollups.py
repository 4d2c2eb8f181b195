"""Sums of whole days over all keys, and over all models: so that a year of everybody is read in a moment.

They repeat what `days` has of days that are over, up to `rollup.day`; from that day on `days` itself is read. A settlement
that comes late takes the mark back (a trigger), and the day is summed anew. Nothing is decided by these sums.
"""

from __future__ import annotations

from collections.abc import Iterator

from lumeproxy.core.limits import date_of
from lumeproxy.store.database import Tx, bound

SUMS = (
    "calls", "input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens",
    "reasoning_tokens", "cost_nanousd", "upstream_cost_nanousd",
)  # fmt: skip
# A rollup by the columns that it keeps beside the day.
TABLES = {"model_sums": ("model", "upstream"), "key_sums": ("key_id", "account_id")}


def mark(tx: Tx) -> int:
    """Days before this one are in the rollups."""
    found: int = tx.execute("SELECT day FROM rollup WHERE id = 1").fetchone()[0]
    return found


def sum_next(tx: Tx, until_day: int) -> bool:
    """Sum up the next day that is before `until_day` and has calls; False when there is none."""
    first = mark(tx)
    day = tx.execute(
        "SELECT day FROM days WHERE day >= $1 AND day < $2 ORDER BY day LIMIT 1", bound(first, until_day)
    ).fetchone()
    if day is None:
        if first < until_day:
            tx.execute("UPDATE rollup SET day = $1 WHERE id = 1", bound(until_day))
        return False
    for table, kept in TABLES.items():
        names, sums = ", ".join(("day", *kept)), ", ".join(f"sum({name})" for name in SUMS)
        tx.execute(f"DELETE FROM {table} WHERE day >= $1 AND day <= $2", bound(first, day[0]))
        tx.execute(
            f"INSERT INTO {table} ({names}, {', '.join(SUMS)}) SELECT {names}, {sums} FROM days WHERE day = $1"
            f" GROUP BY {names}",
            bound(day[0]),
        )
    tx.execute("UPDATE rollup SET day = $1 WHERE id = 1", bound(day[0] + 1))
    return True


def source(by: str) -> str | None:
    """The rollup that has a group, None where none does."""
    return next((table for table, kept in TABLES.items() if by in ("day", *kept)), None)


def problems(tx: Tx) -> Iterator[str]:
    """Days whose rollups are not the sums of `days`, a sentence each."""
    sums = ", ".join(f"sum({name})" for name in SUMS)
    kept = f"SELECT day, {sums} FROM days WHERE day < $1 GROUP BY day"
    for table in TABLES:
        rolled = f"SELECT day, {sums} FROM {table} WHERE day < $1 GROUP BY day"
        both = f"SELECT day FROM ({kept} EXCEPT {rolled}) UNION SELECT day FROM ({rolled} EXCEPT {kept}) ORDER BY 1"
        for (day,) in tx.execute(both, bound(mark(tx))):
            yield f"The rollup of {date_of(day)} in {table} is not the sum of that day."
