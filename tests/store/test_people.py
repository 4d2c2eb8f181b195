"""Who an account is on the pages."""

from __future__ import annotations

import pytest

from lumeproxy.errors import Missing, Refused
from lumeproxy.store import accounts, people, sessions
from lumeproxy.store.people import Person
from lumeproxy.store.sessions import Session


@pytest.fixture
def ann(tx):
    return accounts.create(tx, "ann", 1)


def test_an_account_is_a_user_without_password_note_or_accepted_terms(tx, ann):
    assert people.of(tx, "Ann") == Person(ann.id, "ann", "active", "", "user", False, "", "")
    assert not people.of(tx, "ann").is_admin


@pytest.mark.parametrize("account_id", [1, 2, 3, 999])
def test_the_house_and_nobody_are_no_persons(tx, account_id):
    with pytest.raises(Missing):
        people.get(tx, account_id)


def test_a_role_is_set_and_taken_and_ends_the_sessions_of_the_old_one(tx, ann):
    session = Session(b"s" * 32, ann.id, "key", 1, 1, 100, "", "")
    sessions.begin(tx, session)

    assert people.set_role(tx, "ann", "admin").is_admin
    assert sessions.find(tx, session.sha256, 2) is None
    sessions.begin(tx, session)
    assert people.set_role(tx, "ann", "admin").is_admin
    assert sessions.find(tx, session.sha256, 2) is not None
    assert not people.set_role(tx, "ann", "user").is_admin
    assert sessions.find(tx, session.sha256, 2) is None


@pytest.mark.parametrize("status", ["suspended", "closed"])
def test_only_an_active_account_becomes_an_operators(tx, ann, status):
    accounts.set_status(tx, "ann", status, "x", 2)

    with pytest.raises(Refused, match=f"is {status}"):
        people.set_role(tx, "ann", "admin")
    assert people.of(tx, "ann").role == "user"


def test_role_note_and_password_do_not_touch_each_other(tx, ann):
    people.set_note(tx, "ann", "n" * 3000)
    people.set_password(tx, ann.id, "$argon2id$x")
    people.set_role(tx, "ann", "admin")

    person = people.of(tx, "ann")
    assert (person.role, person.has_password, person.note) == ("admin", True, "n" * people.NOTE_CHARS)
    assert people.password(tx, "ANN") == (ann.id, "$argon2id$x")
    people.set_password(tx, ann.id, None)
    assert people.password(tx, "ann") is None
    assert people.password(tx, "nobody") is None
    assert people.of(tx, "ann").note


def test_the_terms_accepted_last_count_and_the_first_time_of_each_is_kept(tx, ann):
    people.accept(tx, ann.id, "1", 10)
    people.accept(tx, ann.id, "2", 20)
    people.accept(tx, ann.id, "1", 30)

    assert people.of(tx, "ann").accepted == "2"
    assert people.acceptances(tx, ann.id) == [{"version": "1", "time_ms": 10}, {"version": "2", "time_ms": 20}]
    assert people.has_accepted(tx, ann.id, "1") and not people.has_accepted(tx, ann.id, "3")
