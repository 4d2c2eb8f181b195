"""The bundled list, compiled: the same bills as the list's own calculation, to the nano-USD."""

from __future__ import annotations

import datetime
from decimal import Decimal
from math import ceil

import genai_prices
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumeproxy.core.catalogue import Catalogue
from lumeproxy.core.pricing import cost
from lumeproxy.core.types import Terms, Usage
from tests.support.clock import START_MS

CATALOGUE = Catalogue.load()
MODELS = [(p, m) for p in ("anthropic", "openai") for m in CATALOGUE.models(p)]
TERMS = [Terms(), Terms("batch"), Terms("flex"), Terms("priority"), Terms(speed="fast"), Terms("bogus")]
TOKENS = st.one_of(st.integers(0, 1000), st.integers(0, 400_000))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(MODELS), st.sampled_from(TERMS), TOKENS, TOKENS, TOKENS, TOKENS, TOKENS, st.integers(0, 3))
def test_our_bill_is_the_lists_own_total_rounded_up(model, terms, fresh, read, five, hour, out, searches):
    provider, name = model
    price = CATALOGUE.price(name, provider, START_MS, terms)
    if provider == "openai":
        hour = 0
    usage = Usage(fresh, read, five, hour, out, 0, searches)
    theirs = genai_prices.Usage(
        input_tokens=usage.total_input_tokens,
        cache_read_tokens=read,
        cache_write_tokens=five + hour,
        cache_write_1h_tokens=hour,
        output_tokens=out,
        web_searches=searches,
    )
    context = {}
    if terms.service_tier == "batch":
        context["processing"] = "batch"
    elif terms.service_tier != "standard":
        context["service_tier"] = terms.service_tier
    if terms.speed != "standard":
        context["speed"] = terms.speed
    total = genai_prices.calc_price(
        theirs,
        name,
        provider_id=provider,
        genai_request_timestamp=datetime.datetime.fromtimestamp(START_MS / 1000, datetime.UTC),
        price_context=context,
    ).total_price

    assert price is not None
    assert cost(price, usage, 1_000_000) == ceil(total * 10**9)


def test_no_listed_model_is_free():
    for provider, name in MODELS:
        price = CATALOGUE.price(name, provider, START_MS, Terms())
        assert all(tier.input_rate > 0 and tier.output_rate > 0 for tier in price.tiers), name


@pytest.mark.parametrize("name", ["claude-opus-9", "gpt-7", "", "gpt-image-1", "text-embedding-3-small", "whisper-1"])
def test_what_the_list_does_not_know_or_cover_has_no_price(name):
    assert CATALOGUE.price(name, None, START_MS, Terms()) is None


def test_dated_names_are_found_and_dated_prices_apply_as_of_the_call():
    assert CATALOGUE.price("claude-sonnet-4-5-20250929", "anthropic", START_MS, Terms()).model == "claude-sonnet-4-5"
    before = int(datetime.datetime(2025, 6, 1, tzinfo=datetime.UTC).timestamp() * 1000)
    assert CATALOGUE.price("o3", "openai", before, Terms()).tiers[0].input_rate == 10 * 10**9
    assert CATALOGUE.price("o3", "openai", START_MS, Terms()).tiers[0].input_rate == 2 * 10**9


def test_inference_in_the_us_costs_a_tenth_more_from_claude_4_6_on():
    plain = CATALOGUE.price("claude-opus-5-5", "anthropic", START_MS, Terms())
    kept = CATALOGUE.price("claude-opus-5-5", "anthropic", START_MS, Terms(inference_geo="us"))
    older = CATALOGUE.price("claude-opus-4-5", "anthropic", START_MS, Terms(inference_geo="us"))

    assert Decimal(kept.tiers[0].output_rate) / plain.tiers[0].output_rate == Decimal("1.1")
    assert older == CATALOGUE.price("claude-opus-4-5", "anthropic", START_MS, Terms())


def test_models_of_an_unknown_provider_are_none():
    assert CATALOGUE.models("nobody") == []
    assert "claude-opus-5-5" in CATALOGUE.models("anthropic")
