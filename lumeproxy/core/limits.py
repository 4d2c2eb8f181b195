"""How fast and how dearly a key, an account or an address may call. Pure values and the calendar; counts nothing itself.

Budgets follow the calendar in UTC, weeks begin on Monday (ISO 8601): what a call costs counts on the day it began, as in
its usage record, so that a budget can be checked by adding up records.
"""

from __future__ import annotations

import calendar
import datetime
from collections.abc import Iterator
from dataclasses import dataclass

DAY_MS = 86_400_000
END = 2**31  # a day after all others
PERIODS = ("day", "week", "month", "total")
_EPOCH = datetime.date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Limits:
    """Calls a minute, refilled evenly, and calls at once. 0: no limit; None: whatever is usual here."""

    calls_per_minute: int | None = None
    concurrent_calls: int | None = None

    def over(self, usual: Limits) -> Limits:
        """These limits, the usual ones where none is set."""
        return Limits(
            usual.calls_per_minute if self.calls_per_minute is None else self.calls_per_minute,
            usual.concurrent_calls if self.concurrent_calls is None else self.concurrent_calls,
        )


USUAL = Limits()


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a key may spend in a day, a week, a month, ever; nano-USD, None where there is no such limit."""

    day_nanousd: int | None = None
    week_nanousd: int | None = None
    month_nanousd: int | None = None
    total_nanousd: int | None = None

    def __bool__(self) -> bool:
        """Whether there is any limit."""
        return any(amount is not None for _, amount in self.periods())

    def periods(self) -> Iterator[tuple[str, int | None]]:
        """Each period with its limit."""
        return zip(PERIODS, (self.day_nanousd, self.week_nanousd, self.month_nanousd, self.total_nanousd), strict=True)


NO_BUDGET = Budget()


def day_of(time_ms: int) -> int:
    """The day of a point in time, in days since 1970-01-01 UTC."""
    return time_ms // DAY_MS


def span(period: str, time_ms: int) -> tuple[int, int]:
    """The period that a point in time lies in: its first day, and the first day after it (END for all time)."""
    day = day_of(time_ms)
    date = _EPOCH + datetime.timedelta(days=day)
    if period == "total":
        return 0, END
    if period == "month":
        first = day - (date.day - 1)
        return first, first + calendar.monthrange(date.year, date.month)[1]
    if period == "week":
        return day - date.weekday(), day - date.weekday() + 7
    return day, day + 1


def date_of(day: int) -> str:
    """A day as 2026-11-24."""
    return (_EPOCH + datetime.timedelta(days=day)).isoformat()
