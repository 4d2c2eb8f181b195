"""Prices are kept for ever, under the digest of their own terms."""

from __future__ import annotations

from lumeproxy.core.pricing import decode_price, encode_price
from lumeproxy.core.types import Usage
from lumeproxy.store import prices
from lumeproxy.store.database import in_memory
from tests.store.books import PRICE, TWICE


def test_a_price_comes_back_as_it_was(tx):
    prices.remember(tx, TWICE.version, encode_price(TWICE), 5)

    for price in (TWICE, PRICE):
        text = prices.load(tx, price.version)
        assert text == encode_price(price)
        assert decode_price(text) == price


def test_an_unknown_version_is_none(tx):
    assert prices.load(tx, "p_0") is None
    assert prices.load(tx, "") is None


def test_a_bill_is_by_the_price_of_its_version_and_none_without_one(tx):
    prices.remember(tx, TWICE.version, encode_price(TWICE), 5)

    assert prices.bill(tx, TWICE.version, Usage(input_tokens=3), 1_500_000) == 3 * 20_000 * 3 // 2
    assert prices.bill(tx, "p_0", Usage(input_tokens=3), 1_000_000) is None


def test_the_first_text_of_a_version_stays():
    conn = in_memory()
    prices.remember(conn, "p_1", "first", 5)
    prices.remember(conn, "p_1", "second", 6)

    assert conn.execute("SELECT version, price, first_used_ms FROM prices").fetchall() == [("p_1", "first", 5)]
    conn.close()
