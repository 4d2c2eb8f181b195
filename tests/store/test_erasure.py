"""What an account has on the pages is erased with it; its terms and the lines of what was done stay."""

from __future__ import annotations

from lumeproxy.store import accounts, erasure, people, sessions
from lumeproxy.store.people import Person
from lumeproxy.store.sessions import Session


def filled(tx, name, number):
    account = accounts.create(tx, name, 1)
    people.set_note(tx, name, "met in Rome")
    people.set_password(tx, account.id, "$argon2id$secret")
    people.accept(tx, account.id, "1", 1)
    sessions.begin(tx, Session(bytes([number]) * 32, account.id, "key", 1, 1, 10**15, "9.9.9.9", "browser"))
    sessions.add_link(tx, bytes([number]) * 32, name, 1, 10**15)
    return account


def test_an_account_is_forgotten_and_no_other(tx):
    ann, bob = filled(tx, "ann", 1), filled(tx, "bob", 2)
    for _ in range(2):
        erasure.forget(tx, ann.id)

    assert people.of(tx, "ann") == Person(ann.id, "ann", "active", "", "user", False, "", "1")
    assert sessions.find(tx, bytes([1]) * 32, 2) is None and sessions.link(tx, bytes([1]) * 32, 2) is None
    assert people.of(tx, "bob").note == "met in Rome"
    assert sessions.find(tx, bytes([2]) * 32, 2) is not None and sessions.link(tx, bytes([2]) * 32, 2) is not None
    assert bob.id != ann.id
