"""What an operator can do, one method each, without HTTP: the CLI and the control socket call the same.

Arguments come as plain JSON values and are checked here; answers are plain JSON values. A change is committed when its
method returns, and is in force at once: `on_change` makes the running server forget what it remembered.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast

import msgspec
from msgspec import UnsetType

from lumeproxy import __version__
from lumeproxy.clock import Clock
from lumeproxy.core import apikey
from lumeproxy.core.apikey import NewKey
from lumeproxy.dashboard import arguments as args
from lumeproxy.dashboard import shown
from lumeproxy.dashboard.adminkeys import AdminKeys
from lumeproxy.dashboard.erasing import Erasing
from lumeproxy.dashboard.listings import LISTINGS, Listings
from lumeproxy.dashboard.operations_codes import Codes
from lumeproxy.dashboard.operations_people import People
from lumeproxy.dashboard.recorded import COMMAND, Actor, Recorded
from lumeproxy.errors import Missing, Refused
from lumeproxy.store import accounts, backup, keys, ledger, usage
from lumeproxy.store.accounts import Account
from lumeproxy.store.audit import audit
from lumeproxy.store.database import Database, Tx
from lumeproxy.store.keys import StoredKey

PAGE_ROWS = 10_000  # of entries or records in one answer; a longer list is narrowed by time or limit
# What changes nothing: it is not worth a line in the log, and may be asked twice.
READS = frozenset(
    {
        "server.show",
        "account.list",
        "account.show",
        "key.list",
        "credit.balance",
        "credit.entries",
        "usage.list",
        "usage.totals",
        "audit.run",
        "upstream.list",
        "upstream.test",
        "code.list",
        "code.show",
        "action.list",
        "admin_key.list",
        *LISTINGS,
    }
)


class Operations:
    """All operations on one database. `base_url` is where the server that owns them is reached, None without one; `more`
    are operations of other desks."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        on_change: Callable[[], None],
        base_url: str | None = None,
        more: args.Table | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._database = database
        self._clock = clock
        self._on_change = on_change
        self._base_url = base_url
        self._random_bytes = random_bytes
        self._more = more
        self._table: args.Table = {
            "server.show": (args.Arguments, self._server_show),
            "account.create": (args.CreateAccount, self._account_create),
            "account.list": (args.Arguments, self._account_list),
            "account.show": (args.Name, self._account_show),
            "account.suspend": (args.Suspend, self._account_suspend),
            "account.resume": (args.Name, self._account_resume),
            "account.close": (args.Name, self._account_close),
            "account.limit": (args.LimitAccount, self._account_limit),
            "key.create": (args.CreateKey, self._key_create),
            "key.list": (args.ListKeys, self._key_list),
            "key.revoke": (args.Id, self._key_revoke),
            "key.rotate": (args.Rotate, self._key_rotate),
            "key.limit": (args.LimitKey, self._key_limit),
            "credit.grant": (args.Grant, self._credit_grant),
            "credit.balance": (args.Of, self._credit_balance),
            "credit.entries": (args.Entries, self._credit_entries),
            "usage.list": (args.Usage, self._usage_list),
            "usage.totals": (args.Totals, self._usage_totals),
            "audit.run": (args.Arguments, self._audit),
            "backup.run": (args.Backup, self._backup),
            **Listings(database, clock).table(),
            **AdminKeys(database, clock, random_bytes).table(),
            **Erasing(database, clock, on_change).table(),
            **(more or {}),
        }
        # What writes by itself, more than once: its line follows.
        self._apart = frozenset(more or ()) | Erasing(database, clock, on_change).table().keys()
        self._table |= People(database, clock, on_change, random_bytes, base_url).table()
        self._table |= Codes(database, clock, on_change, random_bytes).table()

    async def run(self, name: str, arguments: dict[str, Any], actor: Actor = COMMAND) -> Any:
        """Carry out one operation for somebody; what it changes is written down with who that was.

        Raises Missing for an unknown name, Refused for wrong arguments or what can't be done, StoreUnavailable.
        """
        if name not in self._table:
            raise Missing(f"There is no operation {name[:60]}.")
        kind, method = self._table[name]
        try:
            converted = msgspec.convert(arguments, kind)
        except msgspec.ValidationError as error:
            raise Refused(f"Wrong arguments for {name}: {error}.") from None
        if name in READS:
            return await method(converted)
        if name in self._apart:
            answer = await method(converted)
            about = args.Name(answer["account"]) if name == "account.erase" else converted
            await Recorded(self._database, self._clock, actor, name, about).write(lambda _tx: None)
            return answer
        recorded = Recorded(self._database, self._clock, actor, name, converted)
        for_actor = Operations(
            cast(Database, recorded),
            self._clock,
            on_change=self._on_change,
            base_url=self._base_url,
            random_bytes=self._random_bytes,
        )
        return await for_actor._table[name][1](converted)

    def on(self, database: Database, random_bytes: Callable[[int], bytes]) -> Operations:
        """The same operations on a view of the database, drawing keys from another source."""
        return Operations(
            database,
            self._clock,
            on_change=self._on_change,
            base_url=self._base_url,
            random_bytes=random_bytes,
            more=self._more,
        )

    async def _server_show(self, _given: args.Arguments) -> Any:
        return {"version": __version__, "base_url": self._base_url, "process_id": os.getpid()}

    async def first(self, name: str, credit_nanousd: int) -> str:
        """Make the first account with credit and a key, in one transaction: nobody is left with one and not the other. The
        key's text."""
        now_ms = self._clock.now_ms()

        def make(tx: Tx, new: NewKey) -> StoredKey:
            accounts.create(tx, name, now_ms)
            ledger.grant(tx, name, credit_nanousd, "first credit", None, now_ms)
            return keys.add(tx, new.id, name, new.sha256, new.last4, "first", (), now_ms, None)

        text: str = (await self._made(make))["key"]
        return text

    # --- accounts ------------------------------------------------------------------------------------------------------

    async def _account_create(self, given: args.CreateAccount) -> Any:
        now_ms = self._clock.now_ms()

        def create(tx: Tx) -> Account:
            accounts.create(tx, given.name, now_ms)
            if given.credit_nanousd:
                ledger.grant(tx, given.name, given.credit_nanousd, "first credit", given.idempotency_key, now_ms)
            return accounts.get(tx, given.name)

        return shown.account(await self._database.write(create))

    async def _account_list(self, _given: args.Arguments) -> Any:
        return [shown.account(account) for account in await self._database.read(accounts.list_all)]

    async def _account_show(self, given: args.Name) -> Any:
        account = await self._database.read(accounts.get, given.name)
        return {**shown.account(account), "keys": await self._keys(given.name)}

    async def _account_suspend(self, given: args.Suspend) -> Any:
        if not given.reason.strip():
            raise Refused("A suspension needs a reason.")
        return await self._set_status(given.name, "suspended", given.reason.strip())

    async def _account_resume(self, given: args.Name) -> Any:
        return await self._set_status(given.name, "active", "")

    async def _account_close(self, given: args.Name) -> Any:
        return await self._set_status(given.name, "closed", "closed by the operator")

    async def _account_limit(self, given: args.LimitAccount) -> Any:
        def limit(tx: Tx) -> Account:
            if not isinstance(given.low_balance_nanousd, UnsetType):
                accounts.set_low_balance(tx, given.name, given.low_balance_nanousd)
            return accounts.limit(tx, given.name, given.limits(accounts.get(tx, given.name).limits))

        account = await self._database.write(limit)
        self._on_change()
        return shown.account(account)

    async def _set_status(self, name: str, status: str, reason: str) -> Any:
        account = await self._database.write(accounts.set_status, name, status, reason, self._clock.now_ms())
        self._on_change()
        return shown.account(account)

    # --- keys ----------------------------------------------------------------------------------------------------------

    async def _key_create(self, given: args.CreateKey) -> Any:
        now_ms = self._clock.now_ms()
        if given.expires_ms is not None and given.expires_ms <= now_ms:
            raise Refused("A key that has expired already is of no use.")

        def add(tx: Tx, new: NewKey) -> StoredKey:
            models = tuple(given.models)
            more = (models, now_ms, given.expires_ms, given.limits(), given.budget())
            return keys.add(tx, new.id, given.account, new.sha256, new.last4, given.name, *more)

        return await self._made(add)

    async def _key_list(self, given: args.ListKeys) -> Any:
        return await self._keys(given.account)

    async def _keys(self, account: str | None) -> list[dict[str, Any]]:
        """Keys as shown, and what is left of the budgets of those that have one."""
        now_ms = self._clock.now_ms()

        def read(tx: Tx) -> list[dict[str, Any]]:
            return [shown.key_and_left(tx, key, now_ms) for key in keys.list_all(tx, account)]

        return await self._database.read(read)

    async def _key_limit(self, given: args.LimitKey) -> Any:
        def limit(tx: Tx) -> StoredKey:
            old = keys.get(tx, given.id)
            return keys.limit(tx, old.id, given.limits(old.limits), given.budget(old.budget))

        key = await self._database.write(limit)
        self._on_change()
        return shown.key(key)

    async def _key_revoke(self, given: args.Id) -> Any:
        key = await self._database.write(keys.revoke, given.id, self._clock.now_ms())
        self._on_change()
        return shown.key(key)

    async def _key_rotate(self, given: args.Rotate) -> Any:
        now_ms = self._clock.now_ms()

        def replace(tx: Tx, new: NewKey) -> StoredKey:
            old = keys.get(tx, given.id)
            if old.revoked_ms is not None:
                raise Refused(f"The key {old.id} is revoked or replaced already; make a new one instead.")
            if old.expires_ms is not None and old.expires_ms <= now_ms:
                raise Refused(f"The key {old.id} has expired; make a new one instead.")
            keys.revoke(tx, old.id, now_ms + given.overlap_ms)
            more = (old.models, now_ms, old.expires_ms, old.limits, old.budget)
            return keys.add(tx, new.id, old.account_name, new.sha256, new.last4, old.name, *more)

        return {**await self._made(replace), "replaces": given.id}

    async def _made(self, store: Callable[[Tx, NewKey], StoredKey]) -> Any:
        """A new key, stored by one transaction; its text is in the answer and nowhere else."""
        new = apikey.make(self._random_bytes)
        key = await self._database.write(store, new)
        self._on_change()
        return {
            "id": key.id,
            "account": key.account_name,
            "name": key.name,
            "key": new.text,
            "expires_ms": key.expires_ms,
            "models": list(key.models),
            **shown.limits(key),
        }

    # --- credit, usage, care -------------------------------------------------------------------------------------------

    async def _credit_grant(self, given: args.Grant) -> Any:
        return asdict(
            await self._database.write(
                ledger.grant,
                given.account,
                given.amount_nanousd,
                given.note,
                given.idempotency_key,
                self._clock.now_ms(),
            )
        )

    async def _credit_balance(self, given: args.Of) -> Any:
        return asdict(await self._database.read(ledger.balance, given.account))

    async def _credit_entries(self, given: args.Entries) -> Any:
        rows = await self._database.read(ledger.entries, given.account, min(given.limit, PAGE_ROWS), None)
        return [asdict(row) for row in rows]

    async def _usage_list(self, given: args.Usage) -> Any:
        limit = PAGE_ROWS if given.limit is None else min(given.limit, PAGE_ROWS)
        return await self._database.read(usage.find, given.account, given.since_ms, limit)

    async def _usage_totals(self, given: args.Totals) -> Any:
        return await self._database.read(usage.totals, given.by, given.account, given.since_ms)

    async def _audit(self, _given: args.Arguments) -> Any:
        problems = await self._database.outside(audit)
        return {"ok": not problems, "problems": problems}

    async def _backup(self, given: args.Backup) -> Any:
        await self._database.outside(backup.backup, given.path)
        problems = await self._database.outside(lambda _tx: backup.check(given.path))
        if problems:
            raise Refused(f"The backup {given.path} was written but is not sound: {problems[0]}")
        return {"file": given.path, "ok": True}
