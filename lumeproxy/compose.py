"""From settings to the values that the layers below take: upstreams, routes, prices. Part of the composition root.

Everything that can be wrong in a configuration beyond the form of a field is found here, before a port is opened for
calls, and said in one sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import aiohttp

from lumeproxy import upstreams as kinds
from lumeproxy.core.catalogue import Catalogue
from lumeproxy.core.money import multiplier_ppm
from lumeproxy.core.patterns import is_pattern, matches
from lumeproxy.core.pricing import OperatorPrice, PriceBook
from lumeproxy.core.routing import Route, RoutingTable, default_routes
from lumeproxy.errors import ConfigError
from lumeproxy.proxy.admission import Admission, Billing
from lumeproxy.settings import Settings, Upstream, credential
from lumeproxy.upstreams import echo
from lumeproxy.upstreams.base import Upstream as Endpoint

# Kinds that are set up from a lone environment variable when the configuration names no upstreams.
KEY_VARIABLES = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY"}
ECHO_MODELS = ("claude-echo", "gpt-echo")
ECHO_PRICE = ("1", "5")  # dollars per million tokens in and out: round figures, so that a bill can be checked by eye


def make_upstreams(
    settings: Settings, environ: Mapping[str, str], session: aiohttp.ClientSession
) -> dict[str, Endpoint]:
    """All upstreams by name, the built-in echo among them. Raises ConfigError for one without a credential."""
    made: dict[str, Endpoint] = {}
    for name, upstream in _configured(settings, environ).items():
        if upstream.kind == echo.KIND:
            made[name] = echo.EchoUpstream(name)
        else:
            key = credential(name, upstream, environ)
            made[name] = kinds.KINDS[upstream.kind](name, upstream.base_url, key, frozenset(upstream.dialects), session)
    made.setdefault(echo.NAME, echo.EchoUpstream())
    return made


def _configured(settings: Settings, environ: Mapping[str, str]) -> dict[str, Upstream]:
    if settings.upstreams:
        return settings.upstreams
    return {
        kind: Upstream.model_validate({"kind": kind, "api_key_env": variable})
        for kind, variable in KEY_VARIABLES.items()
        if environ.get(variable)
    }


def make_admission(settings: Settings, upstreams: Mapping[str, Endpoint]) -> Admission:
    """Routes, prices and billing. Raises ConfigError for a route to an upstream that does not exist."""
    routing = make_routing(settings, upstreams)
    billing = settings.billing
    try:
        ppm = multiplier_ppm(billing.multiplier)
    except ValueError as error:
        raise ConfigError(f"The setting billing.multiplier is wrong: {error}.") from None
    return Admission(
        routing=routing,
        upstreams=upstreams,
        prices=make_prices(settings, routing),
        billing=Billing(
            multiplier_ppm=ppm,
            hold_output_tokens=billing.hold_output_tokens,
            hold_least_output_tokens=billing.hold_least_output_tokens,
            bound_input_tokens=billing.bound_input_tokens,
            bound_referred_tokens=billing.bound_referred_tokens,
            bound_reasoning_tokens=billing.bound_reasoning_tokens,
        ),
    )


def make_routing(settings: Settings, upstreams: Mapping[str, Endpoint]) -> RoutingTable:
    """The operator's routes, or each kind's usual models without any; the echo models last, so that they can be
    routed elsewhere."""
    routes = []
    for number, route in enumerate(settings.routes, 1):
        for name in route.upstreams:
            if name not in upstreams:
                known = ", ".join(sorted(upstreams))
                raise ConfigError(f"Route {number} ({route.model}) names the upstream {name!r}; there are {known}.")
        routes.append(Route(route.model, route.upstreams, route.upstream_model))
    usual = default_routes([(u.name, u.kind) for u in upstreams.values()])
    echoes = [route for route in usual if route.pattern in ECHO_MODELS]
    if not routes:
        # The echo's exact names stand before the patterns that would catch them.
        return RoutingTable([*echoes, *(route for route in usual if route not in echoes)])
    return RoutingTable([*routes, *echoes])


def make_prices(settings: Settings, routing: RoutingTable) -> PriceBook:
    """The operator's prices over the bundled list, which is loaded only where some route needs it."""
    overrides = []
    for name, given in settings.prices.items():
        try:
            overrides.append((name, OperatorPrice.of(**given.model_dump())))
        except ValueError as error:
            raise ConfigError(f'The setting prices."{name}" is wrong: {error}.') from None
    priced = {name for name, _ in overrides}
    for model in ECHO_MODELS:
        dollars_in, dollars_out = ECHO_PRICE
        overrides.append((model, OperatorPrice.of(input=dollars_in, output=dollars_out)))
    needed = any(route.pattern not in priced and route.pattern not in ECHO_MODELS for route in routing.routes)
    return PriceBook(overrides, Catalogue.load() if needed else None)


class Names:
    """Model names behind route patterns: the operator's price names and the bundled list of each provider."""

    def __init__(self, priced: Iterable[str], listed: Iterable[str]) -> None:
        self._known = tuple(dict.fromkeys([*(name for name in priced if not is_pattern(name)), *listed]))

    def models(self, pattern: str) -> list[str]:
        """Known names that match the pattern."""
        return [name for name in self._known if matches(pattern, name)]


def make_names(settings: Settings, upstreams: Mapping[str, Endpoint]) -> Names:
    """What GET /v1/models can list."""
    providers = sorted({u.provider for u in upstreams.values() if u.provider is not None})
    wanted = not settings.prices or any(is_pattern(route.model) for route in settings.routes) or not settings.routes
    listed = (
        [name for provider in providers for name in Catalogue.load().models(provider)] if wanted and providers else []
    )
    return Names(settings.prices, listed)
