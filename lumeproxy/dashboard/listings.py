"""Operations that read long lists part by part, for the API and for exports: accounts, keys, entries, records, sums.

Each part is one short read, so that a list of millions keeps nobody waiting. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

from msgspec import Meta

from lumeproxy.clock import Clock
from lumeproxy.dashboard import arguments as args
from lumeproxy.dashboard import cursors, shown
from lumeproxy.store import accounts, days, keys, ledger, usage
from lumeproxy.store.database import Database, Tx

LISTINGS = frozenset(
    {"account.page", "key.page", "key.show", "credit.page", "usage.page", "usage.summary", "usage.days"}
)
# What a database takes for an integer.
_Number = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Place = tuple[_Number, str]
_FIRST, _LAST = (-(2**62), ""), (2**62, "")


class Listings:
    """The reading operations of one database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def table(self) -> args.Table:
        """The operations by name."""
        return {
            "account.page": (args.Page, self._accounts),
            "key.page": (args.PageOf, self._keys),
            "key.show": (args.Id, self._key),
            "credit.page": (args.EntryPage, self._entries),
            "usage.page": (args.UsagePage, self._records),
            "usage.summary": (args.Summary, self._summary),
            "usage.days": (args.Of, self._days),
        }

    async def _accounts(self, given: args.Page) -> Any:
        after = "" if given.cursor is None else cursors.opened(given.cursor, str, "accounts")
        found = await self._database.read(accounts.page, after, given.limit + 1)
        return _part([shown.account(one) for one in found], given.limit, lambda last: last["account"], "accounts")

    async def _keys(self, given: args.PageOf) -> Any:
        of = ("keys", _folded(given.account))
        after = _FIRST if given.cursor is None else cursors.opened(given.cursor, _Place, *of)
        now_ms = self._clock.now_ms()

        def read(tx: Tx) -> list[dict[str, Any]]:
            found = keys.page(tx, given.account, after, given.limit + 1)
            return [shown.key_and_left(tx, key, now_ms) for key in found]

        rows = await self._database.read(read)
        return _part(rows, given.limit, lambda last: (last["created_ms"], last["id"]), *of)

    async def _key(self, given: args.Id) -> Any:
        now_ms = self._clock.now_ms()
        return await self._database.read(lambda tx: shown.key_and_left(tx, keys.get(tx, given.id), now_ms))

    async def _entries(self, given: args.EntryPage) -> Any:
        of = ("entries", _folded(given.account))
        before = None if given.cursor is None else cursors.opened(given.cursor, _Number, *of)
        found = await self._database.read(ledger.entries, given.account, given.limit + 1, before)
        return _part([asdict(entry) for entry in found], given.limit, lambda last: last["id"], *of)

    async def _records(self, given: args.UsagePage) -> Any:
        of = ("usage", _folded(given.account), given.since_ms)
        before = _LAST if given.cursor is None else cursors.opened(given.cursor, _Place, *of)
        since_ms = _FIRST[0] if given.since_ms is None else given.since_ms
        rows = await self._database.read(usage.page, given.account, since_ms, before, given.limit + 1)
        return _part(rows, given.limit, lambda last: (last["time_ms"], last["call_id"]), *of)

    async def _summary(self, given: args.Summary) -> Any:
        sums = await self._database.read(usage.totals, given.by, given.account, given.since_ms)
        return {"by": given.by, "groups": [{"name": group.pop(given.by), **group} for group in sums]}

    async def _days(self, given: args.Of) -> Any:
        def read(tx: Tx) -> list[dict[str, Any]]:
            return days.of_account(tx, accounts.get(tx, given.account).id, 0)

        rows = await self._database.read(read)
        return [{name: value for name, value in row.items() if name != "account_id"} for row in rows]


def _folded(name: str | None) -> str | None:
    return None if name is None else name.lower()


def _part(
    rows: list[dict[str, Any]], limit: int, place: Callable[[dict[str, Any]], Any], *of: object
) -> dict[str, Any]:
    """Rows of a list, of which one more was read than was asked for, to learn whether there are more."""
    items = rows[:limit]
    return {"items": items, "next_cursor": cursors.sealed(place(items[-1]), *of) if len(rows) > limit else None}
