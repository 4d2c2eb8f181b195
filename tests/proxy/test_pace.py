"""Calls a minute and calls at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lumeproxy.core.limits import Limits
from lumeproxy.errors import RateLimited
from lumeproxy.proxy import pace
from lumeproxy.proxy.pace import Pace
from lumeproxy.store.keys import StoredKey

KEY = StoredKey("k1", 1, "me", "active", b"", "", "", 0, None, None, ())
SECOND_KEY = replace(KEY, id="k2")
OTHER = replace(KEY, id="k3", account_id=2)


PEER = "192.0.2.7"
FREE = Limits(0, 0)


def key_pace(clock, *, per_minute, concurrent):
    """A key's calls a minute, an account's calls at once."""
    return Pace(clock, key=Limits(per_minute, 0), account=Limits(0, concurrent), address=FREE)


def call(limits: Pace, key: StoredKey = KEY, address: str = PEER) -> None:
    with limits.slot(key, address):
        pass


def refused(limits: Pace, key: StoredKey = KEY, address: str = PEER) -> int:
    with pytest.raises(RateLimited) as error:
        call(limits, key, address)
    assert error.value.retry_after_s is not None
    return error.value.retry_after_s


def test_a_minutes_worth_may_come_at_once_and_no_more(clock):
    limits = key_pace(clock, per_minute=3, concurrent=0)
    for _ in range(3):
        call(limits)

    assert refused(limits) == 20
    call(limits, SECOND_KEY)


def test_the_wait_that_is_told_is_the_true_one(clock):
    limits = key_pace(clock, per_minute=7, concurrent=0)
    for _ in range(7):
        call(limits)
    wait_s = refused(limits)

    clock.advance((wait_s - 1) * 1000)
    assert refused(limits) == 1
    clock.advance(1000)
    call(limits)
    assert refused(limits) > 1


def test_a_refused_call_uses_nothing_up(clock):
    limits = key_pace(clock, per_minute=1, concurrent=0)
    call(limits)
    for _ in range(50):
        assert refused(limits) == 60
    clock.advance(60_000)
    call(limits)


def test_an_account_has_only_so_many_calls_running(clock):
    limits = key_pace(clock, per_minute=0, concurrent=2)
    with limits.slot(KEY, PEER), limits.slot(SECOND_KEY, PEER):
        assert refused(limits) == pace.SLOT_WAIT_S
        call(limits, OTHER)
    with pytest.raises(ZeroDivisionError), limits.slot(KEY, PEER):
        raise ZeroDivisionError
    with limits.slot(KEY, PEER), limits.slot(KEY, PEER):
        refused(limits)


def test_a_call_that_finds_no_slot_is_not_counted_against_the_minute(clock):
    limits = key_pace(clock, per_minute=2, concurrent=1)
    with limits.slot(KEY, PEER):
        refused(limits)
        refused(limits)
    call(limits)
    assert refused(limits) == 30


def test_zero_turns_both_limits_off(clock):
    limits = key_pace(clock, per_minute=0, concurrent=0)
    for _ in range(1000):
        call(limits)


def test_the_memory_of_keys_is_bounded(clock, monkeypatch):
    monkeypatch.setattr(pace, "REMEMBERED_BUCKETS", 10)
    limits = key_pace(clock, per_minute=1, concurrent=0)
    for number in range(10):
        call(limits, replace(KEY, id=f"old{number}"))
    clock.advance(60_000)
    call(limits)
    assert refused(limits) == 60
    for number in range(9):
        call(limits, replace(KEY, id=f"new{number}"))
    assert refused(limits) == 60


# --- keys, accounts, addresses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "word", "free"),
    [
        ("key", "key", (SECOND_KEY, PEER)),
        ("account", "account", (OTHER, PEER)),
        ("address", "address", (KEY, "192.0.2.8")),
    ],
)
@pytest.mark.parametrize("limit", [Limits(1, 0), Limits(0, 1)], ids=["a-minute", "at-once"])
def test_each_is_limited_by_itself(clock, who, word, free, limit):
    limits = Pace(clock, **{**dict.fromkeys(("key", "account", "address"), FREE), who: limit})
    with limits.slot(KEY, PEER):
        with pytest.raises(RateLimited, match=f"^This {word} "):
            call(limits)
        call(limits, *free)
    clock.advance(60_000)
    call(limits)


def test_the_addresses_of_one_household_count_together(clock):
    limits = Pace(clock, key=FREE, account=FREE, address=Limits(1, 0))
    call(limits, address="2001:db8::1")

    assert refused(limits, address="2001:db8::2") == 60
    call(limits, address="2001:db8:0:1::1")


def test_what_is_set_for_one_key_or_account_comes_before_what_is_usual(clock):
    limits = Pace(clock, key=Limits(1, 1), account=Limits(1, 1), address=FREE)
    fast = replace(KEY, limits=Limits(3, None), account_limits=Limits(0, 0))
    for _ in range(3):
        call(limits, fast)
    assert refused(limits, fast) == 20

    slow = replace(OTHER, limits=Limits(0, 0), account_limits=Limits(None, 2))
    with limits.slot(slow, PEER):
        assert refused(limits, slow) == 60


def test_a_limit_that_refuses_leaves_the_others_untouched(clock):
    limits = Pace(clock, key=Limits(0, 1), account=Limits(5, 0), address=Limits(5, 0))
    with limits.slot(KEY, PEER):
        for _ in range(20):
            refused(limits)
    for _ in range(4):
        call(limits)
    with pytest.raises(RateLimited, match="This account may make 5"):
        call(limits)


def test_a_limit_that_changes_while_calls_run_counts_none_of_them_twice(clock):
    limits = Pace(clock, key=FREE, account=FREE, address=FREE)
    narrow = replace(KEY, limits=Limits(0, 1))
    with limits.slot(KEY, PEER), limits.slot(narrow, PEER):  # the first began before there was a limit
        refused(limits, narrow)
    with limits.slot(narrow, PEER):
        refused(limits, narrow)
