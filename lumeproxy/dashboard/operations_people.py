"""What can be done to an account beside its books: role, note, signing in, terms, leaving for good."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from lumeproxy.clock import Clock
from lumeproxy.dashboard import arguments as args
from lumeproxy.store import accounts, codes, people, sessions
from lumeproxy.store.database import Database, Tx
from lumeproxy.store.people import Person

LINK_MS = 24 * 3_600_000  # long enough to be sent to somebody who sleeps
LINK_BYTES = 24
LINK_PATH = "/sign-in/link"


class Admin(args.Arguments):
    """An account that becomes an operator's, or a user's again."""

    name: str
    admin: bool = True


class Note(args.Arguments):
    """An account, and what the operator wants to remember of it."""

    name: str
    note: Annotated[str, msgspec.Meta(max_length=people.NOTE_CHARS)]


class Password(args.Arguments):
    """An account and its password as argon2id, or none; `keep` is the digest (hex) of the session that stays."""

    name: str
    argon2id: str | None
    keep: str = ""


class Accept(args.Arguments):
    """An account, and the version of the terms that it accepts."""

    name: str
    version: args.Sentence


class Register(args.Arguments):
    """A new account by its owner: a password, the terms that were accepted, and an invite code's digest (hex)."""

    name: str
    argon2id: str
    version: args.Sentence
    sha256: str = ""


class People:
    """Operations on one database, as `Operations` has them."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        on_change: Callable[[], None],
        random_bytes: Callable[[int], bytes],
        base_url: str | None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._on_change = on_change
        self._base_url = base_url
        self._random_bytes = random_bytes

    def table(self) -> args.Table:
        """Name to arguments and method."""
        return {
            "account.admin": (Admin, self._admin),
            "account.note": (Note, self._note),
            "account.link": (args.Name, self._link),
            "account.password": (Password, self._password),
            "account.register": (Register, self._register),
            "session.end": (args.Name, self._end),
            "terms.accept": (Accept, self._accept),
        }

    async def _admin(self, given: Admin) -> Any:
        return _shown(await self._database.write(people.set_role, given.name, "admin" if given.admin else "user"))

    async def _note(self, given: Note) -> Any:
        return _shown(await self._database.write(people.set_note, given.name, given.note.strip()))

    async def _link(self, given: args.Name) -> Any:
        """A link that signs in once; its text is in the answer and nowhere else."""
        token = self._random_bytes(LINK_BYTES).hex()
        now_ms = self._clock.now_ms()
        digest = hashlib.sha256(token.encode()).digest()
        person = await self._database.write(sessions.add_link, digest, given.name, now_ms, now_ms + LINK_MS)
        return {
            "account": person.name,
            "url": f"{self._base_url or ''}{LINK_PATH}?token={token}",
            "expires_ms": now_ms + LINK_MS,
        }

    async def _password(self, given: Password) -> Any:
        """A new password signs every other browser out."""

        def put(tx: Tx) -> Person:
            person = people.of(tx, given.name)
            people.set_password(tx, person.account_id, given.argon2id)
            sessions.end_all(tx, person.account_id, bytes.fromhex(given.keep))
            return people.get(tx, person.account_id)

        return _shown(await self._database.write(put))

    async def _register(self, given: Register) -> Any:
        now_ms = self._clock.now_ms()

        def make(tx: Tx) -> Person:
            account = accounts.create(tx, given.name, now_ms)
            if given.sha256:
                codes.redeem(tx, bytes.fromhex(given.sha256), account.name, "invite", now_ms)
            people.set_password(tx, account.id, given.argon2id)
            people.accept(tx, account.id, given.version, now_ms)
            return people.get(tx, account.id)

        return _shown(await self._database.write(make))

    async def _accept(self, given: Accept) -> Any:
        now_ms = self._clock.now_ms()

        def accept(tx: Tx) -> Person:
            person = people.of(tx, given.name)
            people.accept(tx, person.account_id, given.version, now_ms)
            return people.get(tx, person.account_id)

        shown = _shown(await self._database.write(accept))
        self._on_change()
        return shown

    async def _end(self, given: args.Name) -> Any:
        def end(tx: Tx) -> Person:
            person = people.of(tx, given.name)
            sessions.end_all(tx, person.account_id)
            return person

        return _shown(await self._database.write(end))


def _shown(person: Person) -> dict[str, Any]:
    return {"account": person.name, "status": person.status, "role": person.role, "note": person.note}
