"""Credit: grants, holds and settlements in double entry.

A hold sets credit aside before a call and ends exactly once: settled by a charge, or released. Each entry moves an amount
from one account to another, so that all balances sum to zero. Every function is one step of a transaction and idempotent by
its call id or key: a caller that was cancelled may repeat it. A customer has 0 <= held <= balance: the table's CHECK.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from lumeproxy.core.money import PPM, format_usd
from lumeproxy.core.types import Ending, SettledBy, Usage, UsageRecord
from lumeproxy.errors import AccountSuspended, Missing, OutOfCredit, Refused
from lumeproxy.store import accounts, budgets, days, entry, prices, usage
from lumeproxy.store.accounts import HOUSE_CREDIT, HOUSE_REVENUE, HOUSE_SHORTFALL
from lumeproxy.store.batch import brief
from lumeproxy.store.database import Tx, bound, positional

# A million dollars: a slip of the keyboard, not a top-up.
MAX_GRANT_NANOUSD = 10**15
MOST_TOKENS = 10**12  # of a class in one call; no model has a context near it


@dataclass(frozen=True, slots=True)
class Balance:
    """What an account has: the balance, the part of it set aside for running calls, and the rest."""

    account: str
    balance_nanousd: int
    held_nanousd: int
    available_nanousd: int


@dataclass(frozen=True, slots=True)
class HoldTaken:
    """A hold's amount, and what the account has left beside it."""

    amount_nanousd: int
    available_nanousd: int


@dataclass(frozen=True, slots=True)
class Settled:
    """How a hold ended: the true cost, the part of it that neither hold nor balance covered, and the account after it.
    `again`: it had ended before, this is the first answer."""

    cost_nanousd: int
    shortfall_nanousd: int
    balance_nanousd: int
    available_nanousd: int
    again: bool = False


@dataclass(frozen=True, slots=True)
class EntryRow:
    """An entry as one account sees it: positive what came in, negative what went out."""

    id: int
    time_ms: int
    kind: str
    amount_nanousd: int
    call_id: str | None
    note: str


class CheckPoint(msgspec.Struct, frozen=True, kw_only=True):
    """What the meter knew of an open call, in case the process dies: usage so far, and how to price it."""

    input_tokens: int
    cache_read_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    output_tokens: int
    reasoning_tokens: int
    web_search_requests: int
    at_ms: int
    model_served: str
    price_version: str
    ttfb_ms: int | None
    status: int | None
    upstream: str = ""
    credential: int = 0
    upstream_price_version: str = ""


# The statements of every call. A call id that has a hold or a record changes nothing.
_SET_ASIDE = positional(
    "UPDATE accounts SET held_nanousd = held_nanousd + min($1, balance_nanousd - held_nanousd)"
    " WHERE id = $2 AND status = 'active' AND balance_nanousd - held_nanousd >= $3"
    " AND NOT EXISTS (SELECT 1 FROM holds WHERE call_id = $4) AND NOT EXISTS (SELECT 1 FROM usage WHERE call_id = $4)"
    " RETURNING balance_nanousd - held_nanousd, held_nanousd"
)
_HOLD = positional(
    "INSERT INTO holds (call_id, account_id, amount_nanousd, opened_ms, draft, budget_key)"
    " VALUES ($1, $2, $3, $4, $5, $6)"
)
_END_HOLD = positional("DELETE FROM holds WHERE call_id = $1 RETURNING account_id, amount_nanousd")
_CHARGE = positional(
    "UPDATE accounts SET held_nanousd = held_nanousd - $1, balance_nanousd = balance_nanousd - $3"
    " WHERE id = $2 AND balance_nanousd - held_nanousd + $1 >= $3"
    " RETURNING balance_nanousd - held_nanousd, balance_nanousd"
)

_DRAFT = msgspec.json.Decoder(UsageRecord)
_CHECKPOINT = msgspec.json.Decoder(CheckPoint)


@dataclass(frozen=True, slots=True)
class OpenHold:
    """A hold that has not ended."""

    call_id: str
    account_id: int
    amount_nanousd: int
    opened_ms: int
    draft: UsageRecord
    checkpoint: CheckPoint | None


