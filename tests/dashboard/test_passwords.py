"""Passwords: hashed slowly, a few at a time, and the same work for a name that does not exist."""

from __future__ import annotations

import asyncio

import pytest

from lumeproxy.dashboard import passwords
from lumeproxy.dashboard.passwords import Passwords
from lumeproxy.errors import Refused, StoreUnavailable

GOOD = "four plain words here"


@pytest.fixture
def made() -> Passwords:
    return Passwords(10)


async def test_a_password_is_known_by_its_hash_and_no_other_is(made: Passwords):
    stored = await made.make(GOOD, "ann")

    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert GOOD not in stored
    assert await made.check(GOOD, stored)
    assert not await made.check(GOOD + " ", stored)
    assert not await made.check(GOOD, None)
    assert not await made.check("nobody's password", None)
    assert not await made.check(GOOD, "$argon2id$broken")
    assert await made.make(GOOD, "ann") != stored


async def test_half_a_surrogate_pair_is_a_password_like_any(made: Passwords):
    stored = await made.make("ab\udcffcdefghij", "ann")

    assert await made.check("ab\udcffcdefghij", stored)


@pytest.mark.parametrize("bad", ["short", "x" * 257, "aaaaaaaaaaaa", "abababababab", "annabel-lee"])
async def test_a_password_that_is_easy_to_guess_is_refused(made: Passwords, bad):
    with pytest.raises(Refused):
        await made.make(bad, "Annabel-Lee")


async def test_beyond_so_many_that_wait_the_next_is_asked_to_come_again(made: Passwords, monkeypatch):
    monkeypatch.setattr(passwords, "WAITING", 2)
    running = [asyncio.ensure_future(made.check(GOOD, None)) for _ in range(2)]
    await asyncio.sleep(0)

    with pytest.raises(StoreUnavailable) as refused:
        await made.check(GOOD, None)

    assert refused.value.retry_after_s == 5
    assert await asyncio.gather(*running) == [False, False]
    assert not await made.check(GOOD, None)
