"""Usage records: one line per call, never content. Written within the settlement, read for pages and commands."""

from __future__ import annotations

from typing import Any

import msgspec

from lumeproxy.core.limits import DAY_MS
from lumeproxy.core.types import UsageRecord
from lumeproxy.errors import Refused
from lumeproxy.store import accounts, rollups
from lumeproxy.store.database import Tx, bound, positional

_FIELDS = tuple(field.name for field in msgspec.structs.fields(UsageRecord))
_INSERT = positional(
    f"INSERT INTO usage ({', '.join(_FIELDS)}) VALUES ({', '.join(f'${n}' for n in range(1, len(_FIELDS) + 1))})"
)

# The names and order of `lumeproxy usage --json` (design section 12); what follows them is ours to add to.
SHOWN = (
    "time_ms", "call_id", "account", "key_id", "endpoint", "dialect", "model", "model_served", "upstream", "status",
    "ending", "input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens",
    "reasoning_tokens", "cost_nanousd", "estimated", "settled_by", "ttfb_ms", "duration_ms", "client_address",
    "user_agent", "session_id", "agent_id", "upstream_request_id", "error_code", "error_text", "web_search_requests",
    "shortfall_nanousd", "price_version", "multiplier_ppm", "credential", "upstream_cost_nanousd",
    "upstream_price_version", "attempts",
)  # fmt: skip

# The same of the tables `usage` u and `accounts` a.
SHOWN_COLUMNS = ", ".join("a.name" if name == "account" else "u." + name for name in SHOWN)
COSTS = ("cost_nanousd", "upstream_cost_nanousd")
ATTEMPT = ("upstream", "credential", "status", "error", "ms")

TOKEN_CLASSES = (
    "input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens",
    "reasoning_tokens",
)  # fmt: skip

# Group to its column of the days' sums; sessions are in no sum, and are added up from their records.
_GROUPS = {
    "model": "model",
    "key": "key_id",
    "day": "day",
    "session": "session_id",
    "upstream": "upstream",
    "account": "account_id",
}


def insert(tx: Tx, record: UsageRecord) -> None:
    """Add a record; its call id must be new."""
    tx.execute(_INSERT, msgspec.structs.astuple(record))


def get(tx: Tx, call_id: str) -> UsageRecord | None:
    """The record of a call, None before it is settled."""
    row = tx.execute(f"SELECT {', '.join(_FIELDS)} FROM usage WHERE call_id = $1", bound(call_id)).fetchone()
    return None if row is None else _record(row)


def find(
    tx: Tx, account_name: str | None = None, since_ms: int | None = None, limit: int | None = None
) -> list[dict[str, Any]]:
    """Records as SHOWN, newest first: of one account (Missing where it does not exist) or all."""
    where, values = _where(tx, account_name, since_ms)
    rows = tx.execute(
        f"SELECT {SHOWN_COLUMNS} FROM usage u JOIN accounts a ON a.id = u.account_id {where}"
        f" ORDER BY u.time_ms DESC, u.call_id DESC LIMIT $3",
        bound(*values, -1 if limit is None else limit),
    )
    return [shown(row) for row in rows]


def shown(row: tuple[Any, ...]) -> dict[str, Any]:
    """A row of SHOWN_COLUMNS as a record is shown."""
    record = dict(zip(SHOWN, row, strict=True))
    record["estimated"] = bool(record["estimated"])
    record["attempts"] = _attempts(record["attempts"])
    return record


def page(
    tx: Tx,
    account_name: str | None,
    since_ms: int,
    before: tuple[int, str],
    limit: int,
) -> list[dict[str, Any]]:
    """So many records as SHOWN, newest first, of calls that began at a time or later, those before a place (time, call id):
    of one account (Missing where it does not exist) or all."""
    columns = ", ".join(
        "(SELECT name FROM accounts WHERE id = u.account_id)" if name == "account" else "u." + name for name in SHOWN
    )
    mine = "" if account_name is None else "u.account_id = $5 AND "
    account_id = 0 if account_name is None else accounts.get(tx, account_name).id
    rows = tx.execute(
        f"SELECT {columns} FROM usage u WHERE {mine}u.time_ms >= $1 AND (u.time_ms, u.call_id) < ($2, $3)"
        " ORDER BY u.time_ms DESC, u.call_id DESC LIMIT $4",
        bound(since_ms, *before, limit, account_id),
    )
    return [shown(row) for row in rows]


