"""Calls a minute and calls at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lumeproxy.errors import RateLimited
from lumeproxy.proxy import pace
from lumeproxy.proxy.pace import Pace
from lumeproxy.store.keys import StoredKey

KEY = StoredKey("k1", 1, "me", "active", b"", "", "", 0, None, None, ())
SECOND_KEY = replace(KEY, id="k2")
OTHER = replace(KEY, id="k3", account_id=2)


def call(limits: Pace, key: StoredKey = KEY) -> None:
    with limits.slot(key):
        pass


def refused(limits: Pace, key: StoredKey = KEY) -> int:
    with pytest.raises(RateLimited) as error:
        call(limits, key)
    assert error.value.retry_after_s is not None
    return error.value.retry_after_s


def test_a_minutes_worth_may_come_at_once_and_no_more(clock):
    limits = Pace(clock, calls_per_minute=3, concurrent_calls=0)
    for _ in range(3):
        call(limits)

    assert refused(limits) == 20
    call(limits, SECOND_KEY)


def test_the_wait_that_is_told_is_the_true_one(clock):
    limits = Pace(clock, calls_per_minute=7, concurrent_calls=0)
    for _ in range(7):
        call(limits)
    wait_s = refused(limits)

    clock.advance((wait_s - 1) * 1000)
    assert refused(limits) == 1
    clock.advance(1000)
    call(limits)
    assert refused(limits) > 1


def test_a_refused_call_uses_nothing_up(clock):
    limits = Pace(clock, calls_per_minute=1, concurrent_calls=0)
    call(limits)
    for _ in range(50):
        assert refused(limits) == 60
    clock.advance(60_000)
    call(limits)


def test_an_account_has_only_so_many_calls_running(clock):
    limits = Pace(clock, calls_per_minute=0, concurrent_calls=2)
    with limits.slot(KEY), limits.slot(SECOND_KEY):
        assert refused(limits) == pace.SLOT_WAIT_S
        call(limits, OTHER)
    with pytest.raises(ZeroDivisionError), limits.slot(KEY):
        raise ZeroDivisionError
    with limits.slot(KEY), limits.slot(KEY):
        refused(limits)


def test_a_call_that_finds_no_slot_is_not_counted_against_the_minute(clock):
    limits = Pace(clock, calls_per_minute=2, concurrent_calls=1)
    with limits.slot(KEY):
        refused(limits)
        refused(limits)
    call(limits)
    assert refused(limits) == 30


def test_zero_turns_both_limits_off(clock):
    limits = Pace(clock, calls_per_minute=0, concurrent_calls=0)
    for _ in range(1000):
        call(limits)


def test_the_memory_of_keys_is_bounded(clock, monkeypatch):
    monkeypatch.setattr(pace, "REMEMBERED_KEYS", 10)
    limits = Pace(clock, calls_per_minute=1, concurrent_calls=0)
    for number in range(10):
        call(limits, replace(KEY, id=f"old{number}"))
    clock.advance(60_000)
    call(limits)
    assert refused(limits) == 60
    for number in range(9):
        call(limits, replace(KEY, id=f"new{number}"))
    assert refused(limits) == 60
