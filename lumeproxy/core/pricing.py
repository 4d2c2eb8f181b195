"""What a call costs: integer rates, tiers, one sum, one rounding.

A Price is everything that a bill of one model needs; its version is a digest of its own terms, under which it is kept in
the database, so that any bill can be recomputed from its record. Rates are nano-USD per million tokens. Knows nothing of
where list prices come from (catalogue) or of balances.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from decimal import Decimal
from typing import Protocol

import msgspec

from lumeproxy.core.money import PPM, ceil_div, rate
from lumeproxy.core.patterns import is_pattern, matches
from lumeproxy.core.types import Terms, Usage

TOKENS_PER_RATE = 10**6
# Prices are looked up anew each minute, since some change by date or time of day.
MINUTE_MS = 60_000
REMEMBERED_PRICES = 1024

Dollars = str | int | Decimal


class Rates(msgspec.Struct, frozen=True):
    """The rates of one tier: in force when the whole input is above `above_input_tokens`, then for all its tokens."""

    above_input_tokens: int
    input_rate: int
    cache_read_rate: int
    cache_write_5m_rate: int
    cache_write_1h_rate: int
    output_rate: int


class Price(msgspec.Struct, frozen=True):
    """The price of a model: `model` is the name in the book that matched, `source` who stated it ("operator" or the
    list's name and version), `web_search_nanousd` the price of one use. Made by `make_price`, which sets `version`."""

    model: str
    source: str
    tiers: tuple[Rates, ...]
    web_search_nanousd: int
    version: str


def make_price(model: str, source: str, tiers: Sequence[Rates], web_search_nanousd: int = 0) -> Price:
    """A Price with its version. The first tier begins at 0; raises ValueError where tiers do not ascend from there."""
    starts = [tier.above_input_tokens for tier in tiers]
    if not starts or starts[0] != 0 or starts != sorted(set(starts)):
        raise ValueError("price tiers must ascend from 0")
    bare = Price(model, source, tuple(tiers), web_search_nanousd, "")
    return msgspec.structs.replace(bare, version=_digest(bare))


def cost(price: Price, usage: Usage, multiplier: int) -> int:
    """Nano-USD for the usage at `multiplier` millionths of the price: summed exactly, rounded up once."""
    tiers = price.tiers
    rates = tiers[0]
    if len(tiers) > 1:
        total = usage.total_input_tokens
        for tier in tiers[1:]:
            if total > tier.above_input_tokens:
                rates = tier
    scaled = (
        usage.input_tokens * rates.input_rate
        + usage.cache_read_tokens * rates.cache_read_rate
        + usage.cache_write_5m_tokens * rates.cache_write_5m_rate
        + usage.cache_write_1h_tokens * rates.cache_write_1h_rate
        + usage.output_tokens * rates.output_rate
        + usage.web_search_requests * price.web_search_nanousd * TOKENS_PER_RATE
    )
    return ceil_div(scaled * multiplier, TOKENS_PER_RATE * PPM)


def encode_price(price: Price) -> str:
    """The price as canonical JSON, for the database."""
    return msgspec.json.encode(price).decode()


def decode_price(text: str) -> Price:
    """A price from the database. Raises ValueError when it is not one, or not the one that its version names."""
    try:
        price = msgspec.json.decode(text, type=Price)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a price: {error}") from None
    if price.version != _digest(msgspec.structs.replace(price, version="")):
        raise ValueError(f"the price {price.version} was altered")
    return price


def _digest(bare: Price) -> str:
    return "p_" + hashlib.sha256(msgspec.json.encode(bare)).hexdigest()[:16]


class OperatorPrice(msgspec.Struct, frozen=True):
    """A price from the configuration, before it is known which model it is for."""

    tiers: tuple[Rates, ...]
    web_search_nanousd: int

    @classmethod
    def of(
        cls,
        *,
        input: Dollars,
        output: Dollars,
        cache_read: Dollars | None = None,
        cache_write_5m: Dollars | None = None,
        cache_write_1h: Dollars | None = None,
        web_search: Dollars | None = None,
    ) -> OperatorPrice:
        """From dollars per million tokens (`web_search`: per 1,000 uses).

        What is left out is charged so that it never lies below a provider's usual ratio: reads as input, 5-minute
        writes 1.25 times and 1-hour writes twice the input. Raises ValueError for what is no price.
        """
        base = Decimal(input)
        rates = Rates(
            above_input_tokens=0,
            input_rate=rate(base),
            cache_read_rate=rate(base if cache_read is None else cache_read),
            cache_write_5m_rate=rate(base * Decimal("1.25") if cache_write_5m is None else cache_write_5m),
            cache_write_1h_rate=rate(base * 2 if cache_write_1h is None else cache_write_1h),
            output_rate=rate(output),
        )
        return cls((rates,), 0 if web_search is None else rate(web_search) // 1000)

    def named(self, model: str) -> Price:
        """The price as of a model."""
        return make_price(model, "operator", self.tiers, self.web_search_nanousd)


class PriceList(Protocol):
    """Where prices come from when the operator set none."""

    def price(self, model: str, provider: str | None, at_ms: int, terms: Terms) -> Price | None:
        """The list price in force, None for a model that is not in the list."""
        ...


class PriceBook:
    """The operator's prices over a list.

    An exact name comes before a pattern, patterns in the file's order; the name that the caller asked for comes before
    the upstream's. Service tiers change list prices only: what an operator sets is meant as it stands.
    """

    def __init__(self, overrides: Sequence[tuple[str, OperatorPrice]], listed: PriceList | None) -> None:
        self._exact: dict[str, Price] = {}
        self._patterns: list[tuple[str, Price]] = []
        for name, given in overrides:
            if is_pattern(name):
                self._patterns.append((name, given.named(name)))
            else:
                self._exact.setdefault(name, given.named(name))
        self._listed = listed
        self._minute = -1
        self._known: dict[tuple[str, str, str | None, Terms], Price | None] = {}

    def price(self, asked: str, upstream_model: str, provider: str | None, at_ms: int, terms: Terms) -> Price | None:
        """The price in force at `at_ms`, None when the model has none: then the call is refused, never free."""
        minute = at_ms // MINUTE_MS
        if minute != self._minute or len(self._known) >= REMEMBERED_PRICES:
            self._minute = minute
            self._known.clear()
        key = (asked, upstream_model, provider, terms)
        try:
            return self._known[key]
        except KeyError:
            found = self._known[key] = self._find(asked, upstream_model, provider, at_ms, terms)
            return found

    def _find(self, asked: str, upstream_model: str, provider: str | None, at_ms: int, terms: Terms) -> Price | None:
        for name in dict.fromkeys((asked, bare_name(asked), upstream_model, bare_name(upstream_model))):
            if name in self._exact:
                return self._exact[name]
            for pattern, price in self._patterns:
                if matches(pattern, name):
                    return price
        if self._listed is None:
            return None
        return self._listed.price(bare_name(upstream_model), provider, at_ms, terms)


def bare_name(model: str) -> str:
    """The name without Claude Code's `[1m]`, which asks for a long context and is not part of a model's name."""
    return model.removesuffix("[1m]")
