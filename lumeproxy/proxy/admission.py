"""Whether a call may go out, where to, at what price and with how much credit held. Decides from values; no I/O.

Must not know wire formats or the database. Raises; the caller renders.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lumeproxy.core import estimate
from lumeproxy.core.patterns import first_match
from lumeproxy.core.pricing import Price, PriceBook, cost
from lumeproxy.core.routing import Route, RoutingTable
from lumeproxy.core.settlement import Bounds, bounds
from lumeproxy.core.types import STANDARD_TERMS, Asked, Terms, Usage
from lumeproxy.errors import ModelNotFound, UpgradeRequired
from lumeproxy.proxy.auth import allows
from lumeproxy.store.keys import StoredKey
from lumeproxy.upstreams.base import Upstream

# The estimate of the input is held with a quarter on top: the rule of thumb misses by 10 % at the 95th percentile, and a
# prompt that is written to a cache costs a quarter more than one that is not.
HOLD_INPUT_PERCENT = 125


@dataclass(frozen=True, slots=True)
class Billing:
    """What the operator set for billing: tokens, and the multiplier in millionths."""

    multiplier_ppm: int
    hold_output_tokens: int
    hold_least_output_tokens: int
    bound_input_tokens: int
    bound_referred_tokens: int
    bound_reasoning_tokens: int


class Candidates(NamedTuple):
    """The upstreams that may serve a call, and the route that names them; `model` is what the asked name stands for."""

    route: Route
    upstreams: tuple[Upstream, ...]
    model: str

    @property
    def weights(self) -> tuple[int, ...]:
        """Their shares, none where they are tried in order."""
        return self.route.weights_of([upstream.name for upstream in self.upstreams]) if self.route.weights else ()

    def model_at(self, upstream: str, asked: str) -> str | None:
        """The name to put in the place of the asked one at an upstream, None where that one goes as it is."""
        name = self.route.model_at(upstream) or self.model
        return None if name == asked else name


@dataclass(frozen=True, slots=True)
class Plan:
    """An admitted call. `want_nanousd` is held if the credit allows, `at_least_nanousd` must be;
    a slice is what a hold is extended by. `upstream_model` is the name at the first upstream."""

    asked: Asked
    candidates: Candidates
    upstream_model: str
    price: Price
    estimated_input_tokens: int
    slice_tokens: int
    slice_nanousd: int
    want_nanousd: int
    at_least_nanousd: int

    @property
    def route(self) -> Route:
        """The route taken."""
        return self.candidates.route

    @property
    def upstreams(self) -> tuple[Upstream, ...]:
        """The upstreams that may serve it, in the route's order."""
        return self.candidates.upstreams


