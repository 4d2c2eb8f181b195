"""A closed account's books stay in order, and nothing is left that says who it was."""

from __future__ import annotations

import pytest

from lumeproxy.errors import Missing
from lumeproxy.store import accounts, erasure, keys, ledger, people, sessions, usage
from lumeproxy.store.audit import audit
from lumeproxy.store.sessions import Session
from tests.store.books import DIGEST, billed, customer, take

NAME, NOTE = "ann@example.org", "met in Rome"


def filled(tx):
    ann = customer(tx, NAME)
    keys.add(tx, "key00001", NAME, DIGEST, "last", "ann's laptop", (), 1, None)
    people.set_note(tx, NAME, NOTE)
    people.set_password(tx, ann.id, "$argon2id$secret")
    sessions.begin(tx, Session(b"s" * 32, ann.id, "key", 1, 1, 10**15, "9.9.9.9", "browser"))
    sessions.add_link(tx, b"l" * 32, NAME, 1, 10**15)
    for number in range(5):
        take(tx, f"c{number}", ann.id)
        told = {"client_address": "9.9.9.9", "user_agent": "tool", "session_id": "s-1", "agent_id": "a-1"}
        ledger.settle(tx, billed(f"c{number}", ann.id, input_tokens=10, **told))
    return ann


def test_what_says_who_it_was_is_gone_and_the_books_are_in_order(tx):
    ann = filled(tx)
    before = ledger.balance(tx, NAME)

    name = erasure.close(tx, ann.id, 5)
    steps = 0
    while erasure.left(tx, ann.id):
        erasure.clear(tx, ann.id, 2)
        steps += 1

    assert (name, steps) == (f"closed-{ann.id}", 3)
    closed = accounts.get(tx, name)
    assert (closed.status, closed.balance_nanousd) == ("closed", before.balance_nanousd)
    with pytest.raises(Missing):
        accounts.get(tx, NAME)
    assert keys.get(tx, "key00001").revoked_ms == 5
    assert len(usage.find(tx, name)) == 5 and sum(r["input_tokens"] for r in usage.find(tx, name)) == 50
    everything = "\n".join(str(row) for (table,) in tx.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
                           for row in tx.execute(f"SELECT * FROM {table}"))  # fmt: skip
    for word in (NAME, NOTE, "laptop", "argon2id", "9.9.9.9", "'tool'", "s-1", "a-1", "browser"):
        assert word not in everything, word
    assert audit(tx) == []


def test_others_keep_what_they_have_and_a_taken_name_is_not_taken_again(tx):
    ann = filled(tx)
    bob = customer(tx, "bob")
    accounts.create(tx, f"closed-{ann.id}", 1)
    take(tx, "b1", bob.id)
    ledger.settle(tx, billed("b1", bob.id, client_address="8.8.8.8"))

    first = erasure.close(tx, ann.id, 5)
    assert first == f"closed-{ann.id}-5"
    assert erasure.close(tx, ann.id, 6) == f"closed-{ann.id}-6"
    erasure.clear(tx, ann.id, 100)

    assert usage.get(tx, "b1").client_address == "8.8.8.8"
    assert not erasure.left(tx, ann.id)
