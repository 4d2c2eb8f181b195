"""Where a call may go, at what price, and how much credit it has to bring: figures by hand, nano-USD a token."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from lumeproxy.core.pricing import OperatorPrice, Price, PriceBook, Rates, make_price
from lumeproxy.core.routing import Route, RoutingTable
from lumeproxy.core.settlement import Bounds
from lumeproxy.core.types import Asked, Terms
from lumeproxy.errors import ModelNotFound, UpgradeRequired
from lumeproxy.proxy.admission import HOLD_INPUT_PERCENT, Admission, Billing
from lumeproxy.store.keys import StoredKey
from lumeproxy.upstreams.echo import EchoUpstream
from tests.support.clock import START_MS

ANY = StoredKey("k", 1, "ann", "active", b"", "", "", 0, None, None, ())
NARROW = StoredKey("k", 1, "ann", "active", b"", "", "", 0, None, None, ("gpt-*",))
BILLING = Billing(
    multiplier_ppm=1_000_000,
    hold_output_tokens=4000,
    hold_least_output_tokens=250,
    bound_input_tokens=32_768,
    bound_referred_tokens=10_000_000,
    bound_reasoning_tokens=100_000,
)
MESSAGES, CHAT = "anthropic_messages", "openai_chat"
# 380 bytes are 100 tokens by the rule of thumb; the factor of gpt models is 1, and one is added to be never short.
BODY = b"x" * 380
HELD_INPUT = 101 * HOLD_INPUT_PERCENT // 100


@dataclass
class ListedByTier:
    """A price list with one model, dearer by the terms; says what it was asked."""

    asked: list[tuple[str, str | None, int, Terms]]

    def price(self, model: str, provider: str | None, at_ms: int, terms: Terms) -> Price | None:
        self.asked.append((model, provider, at_ms, terms))
        factor = {"standard": 2, "priority": 4, "flex": 1, "batch": 1}.get(terms.service_tier)
        if model != "gpt-listed" or factor is None:
            return None
        dollar = factor * 10**9
        return make_price(model, "list", [Rates(0, dollar, dollar, dollar, dollar, 10 * dollar)])


class Somewhere(EchoUpstream):
    """An upstream that is only ever named."""

    def __init__(self, name: str, *dialects: str, provider: str | None = None) -> None:
        super().__init__(name)
        self.dialects = frozenset(dialects)
        self.provider = provider


@pytest.fixture
def listed() -> ListedByTier:
    return ListedByTier([])


@pytest.fixture
def admission(listed: ListedByTier) -> Admission:
    upstreams = [
        Somewhere("one", MESSAGES),
        Somewhere("two", MESSAGES, CHAT),
        Somewhere("three", CHAT, provider="openai"),
    ]
    routing = RoutingTable([
        Route("claude-secret", ("one",)),
        Route("claude-*", ("one", "two", "three")),
        Route("gpt-alias", ("three",), "gpt-listed"),
        Route("gpt-*", ("three",)),
    ])  # fmt: skip
    prices = PriceBook(
        [("gpt-priced", OperatorPrice.of(input=1, output=10)), ("claude-*", OperatorPrice.of(input=2, output=20))],
        listed,
    )
    named = {made.name: made for made in upstreams}
    return Admission(routing=routing, upstreams=named, prices=prices, billing=BILLING)


# --- whether and where -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "model", "names"),
    [
        (MESSAGES, "claude-x", ["one", "two"]),
        (CHAT, "claude-x", ["two", "three"]),
        (MESSAGES, "claude-secret", ["one"]),
        (CHAT, "gpt-priced", ["three"]),
    ],
)
def test_of_a_routes_upstreams_those_that_speak_the_dialect_are_tried_in_order(admission, dialect, model, names):
    assert [made.name for made in admission.candidates(ANY, dialect, model)[1]] == names


@pytest.mark.parametrize(
    ("key", "dialect", "model", "words"),
    [
        (ANY, MESSAGES, "unrouted", "not available with this key"),
        (NARROW, MESSAGES, "claude-x", "not available with this key"),
        (NARROW, CHAT, "claude-secret", "not available with this key"),  # the same words, whether it exists or not
        (ANY, CHAT, "claude-secret", "not served through this API"),
        (ANY, MESSAGES, "gpt-priced", "not served through this API"),
        (ANY, CHAT, "gpt-unpriced", "no price"),
    ],
)
def test_what_has_no_route_no_allowance_no_upstream_or_no_price_is_refused(admission, key, dialect, model, words):
    with pytest.raises(ModelNotFound, match=words):
        admission.admit(key, dialect, Asked(model), BODY, START_MS)


def test_a_tier_that_the_list_does_not_price_is_refused_and_never_free(admission):
    with pytest.raises(ModelNotFound, match="no price"):
        admission.admit(ANY, CHAT, Asked("gpt-listed", terms=Terms(service_tier="mystery")), BODY, START_MS)


def routed(routing: RoutingTable, **more) -> Admission:
    upstreams = {name: Somewhere(name, MESSAGES, provider="openai") for name in ("one", "two")}
    prices = PriceBook([("claude-*", OperatorPrice.of(input=1, output=10))], None)
    return Admission(routing=routing, upstreams=upstreams, prices=prices, billing=BILLING, **more)


def test_an_upstream_that_lists_its_models_is_passed_over_for_others():
    route = Route("claude-*", ("one", "two"), models=(("two", "vendor/claude-x"),))
    admission = routed(RoutingTable([route]), served={"one": ("claude-y", "claude-z-*"), "two": ("vendor/*",)})

    found = {model: [u.name for u in admission.candidates(ANY, MESSAGES, model).upstreams]
             for model in ("claude-x", "claude-y", "claude-z-1")}  # fmt: skip
    assert found == {"claude-x": ["two"], "claude-y": ["one", "two"], "claude-z-1": ["one", "two"]}
    alone = routed(RoutingTable([Route("claude-*", ("one",))]), served={"one": ("claude-y",)})
    with pytest.raises(ModelNotFound):
        alone.candidates(ANY, MESSAGES, "claude-x")
    assert (alone.is_priced("claude-y", START_MS), alone.is_priced("claude-x", START_MS)) == (True, False)


@pytest.mark.parametrize(
    ("patterns", "allowed"), [((), True), (("sonnet",), True), (("claude-*",), True), (("claude-opus",), False)]
)
def test_a_key_may_use_an_alias_by_either_name(patterns, allowed):
    admission = routed(RoutingTable([Route("claude-*", ("one",))], {"sonnet": "claude-sonnet-9"}))
    key = StoredKey("k", 1, "ann", "active", b"", "", "", 0, None, None, patterns)
    if not allowed:
        with pytest.raises(ModelNotFound):
            admission.candidates(key, MESSAGES, "sonnet")
        return

    found = admission.candidates(key, MESSAGES, "sonnet")
    plan = admission.admit(key, MESSAGES, Asked("sonnet"), BODY, START_MS)
    assert (found.model, found.model_at("one", "sonnet"), plan.upstream_model) == (("claude-sonnet-9",) * 3)
    assert plan.slice_nanousd == 4000 * 10_000


def test_what_the_provider_bills_is_the_operators_word_or_else_what_is_charged():
    own = PriceBook([("vendor/*", OperatorPrice.of(input=3, output=7))], None)
    routing = RoutingTable([Route("claude-*", ("one", "two"), models=(("two", "vendor/x"),))])
    admission = routed(routing, costs={"one": own, "two": own})
    plan = admission.admit(ANY, MESSAGES, Asked("claude-x"), BODY, START_MS)

    assert admission.cost_price(plan, "one", plan.price, START_MS) is plan.price
    assert admission.cost_price(plan, "", plan.price, START_MS) is plan.price
    assert admission.cost_price(plan, "two", plan.price, START_MS).tiers[0].output_rate == 7 * 10**9


# --- for how much ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "slice_tokens", "least_tokens"),
    [
        (Asked("gpt-priced"), 4000, 4000),
        (Asked("gpt-priced", stream=True), 4000, 250),
        (Asked("gpt-priced", max_output_tokens=100), 100, 100),
        (Asked("gpt-priced", stream=True, max_output_tokens=100), 100, 100),
        (Asked("gpt-priced", stream=True, max_output_tokens=1000), 1000, 250),
        (Asked("gpt-priced", max_output_tokens=128_000), 4000, 4000),
        (Asked("gpt-priced", stream=True, max_output_tokens=128_000), 4000, 250),
        (Asked("gpt-priced", max_output_tokens=0), 1, 1),
        (Asked("gpt-priced", max_output_tokens=-5), 1, 1),
    ],
)
def test_a_hold_is_the_estimated_input_and_the_first_slice_of_output(admission, asked, slice_tokens, least_tokens):
    plan = admission.admit(ANY, CHAT, asked, BODY, START_MS)

    assert plan.estimated_input_tokens == 101
    assert plan.want_nanousd == HELD_INPUT * 1000 + slice_tokens * 10_000
    assert plan.at_least_nanousd == HELD_INPUT * 1000 + least_tokens * 10_000
    assert (plan.slice_tokens, plan.slice_nanousd) == (slice_tokens, slice_tokens * 10_000)


def test_the_multiplier_is_in_the_hold(admission):
    admission.billing = Billing(1_500_000, 4000, 250, 1, 1, 1)
    plan = admission.admit(ANY, CHAT, Asked("gpt-priced", max_output_tokens=10), BODY, START_MS)

    assert plan.want_nanousd == plan.at_least_nanousd == (HELD_INPUT * 1000 + 10 * 10_000) * 3 // 2


def test_a_claude_body_is_estimated_with_its_tokenizers_factor(admission):
    plan = admission.admit(ANY, MESSAGES, Asked("claude-x", max_output_tokens=1), BODY, START_MS)

    assert plan.estimated_input_tokens == 156
    assert plan.want_nanousd == 156 * HOLD_INPUT_PERCENT // 100 * 2000 + 20_000


@pytest.mark.parametrize(("tier", "factor"), [("standard", 2), ("priority", 4), ("flex", 1), ("batch", 1)])
def test_the_hold_is_taken_at_the_price_of_the_tier_that_was_asked_for(admission, listed, tier, factor):
    asked = Asked("gpt-alias", max_output_tokens=1000, terms=Terms(service_tier=tier))

    plan = admission.admit(ANY, CHAT, asked, BODY, START_MS)

    assert plan.want_nanousd == HELD_INPUT * factor * 1000 + 1000 * factor * 10_000
    assert plan.upstream_model == "gpt-listed"
    assert listed.asked == [("gpt-listed", "openai", START_MS, asked.terms)]


def test_the_operators_price_holds_for_every_tier(admission):
    for tier in ("standard", "priority", "mystery"):
        asked = Asked("gpt-priced", max_output_tokens=1, terms=Terms(service_tier=tier))
        assert admission.admit(ANY, CHAT, asked, BODY, START_MS).slice_nanousd == 10_000


# --- what it teaches and bounds ----------------------------------------------------------------------------------------


def test_the_estimate_of_a_model_learns_from_the_truth(admission):
    body = b"x" * 38_000  # 10,000 tokens by the rule of thumb
    asked = Asked("gpt-priced")
    plan = admission.admit(ANY, CHAT, asked, body, START_MS)
    assert plan.estimated_input_tokens == 10_001

    admission.observe(plan, 20_000)

    # Twice as many as estimated: the factor moves by an eighth of what it was off (1999, not 2000 permille, by the one).
    assert admission.admit(ANY, CHAT, asked, body, START_MS).estimated_input_tokens == 10_000 * 1124 // 1000 + 1
    assert admission.admit(ANY, CHAT, Asked("gpt-alias"), body, START_MS).estimated_input_tokens == 10_001


@pytest.mark.parametrize(
    ("body_bytes", "elsewhere", "tokens"),
    [(380, False, 32_768), (100_000, False, 100_000), (380, True, 10_000_000), (20_000_000, True, 20_000_000)],
)
def test_an_upstream_may_claim_what_the_bytes_allow(admission, body_bytes, elsewhere, tokens):
    plan = admission.admit(ANY, CHAT, Asked("gpt-priced", refers_elsewhere=elsewhere), BODY, START_MS)

    assert admission.bounds(plan, body_bytes, 5000) == Bounds(input_tokens=tokens, output_tokens=5000 + 100_000)


@pytest.mark.parametrize(
    ("model", "chars", "tokens"), [("gpt-5", 0, 0), ("gpt-5", 1, 1), ("gpt-5", 380, 100), ("claude-x", 380, 155)]
)
def test_delivered_characters_are_estimated_as_tokens(admission, model, chars, tokens):
    assert admission.output_tokens(model, chars) == tokens


def test_what_an_earlier_answer_brings_along_is_held_on_top_of_the_body(admission):
    plain = admission.admit(ANY, CHAT, Asked("gpt-priced"), BODY, START_MS)

    plan = admission.admit(ANY, CHAT, Asked("gpt-priced"), BODY, START_MS, carried_tokens=1000)

    assert plan.estimated_input_tokens == plain.estimated_input_tokens + 1000


def test_over_a_websocket_only_upstreams_that_offer_one_count(admission):
    assert admission.websocket_upstream(CHAT) is None
    with pytest.raises(UpgradeRequired):
        admission.admit(ANY, CHAT, Asked("gpt-priced"), BODY, START_MS, websocket=True)
    with pytest.raises(ModelNotFound):
        admission.admit(ANY, CHAT, Asked("nobody"), BODY, START_MS, websocket=True)

    upstream, *_ = admission.candidates(ANY, CHAT, "gpt-priced").upstreams
    upstream.websocket = object()

    assert admission.websocket_upstream(CHAT) is upstream
    assert admission.websocket_upstream(CHAT, off={upstream.name}) is None
    assert admission.websocket_upstream("another") is None
    assert admission.websocket_upstream(CHAT, "gpt-priced") is upstream
    assert admission.websocket_upstream(CHAT, "nobody") is None
    assert admission.admit(ANY, CHAT, Asked("gpt-priced"), BODY, START_MS, websocket=True).upstreams == (upstream,)
