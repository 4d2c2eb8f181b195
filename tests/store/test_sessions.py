"""Sessions end by their time, by hand, with their key; links sign in once."""

from __future__ import annotations

import pytest

from lumeproxy.errors import Missing, Refused
from lumeproxy.store import accounts, keys, sessions
from lumeproxy.store.sessions import Session


@pytest.fixture
def ann(tx):
    return accounts.create(tx, "ann", 1)


def session(account_id, number=1, *, at=1, until=1000):
    return Session(bytes([number]) * 32, account_id, "password", at, at, until, "1.2.3.4", "browser")


def test_a_session_is_found_until_its_time(tx, ann):
    begun = session(ann.id)
    sessions.begin(tx, begun)

    both = sessions.find(tx, begun.sha256, 999)
    assert both is not None
    found, person = both
    assert (found, person.name) == (begun, "ann")
    assert sessions.find(tx, begun.sha256, 1000) is None
    assert sessions.find(tx, b"x" * 32, 2) is None


def test_a_session_ends_with_the_key_that_began_it(tx, ann):
    for number, (key_id, expires_ms) in enumerate([("aaaaaaaa", None), ("bbbbbbbb", 50)]):
        keys.add(tx, key_id, "ann", bytes([number]) * 32, "last", "", (), 1, expires_ms)
        sessions.begin(tx, session(ann.id, number), key_id)

    assert sessions.find(tx, bytes([0]) * 32, 40) and sessions.find(tx, bytes([1]) * 32, 40)
    assert sessions.find(tx, bytes([1]) * 32, 50) is None
    keys.revoke(tx, "aaaaaaaa", 60)
    assert sessions.find(tx, bytes([0]) * 32, 59)
    assert sessions.find(tx, bytes([0]) * 32, 60) is None


def test_a_new_session_sweeps_what_has_ended_and_the_oldest_beyond_the_limit(tx, ann):
    sessions.begin(tx, session(ann.id, 100, at=1, until=5))
    for number in range(sessions.SESSIONS_OF_ACCOUNT + 2):
        sessions.begin(tx, session(ann.id, number, at=10 + number))

    kept = sessions.of_account(tx, ann.id, 50)
    assert [one.sha256[0] for one in kept] == list(range(sessions.SESSIONS_OF_ACCOUNT + 1, 1, -1))
    assert tx.execute("SELECT count(*) FROM sessions").fetchone() == (sessions.SESSIONS_OF_ACCOUNT,)


def test_use_is_noted_and_never_set_back(tx, ann):
    sessions.begin(tx, session(ann.id))
    for at in (30, 20):
        sessions.touch(tx, bytes([1]) * 32, at)

    (kept,) = sessions.of_account(tx, ann.id, 50)
    assert kept.seen_ms == 30


def test_sessions_are_ended_one_by_one_by_handle_or_all_but_one(tx, ann):
    bob = accounts.create(tx, "bob", 1)
    mine = [session(ann.id, number) for number in range(4)]
    bobs = session(bob.id, 9)
    for one in (*mine, bobs):
        sessions.begin(tx, one)

    sessions.end(tx, mine[0].sha256)
    sessions.end_by_handle(tx, ann.id, mine[1].handle)
    with pytest.raises(Missing):
        sessions.end_by_handle(tx, ann.id, mine[1].handle)
    with pytest.raises(Missing):
        sessions.end_by_handle(tx, ann.id, bobs.handle)
    sessions.end_all(tx, ann.id, mine[3].sha256)

    assert [one.sha256 for one in sessions.of_account(tx, ann.id, 50)] == [mine[3].sha256]
    assert len(sessions.of_account(tx, bob.id, 50)) == 1


def test_a_link_signs_in_once_within_its_time(tx, ann):
    sessions.add_link(tx, b"a" * 32, "ann", 1, 100)
    sessions.add_link(tx, b"b" * 32, "ann", 1, 100)

    assert sessions.link(tx, b"a" * 32, 99).name == "ann"
    assert sessions.use_link(tx, b"a" * 32, 99).name == "ann"
    assert sessions.use_link(tx, b"a" * 32, 99) is None
    assert sessions.use_link(tx, b"b" * 32, 100) is None
    assert sessions.link(tx, b"c" * 32, 1) is None


def test_links_are_swept_limited_and_only_for_whoever_may_sign_in(tx, ann):
    sessions.add_link(tx, b"old" + bytes(29), "ann", 1, 5)
    for number in range(sessions.LINKS_OF_ACCOUNT + 3):
        sessions.add_link(tx, bytes([number]) * 32, "ann", 10, 100 + number)

    assert tx.execute("SELECT count(*), min(expires_ms) FROM links").fetchone() == (sessions.LINKS_OF_ACCOUNT, 103)
    accounts.set_status(tx, "ann", "suspended", "x", 11)
    with pytest.raises(Refused, match="suspended"):
        sessions.add_link(tx, b"z" * 32, "ann", 11, 100)
