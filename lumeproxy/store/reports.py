"""What the pages show of usage: sums from the days, single calls from the records, each within a bound.

Sums of whole days come from the `days` table. What is in no sum (a session, an ending) is looked for among the newest
SCANNED records of the time asked for, so that a page over ten million records answers as fast as over ten.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lumeproxy.core.limits import DAY_MS
from lumeproxy.store.database import Tx, bound
from lumeproxy.store.days import FAILED, SUMMED
from lumeproxy.store.usage import SHOWN_COLUMNS, shown

SCANNED = 10_000
TIMED = 2_000  # calls from which the time to the first byte is told
_END = 2**62
_FAILED = ", ".join(f"'{ending}'" for ending in sorted(FAILED))
SUMS = ("calls", "failed_calls", *SUMMED)
_ADDED = ", ".join(f"coalesce(sum({name}), 0)" for name in SUMS)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which calls: of an account or all, begun in a time, of a model, key, session or outcome ("failed", or an ending's
    word); "" for any."""

    account_id: int | None = None
    since_ms: int = 0
    until_ms: int = _END
    model: str = ""
    key_id: str = ""
    session_id: str = ""
    outcome: str = ""

    @property
    def in_days(self) -> bool:
        """Whether the days' sums can answer it."""
        whole = self.since_ms % DAY_MS == 0 and (self.until_ms == _END or self.until_ms % DAY_MS == 0)
        return whole and not self.session_id and not self.outcome


Place = tuple[int, str]
END: Place = (_END, "")


def calls(tx: Tx, which: Filter, limit: int, before: Place = END) -> tuple[list[dict[str, Any]], Place | None]:
    """Records as `lumeproxy usage --json` shows them, newest first, from a place on; and the place to go on from, None at
    the end. One step looks at SCANNED records at most, so that it may hold fewer than `limit` and not be the last."""
    found = tx.execute(
        f"SELECT {SHOWN_COLUMNS} FROM ({_newest(which)} LIMIT {SCANNED}) u JOIN accounts a ON a.id = u.account_id"
        f" WHERE 1{_matching(which)} ORDER BY u.time_ms DESC, u.call_id DESC LIMIT $7",
        _values(which, before, limit),
    ).fetchall()
    records = [shown(row) for row in found]
    if len(records) == limit:
        return records, (records[-1]["time_ms"], records[-1]["call_id"])
    last = tx.execute(
        f"SELECT time_ms, call_id FROM ({_newest(which, 'time_ms, call_id')} LIMIT 1 OFFSET {SCANNED - 1})",
        _values(which, before, limit),
    ).fetchone()
    return records, last


def sums(tx: Tx, which: Filter) -> tuple[dict[str, int], bool]:
    """Calls, failed calls, tokens and cost, and whether that is all of it: an outcome or session is summed over the newest
    SCANNED records."""
    if which.in_days:
        row = tx.execute(f"SELECT {_ADDED} FROM days WHERE {_of_days(which)}", _day_values(which)).fetchone()
        return dict(zip(SUMS, row, strict=True)), True
    added = ", ".join(f"coalesce(sum(u.{name}), 0)" for name in SUMMED)
    row = tx.execute(
        f"SELECT count(*), count(*) FILTER (WHERE u.ending IN ({_FAILED})), {added}"
        f" FROM ({_newest(which)} LIMIT {SCANNED}) u WHERE 1{_matching(which)}",
        _values(which, END, 0),
    ).fetchone()
    beyond = tx.execute(
        f"SELECT 1 FROM ({_newest(which, '1')} LIMIT 1 OFFSET {SCANNED})", _values(which, END, 0)
    ).fetchone()
    return dict(zip(SUMS, row, strict=True)), beyond is None


def grid(tx: Tx, which: Filter, *, finer: bool = True) -> list[dict[str, Any]]:
    """Sums by day, and where they are `finer` by model and upstream, oldest first, from whole days. To add them up
    otherwise costs nothing beside reading them, so that a page reads them once."""
    groups = ("day", "model", "upstream") if finer else ("day",)
    named, order = ", ".join(f"sum({name})" for name in SUMS), ", ".join(groups)
    rows = tx.execute(
        f"SELECT {order}, {named} FROM days WHERE {_of_days(which)} GROUP BY {order} ORDER BY {order}",
        _day_values(which),
    )
    return [dict(zip((*groups, *SUMS), row, strict=True)) for row in rows]


def added(rows: Iterable[dict[str, Any]], first_day: int = 0) -> dict[str, int]:
    """The sum of a grid's rows from a day on."""
    found = dict.fromkeys(SUMS, 0)
    for row in rows:
        if row["day"] >= first_day:
            for name in SUMS:
                found[name] += row[name]
    return found


