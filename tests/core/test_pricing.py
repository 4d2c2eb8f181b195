"""Bills: exact sums, one rounding, tiers, and who wins when a model has several prices."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumeproxy.core.pricing import (
    REMEMBERED_PRICES,
    OperatorPrice,
    PriceBook,
    Rates,
    bare_name,
    cost,
    decode_price,
    encode_price,
    make_price,
)
from lumeproxy.core.types import Terms, Usage

FLAT = OperatorPrice.of(input="1", output="5").named("m")
TIERED = make_price("t", "list", [Rates(0, 10, 1, 12, 20, 50), Rates(1000, 20, 2, 24, 40, 75)], 10_000_000)
COUNTS = st.integers(0, 10**9)


def test_a_bill_is_rounded_up_once():
    tiny = make_price("x", "list", [Rates(0, 1, 1, 1, 1, 1)])

    assert cost(tiny, Usage(input_tokens=1, output_tokens=1), 1_000_000) == 1
    assert cost(tiny, Usage(), 1_000_000) == 0
    assert cost(FLAT, Usage(input_tokens=3, output_tokens=2), 1_000_000) == 13_000


@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.integers(0, 5), st.integers(0, 5_000_000))
def test_bills_are_the_exact_sum_rounded_up(fresh, read, five, hour, out, searches, ppm):
    usage = Usage(fresh, read, five, hour, out, web_search_requests=searches)
    rates = TIERED.tiers[1] if fresh + read + five + hour > 1000 else TIERED.tiers[0]
    exact = Fraction(
        fresh * rates.input_rate
        + read * rates.cache_read_rate
        + five * rates.cache_write_5m_rate
        + hour * rates.cache_write_1h_rate
        + out * rates.output_rate,
        10**6,
    )
    exact = (exact + searches * 10_000_000) * Fraction(ppm, 10**6)

    assert cost(TIERED, usage, ppm) == ceil(exact)


def test_a_tier_begins_above_its_threshold_and_holds_for_all_tokens():
    assert cost(TIERED, Usage(input_tokens=1000), 10**6 * 10**6) == 1000 * 10 * 10**6 // 10**6 * 10**0
    assert cost(TIERED, Usage(input_tokens=1001), 10**12) == 1001 * 20


def test_tiers_must_ascend_from_zero():
    for starts in ([], [5], [0, 0], [0, 9, 3]):
        with pytest.raises(ValueError, match="ascend"):
            make_price("x", "list", [Rates(start, 1, 1, 1, 1, 1) for start in starts])


def test_a_price_survives_the_database_and_an_altered_one_is_named():
    assert decode_price(encode_price(TIERED)) == TIERED
    with pytest.raises(ValueError, match="altered"):
        decode_price(encode_price(TIERED).replace('"output_rate":50', '"output_rate":49'))
    with pytest.raises(ValueError, match="not a price"):
        decode_price("{}")


def test_what_an_operator_leaves_out_is_never_below_the_usual_ratio():
    (rates,) = OperatorPrice.of(input=Decimal(2), output=10).tiers

    assert (rates.cache_read_rate, rates.cache_write_5m_rate, rates.cache_write_1h_rate) == (
        2 * 10**9,
        25 * 10**8,
        4 * 10**9,
    )


class _List:
    def __init__(self):
        self.asked = []

    def price(self, model, provider, at_ms, terms):
        self.asked.append((model, provider, at_ms, terms))
        return TIERED if model == "listed" else None


def book(listed=None):
    names = ["claude-*", "claude-exact", "up-*", "listed-not"]
    return PriceBook([(n, OperatorPrice.of(input=i + 1, output=1)) for i, n in enumerate(names)], listed)


@pytest.mark.parametrize(
    ("asked", "upstream", "expected"),
    [
        ("claude-exact", "x", "claude-exact"),
        ("claude-other", "up-1", "claude-*"),
        ("alias", "up-1", "up-*"),
        ("claude-exact[1m]", "claude-exact[1m]", "claude-exact"),
        ("listed", "listed", "t"),
    ],
)
def test_the_operators_price_for_the_name_asked_comes_first(asked, upstream, expected):
    found = book(_List()).price(asked, upstream, None, 0, Terms())

    if asked == "claude-exact[1m]":
        # A pattern that matches the whole name stands before the bare name's own price.
        assert found.model in ("claude-exact", "claude-*")
    else:
        assert found.model == expected


def test_an_unknown_model_has_no_price():
    assert book(_List()).price("nope", "nope", None, 0, Terms()) is None
    assert book().price("nope", "nope", None, 0, Terms()) is None


def test_prices_are_looked_up_anew_each_minute_and_memory_is_bounded():
    listed = _List()
    prices = book(listed)
    for at_ms in (0, 1, 59_999, 60_000):
        prices.price("listed", "listed", "anthropic", at_ms, Terms())
    assert [asked[2] for asked in listed.asked] == [0, 60_000]

    for number in range(REMEMBERED_PRICES + 10):
        prices.price(f"n{number}", f"n{number}", None, 60_000, Terms())
    assert len(prices._known) <= REMEMBERED_PRICES


def test_the_long_context_mark_is_not_part_of_a_name():
    assert bare_name("claude-sonnet-5-5[1m]") == "claude-sonnet-5-5"
