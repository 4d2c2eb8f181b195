"""The arguments of operations as JSON values, each with its limits; what does not fit is refused beforehand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from lumeproxy.core.limits import Budget, Limits

LAST_MS = 253_402_300_799_999  # the end of the year 9999, beyond which a time has no date
Sentence = Annotated[str, msgspec.Meta(max_length=500)]
Limit = Annotated[int, msgspec.Meta(ge=1)]
Rows = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Cursor = Annotated[str, msgspec.Meta(max_length=400)]
Span = Annotated[int, msgspec.Meta(ge=0, le=LAST_MS)]
Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
Money = Annotated[int, msgspec.Meta(ge=0, le=10**18)]
Time = Annotated[int, msgspec.Meta(ge=-LAST_MS, le=LAST_MS)]


class Arguments(msgspec.Struct, forbid_unknown_fields=True):
    """None; what is not named here is refused."""


# Operations by their names: what each takes, and what carries it out.
Table = Mapping[str, tuple[type[Arguments], Callable[[Any], Awaitable[Any]]]]


class CreateAccount(Arguments):
    """A new account, with credit or without."""

    name: str
    credit_nanousd: int = 0
    idempotency_key: str | None = None


class Name(Arguments):
    """An account."""

    name: str


class Suspend(Arguments):
    """An account, and why."""

    name: str
    reason: Sentence


class CreateKey(Arguments):
    """A new key; `expires_ms` is a point in time, limits as in LimitKey."""

    account: str
    name: str = ""
    expires_ms: Time | None = None
    models: list[str] = []
    calls_per_minute: Count | None = None
    concurrent_calls: Count | None = None
    budget_day_nanousd: Money | None = None
    budget_week_nanousd: Money | None = None
    budget_month_nanousd: Money | None = None
    budget_total_nanousd: Money | None = None

    def limits(self) -> Limits:
        """How fast and how many at once."""
        return Limits(self.calls_per_minute, self.concurrent_calls)

    def budget(self) -> Budget:
        """How much by period."""
        return Budget(
            self.budget_day_nanousd, self.budget_week_nanousd, self.budget_month_nanousd, self.budget_total_nanousd
        )


class ListKeys(Arguments):
    """An account's keys, or all."""

    account: str | None = None


class Id(Arguments):
    """A key."""

    id: str


class Rotate(Arguments):
    """A key that is replaced, and how long it stays valid."""

    id: str
    overlap_ms: Span = 0


class Grant(Arguments):
    """Credit for an account; the same idempotency key gives it once."""

    account: str
    amount_nanousd: int
    note: Sentence = ""
    idempotency_key: str | None = None


class Of(Arguments):
    """An account."""

    account: str


class Entries(Arguments):
    """An account's newest entries."""

    account: str
    limit: Limit = 100


class Usage(Arguments):
    """Records, newest first."""

    account: str | None = None
    since_ms: Time | None = None
    limit: Limit | None = None


class Totals(Arguments):
    """Sums by a group."""

    by: str
    account: str | None = None
    since_ms: Time | None = None


class Page(Arguments, kw_only=True):
    """A part of a list: how many rows, and the cursor that the part before ended with."""

    limit: Rows = 100
    cursor: Cursor | None = None


class PageOf(Page, kw_only=True):
    """A part of a list of one account or of all."""

    account: str | None = None


class EntryPage(Page, kw_only=True):
    """A part of an account's entries, newest first."""

    account: str


class UsagePage(PageOf, kw_only=True):
    """A part of the records of calls that began at a time or later, newest first."""

    since_ms: Time | None = None


class Summary(Arguments):
    """Sums by a group, of calls that began at a time or later."""

    by: Literal["model", "key", "day", "session", "upstream", "account"]
    account: str | None = None
    since_ms: Time | None = None


class CreateAdminKey(Arguments):
    """A new admin key; `expires_ms` is a point in time. One that may not change anything reads only."""

    name: Sentence = ""
    may_change: bool = True
    expires_ms: Time | None = None


class Backup(Arguments):
    """Where to."""

    path: str


class Rates(Arguments, kw_only=True):
    """Limits of calls: null is what is usual, what is left out stays."""

    calls_per_minute: Count | None | UnsetType = UNSET
    concurrent_calls: Count | None | UnsetType = UNSET

    def limits(self, old: Limits) -> Limits:
        """The old ones with what was given."""
        return Limits(
            kept(self.calls_per_minute, old.calls_per_minute), kept(self.concurrent_calls, old.concurrent_calls)
        )


class LimitAccount(Rates, kw_only=True):
    """An account's limits, and below which balance its owner is told (0: never)."""

    name: str
    low_balance_nanousd: Money | None | UnsetType = UNSET


class LimitKey(Rates, kw_only=True):
    """A key's limits and budget: null is no such limit, what is left out stays."""

    id: str
    budget_day_nanousd: Money | None | UnsetType = UNSET
    budget_week_nanousd: Money | None | UnsetType = UNSET
    budget_month_nanousd: Money | None | UnsetType = UNSET
    budget_total_nanousd: Money | None | UnsetType = UNSET

    def budget(self, old: Budget) -> Budget:
        """The old one with what was given."""
        return Budget(
            kept(self.budget_day_nanousd, old.day_nanousd),
            kept(self.budget_week_nanousd, old.week_nanousd),
            kept(self.budget_month_nanousd, old.month_nanousd),
            kept(self.budget_total_nanousd, old.total_nanousd),
        )


def kept(given: int | None | UnsetType, old: int | None) -> int | None:
    """What was given, or the old value where nothing was."""
    return old if given is UNSET else given
