"""Passwords as argon2id, hashed in a thread, few at a time: each takes 19 MiB and some 30 ms.

Parameters: OWASP, Password Storage Cheat Sheet (2026-11): m=19456, t=2, p=1. Must not know whose a password is.
"""

from __future__ import annotations

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from lumeproxy.errors import Refused, StoreUnavailable

MOST_CHARS = 256
AT_ONCE = 2
WAITING = 32  # beyond, somebody is trying out passwords; the next one is asked to come again


class Passwords:
    """Makes and checks hashes. `least_chars` is what a new password must have."""

    def __init__(self, least_chars: int) -> None:
        self.least_chars = least_chars
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._nobodys = ""

    async def make(self, password: str, name: str) -> str:
        """The text to be stored of a new password. Raises Refused for one that is too short, too long, or the name."""
        if not self.least_chars <= len(password) <= MOST_CHARS:
            raise Refused(f"A password needs {self.least_chars} to {MOST_CHARS} characters.")
        if password.lower() == name.lower() or len(set(password)) < 4:
            raise Refused("This password is too easy to guess; take a few words that do not belong together.")
        return await self._in_turn(self._hash, password)

    async def check(self, password: str, stored: str | None) -> bool:
        """Whether it is the password; with None the same work is done for nothing. Raises StoreUnavailable when too many
        wait."""
        if not self._nobodys:
            self._nobodys = await self._in_turn(self._hash, "nobody's password")
        # A hash is verified also where there is none, so that a name can't be told by the time it takes.
        right = await self._in_turn(self._verify, password[:MOST_CHARS], stored or self._nobodys)
        return right == "yes" and stored is not None

    async def _in_turn(self, work: object, *given: str) -> str:
        assert callable(work)
        if self._waiting >= WAITING:
            raise StoreUnavailable("Too many are signing in at the moment; please try again.", retry_after_s=5)
        self._waiting += 1
        try:
            async with self._turn:
                done: str = await asyncio.to_thread(work, *given)
                return done
        finally:
            self._waiting -= 1

    def _hash(self, password: str) -> str:
        return self._hasher.hash(password.encode("utf-8", "surrogatepass"))

    def _verify(self, password: str, stored: str) -> str:
        try:
            self._hasher.verify(stored, password.encode("utf-8", "surrogatepass"))
        except (VerificationError, InvalidHashError):
            return "no"
        return "yes"
