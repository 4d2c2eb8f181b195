"""What is kept how long: addresses and user agents are cleared, then whole records deleted, in batches that delay no call.

The day's sums have held every record since its settlement, so that deleting one changes no total. `folded` keeps by account
what was deleted, and `retention` up to which day: an audit can still tell a deleted record from one that is missing. The
connection deletes securely, that is, overwrites; what is left in the write-ahead log goes with its truncation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lumeproxy.core.limits import DAY_MS
from lumeproxy.errors import Missing, Refused
from lumeproxy.store import accounts, days, erasure, repeats
from lumeproxy.store.accounts import ERASED, Account
from lumeproxy.store.database import Tx, bound
from lumeproxy.store.sqlite import sqlite3

Place = tuple[int, str]
START: Place = (-(2**62), "")  # before all records
_SUMS = ("calls", "failed_calls", *days.SUMMED, "charges", "shortfalls")
_FOLD = (
    f"INSERT INTO folded (account_id, {', '.join(_SUMS)}) VALUES ({', '.join(f'${n}' for n in range(1, len(_SUMS) + 2))})"
    " ON CONFLICT (account_id) DO UPDATE SET " + ", ".join(f"{name} = {name} + excluded.{name}" for name in _SUMS)
)


def folded_day(tx: Tx) -> int:
    """Calls that began before this day may have no record any more."""
    found: int = tx.execute("SELECT folded_day FROM retention WHERE id = 1").fetchone()[0]
    return found


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look at some records found: the ids of those that have something to clear, the place reached (time, call id),
    and whether there are more behind it."""

    call_ids: list[str]
    place: Place
    more: bool


def with_address(tx: Tx, after: Place, before_ms: int, limit: int) -> Looked:
    """Look at `limit` records behind a place, in the order of time, for addresses and user agents."""
    rows = tx.execute(
        "SELECT time_ms, call_id, client_address <> '' OR user_agent <> '' FROM usage"
        " WHERE (time_ms, call_id) > ($1, $2) AND time_ms < $3 ORDER BY time_ms, call_id LIMIT $4",
        bound(*after, before_ms, limit),
    ).fetchall()
    return _looked(rows, after, limit)


def _looked(rows: list[tuple[int, str, int]], after: Place, limit: int) -> Looked:
    place = (rows[-1][0], rows[-1][1]) if rows else after
    return Looked([call_id for _, call_id, has in rows if has], place, len(rows) == limit)


def clear(tx: Tx, call_ids: Sequence[str]) -> None:
    """Take address and user agent out of records."""
    tx.executemany(
        "UPDATE usage SET client_address = '', user_agent = '' WHERE call_id = $1", [bound(one) for one in call_ids]
    )


def older(tx: Tx, day: int, limit: int) -> list[str]:
    """Ids of records of calls that began before a day, oldest first."""
    rows = tx.execute(
        "SELECT call_id FROM usage WHERE time_ms < $1 ORDER BY time_ms, call_id LIMIT $2", bound(day * DAY_MS, limit)
    )
    return [row[0] for row in rows]


def fold(tx: Tx, day: int, call_ids: Sequence[str]) -> None:
    """Delete records of calls that began before a day; those that are gone already count for nothing."""
    if not call_ids:
        return
    if day > folded_day(tx):
        tx.execute("UPDATE retention SET folded_day = $1 WHERE id = 1", bound(day))
    names = ", ".join(("account_id", "ending", *days.SUMMED))
    sums: dict[int, list[int]] = {}
    for call_id in call_ids:
        row = tx.execute(
            f"DELETE FROM usage WHERE call_id = $1 AND time_ms < $2 RETURNING {names}", bound(call_id, day * DAY_MS)
        ).fetchone()
        if row is None:
            continue
        account_id, ending, *counts = row
        by_name = dict(zip(days.SUMMED, counts, strict=True))
        cost, shortfall = by_name["cost_nanousd"], by_name["shortfall_nanousd"]
        more = [1, int(ending in days.FAILED), *counts, int(cost > shortfall), int(shortfall > 0)]
        sums[account_id] = [a + b for a, b in zip(sums.get(account_id, [0] * len(more)), more, strict=True)]
    tx.executemany(_FOLD, [bound(account_id, *counts) for account_id, counts in sums.items()])


# --- erasing an account --------------------------------------------------------------------------------------------------


def close(tx: Tx, name: str, now_ms: int) -> Account:
    """Close an account that is to be erased; no new call then begins. Raises Missing."""
    accounts.set_status(tx, name, "closed", "erased by the operator", now_ms)
    return accounts.get(tx, name)


def open_calls(tx: Tx, account_id: int) -> int:
    """How many calls of an account are running: their records are yet to come."""
    found: int = tx.execute("SELECT count(*) FROM holds WHERE account_id = $1", bound(account_id)).fetchone()[0]
    return found


def with_traces(tx: Tx, account_id: int, after: Place, limit: int) -> Looked:
    """As `with_address`, for an account's records and all in them that points to a person or a machine."""
    rows = tx.execute(
        "SELECT time_ms, call_id, client_address <> '' OR user_agent <> '' OR session_id <> '' OR agent_id <> ''"
        " OR upstream_request_id <> '' OR error_text <> '' FROM usage"
        " WHERE account_id = $1 AND (time_ms, call_id) > ($2, $3) ORDER BY time_ms, call_id LIMIT $4",
        bound(account_id, *after, limit),
    ).fetchall()
    return _looked(rows, after, limit)


def wipe(tx: Tx, call_ids: Sequence[str]) -> None:
    """Take all out of records that points to a person or a machine."""
    tx.executemany(
        "UPDATE usage SET client_address = '', user_agent = '', session_id = '', agent_id = '', upstream_request_id = '',"
        " error_text = '' WHERE call_id = $1",
        [bound(one) for one in call_ids],
    )


def erase(tx: Tx, account_id: int, now_ms: int) -> Account:
    """Take the names of a closed account and its keys away, once its records are wiped; repeating changes nothing. Entries
    stay, with their notes. Raises Missing, Refused while a call of it is running."""
    row = tx.execute(
        "SELECT name, status FROM accounts WHERE id = $1 AND kind = 'customer'", bound(account_id)
    ).fetchone()
    if row is None:
        raise Missing(f"There is no account {account_id}.")
    name, status = row
    if status != "closed" or open_calls(tx, account_id):
        raise Refused(f"Calls of {name} are still ending; please try again in a moment.")
    repeats.forget_account(tx, name)
    erasure.forget(tx, account_id)
    tx.execute("DELETE FROM notices WHERE account_id = $1", bound(account_id))
    tx.execute(
        "UPDATE keys SET sha256 = zeroblob(32), last4 = '', name = '', models = '[]', revoked_ms ="
        " min(coalesce(revoked_ms, $1), $1) WHERE account_id = $2",
        bound(now_ms, account_id),
    )
    tx.execute(
        "UPDATE accounts SET name = $1, reason = 'erased', changed_ms = $2 WHERE id = $3",
        bound(f"{ERASED}{account_id}", now_ms, account_id),
    )
    return accounts.get(tx, f"{ERASED}{account_id}")


def truncate_log(conn: sqlite3.Connection) -> bool:
    """Bring all that is committed into the database file and empty the write-ahead log, in which old pages still lie. Runs
    on the writer's connection between transactions; False when a reader was in the way, which is not waited for."""
    before: int = conn.execute("PRAGMA busy_timeout").fetchone()[0]
    conn.execute("PRAGMA busy_timeout = 0")
    try:
        busy: int = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    finally:
        conn.execute(f"PRAGMA busy_timeout = {before}")
    return not busy
