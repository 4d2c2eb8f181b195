"""From a request's headers to the key's owner.

Clients send our key in `Authorization: Bearer`, in `x-api-key`, or in both with different values: the one with our prefix
counts (wire.md section 1). Known keys are kept in memory and forgotten on every change, so that a revocation works at
once and a call costs no query. Must not know dialects, credit or routes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lumeproxy.clock import Clock
from lumeproxy.core import apikey
from lumeproxy.core.patterns import first_match
from lumeproxy.errors import AccountSuspended, ForeignCredential, RateLimited, TermsNotAccepted, Unauthorized
from lumeproxy.proxy.guessing import Guesses
from lumeproxy.store import keys, people
from lumeproxy.store.database import Database
from lumeproxy.store.keys import StoredKey

# Beyond this many keys in use, the memory starts anew; a look-up then costs one read each again.
REMEMBERED_KEYS = 50_000

# Stands in for the digest of a key that does not exist, so that refusing one takes the same steps.
_NO_DIGEST = bytes(32)

_UNKNOWN = "This API key is not valid here: it is unknown, expired or revoked. Ask your operator for a new one."
_MISSING = (
    "No API key in the request. Send your lumeproxy key as 'Authorization: Bearer lume_…' or 'x-api-key: lume_…'."
)
_ADMIN = (
    "This is a key of the admin API, which makes no calls to models; use a key of an account (lumeproxy key create)."
)
_FOREIGN = (
    "The credential in this request is not a lumeproxy key but another service's, and was not kept or passed on. Set "
    "ANTHROPIC_AUTH_TOKEN (Claude Code) or your client's API key to the key that starts with lume_."
)


@dataclass(frozen=True, slots=True)
class Terms:
    """The version of the operator's terms that must be accepted, and where that is done."""

    version: str
    url: str


class Auth:
    """Checks keys; one instance a server."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        guesses: Guesses | None = None,
        *,
        on_block: Callable[[str], None] = lambda _address: None,
        terms: Terms | None = None,
    ) -> None:
        """`on_block` is told an address that has just been blocked for trying out keys; `terms` are what an account must
        have accepted, None for nothing."""
        self._database = database
        self._clock = clock
        self._guesses = guesses or Guesses(clock, per_minute=0)
        self._on_block = on_block
        self._ids: tuple[int, frozenset[str]] | None = None
        self._known: dict[str, StoredKey] = {}
        self._terms = terms
        self._bound: set[int] = set()  # accounts known to have accepted them
        self._generation = 0

    @property
    def generation(self) -> int:
        """Changes with every change of a key or an account: as long as it stays, what `caller` said still holds, but
        for a key that has an end."""
        return self._generation

    def forget(self) -> None:
        """Drop what is remembered, after any change of a key or an account."""
        self._known.clear()
        self._bound.clear()
        self._generation += 1

    async def caller(self, headers: Mapping[str, str], whence: Callable[[], str] = str) -> StoredKey:
        """The key that the request carries; `whence` tells the client's address, when it is needed.

        Raises Unauthorized (or ForeignCredential, where a provider's own key was sent), AccountSuspended, and RateLimited
        for another wrong key from an address that has tried out too many.
        """
        text = _presented(headers)
        remembered = self._known.get(apikey.id_in(text))
        if remembered is not None and apikey.verify(text, remembered.sha256) and self._in_force(remembered):
            return await self._accepted(_active(remembered))
        address = whence()
        wait_s = self._guesses.wait_s(address)
        if wait_s and apikey.parse(text) not in await self._all_ids():
            raise RateLimited("Too many wrong API keys came from this address; please wait.", retry_after_s=wait_s)
        try:
            return await self._accepted(await self._looked_up(text, remembered))
        except Unauthorized:
            if self._guesses.failed(address):
                self._on_block(address)
            raise

    async def _accepted(self, key: StoredKey) -> StoredKey:
        """The key, if its account has accepted what it must."""
        if self._terms is not None and key.account_id not in self._bound:
            generation = self._generation
            if not await self._database.read(people.has_accepted, key.account_id, self._terms.version):
                raise TermsNotAccepted(f"Accept the terms first: sign in at {self._terms.url}.")
            if generation == self._generation:
                self._bound.add(key.account_id)
        return key

    async def _all_ids(self) -> frozenset[str]:
        """The ids of all keys, read once after each change, and only while somebody is guessing."""
        if self._ids is None or self._ids[0] != self._generation:
            generation = self._generation
            self._ids = generation, frozenset(await self._database.read(keys.ids))
        return self._ids[1]

    async def _looked_up(self, text: str, remembered: StoredKey | None) -> StoredKey:
        """As `caller`, for a key that is not remembered or not right."""
        key_id = apikey.parse(text)
        if key_id is None:
            raise Unauthorized(_UNKNOWN)
        key = await self._look_up(key_id) if remembered is None else remembered
        right = apikey.verify(text, _NO_DIGEST if key is None else key.sha256)
        if key is None or not right or not self._in_force(key):
            if remembered is not None:
                # As slow as for an id that nobody has, so that a refusal does not tell which ids are in use.
                await self._database.read(keys.find, key_id)
            raise Unauthorized(_UNKNOWN)
        return _active(key)

    async def _look_up(self, key_id: str) -> StoredKey | None:
        generation = self._generation
        key = await self._database.read(keys.find, key_id)
        if key is not None and generation == self._generation:  # else it may have changed while it was being read
            if len(self._known) >= REMEMBERED_KEYS:
                self._known.clear()
            self._known[key_id] = key
        return key

    def _in_force(self, key: StoredKey) -> bool:
        if key.revoked_ms is None and key.expires_ms is None:
            return True
        now_ms = self._clock.now_ms()
        ends = [at for at in (key.revoked_ms, key.expires_ms) if at is not None]
        return now_ms < min(ends)


def allows(key: StoredKey, model: str) -> bool:
    """Whether the key's model patterns, if it has any, include the model."""
    return not key.models or first_match(key.models, model) is not None


def _active(key: StoredKey) -> StoredKey:
    if key.account_status != "active":
        raise AccountSuspended(f"This account is {key.account_status}. Ask your operator about it.")
    return key


def _presented(headers: Mapping[str, str]) -> str:
    """Our key among the two headers; raises when neither holds one."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    other = headers.get("x-api-key", "").strip()
    for text in (bearer, other):
        if text.startswith(apikey.ADMIN_PREFIX):
            raise Unauthorized(_ADMIN)
        if text.startswith(apikey.PREFIX):
            return text
    if bearer or other:
        raise ForeignCredential(_FOREIGN)
    raise Unauthorized(_MISSING)
