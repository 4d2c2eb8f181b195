"""What was used by day, key, model and upstream: the sums of the usage records, kept with each settlement.

Summaries over millions of records are read from here, and budgets are checked against it. Must not know limits.
"""

from __future__ import annotations

from typing import Any

from lumeproxy.core.limits import day_of
from lumeproxy.core.types import Ending, UsageRecord
from lumeproxy.store.database import Tx, bound, positional

FAILED = frozenset({Ending.REFUSED.value, Ending.UNREACHABLE.value, Ending.CUT_BY_UPSTREAM.value})
# Those of the sums that are a record's own fields.
SUMMED = (
    "input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens",
    "reasoning_tokens", "web_search_requests", "cost_nanousd", "shortfall_nanousd",
    "upstream_cost_nanousd",
)  # fmt: skip
_COLUMNS = ("key_id", "day", "model", "upstream", "account_id", "calls", "failed_calls", *SUMMED)
_ADD = positional(
    f"INSERT INTO days ({', '.join(_COLUMNS)}) VALUES ({', '.join(f'${n}' for n in range(1, len(_COLUMNS) + 1))})"
    " ON CONFLICT (key_id, day, model, upstream, account_id) DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in _COLUMNS[5:])
)


def add(tx: Tx, record: UsageRecord) -> None:
    """Count a record that is new."""
    tx.execute(
        _ADD,
        (
            record.key_id,
            day_of(record.time_ms),
            record.model,
            record.upstream,
            record.account_id,
            1,
            int(record.ending in FAILED),
            record.input_tokens,
            record.cache_read_tokens,
            record.cache_write_5m_tokens,
            record.cache_write_1h_tokens,
            record.output_tokens,
            record.reasoning_tokens,
            record.web_search_requests,
            record.cost_nanousd,
            record.shortfall_nanousd,
            record.upstream_cost_nanousd,
        ),
    )


def spent(tx: Tx, key_id: str, first_day: int, end_day: int) -> int:
    """What the calls of a key cost that began on the first day or later, and before the last; nano-USD."""
    found: int = tx.execute(
        "SELECT coalesce(sum(cost_nanousd), 0) FROM days WHERE key_id = $1 AND day >= $2 AND day < $3",
        bound(key_id, first_day, end_day),
    ).fetchone()[0]
    return found


def of_account(tx: Tx, account_id: int, first_day: int) -> list[dict[str, Any]]:
    """An account's rows from a day on, oldest first: what they are for, `calls`, `failed_calls`, sums."""
    rows = tx.execute(
        f"SELECT {', '.join(_COLUMNS)} FROM days WHERE account_id = $1 AND day >= $2 ORDER BY day, key_id, model, upstream",
        bound(account_id, first_day),
    )
    return [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
