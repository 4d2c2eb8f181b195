"""What changes with an Idempotency-Key came to."""

from __future__ import annotations

from dataclasses import replace

from lumeproxy.store import adminkeys, repeats
from lumeproxy.store.repeats import Repeat
from tests.store.test_adminkeys import key
from tests.support.clock import START_MS

ONE = Repeat("abcdefgh", "word", bytes(32), b"nonce", "{}", "ann", START_MS)


def test_a_change_is_found_by_its_key_and_word_only(tx):
    adminkeys.add(tx, key())
    repeats.put(tx, ONE)

    assert repeats.find(tx, "abcdefgh", "word") == ONE
    assert repeats.find(tx, "abcdefgh", "words") is None
    assert repeats.find(tx, "bbbbbbbb", "word") is None


def test_old_ones_and_those_of_an_account_are_forgotten(tx):
    adminkeys.add(tx, key())
    for number in range(5):
        word, account = f"word{number}", "bob" if number == 4 else "ann"
        repeats.put(tx, replace(ONE, idempotency_key=word, account=account, created_ms=START_MS + number))

    assert [repeats.forget(tx, START_MS + 3, 2) for _ in range(3)] == [2, 1, 0]
    repeats.forget_account(tx, "bob")
    found = [number for number in range(5) if repeats.find(tx, "abcdefgh", f"word{number}")]
    assert found == [3]
