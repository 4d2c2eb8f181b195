"""Recomputes every bill from its record and checks every invariant of the ledger. Reads only; finds, does not mend.

1  all balances sum to zero                     5  held = sum of open holds
2  each balance is the sum of its entries       6  no record of a call whose hold is open
3  no customer below zero, nor below its holds  7  entries and usage records agree, one charge a call
4  the file itself is sound                     8  each bill, ours and the provider's, follows from its tokens and price
10 each account's days sum to its charges       9  the days' sums are those of their records
11 the rollups are the sums of their days

Records of days before `retention.folded_day` may have been deleted on purpose; `folded` has their sums by account. There,
records and what was folded must together be the days' sums of an account, and as many charges must be without a record,
of the same amount, as were folded. All other days are compared row by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from lumeproxy.core.limits import DAY_MS, date_of
from lumeproxy.core.money import PPM, format_usd
from lumeproxy.core.pricing import Price, cost, decode_price
from lumeproxy.core.types import Ending, SettledBy, Usage
from lumeproxy.store import days, retention, rollups
from lumeproxy.store.database import Tx, bound
from lumeproxy.store.sqlite import sqlite3

# A damaged file could yield millions of sentences; nobody reads more than this.
MAX_PROBLEMS = 200
_TOKENS = ", ".join(Usage.__slots__)


def audit(tx: Tx) -> list[str]:
    """What is wrong, one sentence each, at most MAX_PROBLEMS; empty when all is well.

    All checks see the same moment, so that calls which are settled meanwhile are no contradiction.
    """
    alone = not tx.in_transaction
    if alone:
        tx.execute("BEGIN")
    try:
        return list(islice(_problems(tx), MAX_PROBLEMS))
    finally:
        if alone and tx.in_transaction:
            tx.execute("ROLLBACK")


def _problems(tx: Tx) -> Iterator[str]:
    try:
        for check in (_sound_file, _balances, _holds, _agreement, _bills, _days, _folded, rollups.problems):
            yield from check(tx)
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        yield f"The database file is damaged: {error}."


def _sound_file(tx: Tx) -> Iterator[str]:
    for (line,) in tx.execute("PRAGMA quick_check(20)"):
        if line != "ok":
            yield f"The database file is damaged: {line}."
    for table, row, parent, _ in tx.execute("PRAGMA foreign_key_check"):
        yield f"Row {row} of {table} refers to a row of {parent} that does not exist."


def _balances(tx: Tx) -> Iterator[str]:
    total = tx.execute("SELECT coalesce(sum(balance_nanousd), 0) FROM accounts").fetchone()[0]
    if total:
        yield f"The balances of all accounts sum to {total} nano-USD instead of zero."
    rows = tx.execute(
        "SELECT a.name, a.kind, a.balance_nanousd, a.held_nanousd, coalesce(m.entered, 0) FROM accounts a LEFT JOIN"
        " (SELECT account, sum(amount) AS entered FROM ("
        "   SELECT to_account AS account, amount_nanousd AS amount FROM entries"
        "   UNION ALL SELECT from_account, -amount_nanousd FROM entries) GROUP BY account) m ON m.account = a.id"
    )
    for name, kind, balance, held, entered in rows:
        if balance != entered:
            yield f"The account {name} has a balance of {balance} nano-USD, its entries sum to {entered}."
        if kind == "customer" and (balance < 0 or held < 0 or held > balance):
            yield f"The account {name} has {balance} nano-USD with {held} held: below zero."


def _holds(tx: Tx) -> Iterator[str]:
    rows = tx.execute(
        "SELECT a.name, a.held_nanousd, coalesce(sum(h.amount_nanousd), 0) FROM accounts a"
        " LEFT JOIN holds h ON h.account_id = a.id GROUP BY a.id"
        " HAVING a.held_nanousd <> coalesce(sum(h.amount_nanousd), 0)"
    )
    for name, held, open_sum in rows:
        yield f"The account {name} has {held} nano-USD held, its open calls hold {open_sum}."
    for (call_id,) in tx.execute("SELECT h.call_id FROM holds h JOIN usage u ON u.call_id = h.call_id"):
        yield f"The call {call_id} is settled and holds credit all the same."


def _agreement(tx: Tx) -> Iterator[str]:
    rows = tx.execute(
        "SELECT u.call_id, u.account_id, u.cost_nanousd, u.shortfall_nanousd,"
        " coalesce((SELECT sum(amount_nanousd) FROM entries WHERE call_id = u.call_id AND kind = 'charge'"
        "   AND from_account = u.account_id), 0),"
        " coalesce((SELECT sum(amount_nanousd) FROM entries WHERE call_id = u.call_id AND kind = 'adjustment'), 0)"
        " FROM usage u"
    )
    for call_id, _account, cost_nanousd, shortfall, charged, adjusted in rows:
        if charged != cost_nanousd - shortfall or adjusted != shortfall:
            yield (
                f"The call {call_id} costs {cost_nanousd} nano-USD with a shortfall of {shortfall}, "
                f"but was charged {charged} and adjusted by {adjusted}."
            )
    orphans = tx.execute(
        "SELECT e.id, e.kind, e.call_id FROM entries e LEFT JOIN usage u ON u.call_id = e.call_id"
        " WHERE e.call_id IS NOT NULL AND u.call_id IS NULL AND $1 OR e.kind = 'charge' AND e.call_id IS NULL",
        bound(int(not retention.folded_day(tx))),
    )
    for entry_id, kind, call_id in orphans:
        yield f"Entry {entry_id} ({kind}) belongs to the call {call_id}, which has no usage record."
    if retention.folded_day(tx):
        yield from _without_record(tx)


def _without_record(tx: Tx) -> Iterator[str]:
    """Charges without a record are those of the records that were folded, by number and amount."""
    rows = tx.execute(
        "SELECT a.name, coalesce(o.charges, 0), coalesce(o.charged, 0), coalesce(f.charges, 0),"
        " coalesce(f.cost_nanousd - f.shortfall_nanousd, 0) FROM accounts a LEFT JOIN folded f ON f.account_id = a.id"
        " LEFT JOIN (SELECT e.from_account, count(*) AS charges, sum(e.amount_nanousd) AS charged FROM entries e"
        "   LEFT JOIN usage u ON u.call_id = e.call_id WHERE e.kind = 'charge' AND e.call_id IS NOT NULL"
        "   AND u.call_id IS NULL GROUP BY 1) o ON o.from_account = a.id ORDER BY a.id"
    )
    for name, charges, charged, folded, folded_nanousd in rows:
        if (charges, charged) != (folded, folded_nanousd):
            yield (
                f"The account {name} has {charges} charges of {charged} nano-USD without a usage record; "
                f"{folded} of {folded_nanousd} were deleted when their time was over."
            )
    adjusted = tx.execute(
        "SELECT count(*), coalesce(sum(e.amount_nanousd), 0) FROM entries e LEFT JOIN usage u ON u.call_id = e.call_id"
        " WHERE e.kind = 'adjustment' AND e.call_id IS NOT NULL AND u.call_id IS NULL"
    ).fetchone()
    kept = tx.execute("SELECT coalesce(sum(shortfalls), 0), coalesce(sum(shortfall_nanousd), 0) FROM folded").fetchone()
    if adjusted != kept:
        yield (
            f"There are {adjusted[0]} shortfalls of {adjusted[1]} nano-USD without a usage record; {kept[0]} of {kept[1]} "
            "were deleted when their time was over."
        )


def _bills(tx: Tx) -> Iterator[str]:
    known: dict[str, Price | None] = {}
    for version, text in tx.execute("SELECT version, price FROM prices"):
        try:
            found = known[version] = decode_price(text)
        except ValueError as error:
            known[version] = None
            yield f"The price {version} can't be used: {error}."
        else:
            if found.version != version:
                yield f"The price {version} has the terms of {found.version}."
    rows = tx.execute(
        "SELECT call_id, upstream_cost_nanousd, upstream_price_version, ending, settled_by, cost_nanousd, price_version,"
        f" multiplier_ppm, {_TOKENS} FROM usage"
    )
    for call_id, billed, bill_version, ending, settled_by, charged, version, multiplier, *tokens in rows:
        yield from _upstream_bill(call_id, billed, bill_version, known, Usage(*tokens))
        price = known.get(version)
        if price is None:
            if charged or version not in known:
                yield f"The call {call_id} was priced by {version or 'nothing'}, which is not in the book."
            continue
        bill = 0 if settled_by == SettledBy.NONE else cost(price, Usage(*tokens), multiplier)
        if charged == bill or (charged < bill and _may_be_cut(ending, settled_by)):
            continue
        yield (
            f"The call {call_id} was charged {format_usd(charged)} ({charged} nano-USD); "
            f"its tokens cost {format_usd(bill)} ({bill})."
        )


def _upstream_bill(
    call_id: str, billed: int, version: str, known: Mapping[str, Price | None], usage: Usage
) -> Iterator[str]:
    """What the provider bills. Records of calls that were not sent, or of before it was kept, name no price for it."""
    price = known.get(version)
    if price is None:
        if billed or version:
            yield f"The call {call_id} costs us {billed} nano-USD by {version or 'nothing'}, which is not in the book."
        return
    bill = cost(price, usage, PPM)
    if billed != bill:
        yield f"The call {call_id} is said to cost us {billed} nano-USD; its tokens cost {bill}."


def _days(tx: Tx) -> Iterator[str]:
    names = ", ".join(days.SUMMED)
    sums = ", ".join(f"sum({name})" for name in days.SUMMED)
    failed = ", ".join(f"'{ending}'" for ending in sorted(days.FAILED))
    counted = (
        f"SELECT key_id, time_ms / {DAY_MS} AS day, model, upstream, account_id, count(*),"
        f" count(*) FILTER (WHERE ending IN ({failed})), {sums} FROM usage"
        f" WHERE time_ms >= $1 * {DAY_MS} GROUP BY 1, 2, 3, 4, 5"
    )
    kept = f"SELECT key_id, day, model, upstream, account_id, calls, failed_calls, {names} FROM days WHERE day >= $1"
    both = f"SELECT key_id, day, model, upstream FROM ({kept} EXCEPT {counted})"
    both += f" UNION SELECT key_id, day, model, upstream FROM ({counted} EXCEPT {kept})"
    first = bound(retention.folded_day(tx))
    for key_id, day, model, upstream in tx.execute(both + " ORDER BY 2, 1, 3, 4", first):
        where = f"key {key_id}, model {model}, upstream {upstream or 'none'}"
        yield f"The sum of {date_of(day)} for {where} is not that of its records."


def _folded(tx: Tx) -> Iterator[str]:
    """By account: the days before `folded_day` are what is left of their records and what was folded; and all days
    together are the charges, whatever became of the records."""
    first = retention.folded_day(tx)
    if not first:  # then all of this follows from the checks of every record
        return
    failed = ", ".join(f"'{ending}'" for ending in sorted(days.FAILED))
    names = ("calls", "failed_calls", *days.SUMMED)
    sums = ", ".join(f"sum({name}) AS {name}" for name in names)
    parts = (
        f"SELECT account_id, {', '.join(names)} FROM folded UNION ALL"
        f" SELECT account_id, 1, ending IN ({failed}), {', '.join(days.SUMMED)} FROM usage WHERE time_ms < $1 * {DAY_MS}"
    )
    kept = f"SELECT account_id, {sums} FROM days WHERE day < $1 GROUP BY 1"
    found = f"SELECT account_id, {sums} FROM ({parts}) GROUP BY 1"
    both = f"SELECT account_id FROM ({kept} EXCEPT {found}) UNION SELECT account_id FROM ({found} EXCEPT {kept})"
    for (name,) in tx.execute(f"SELECT name FROM accounts WHERE id IN ({both}) ORDER BY id", bound(first)):
        yield f"The sums of the account {name} before {date_of(first)} are not those of its records, deleted ones included."
    rows = tx.execute(
        "SELECT a.name, d.spent, coalesce(e.charged, 0) FROM (SELECT account_id, sum(cost_nanousd - shortfall_nanousd)"
        " AS spent FROM days GROUP BY 1) d JOIN accounts a ON a.id = d.account_id LEFT JOIN (SELECT from_account,"
        " sum(amount_nanousd) AS charged FROM entries WHERE kind = 'charge' GROUP BY 1) e ON e.from_account = d.account_id"
        " WHERE d.spent <> coalesce(e.charged, 0) ORDER BY a.id"
    )
    for name, spent, charged in rows:
        yield f"The days of the account {name} sum to {spent} nano-USD, its charges to {charged}."


def _may_be_cut(ending: str, settled_by: str) -> bool:
    """Whether this bill may lie below its tokens' cost: cut to the hold."""
    return settled_by == SettledBy.BOUND and ending in (Ending.OUT_OF_CREDIT, Ending.INTERRUPTED)
