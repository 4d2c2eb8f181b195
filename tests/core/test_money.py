"""Amounts: exact in, readable out, never a float."""

from __future__ import annotations

from decimal import Decimal

import pytest

from lumeproxy.core.money import ceil_div, format_usd, multiplier_ppm, parse_usd, rate


@pytest.mark.parametrize(
    ("given", "nanousd"),
    [("10", 10**10), ("0.5", 5 * 10**8), (Decimal("0.000000001"), 1), (3, 3 * 10**9), (" 1e2 ", 10**11), ("0", 0)],
)
def test_dollars_become_nano_usd_exactly(given, nanousd):
    assert parse_usd(given) == nanousd


@pytest.mark.parametrize("given", ["", "ten", "-1", "1000001", "0.0000000001", "NaN", "Infinity", "1e999999"])
def test_what_is_no_amount_is_refused_with_a_sentence(given):
    with pytest.raises(ValueError, match="amount"):
        parse_usd(given)


@pytest.mark.parametrize("given", [0.5, True])
def test_a_float_is_never_money(given):
    with pytest.raises(TypeError):
        parse_usd(given)


def test_rates_are_exact_or_refused():
    assert rate("0.25") == 250_000_000
    assert rate(Decimal("0.00001")) == 10_000
    for bad in ("-1", "0.0000000001", "2000000"):
        with pytest.raises(ValueError, match="price"):
            rate(bad)


def test_multipliers_are_millionths():
    assert multiplier_ppm("1.25") == 1_250_000
    for bad in ("0.0000001", "-1", "1001"):
        with pytest.raises(ValueError, match="multiplier"):
            multiplier_ppm(bad)


@pytest.mark.parametrize(
    ("nanousd", "shown"),
    [
        (0, "$0.00"),
        (10**10, "$10.00"),
        (12_300_000, "$0.0123"),
        (2_420_000, "$0.00242"),
        (1_234_567_890_123, "$1,234.56789"),
        (12, "$0.000000012"),
        (-(10**9), "-$1.00"),
        (1_999_999_999, "$1.999999"),
    ],
)
def test_amounts_are_readable_and_never_shown_larger_than_they_are(nanousd, shown):
    assert format_usd(nanousd) == shown


def test_division_rounds_up():
    assert [ceil_div(n, 4) for n in (0, 1, 4, 5)] == [0, 1, 1, 2]
