"""Redeem codes and the log of what was done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, Literal

import msgspec

from lumeproxy.clock import Clock
from lumeproxy.core import redeem
from lumeproxy.dashboard import arguments as args
from lumeproxy.errors import Refused
from lumeproxy.store import actions, codes
from lumeproxy.store.codes import Batch
from lumeproxy.store.database import Database

ACTION_ROWS = 1000


class CreateCodes(args.Arguments):
    """A batch of codes; `expires_ms` is a point in time."""

    name: str
    amount_nanousd: int
    count: Annotated[int, msgspec.Meta(ge=1, le=codes.CODES_OF_BATCH)]
    kind: Literal["credit", "invite"] = "credit"
    expires_ms: args.Time | None = None


class OfBatch(args.Arguments):
    """A batch."""

    batch: int


class Redeem(args.Arguments):
    """An account, and a code as it was handed out."""

    account: str
    code: args.Sentence


class Actions(args.Arguments):
    """The newest lines of what was done."""

    limit: args.Limit = 100


class Codes:
    """Operations on one database, as `Operations` has them."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        on_change: Callable[[], None],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._clock = clock
        self._on_change = on_change
        self._random_bytes = random_bytes

    def table(self) -> args.Table:
        """Name to arguments and method."""
        return {
            "code.create": (CreateCodes, self._create),
            "code.list": (args.Arguments, self._list),
            "code.show": (OfBatch, self._show),
            "code.withdraw": (OfBatch, self._withdraw),
            "code.redeem": (Redeem, self._redeem),
            "action.list": (Actions, self._actions),
        }

    async def _create(self, given: CreateCodes) -> Any:
        """A batch; the codes' texts are in the answer and nowhere else."""
        texts = [redeem.make(self._random_bytes) for _ in range(given.count)]
        digests = [(redeem.digest(text), text[-4:]) for text in texts]
        batch = await self._database.write(
            codes.add,
            given.name,
            given.kind,
            given.amount_nanousd,
            digests,
            self._clock.now_ms(),
            given.expires_ms,
        )
        return {**asdict(batch), "texts": texts}

    async def _list(self, _given: args.Arguments) -> Any:
        return [asdict(batch) for batch in await self._database.read(codes.list_all)]

    async def _show(self, given: OfBatch) -> Any:
        batch: Batch = await self._database.read(codes.get, given.batch)
        return {**asdict(batch), "each": [asdict(one) for one in await self._database.read(codes.codes_of, batch.id)]}

    async def _withdraw(self, given: OfBatch) -> Any:
        return asdict(await self._database.write(codes.withdraw, given.batch, self._clock.now_ms()))

    async def _redeem(self, given: Redeem) -> Any:
        digest = redeem.digest(given.code)
        batch = await self._database.write(codes.redeem, digest, given.account, "credit", self._clock.now_ms())
        self._on_change()
        return {"account": given.account, "amount_nanousd": batch.amount_nanousd}

    async def _actions(self, given: Actions) -> Any:
        if given.limit > ACTION_ROWS:
            raise Refused(f"At most {ACTION_ROWS} lines are given at once.")
        return [asdict(action) for action in await self._database.read(actions.find, given.limit)]
