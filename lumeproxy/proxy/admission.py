"""Whether a call may go out, where to, at what price and with how much credit held. Decides from values; no I/O.

Must not know wire formats or the database. Raises; the caller renders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lumeproxy.core import estimate
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


@dataclass(frozen=True, slots=True)
class Plan:
    """An admitted call. `want_nanousd` is held if the credit allows, `at_least_nanousd` must be;
    a slice is what a hold is extended by."""

    asked: Asked
    route: Route
    upstreams: tuple[Upstream, ...]
    upstream_model: str
    price: Price
    estimated_input_tokens: int
    slice_tokens: int
    slice_nanousd: int
    want_nanousd: int
    at_least_nanousd: int


class Admission:
    """The rules in force: routes, upstreams, prices, billing."""

    def __init__(
        self, *, routing: RoutingTable, upstreams: Mapping[str, Upstream], prices: PriceBook, billing: Billing
    ) -> None:
        self.routing = routing
        self.billing = billing
        self.calibration = estimate.Calibration()
        self._upstreams = upstreams
        self._prices = prices

    def websocket_upstream(self, dialect: str, model: str = "") -> Upstream | None:
        """The first upstream in the routes' order, or in the order of a model's route, that offers WebSockets for a
        dialect; None without any."""
        route = self.routing.find(model) if model else None
        routes = self.routing.routes if not model else () if route is None else (route,)
        named = (self._upstreams[name] for route in routes for name in route.upstreams)
        return next((u for u in named if u.websocket is not None and dialect in u.dialects), None)

    def candidates(
        self, key: StoredKey, dialect: str, model: str, *, websocket: bool = False
    ) -> tuple[Route, tuple[Upstream, ...]]:
        """The route of a model and those of its upstreams that speak the dialect, over a WebSocket if need be. Raises
        ModelNotFound, and UpgradeRequired where it is only the WebSocket that is missing."""
        route = self.routing.find(model)
        if route is None or not allows(key, model):
            raise ModelNotFound(
                f"The model {model} is not available with this key. GET /v1/models lists those that are."
            )
        upstreams = tuple(u for name in route.upstreams if dialect in (u := self._upstreams[name]).dialects)
        if not upstreams:
            raise ModelNotFound(f"The model {model} is not served through this API here; use the API of its provider.")
        if websocket:
            upstreams = tuple(u for u in upstreams if u.websocket is not None)
            if not upstreams:
                raise UpgradeRequired(f"The model {model} is not served over WebSockets here; use HTTP.")
        return route, upstreams

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
        route, upstreams = self.candidates(key, dialect, asked.model, websocket=websocket)
        upstream_model = route.upstream_model or asked.model
        price = self.price(asked.model, upstream_model, upstreams[0].provider, now_ms, asked.terms)
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
        least = cost(price, Usage(input_tokens=held_input, output_tokens=least_tokens), billing.multiplier_ppm)
        slice_nanousd = cost(price, Usage(output_tokens=slice_tokens), billing.multiplier_ppm)
        return Plan(asked, route, upstreams, upstream_model, price, tokens, slice_tokens, slice_nanousd, want, least)

    def is_priced(self, model: str, at_ms: int) -> bool:
        """Whether a model has a route, and a price at one of its upstreams."""
        route = self.routing.find(model)
        if route is None:
            return False
        providers = {self._upstreams[name].provider for name in route.upstreams}
        name = route.upstream_model or model
        return any(self.price(model, name, provider, at_ms, STANDARD_TERMS) is not None for provider in providers)

    def price(self, asked: str, upstream_model: str, provider: str | None, at_ms: int, terms: Terms) -> Price | None:
        """The price in force for a model under these terms, None when there is none."""
        return self._prices.price(asked, upstream_model, provider, at_ms, terms)

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