def totals(tx: Tx, by: str, account_name: str | None = None, since_ms: int | None = None) -> list[dict[str, Any]]:
    """Sums per group, dearest first (days: newest first): the group under its own name, calls, token classes, cost.

    Raises Refused for a group that is not offered.
    """
    if by not in _GROUPS:
        raise Refused(f"Usage can't be grouped by {by[:20]!r}; choose one of {', '.join(_GROUPS)}.")
    column = _GROUPS[by]
    source, values = (
        _records(tx, account_name, since_ms) if by == "session" else _days(tx, column, account_name, since_ms)
    )
    # Summed by the column first, and then by what stands for it: that is looked up once a group, not once a row.
    shown = {
        "account": "(SELECT name FROM accounts WHERE id = account_id)",
        "day": "date(day * 86400, 'unixepoch')",
    }.get(by, column)
    order = "1 DESC" if by == "day" else "9 DESC, 1"
    rows = tx.execute(
        f"SELECT {shown}, {', '.join(rollups.SUMS)} FROM (SELECT {column}, "
        + ", ".join(f"sum({name}) AS {name}" for name in rollups.SUMS)
        + f" FROM ({source}) GROUP BY 1) ORDER BY {order}",
        bound(*values),
    )
    names = (by, *rollups.SUMS)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _records(tx: Tx, account_name: str | None, since_ms: int | None) -> tuple[str, tuple[int, ...]]:
    """The single records of a time, with what a day's sum has beyond them."""
    where, values = _where(tx, account_name, since_ms)
    return f"SELECT *, 1 AS calls, time_ms / {DAY_MS} AS day FROM usage u {where}", values


def _days(tx: Tx, column: str, account_name: str | None, since_ms: int | None) -> tuple[str, tuple[int, ...]]:
    """The days' sums of a time: of everybody, days that are over from their rollup. The first day counts from its hour on,
    by its single records."""
    account_id = accounts.get(tx, account_name).id if account_name is not None else 0
    mine = "account_id = $1 AND " if account_name is not None else ""
    names = ", ".join((column, *rollups.SUMS))
    first = 0 if since_ms is None else -(-since_ms // DAY_MS)
    rolled = rollups.source(column) if account_name is None else None
    fresh = first if rolled is None else max(first, rollups.mark(tx))
    parts = [f"SELECT {names} FROM days WHERE {mine}day >= $5"]
    if rolled is not None:
        parts.append(f"SELECT {names} FROM {rolled} WHERE day >= $2 AND day < $5")
    if since_ms is not None and since_ms % DAY_MS:
        part = ", ".join((f"time_ms / {DAY_MS}" if column == "day" else column, "1", *rollups.SUMS[1:]))
        parts.append(f"SELECT {part} FROM usage WHERE {mine}time_ms >= $3 AND time_ms < $4")
    return " UNION ALL ".join(parts), (account_id, first, since_ms or 0, first * DAY_MS, fresh)


def _attempts(text: str) -> list[dict[str, Any]]:
    """The tries of a call; none in records of before they were kept."""
    return [dict(zip(ATTEMPT, one, strict=True)) for one in msgspec.json.decode(text)] if text else []


def _where(tx: Tx, account_name: str | None, since_ms: int | None) -> tuple[str, tuple[int, int]]:
    """A condition on `$1` (account id) and `$2` (time); only what is asked for is in it, so that an index serves it."""
    account_id = accounts.get(tx, account_name).id if account_name is not None else 0
    conditions = []
    if account_name is not None:
        conditions.append("u.account_id = $1")
    if since_ms is not None:
        conditions.append("u.time_ms >= $2")
    return ("WHERE " + " AND ".join(conditions) if conditions else ""), (account_id, since_ms or 0)


def _record(row: tuple[Any, ...]) -> UsageRecord:
    fields = dict(zip(_FIELDS, row, strict=True))
    fields["estimated"] = bool(fields["estimated"])
    return UsageRecord(**fields)
