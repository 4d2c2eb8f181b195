"""What a key's budget leaves: its limit less what its calls of the period cost, less what its running calls hold.

Read within the transaction that takes a hold, so that parallel calls can't spend the same budget twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from lumeproxy.core.limits import DAY_MS, END, Budget, date_of, span
from lumeproxy.core.money import format_usd
from lumeproxy.errors import BudgetSpent, Missing
from lumeproxy.store import days
from lumeproxy.store.database import Tx, bound


@dataclass(frozen=True, slots=True)
class Left:
    """The tightest of a budget's limits: what is left of it, not below zero, what running calls hold, and the day on which
    it starts anew."""

    period: str
    limit_nanousd: int
    left_nanousd: int
    held_nanousd: int
    end_day: int


def get(tx: Tx, key_id: str) -> Budget:
    """The budget of a key. Raises Missing."""
    row = tx.execute(
        "SELECT day_nanousd, week_nanousd, month_nanousd, total_nanousd FROM keys WHERE id = $1", bound(key_id)
    ).fetchone()
    if row is None:
        raise Missing(f"There is no key {key_id[:8]}.")
    return Budget(*row)


def put(tx: Tx, key_id: str, budget: Budget) -> None:
    """Set a key's budget; it is in force for running calls too. Raises Missing."""
    get(tx, key_id)
    amounts = [amount for _, amount in budget.periods()]
    tx.execute(
        "UPDATE keys SET day_nanousd = $1, week_nanousd = $2, month_nanousd = $3, total_nanousd = $4 WHERE id = $5",
        bound(*amounts, key_id),
    )
    tx.execute(
        "UPDATE holds SET budget_key = $1 WHERE account_id = (SELECT account_id FROM keys WHERE id = $2)"
        " AND json_extract(CAST(draft AS TEXT), '$.key_id') = $2",
        bound(key_id if budget else None, key_id),
    )


def left(tx: Tx, key_id: str, at_ms: int) -> Left | None:
    """The tightest limit of a key's budget for calls that began at a time, None without one. Raises Missing."""
    found = []
    for period, limit in get(tx, key_id).periods():
        if limit is not None:
            first, end = span(period, at_ms)
            held: int = tx.execute(
                "SELECT coalesce(sum(amount_nanousd), 0) FROM holds WHERE budget_key = $1 AND opened_ms >= $2"
                " AND opened_ms < $3",
                bound(key_id, first * DAY_MS, end * DAY_MS),
            ).fetchone()[0]
            spent = days.spent(tx, key_id, first, end)
            found.append(Left(period, limit, max(0, limit - spent - held), held, end))
    return min(found, key=lambda one: one.left_nanousd, default=None)


def refusal(found: Left, need_nanousd: int) -> BudgetSpent:
    """The error of a call that needs more than is left, with the date on which it would not."""
    span = "in total" if found.period == "total" else f"a {found.period}"
    running = (
        f" ({format_usd(found.held_nanousd)} more is set aside for calls that are running)"
        if found.held_nanousd
        else ""
    )
    if found.end_day < END:
        then = f"It starts anew on {date_of(found.end_day)} at 00:00 UTC."
    else:
        then = "Ask for a higher one, or use another key."
    return BudgetSpent(
        f"The budget of this key is {format_usd(found.limit_nanousd)} {span}: this call needs {format_usd(need_nanousd)} "
        f"at the start, and {format_usd(found.left_nanousd)} is left{running}. {then}"
    )