def by(rows: Iterable[dict[str, Any]], group: str) -> list[dict[str, Any]]:
    """A grid's rows by "model", "upstream" or "day", dearest first (days: oldest first)."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[group], []).append(row)
    found: list[dict[str, Any]] = [{group: key, **added(of_group)} for key, of_group in groups.items()]
    return found if group == "day" else sorted(found, key=lambda one: (-one["cost_nanousd"], one[group]))


def models(tx: Tx, which: Filter) -> list[str]:
    """The models of the calls of an account, or of all, in whole days, by name."""
    rows = tx.execute(f"SELECT DISTINCT model FROM days WHERE {_of_days(which)} ORDER BY 1", _day_values(which))
    return [row[0] for row in rows]


def by_account(tx: Tx, account_ids: list[int], first_day: int) -> dict[int, tuple[int, int]]:
    """Calls and cost of each of a few accounts since a day."""
    found = {}
    for account_id in account_ids:
        row = tx.execute(
            "SELECT coalesce(sum(calls), 0), coalesce(sum(cost_nanousd), 0) FROM days WHERE account_id = $1 AND day >= $2",
            bound(account_id, first_day),
        ).fetchone()
        found[account_id] = row
    return found


def dearest(tx: Tx, first_day: int, limit: int) -> list[dict[str, Any]]:
    """The accounts that spent most since a day."""
    rows = tx.execute(
        "SELECT a.name, sum(d.calls), sum(d.cost_nanousd) FROM days d JOIN accounts a ON a.id = d.account_id"
        " WHERE d.day >= $1 GROUP BY d.account_id ORDER BY 3 DESC, 1 LIMIT $2",
        bound(first_day, limit),
    )
    return [dict(zip(("account", "calls", "cost_nanousd"), row, strict=True)) for row in rows]


def waits(tx: Tx, which: Filter) -> list[int]:
    """Milliseconds to the first byte of the newest calls that had one, sorted; at most TIMED."""
    rows = tx.execute(
        f"SELECT u.ttfb_ms FROM ({_newest(which)} LIMIT {TIMED}) u WHERE u.ttfb_ms IS NOT NULL{_matching(which)}"
        " ORDER BY 1",
        _values(which, END, 0),
    )
    return [row[0] for row in rows]


def first_day(tx: Tx, account_id: int) -> int | None:
    """The day of an account's first call, None before it."""
    found: int | None = tx.execute("SELECT min(day) FROM days WHERE account_id = $1", bound(account_id)).fetchone()[0]
    return found


def last_day_of_key(tx: Tx, key_id: str) -> int | None:
    """The day of a key's last call, None before the first."""
    found: int | None = tx.execute("SELECT max(day) FROM days WHERE key_id = $1", bound(key_id)).fetchone()[0]
    return found


def by_agent(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A session's records by their agent, the session's own first: calls, tokens in and out, cost."""
    agents: dict[str, dict[str, Any]] = {}
    for record in records:
        start = {"agent_id": record["agent_id"], "calls": 0, "input": 0, "output": 0, "cost_nanousd": 0}
        one = agents.setdefault(record["agent_id"], start)
        one["calls"] += 1
        one["input"] += sum(record[name] for name in SUMMED[:4])
        one["output"] += record["output_tokens"]
        one["cost_nanousd"] += record["cost_nanousd"]
    return sorted(agents.values(), key=lambda one: (one["agent_id"] != "", -one["cost_nanousd"], one["agent_id"]))


# --- conditions --------------------------------------------------------------------------------------------------------


def _newest(which: Filter, columns: str = "*") -> str:
    """The records of an account and a time, newest first from a place on, as one index has them."""
    mine = "account_id = $1 AND " if which.account_id is not None else ""
    return (
        f"SELECT {columns} FROM usage WHERE {mine}time_ms >= $2 AND (time_ms, call_id) < ($3, $4)"
        " ORDER BY time_ms DESC, call_id DESC"
    )


def _matching(which: Filter) -> str:
    """What is asked beyond that."""
    found = ""
    if which.model:
        found += " AND u.model = $5"
    if which.key_id:
        found += " AND u.key_id = $6"
    if which.session_id:
        found += " AND u.session_id = $8"
    if which.outcome == "failed":
        found += f" AND u.ending IN ({_FAILED})"
    elif which.outcome:
        found += " AND u.ending = $9"
    return found


def _values(which: Filter, before: Place, limit: int) -> dict[str, object]:
    place = min(before, (which.until_ms, ""))
    return bound(
        which.account_id, which.since_ms, *place, which.model, which.key_id, limit, which.session_id, which.outcome
    )


def _of_days(which: Filter) -> str:
    conditions = ["day >= $2 AND day < $3"]
    if which.account_id is not None:
        conditions.append("account_id = $1")
    if which.model:
        conditions.append("model = $4")
    if which.key_id:
        conditions.append("key_id = $5")
    return " AND ".join(conditions)


def _day_values(which: Filter) -> dict[str, object]:
    end = _END if which.until_ms == _END else which.until_ms // DAY_MS
    return bound(which.account_id, which.since_ms // DAY_MS, end, which.model, which.key_id)