def grant(
    tx: Tx, account_name: str, amount_nanousd: int, note: str, idempotency_key: str | None, now_ms: int
) -> Balance:
    """Give credit. The same key again gives nothing more; with other parameters it is refused.

    Raises Missing, Refused for a closed account or an amount that is not above zero and at most MAX_GRANT_NANOUSD.
    """
    account = accounts.get(tx, account_name)
    if idempotency_key is not None:
        known = tx.execute(
            "SELECT to_account, amount_nanousd, note FROM entries WHERE idempotency_key = $1", bound(idempotency_key)
        ).fetchone()
        if known is not None:
            if known != (account.id, amount_nanousd, note):
                raise Refused("This idempotency key was used before, for another grant.")
            return balance(tx, account_name)
    if account.status == "closed":
        raise Refused(f"The account {account.name} is closed.")
    if not 0 < amount_nanousd <= MAX_GRANT_NANOUSD:
        raise Refused(f"A grant must be above $0 and at most {format_usd(MAX_GRANT_NANOUSD)}.")
    entry.move(tx, "grant", HOUSE_CREDIT, account.id, amount_nanousd, now_ms, None, note, idempotency_key)
    return balance(tx, account_name)


def balance(tx: Tx, account_name: str) -> Balance:
    """What an account has. Raises Missing."""
    found = accounts.get(tx, account_name)
    return Balance(found.name, found.balance_nanousd, found.held_nanousd, found.available_nanousd)


def entries(tx: Tx, account_name: str, limit: int = 100, before_id: int | None = None) -> list[EntryRow]:
    """An account's entries, newest first; `before_id` continues a list. Raises Missing."""
    account = accounts.get(tx, account_name)
    rows = tx.execute(
        "SELECT * FROM (SELECT id, time_ms, kind, amount_nanousd, call_id, note FROM entries"
        " WHERE to_account = $1 AND to_account > 3 AND id < $2 ORDER BY id DESC LIMIT $3)"
        " UNION ALL SELECT * FROM (SELECT id, time_ms, kind, -amount_nanousd, call_id, note FROM entries"
        " WHERE from_account = $1 AND from_account > 3 AND id < $2 ORDER BY id DESC LIMIT $3)"
        " ORDER BY 1 DESC LIMIT $3",
        bound(account.id, before_id if before_id is not None else 2**62, limit),
    )
    return [EntryRow(*row) for row in rows]


@brief
def hold(
    tx: Tx,
    call_id: str,
    account_id: int,
    want_nanousd: int,
    at_least_nanousd: int,
    draft: UsageRecord,
    now_ms: int,
    budget_key: str | None = None,
) -> HoldTaken:
    """Set aside what is wanted, or all there is if that is at least `at_least_nanousd`. One conditional UPDATE decides,
    so that parallel calls can't spend the same credit. `budget_key` is the key's id where it has a budget,
    which then counts as well.

    Raises OutOfCredit, BudgetSpent, AccountSuspended; then nothing was held. The same call id again returns its first
    hold, and is Refused once that has ended: a second hold could never be settled.
    """
    least = min(want_nanousd, at_least_nanousd)
    if budget_key is not None:
        known = _known(tx, call_id, account_id)
        if known is not None:
            return known
        budget = budgets.left(tx, budget_key, now_ms)
        if budget is not None and budget.left_nanousd < least:
            raise budgets.refusal(budget, least)
        want_nanousd = want_nanousd if budget is None else min(want_nanousd, budget.left_nanousd)
    before = tx.execute(_SET_ASIDE, (want_nanousd, account_id, least, call_id)).fetchone()
    if before is None:
        known = _known(tx, call_id, account_id)
        if known is not None:
            return known
        raise _refusal(tx, account_id, least)
    left, held = before
    # RETURNING gives the row after the update; what was there before tells how much of `want` was had.
    amount = want_nanousd if left > 0 else held - _held_by_calls(tx, account_id)
    tx.execute(_HOLD, (call_id, account_id, amount, now_ms, msgspec.json.encode(draft), budget_key))
    return HoldTaken(amount, left)


def _known(tx: Tx, call_id: str, account_id: int) -> HoldTaken | None:
    """The hold that a call has already, None for a new one. Raises Refused for a call that has ended."""
    known = tx.execute(
        "SELECT amount_nanousd FROM holds WHERE call_id = $1 UNION ALL SELECT NULL FROM usage WHERE call_id = $1",
        bound(call_id),
    ).fetchone()
    if known is None:
        return None
    if known[0] is None:
        raise Refused(f"The call {call_id[:40]} has ended.")
    return HoldTaken(known[0], _available(tx, account_id))


