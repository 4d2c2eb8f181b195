"""Recomputes every bill from its record and checks every invariant of the ledger. Reads only; finds, does not mend.

1  all balances sum to zero                     5  held = sum of open holds
2  each balance is the sum of its entries       6  no record of a call whose hold is open
3  no customer below zero, nor below its holds  7  entries and usage records agree, one charge a call
4  the file itself is sound                     8  each bill, ours and the provider's, follows from its tokens and price
                                                9  the days' sums are those of their records
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from lumeproxy.core.limits import DAY_MS, date_of
from lumeproxy.core.money import PPM, format_usd
from lumeproxy.core.pricing import Price, cost, decode_price
from lumeproxy.core.types import Ending, SettledBy, Usage
from lumeproxy.store import days
from lumeproxy.store.database import Tx
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
        for check in (_sound_file, _balances, _holds, _agreement, _bills, _days):
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
        " WHERE e.call_id IS NOT NULL AND u.call_id IS NULL OR e.kind = 'charge' AND e.call_id IS NULL"
    )
    for entry_id, kind, call_id in orphans:
        yield f"Entry {entry_id} ({kind}) belongs to the call {call_id}, which has no usage record."


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
        f" count(*) FILTER (WHERE ending IN ({failed})), {sums} FROM usage GROUP BY 1, 2, 3, 4, 5"
    )
    kept = f"SELECT key_id, day, model, upstream, account_id, calls, failed_calls, {names} FROM days"
    both = f"SELECT key_id, day, model, upstream FROM ({kept} EXCEPT {counted})"
    both += f" UNION SELECT key_id, day, model, upstream FROM ({counted} EXCEPT {kept})"
    for key_id, day, model, upstream in tx.execute(both + " ORDER BY 2, 1, 3, 4"):
        where = f"key {key_id}, model {model}, upstream {upstream or 'none'}"
        yield f"The sum of {date_of(day)} for {where} is not that of its records."


def _may_be_cut(ending: str, settled_by: str) -> bool:
    """Whether this bill may lie below its tokens' cost: cut to the hold."""
    return settled_by == SettledBy.BOUND and ending in (Ending.OUT_OF_CREDIT, Ending.INTERRUPTED)
