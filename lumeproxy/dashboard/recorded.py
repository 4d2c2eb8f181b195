"""A database whose writes leave a line of who did what, in the same transaction: an operation can't forget it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, TypeVarTuple

import msgspec

from lumeproxy.clock import Clock
from lumeproxy.dashboard.arguments import Arguments
from lumeproxy.store import actions
from lumeproxy.store.database import Database, Tx

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# What is not kept of an operation's arguments: secrets and their digests, and the names that its subject stands for.
_NOT_KEPT = frozenset({"argon2id", "code", "sha256", "idempotency_key"})
# What may say who somebody is, by the operation's noun: a line outlives the account that is erased.
_PERSONAL = {"key": frozenset({"name", "models"}), "account": frozenset({"note"})}
# Where an operation on such a noun names its account; the others say `account`.
_NAMED = {"account": "name", "session": "name", "terms": "name"}


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, and by which way: "command", "page", or "api" with an admin key's id. No account: whoever may
    read the data folder, or has that key."""

    via: str
    account_id: int | None = None


COMMAND = Actor("command")


class Recorded:
    """What an operation has of the database while it is carried out for somebody."""

    def __init__(self, database: Database, clock: Clock, actor: Actor, operation: str, given: Arguments) -> None:
        self._database = database
        self._clock = clock
        self._actor = actor
        self._operation = operation
        self._given = given
        key_id = getattr(given, "id", None)
        self._key_id = key_id if isinstance(key_id, str) else None
        self._field = _NAMED.get(operation.partition(".")[0], "account")
        self._account: str | None = getattr(given, self._field, None)

    async def write(self, fn: Callable[[Tx, *Ts], T], *args: *Ts) -> T:
        """As the database's own, and a line is written with it. Raises as that."""

        def recorded(tx: Tx) -> T:
            of = actions.subject(tx, self._account, self._key_id)
            before = actions.snapshot(tx, of)
            done = fn(tx, *args)
            if of == actions.Subject():
                of = actions.subject(tx, self._account, self._key_id)
            after = actions.snapshot(tx, of)
            actor = self._actor
            given = self._kept()
            actions.add(
                tx, self._clock.now_ms(), actor.via, actor.account_id, self._operation, of, given, before, after
            )
            return done

        return await self._database.write(recorded)

    async def read(self, fn: Callable[[Tx, *Ts], T], *args: *Ts) -> T:
        """As the database's own."""
        return await self._database.read(fn, *args)

    async def outside(self, fn: Callable[[Tx, *Ts], T], *args: *Ts) -> T:
        """As the database's own."""
        return await self._database.outside(fn, *args)

    def _kept(self) -> dict[str, Any]:
        given: dict[str, Any] = msgspec.to_builtins(self._given)
        left_out = _NOT_KEPT | {self._field, "id"} | _PERSONAL.get(self._operation.partition(".")[0], frozenset())
        return {name: value for name, value in given.items() if name not in left_out and value not in (None, [], "")}