def _held_by_calls(tx: Tx, account_id: int) -> int:
    found: int = tx.execute(
        "SELECT coalesce(sum(amount_nanousd), 0) FROM holds WHERE account_id = $1", bound(account_id)
    ).fetchone()[0]
    return found


def _available(tx: Tx, account_id: int) -> int:
    found: int = tx.execute(
        "SELECT balance_nanousd - held_nanousd FROM accounts WHERE id = $1", bound(account_id)
    ).fetchone()[0]
    return found


def _refusal(tx: Tx, account_id: int, need_nanousd: int) -> AccountSuspended | OutOfCredit | Missing:
    row = tx.execute(
        "SELECT status, balance_nanousd, held_nanousd FROM accounts WHERE id = $1", bound(account_id)
    ).fetchone()
    if row is None:
        return Missing("The account of this key does not exist.")
    status, balance_nanousd, held = row
    if status != "active":
        return AccountSuspended(f"This account is {status}. Ask your operator about it.")
    running = f" ({format_usd(held)} more is set aside for calls that are running)" if held else ""
    return OutOfCredit(
        f"Out of credit: this call needs {format_usd(need_nanousd)} at the start, and "
        f"{format_usd(balance_nanousd - held)} is left{running}. Ask your operator to top up the account."
    )


@brief
def extend(tx: Tx, call_id: str, by_nanousd: int) -> int:
    """Add to a running call's hold what is wanted, or what is left of credit and budget; returns how much that was.

    0 when nothing is left or the account is no longer active. Raises Missing when the hold has ended.
    """
    row = tx.execute(
        "SELECT account_id, budget_key, opened_ms FROM holds WHERE call_id = $1", bound(call_id)
    ).fetchone()
    if row is None:
        raise Missing(f"There is no open hold {call_id[:40]}.")
    if row[1] is not None:
        budget = budgets.left(tx, row[1], row[2])
        by_nanousd = by_nanousd if budget is None else min(by_nanousd, budget.left_nanousd)
    status, left = tx.execute(
        "SELECT status, balance_nanousd - held_nanousd FROM accounts WHERE id = $1", bound(row[0])
    ).fetchone()
    granted: int = min(by_nanousd, left) if status == "active" else 0
    if granted > 0:
        tx.execute("UPDATE accounts SET held_nanousd = held_nanousd + $1 WHERE id = $2", bound(granted, row[0]))
        tx.execute("UPDATE holds SET amount_nanousd = amount_nanousd + $1 WHERE call_id = $2", bound(granted, call_id))
    return max(granted, 0)


@brief
def checkpoint(tx: Tx, points: list[tuple[str, CheckPoint]]) -> None:
    """Keep what the meters know; holds that have ended meanwhile are passed over."""
    tx.executemany(
        "UPDATE holds SET checkpoint = $1 WHERE call_id = $2",
        [bound(msgspec.json.encode(point), call_id) for call_id, point in points],
    )


@brief
def settle(tx: Tx, record: UsageRecord) -> Settled:
    """End a hold by its record: charge the cost, give back the rest, keep the record; all or nothing.

    What the cost exceeds hold and balance by is paid by the house and noted as shortfall. A repeat returns the first
    answer, whatever the second record says. Raises Missing when there never was such a hold.
    """
    ended = tx.execute(_END_HOLD, (record.call_id,)).fetchone()
    if ended is None:
        return _settled_before(tx, record.call_id)
    account_id, held = ended
    bill, at_ms = record.cost_nanousd, record.time_ms + (record.duration_ms or 0)
    # Nearly always the account has what the call cost: the hold's end and the charge are one change of its row then.
    after = tx.execute(_CHARGE, (held, account_id, bill)).fetchone()
    if after is not None:
        left, total = after
        shortfall = 0
        if bill:
            entry.enter(tx, "charge", account_id, HOUSE_REVENUE, bill, at_ms, record.call_id)
            entry.credit(tx, HOUSE_REVENUE, bill)
    else:
        left, total, shortfall = _charge_what_is_left(tx, record, account_id, held, at_ms)
        record = msgspec.structs.replace(record, shortfall_nanousd=shortfall)
    usage.insert(tx, record)
    days.add(tx, record)
    return Settled(record.cost_nanousd, shortfall, total, left)


