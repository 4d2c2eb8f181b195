"""Keys that are tried out: free failures, blocks that double, addresses that count together."""

from __future__ import annotations

import pytest

from lumeproxy.proxy import guessing
from lumeproxy.proxy.guessing import Guesses, group


def block(guesses: Guesses, address: str = "192.0.2.1") -> int:
    """Fail until that blocks; how often it took."""
    for number in range(1, 100):
        if guesses.failed(address):
            return number
    raise AssertionError


def test_ten_failures_in_a_minute_block_an_address_and_no_other(clock):
    guesses = Guesses(clock, per_minute=10)

    assert block(guesses) == 10
    assert guesses.wait_s("192.0.2.1") == 60
    assert guesses.wait_s("192.0.2.2") == 0


def test_failures_that_are_far_apart_block_nobody(clock):
    guesses = Guesses(clock, per_minute=3)
    for _ in range(50):
        assert not guesses.failed("a")
        clock.advance(30_001)


def test_each_block_is_twice_as_long_as_the_one_before_up_to_an_hour(clock):
    guesses = Guesses(clock, per_minute=2)
    waits = []
    for _ in range(9):
        block(guesses)
        waits.append(guesses.wait_s("192.0.2.1"))
        clock.advance(waits[-1] * 1000)
        assert guesses.wait_s("192.0.2.1") == 0

    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


def test_failures_during_a_block_do_not_make_it_longer(clock):
    guesses = Guesses(clock, per_minute=2)
    block(guesses)
    clock.advance(30_000)
    for _ in range(50):
        assert not guesses.failed("192.0.2.1")
    assert guesses.wait_s("192.0.2.1") == 30


def test_a_quiet_hour_is_forgiven(clock):
    guesses = Guesses(clock, per_minute=2)
    for _ in range(4):
        block(guesses)
        clock.advance(guesses.wait_s("192.0.2.1") * 1000)
    clock.advance(guessing.FORGET_MS + 1)

    assert block(guesses) == 2
    assert guesses.wait_s("192.0.2.1") == 60


def test_zero_turns_it_off(clock):
    guesses = Guesses(clock, per_minute=0)
    assert not any(guesses.failed("a") for _ in range(100))
    assert guesses.wait_s("a") == 0


def test_the_memory_of_addresses_is_bounded_and_forgets_the_quietest(clock, monkeypatch):
    monkeypatch.setattr(guessing, "REMEMBERED_ADDRESSES", 10)
    guesses = Guesses(clock, per_minute=2)
    block(guesses, "a")
    for number in range(20):
        guesses.failed(f"b{number}")
        guesses.failed("a")
    assert guesses.wait_s("a") == 60
    assert len(guesses._seen) == 10


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_what_an_address_counts_as(address, counted_as):
    assert group(address) == counted_as
