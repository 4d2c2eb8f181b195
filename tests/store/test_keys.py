"""Keys: only digests are stored, an end stays an end."""

from __future__ import annotations

import sqlite3

import pytest

from lumeproxy.errors import Missing, Refused
from lumeproxy.store import accounts, keys
from lumeproxy.store.keys import MODEL_PATTERNS, NAME_CHARS, StoredKey
from tests.store import books
from tests.store.books import DIGEST


def add(tx, key_id, account="ann", *, name="laptop", models=(), created_ms=1, expires_ms=None):
    return keys.add(tx, key_id, account, DIGEST, "wxyz", name, models, created_ms, expires_ms)


def test_a_key_is_stored_with_its_account(tx):
    ann = books.customer(tx)

    made = add(tx, "key00001", models=("claude-*", "gpt-5"), created_ms=7, expires_ms=99)

    assert made == StoredKey(
        "key00001", ann.id, "ann", "active", DIGEST, "wxyz", "laptop", 7, 99, None, ("claude-*", "gpt-5")
    )
    assert keys.find(tx, "key00001") == keys.get(tx, "key00001") == made


def test_a_key_shows_its_accounts_state_of_now(tx):
    books.customer(tx)
    add(tx, "key00001")
    accounts.set_status(tx, "ann", "suspended", "x", 1)

    assert keys.get(tx, "key00001").account_status == "suspended"
    assert add(tx, "key00002").account_status == "suspended"


def test_keys_are_counted_while_they_can_be_used(tx):
    books.customer(tx)
    add(tx, "key00001")
    add(tx, "key00002", expires_ms=50)
    add(tx, "key00003")
    keys.revoke(tx, "key00003", 70)

    assert [keys.count_in_force(tx, now_ms) for now_ms in (49, 50, 69, 70)] == [3, 2, 2, 1]
    accounts.set_status(tx, "ann", "suspended", "x", 1)
    assert keys.count_in_force(tx, 49) == 0


@pytest.mark.parametrize("key_id", ["", "nothing1", "' OR 1=1 --", "KEY00001"])
def test_an_unknown_key_is_none_or_missing(tx, key_id):
    books.customer(tx)
    add(tx, "key00001")

    assert keys.find(tx, key_id) is None
    for ask in (keys.get, lambda tx, key_id: keys.revoke(tx, key_id, 1)):
        with pytest.raises(Missing, match="There is no key"):
            ask(tx, key_id)


def test_no_key_without_its_account(tx):
    with pytest.raises(Missing, match="There is no account bob"):
        add(tx, "key00001", "bob")
    with pytest.raises(Missing):
        add(tx, "key00001", "house:credit")

    assert keys.list_all(tx) == []


def test_a_closed_account_gets_no_new_key(tx):
    books.customer(tx)
    accounts.set_status(tx, "ann", "closed", "", 1)

    with pytest.raises(Refused, match="The account ann is closed; it gets no new keys"):
        add(tx, "key00001")


def test_names_and_patterns_have_a_limit(tx):
    books.customer(tx)
    longest = add(tx, "key00001", name="n" * NAME_CHARS, models=tuple(f"m{n}" for n in range(MODEL_PATTERNS)))
    assert (len(longest.name), len(longest.models)) == (NAME_CHARS, MODEL_PATTERNS)

    for over in ({"name": "n" * (NAME_CHARS + 1)}, {"models": ("m",) * (MODEL_PATTERNS + 1)}):
        with pytest.raises(Refused, match="at most 64 characters and at most 50 model patterns"):
            add(tx, "key00002", **over)


def test_ids_are_given_once(tx):
    books.customer(tx)
    add(tx, "key00001")

    with pytest.raises(sqlite3.IntegrityError):
        add(tx, "key00001", name="other")
    with pytest.raises(sqlite3.IntegrityError):
        keys.add(tx, "key00002", "ann", b"no digest", "wxyz", "", (), 1, None)

    assert [key.name for key in keys.list_all(tx)] == ["laptop"]


def test_keys_are_listed_oldest_first_of_all_or_of_one_account(tx):
    books.customer(tx, "ann")
    books.customer(tx, "bob")
    add(tx, "late", created_ms=9)
    add(tx, "early", "bob", created_ms=3)
    add(tx, "b", created_ms=5)
    add(tx, "a", created_ms=5)

    assert [key.id for key in keys.list_all(tx)] == ["early", "a", "b", "late"]
    assert [key.id for key in keys.list_all(tx, "Ann")] == ["a", "b", "late"]
    assert [key.id for key in keys.list_all(tx, "bob")] == ["early"]
    with pytest.raises(Missing):
        keys.list_all(tx, "cy")


def test_a_key_ends_at_the_earliest_time_that_was_set(tx):
    books.customer(tx)
    add(tx, "key00001")

    assert keys.revoke(tx, "key00001", 500).revoked_ms == 500
    assert keys.revoke(tx, "key00001", 900).revoked_ms == 500
    assert keys.revoke(tx, "key00001", 200).revoked_ms == 200
    assert keys.get(tx, "key00001").revoked_ms == 200
    assert keys.revoke(tx, "key00001", 200).revoked_ms == 200


def test_revoking_one_key_leaves_the_others(tx):
    books.customer(tx)
    add(tx, "key00001")
    add(tx, "key00002")

    keys.revoke(tx, "key00001", 5)

    assert keys.get(tx, "key00002").revoked_ms is None


def test_keys_not_in_force_are_those_that_ended_or_whose_account_did(tx):
    for name in ("ann", "bob"):
        books.customer(tx, name)
    add(tx, "good", expires_ms=101)
    add(tx, "expired", expires_ms=100)
    add(tx, "revoked")
    keys.revoke(tx, "revoked", 100)
    add(tx, "overlaps")
    keys.revoke(tx, "overlaps", 101)
    add(tx, "stopped", "bob")
    accounts.set_status(tx, "bob", "suspended", "x", 1)
    ids = ["unknown", "stopped", "revoked", "good", "overlaps", "expired"]

    assert keys.not_in_force(tx, ids, 100) == ["stopped", "revoked", "expired"]
    assert keys.not_in_force(tx, ids, 99) == ["stopped"]
    assert keys.not_in_force(tx, ["good"], 101) == ["good"]
    assert keys.not_in_force(tx, [], 100) == []