def _charge_what_is_left(tx: Tx, record: UsageRecord, account_id: int, held: int, at_ms: int) -> tuple[int, int, int]:
    """End the hold of a call that cost more than the account has; what is available then, the balance, the shortfall."""
    left, total = tx.execute(
        "UPDATE accounts SET held_nanousd = held_nanousd - $1 WHERE id = $2"
        " RETURNING balance_nanousd - held_nanousd, balance_nanousd",
        bound(held, account_id),
    ).fetchone()
    charge = min(record.cost_nanousd, left)
    shortfall: int = record.cost_nanousd - charge
    if charge:
        entry.move(tx, "charge", account_id, HOUSE_REVENUE, charge, at_ms, record.call_id)
    entry.move(tx, "adjustment", HOUSE_SHORTFALL, HOUSE_REVENUE, shortfall, at_ms, record.call_id, "shortfall")
    return left - charge, total - charge, shortfall


def release(tx: Tx, record: UsageRecord) -> Settled:
    """End a hold without a charge; the record's cost must be zero."""
    if record.cost_nanousd:
        raise ValueError("a release charges nothing")
    return settle(tx, record)


def _settled_before(tx: Tx, call_id: str) -> Settled:
    row = tx.execute(
        "SELECT u.cost_nanousd, u.shortfall_nanousd, a.balance_nanousd, a.balance_nanousd - a.held_nanousd"
        " FROM usage u JOIN accounts a ON a.id = u.account_id WHERE u.call_id = $1",
        bound(call_id),
    ).fetchone()
    if row is None:
        raise Missing(f"There is no hold {call_id[:40]}.")
    cost_nanousd, shortfall, balance_nanousd, available = row
    return Settled(cost_nanousd, shortfall, balance_nanousd, available, again=True)


def open_holds(tx: Tx) -> list[OpenHold]:
    """All holds that have not ended, oldest first."""
    rows = tx.execute(
        "SELECT call_id, account_id, amount_nanousd, opened_ms, draft, checkpoint FROM holds ORDER BY opened_ms, call_id"
    )
    return [
        OpenHold(
            call, account, amount, opened, _DRAFT.decode(draft), None if kept is None else _CHECKPOINT.decode(kept)
        )
        for call, account, amount, opened, draft, kept in rows
    ]


def recover(tx: Tx, opened_before_ms: int, now_ms: int) -> list[tuple[str, Settled]]:
    """Settle calls that were open when a process died: by their last checkpoint, at most what was held.

    Returns call ids and how they were settled; repeating finds nothing more to do.
    """
    settled = []
    for left_over in open_holds(tx):
        if left_over.opened_ms < opened_before_ms:
            settled.append((left_over.call_id, settle(tx, _interrupted(tx, left_over, now_ms))))
    return settled


def _interrupted(tx: Tx, left_over: OpenHold, now_ms: int) -> UsageRecord:
    record = msgspec.structs.replace(
        left_over.draft,
        ending=Ending.INTERRUPTED.value,
        error_code="process_died",
        duration_ms=max(0, now_ms - left_over.opened_ms),
    )
    point = left_over.checkpoint
    if point is None:
        return record
    # The meter writes no absurd numbers; a file that holds one all the same must not keep the server from starting.
    counted = Usage(**{name: min(MOST_TOKENS, max(0, getattr(point, name))) for name in Usage.__slots__})
    bill = prices.bill(tx, point.price_version, counted, record.multiplier_ppm)
    if bill is None:
        raise ValueError(f"the price {point.price_version} of the open call {left_over.call_id} is missing")
    billed = prices.bill(tx, point.upstream_price_version, counted, PPM)  # None for an older version's checkpoint
    return msgspec.structs.replace(
        record,
        **{name: getattr(counted, name) for name in Usage.__slots__},
        model_served=point.model_served,
        status=point.status,
        ttfb_ms=point.ttfb_ms,
        price_version=point.price_version,
        cost_nanousd=min(bill, left_over.amount_nanousd),
        estimated=True,
        settled_by=(SettledBy.CHECKPOINT if bill <= left_over.amount_nanousd else SettledBy.BOUND).value,
        upstream=point.upstream,
        credential=point.credential,
        upstream_price_version="" if billed is None else point.upstream_price_version,
        upstream_cost_nanousd=billed or 0,
    )
