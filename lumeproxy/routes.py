"""From the operator's routes and aliases to the table that calls are routed by. What is wrong in them is found here, before
a port is opened for calls, and said in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lumeproxy.core.patterns import is_pattern, matches
from lumeproxy.core.routing import Route, RoutingTable, default_routes
from lumeproxy.errors import ConfigError
from lumeproxy.settings import Route as RouteSettings
from lumeproxy.settings import Settings
from lumeproxy.upstreams.base import Upstream

ECHO_MODELS = ("claude-echo", "gpt-echo")
DISCOVER = "discover"  # in the place of a list of models: the upstream is asked for it


def listed_models(settings: Settings) -> dict[str, tuple[str, ...]]:
    """The models of upstreams whose operator lists them."""
    return {
        name: upstream.models
        for name, upstream in settings.upstreams.items()
        if upstream.models and upstream.models != (DISCOVER,)
    }


def make_routing(settings: Settings, upstreams: Mapping[str, Upstream]) -> RoutingTable:
    """The operator's routes, or each kind's usual models without any. The echo models always work, whatever patterns
    there are; only a route of the very name sends one elsewhere."""
    routes = [_checked_route(number, route, upstreams) for number, route in enumerate(settings.routes, 1)]
    listed = listed_models(settings)
    usual = default_routes([(u.name, u.kind) for u in upstreams.values() if u.name not in listed])
    echoes = [route for route in usual if route.pattern in ECHO_MODELS]
    if not routes:
        names = dict.fromkeys(model for models in listed.values() for model in models)
        own = [Route(model, tuple(name for name in listed if model in listed[name])) for model in names]
        return _with_aliases([*echoes, *own, *(route for route in usual if route not in echoes)], settings)
    named = {route.pattern for route in routes}
    for model in echoes:
        if model.pattern not in named:
            # Before the pattern that would catch it, else last: GET /v1/models has the same order.
            catching = (at for at, route in enumerate(routes) if matches(route.pattern, model.pattern))
            routes.insert(next(catching, len(routes)), model)
    return _with_aliases(routes, settings)


def _checked_route(number: int, route: RouteSettings, upstreams: Mapping[str, Upstream]) -> Route:
    """A route of the operator. Raises ConfigError for an upstream that does not exist, stands there twice or shares no API
    with another one (but in a route that begins with `*`, for all sorts of models), and for weights that not all have."""
    where, names = f"Route {number} ({route.model})", tuple(upstream.name for upstream in route.upstreams)
    for name in names:
        if name not in upstreams:
            raise ConfigError(f"{where} names the upstream {name!r}; there are {', '.join(sorted(upstreams))}.")
    if len(set(names)) < len(names):
        raise ConfigError(f"{where} names an upstream twice.")
    for name in names if len(names) > 1 and not route.model.startswith("*") else ():
        spoken = upstreams[name].dialects
        if not any(spoken & upstreams[other].dialects for other in names if other != name):
            raise ConfigError(
                f"{where} names the upstream {name!r}, which speaks {', '.join(sorted(spoken))} and could never stand in "
                f"for another one there: give it a route of its own for the same model, or set upstreams.{name}.dialects."
            )
    weights = tuple(upstream.weight for upstream in route.upstreams if upstream.weight is not None)
    if weights and len(weights) < len(names):
        raise ConfigError(f"{where} has a weight for some of its upstreams; give one to all of them, or to none.")
    return route_of(route)


def route_of(route: RouteSettings) -> Route:
    """A route as it is written, unchecked."""
    names = tuple(upstream.name for upstream in route.upstreams)
    weights = tuple(upstream.weight for upstream in route.upstreams if upstream.weight is not None)
    models = tuple((upstream.name, upstream.model) for upstream in route.upstreams if upstream.model is not None)
    return Route(route.model, names, route.upstream_model, weights, models)


def _with_aliases(routes: Sequence[Route], settings: Settings) -> RoutingTable:
    """The routes, and the operator's other names. Raises ConfigError for one that leads nowhere."""
    table = RoutingTable(routes)
    for alias, model in settings.aliases.items():
        if is_pattern(alias) or not alias:
            raise ConfigError(f"aliases.{alias!r} must be a whole name, without *; a route takes a pattern.")
        if model in settings.aliases or is_pattern(model) or table.find(model) is None:
            raise ConfigError(f"aliases.{alias} stands for {model!r}, which no route serves.")
    return RoutingTable(routes, settings.aliases)
