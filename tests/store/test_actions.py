"""What was done is kept with who did it and what differs, and can't be changed."""

from __future__ import annotations

import sqlite3

import pytest

from lumeproxy.store import accounts, actions, keys, people
from lumeproxy.store.actions import Action, Subject


@pytest.fixture
def ann(tx):
    made = accounts.create(tx, "ann", 1)
    keys.add(tx, "aaaaaaaa", "ann", b"k" * 32, "last", "laptop", ("m",), 1, None)
    return made


def test_a_subject_is_an_account_one_of_its_keys_or_neither(tx, ann):
    assert actions.subject(tx, "Ann", None) == Subject(ann.id)
    assert actions.subject(tx, "bob", None) == Subject()
    assert actions.subject(tx, None, "aaaaaaaa") == Subject(ann.id, "aaaaaaaa")
    assert actions.subject(tx, "ann", "bbbbbbbb") == Subject()
    assert actions.subject(tx, "house:credit", None) == Subject()
    assert actions.snapshot(tx, Subject()) == {}


def test_only_what_differs_is_kept(tx, ann):
    of = Subject(ann.id)
    before = actions.snapshot(tx, of)
    accounts.set_status(tx, "ann", "suspended", "spam", 2)
    people.set_note(tx, "ann", "seen")
    actions.add(tx, 3, "page", ann.id, "account.suspend", of, {"reason": "spam"}, before, actions.snapshot(tx, of))

    (line,) = actions.find(tx, 10)
    assert line == Action(
        1, 3, "page", "ann", "account.suspend", "ann", None, {"reason": "spam"},
        {"status": "active", "reason": ""},
        {"status": "suspended", "reason": "spam", "role": "user"},
    )  # fmt: skip


def test_a_keys_snapshot_has_no_digest_and_an_accounts_the_keys_in_force(tx, ann):
    shown = actions.snapshot(tx, Subject(ann.id, "aaaaaaaa"))

    assert shown["revoked_ms"] is None
    assert not {"name", "models", "sha256"} & shown.keys()
    assert actions.snapshot(tx, Subject(ann.id))["keys"] == ["aaaaaaaa"]
    keys.revoke(tx, "aaaaaaaa", 5)
    assert actions.snapshot(tx, Subject(ann.id))["keys"] == []


def test_lines_are_listed_newest_first_by_account_and_in_pages(tx, ann):
    bob = accounts.create(tx, "bob", 1)
    for number, of in enumerate([ann.id, bob.id, ann.id], 1):
        actions.add(tx, number, "command", None, "x", Subject(of), {}, {}, {})

    assert [line.id for line in actions.find(tx, 10)] == [3, 2, 1]
    assert [line.id for line in actions.find(tx, 10, 3)] == [2, 1]
    assert [line.id for line in actions.find(tx, 1, None, ann.id)] == [3]
    assert actions.find(tx, 10)[0].actor is None


def test_a_line_is_never_changed_or_deleted(tx, ann):
    actions.add(tx, 1, "command", None, "x", Subject(ann.id), {}, {}, {})

    for statement in ("UPDATE actions SET operation = 'y'", "DELETE FROM actions"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            tx.execute(statement)
