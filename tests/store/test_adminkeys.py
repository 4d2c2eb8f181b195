"""Admin keys in the store."""

from __future__ import annotations

import pytest

from lumeproxy.errors import Missing, Refused
from lumeproxy.store import adminkeys
from lumeproxy.store.adminkeys import AdminKey
from tests.support.clock import START_MS


def key(key_id: str = "abcdefgh", **fields):
    known = {"name": "ci", "may_change": True, "created_ms": START_MS, "expires_ms": None, "revoked_ms": None}
    return AdminKey(id=key_id, sha256=bytes(32), last4="wxyz", **{**known, **fields})


def test_a_key_is_found_as_it_was_added(tx):
    made = key(may_change=False, expires_ms=START_MS + 5)
    adminkeys.add(tx, made)
    adminkeys.add(tx, key("bbbbbbbb", created_ms=START_MS - 1))

    assert adminkeys.find(tx, "abcdefgh") == made
    assert adminkeys.find(tx, "nobody00") is None
    assert [one.id for one in adminkeys.list_all(tx)] == ["bbbbbbbb", "abcdefgh"]


def test_a_key_ends_when_it_expires_or_is_revoked_and_an_earlier_end_stays(tx):
    adminkeys.add(tx, key(expires_ms=START_MS + 10))

    assert adminkeys.revoke(tx, "abcdefgh", START_MS + 3).revoked_ms == START_MS + 3
    ended = adminkeys.revoke(tx, "abcdefgh", START_MS + 9)
    assert ended.revoked_ms == START_MS + 3
    assert [ended.in_force(START_MS + at) for at in (2, 3)] == [True, False]
    assert [key(expires_ms=START_MS).in_force(START_MS + at) for at in (-1, 0)] == [True, False]


def test_what_is_not_there_or_has_too_long_a_name_is_refused(tx):
    with pytest.raises(Missing, match="no admin key nobody00"):
        adminkeys.revoke(tx, "nobody00", START_MS)
    with pytest.raises(Refused, match="at most 100 characters"):
        adminkeys.add(tx, key(name="n" * 101))
