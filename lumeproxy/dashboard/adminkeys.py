"""Admin keys: made, listed and revoked by commands only, so that one that leaked can't make more; and who comes with one.

An admin key makes no calls to models, and a key for calls opens nothing here. Wrong ones count towards the blocking of
addresses that try out keys, as in front of the models' APIs. Must not know the API's routes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from lumeproxy.clock import Clock
from lumeproxy.core import apikey
from lumeproxy.dashboard import arguments as args
from lumeproxy.errors import Forbidden, RateLimited, Refused, Unauthorized
from lumeproxy.store import adminkeys
from lumeproxy.store.adminkeys import AdminKey
from lumeproxy.store.database import Database

# Stands in for the digest of a key that does not exist, so that refusing one takes the same steps.
_NO_DIGEST = bytes(32)
_MISSING = "No admin key in the request. Send one as 'Authorization: Bearer lume_admin_…' (lumeproxy admin-key create)."
_UNKNOWN = "This admin key is not valid here: it is unknown, expired or revoked."
_FOREIGN = (
    "The credential in this request is no admin key of this proxy; it was not kept. Admin keys begin with lume_admin_."
)
_OF_ACCOUNT = (
    "This is an account's key for calls to models; the admin API takes admin keys (lumeproxy admin-key create)."
)


class AdminKeys:
    """The operations on admin keys."""

    def __init__(self, database: Database, clock: Clock, random_bytes: Callable[[int], bytes]) -> None:
        self._database = database
        self._clock = clock
        self._random_bytes = random_bytes

    def table(self) -> args.Table:
        """The operations by name."""
        return {
            "admin_key.create": (args.CreateAdminKey, self._create),
            "admin_key.list": (args.Arguments, self._list),
            "admin_key.revoke": (args.Id, self._revoke),
        }

    async def _create(self, given: args.CreateAdminKey) -> Any:
        now_ms = self._clock.now_ms()
        if given.expires_ms is not None and given.expires_ms <= now_ms:
            raise Refused("A key that has expired already is of no use.")
        new = apikey.make(self._random_bytes, apikey.ADMIN_PREFIX)
        key = AdminKey(new.id, new.sha256, new.last4, given.name, given.may_change, now_ms, given.expires_ms, None)
        return {**_shown(await self._database.write(adminkeys.add, key)), "key": new.text}

    async def _list(self, _given: args.Arguments) -> Any:
        return [_shown(key) for key in await self._database.read(adminkeys.list_all)]

    async def _revoke(self, given: args.Id) -> Any:
        return _shown(await self._database.write(adminkeys.revoke, given.id, self._clock.now_ms()))


def _shown(key: AdminKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "last4": key.last4,
        "may_change": key.may_change,
        "created_ms": key.created_ms,
        "expires_ms": key.expires_ms,
        "revoked_ms": key.revoked_ms,
    }


class Throttle(Protocol):
    """Who tries out keys, by address (proxy/guessing.py)."""

    def wait_s(self, address: str) -> int:
        """How long the address is blocked for; 0 when it is not."""

    def failed(self, address: str) -> bool:
        """Count a wrong key; whether that blocks the address."""


class AdminAuth:
    """From a request's headers to the admin key that they carry. Nothing is remembered: a revocation holds at once."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        guesses: Throttle,
        on_block: Callable[[str], None] = lambda _address: None,
    ) -> None:
        """`on_block` is told an address that has just been blocked."""
        self._database = database
        self._clock = clock
        self._guesses = guesses
        self._on_block = on_block

    async def caller(self, headers: Mapping[str, str], address: str) -> tuple[AdminKey, str]:
        """The key and its text. Raises Unauthorized, RateLimited for a wrong one from an address that tries out keys, and
        Forbidden for an account's key, well-formed: whether it is in force is not told."""
        text = _presented(headers)
        if not text:
            raise Unauthorized(_MISSING)
        key_id = apikey.parse(text, apikey.ADMIN_PREFIX)
        if key_id is None and apikey.parse(text) is not None:
            raise Forbidden(_OF_ACCOUNT)
        if key_id is not None:
            key = await self._database.read(adminkeys.find, key_id)
            right = apikey.verify(text, _NO_DIGEST if key is None else key.sha256)
            if key is not None and right and key.in_force(self._clock.now_ms()):
                return key, text
        if wait_s := self._guesses.wait_s(address):
            raise RateLimited("Too many wrong keys came from this address; please wait.", retry_after_s=wait_s)
        if self._guesses.failed(address):
            self._on_block(address)
        raise Unauthorized(_UNKNOWN if text.startswith(apikey.ADMIN_PREFIX) else _FOREIGN)


def _presented(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
