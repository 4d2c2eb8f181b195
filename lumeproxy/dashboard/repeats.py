"""Changes with an Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-07, 2025-10): done once, answered alike.

What the change came to is written in the change's own transaction. It is not kept as an answer, but as what the store gave
back: a replayed operation then goes its usual way and makes the same answer of it. A new key's text is nowhere in it: its
random bytes are an HMAC, under the caller's own admin key, of a nonce that is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import msgspec

from lumeproxy.clock import Clock
from lumeproxy.dashboard.operations import Operations
from lumeproxy.dashboard.recorded import Actor
from lumeproxy.errors import Refused
from lumeproxy.store import repeats
from lumeproxy.store.accounts import Account
from lumeproxy.store.database import Database, Tx
from lumeproxy.store.keys import StoredKey
from lumeproxy.store.ledger import Balance
from lumeproxy.store.repeats import Repeat

NONCE_BYTES = 16
# What repeatable changes get back from the store.
_RESULTS: dict[str, Any] = {kind.__name__: kind for kind in (Account, StoredKey, Balance)}


class _Raced(Exception):
    """The same request was carried out while this one was on its way."""


async def run_once(
    database: Database, clock: Clock, operations: Operations, admin_key: tuple[str, str], word: str, name: str,
    arguments: dict[str, Any],
) -> tuple[Any, bool]:  # fmt: skip
    """Carry an operation out unless it was already, for that admin key (its id and text) under that word: the answer, and
    whether it is a repetition. Raises Refused where the word was used with other arguments, and as Operations.run."""
    admin_key_id, text = admin_key
    sha256 = hashlib.sha256(msgspec.json.encode([name, arguments], order="sorted")).digest()
    while True:
        known = await database.read(repeats.find, admin_key_id, word)
        if known is not None and known.arguments_sha256 != sha256:
            raise Refused("This Idempotency-Key was used before, for another request.")
        nonce = os.urandom(NONCE_BYTES) if known is None else known.nonce
        draft = Repeat(admin_key_id, word, sha256, nonce, "", "", clock.now_ms())
        view = _View(database, draft, known)
        try:
            answer = await operations.on(cast(Database, view), _stream(text, nonce)).run(
                name, arguments, Actor(f"api {admin_key_id}")
            )
        except _Raced:
            continue
        return answer, known is not None


class _View:
    """A database whose first write happens once for ever. What an operation writes after it belongs to it, and is left out
    when the first was a repetition."""

    def __init__(self, database: Database, draft: Repeat, known: Repeat | None) -> None:
        self._database = database
        self._draft = draft
        self._known = known
        self._begun = False
        self.read, self.outside, self.between = database.read, database.outside, database.between

    async def write(self, fn: Callable[..., Any], *args: Any) -> Any:
        """As Database.write."""
        first, self._begun = not self._begun, True
        if self._known is not None:
            return _decoded(self._known.result) if first else None
        if not first:
            return await self._database.write(fn, *args)

        def once(tx: Tx) -> Any:
            if repeats.find(tx, self._draft.admin_key_id, self._draft.idempotency_key) is not None:
                raise _Raced
            result = fn(tx, *args)
            kept = msgspec.json.encode([type(result).__name__, result]).decode()
            account = getattr(result, "account_name", None) or getattr(result, "account", None) or result.name
            repeats.put(tx, replace(self._draft, result=kept, account=account))
            return result

        return await self._database.write(once)


def _decoded(kept: str) -> Any:
    kind, result = msgspec.json.decode(kept, type=tuple[str, msgspec.Raw])
    return msgspec.json.decode(result, type=_RESULTS[kind])


def _stream(text: str, nonce: bytes) -> Callable[[int], bytes]:
    """Random bytes that only the holder of the admin key can draw again."""
    drawn = 0

    def draw(count: int) -> bytes:
        nonlocal drawn
        out = b""
        while len(out) < count:
            out += hmac.digest(text.encode(), nonce + drawn.to_bytes(4, "big"), "sha256")
            drawn += 1
        return out[:count]

    return draw