class Admission:
    """The rules in force: routes, upstreams, prices, billing. `served` are the models that an upstream has, as patterns,
    where the operator lists them; `costs` what its provider bills, where that differs from the price."""

    def __init__(
        self,
        *,
        routing: RoutingTable,
        upstreams: Mapping[str, Upstream],
        prices: PriceBook,
        billing: Billing,
        served: Mapping[str, Sequence[str]] | None = None,
        costs: Mapping[str, PriceBook] | None = None,
    ) -> None:
        self.routing = routing
        self.billing = billing
        self.calibration = estimate.Calibration()
        self.upstreams = upstreams
        self._prices = prices
        self._served = dict(served or {})
        self._costs = dict(costs or {})

    def websocket_upstream(self, dialect: str, model: str = "", off: Collection[str] = ()) -> Upstream | None:
        """The first upstream in the routes' order, or in the order of a model's routes, that offers WebSockets for a
        dialect and is not switched `off`; None without any."""
        routes = self.routing.resolve(model)[1] if model else self.routing.routes
        named = (self.upstreams[name] for route in routes for name in route.upstreams)
        offering = (u for u in named if u.websocket is not None and dialect in u.dialects)
        return next((upstream for upstream in offering if upstream.name not in off), None)

    def candidates(self, key: StoredKey, dialect: str, model: str, *, websocket: bool = False) -> Candidates:
        """The route of a model and those of its upstreams that speak the dialect, over a WebSocket if need be, and have
        the model. A key may use a model by each name that its patterns include. Raises ModelNotFound, and UpgradeRequired
        where it is only the WebSocket that is missing."""
        name, routes = self.routing.resolve(model)
        if not routes or not (allows(key, model) or allows(key, name)):
            raise ModelNotFound(
                f"The model {model} is not available with this key. GET /v1/models lists those that are."
            )
        spoken = False
        for route in routes:
            upstreams = tuple([one for one in self._serving(route, name) if dialect in one.dialects])
            spoken = spoken or bool(upstreams)
            if websocket:
                upstreams = tuple([one for one in upstreams if one.websocket is not None])
            if upstreams:
                return Candidates(route, upstreams, name)
        if spoken:
            raise UpgradeRequired(f"The model {model} is not served over WebSockets here; use HTTP.")
        raise ModelNotFound(f"The model {model} is not served through this API here; use the API of its provider.")

    def _serving(self, route: Route, model: str) -> list[Upstream]:
        """A route's upstreams, without those whose list of models has it not."""
        return [self.upstreams[name] for name in route.upstreams if self._has(name, route.model_at(name) or model)]

    def _has(self, upstream: str, model: str) -> bool:
        listed = self._served.get(upstream)
        return listed is None or first_match(listed, model) is not None

    def admit(
        self,
        key: StoredKey,
        dialect: str,
        asked: Asked,
        body: bytes,
        now_ms: int,
        *,
        carried_tokens: int = 0,
        websocket: bool = False,
    ) -> Plan:
        """Plan a billed call of `body` (decoded bytes), priced as of `now_ms`; `carried_tokens` come on top of what is in
        the body, from an answer that it goes on from.

        Raises as `candidates`, and ModelNotFound
        where there is no route, no allowance or no price: a model is never free by accident.
        """
        found = self.candidates(key, dialect, asked.model, websocket=websocket)
        first = found.upstreams[0]
        upstream_model = found.route.model_at(first.name) or found.model
        price = self.price(asked.model, upstream_model, first.provider, now_ms, asked.terms)
        if price is None:
            raise ModelNotFound(
                f"The model {asked.model} has no price here, so it is not served: ask your operator to add it to [prices]."
            )
        tokens = (
            estimate.body_tokens(body, has_attachments=asked.has_attachments) * self._factor(upstream_model) // 1000
            + carried_tokens
            + 1
        )
        billing = self.billing
        limit = asked.max_output_tokens if asked.max_output_tokens is not None else billing.hold_output_tokens
        limit = max(1, limit)
        slice_tokens = min(limit, billing.hold_output_tokens)
        least_tokens = min(limit, billing.hold_least_output_tokens) if asked.stream else slice_tokens
        held_input = tokens * HOLD_INPUT_PERCENT // 100
        want = cost(price, Usage(input_tokens=held_input, output_tokens=slice_tokens), billing.multiplier_ppm)
        least = want
        if least_tokens != slice_tokens:
            least = cost(price, Usage(input_tokens=held_input, output_tokens=least_tokens), billing.multiplier_ppm)
        slice_nanousd = cost(price, Usage(output_tokens=slice_tokens), billing.multiplier_ppm)
        return Plan(asked, found, upstream_model, price, tokens, slice_tokens, slice_nanousd, want, least)

    def is_priced(self, model: str, at_ms: int) -> bool:
        """Whether a model has a route, and a price at one of its upstreams."""
        return self.usual_price(model, at_ms) is not None

    def usual_price(self, model: str, at_ms: int) -> Price | None:
        """The price of a model at the first of its upstreams that has one, under the usual terms."""
        model, routes = self.routing.resolve(model)
        prices = (
            self.price(model, route.model_at(upstream.name) or model, upstream.provider, at_ms, STANDARD_TERMS)
            for route in routes
            for upstream in self._serving(route, model)
        )
        return next((price for price in prices if price is not None), None)

    def price(self, asked: str, upstream_model: str, provider: str | None, at_ms: int, terms: Terms) -> Price | None:
        """The price in force for a model under these terms, None when there is none."""
        name = self.routing.resolve(asked)[0] if asked in self.routing.aliases else asked
        return self._prices.price(name, upstream_model, provider, at_ms, terms)

    def cost_price(self, plan: Plan, upstream: str, charged: Price, at_ms: int) -> Price:
        """What the provider bills for a call at an upstream: the operator's word for it, else the price that is charged."""
        book = self._costs.get(upstream)
        if book is None:
            return charged
        found = plan.candidates
        name = found.route.model_at(upstream) or found.model
        return book.price(found.model, name, None, at_ms, plan.asked.terms) or charged

    def bounds(self, plan: Plan, body_bytes: int, relayed_bytes: int) -> Bounds:
        """The most that the upstream may claim for this call."""
        return bounds(
            body_bytes=body_bytes,
            relayed_bytes=relayed_bytes,
            refers_elsewhere=plan.asked.refers_elsewhere,
            floor_input_tokens=self.billing.bound_input_tokens,
            referred_input_tokens=self.billing.bound_referred_tokens,
            reasoning_allowance_tokens=self.billing.bound_reasoning_tokens,
        )

    def output_tokens(self, upstream_model: str, chars: int) -> int:
        """Our estimate of delivered output of so many characters."""
        return estimate.chars_tokens(chars) * estimate.model_factor_permille(upstream_model) // 1000 if chars else 0

    def observe(self, plan: Plan, reported_input_tokens: int) -> None:
        """Learn from a call's true input how far the estimate was off."""
        rough = plan.estimated_input_tokens * 1000 // self._factor(plan.upstream_model)
        self.calibration.observe(plan.upstream_model, rough, reported_input_tokens)

    def _factor(self, model: str) -> int:
        return self.calibration.factor(model)
