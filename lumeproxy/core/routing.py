"""Which upstreams may serve a model. First match in the operator's order wins. Pure; knows no upstream's health."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lumeproxy.core.patterns import matches
from lumeproxy.core.pricing import bare_name

# The models that an upstream serves when the operator wrote no routes, by the upstream's kind.
DEFAULT_PATTERNS = {
    "anthropic": ("claude-*",),
    "openai": ("gpt-*", "o1*", "o3*", "o4*", "chatgpt-*", "codex-*"),
    "echo": ("claude-echo", "gpt-echo"),
}
REMEMBERED_MODELS = 1024  # names asked so far whose route is kept at hand; the rest is matched anew


@dataclass(frozen=True, slots=True)
class Route:
    """`pattern` → upstream names in the order they are tried, or shared by `weights` where there are some (one each).

    `upstream_model` replaces the name asked, if set; `models` does at single upstreams, as (upstream, name) pairs.
    """

    pattern: str
    upstreams: tuple[str, ...]
    upstream_model: str | None = None
    weights: tuple[int, ...] = ()
    models: tuple[tuple[str, str], ...] = ()

    def model_at(self, upstream: str) -> str | None:
        """The name that an upstream is asked for, None for the one that the client asked for."""
        for name, model in self.models:
            if name == upstream:
                return model
        return self.upstream_model

    def weights_of(self, upstreams: Sequence[str]) -> tuple[int, ...]:
        """The weights of some of the route's upstreams, none for a route in order."""
        if not self.weights:
            return ()
        known = dict(zip(self.upstreams, self.weights, strict=True))
        return tuple(known[name] for name in upstreams)


class RoutingTable:
    """The routes in force, in order, and other names for models: `aliases` by the name that clients ask for.

    A `[1m]` behind a model's name asks for its long context. Claude Code (2.1.331) takes it off and sends a header instead;
    from other clients such a name is routed as the bare one where no route is its own.
    """

    def __init__(self, routes: Iterable[Route], aliases: Mapping[str, str] | None = None) -> None:
        self.routes = tuple(routes)
        self.aliases = dict(aliases or {})
        self._found: dict[str, tuple[str, tuple[Route, ...]]] = {}

    def find(self, model: str) -> Route | None:
        """The first route of a model name, None when nothing serves it."""
        routes = self.resolve(model)[1]
        return routes[0] if routes else None

    def resolve(self, model: str) -> tuple[str, tuple[Route, ...]]:
        """What a name that a client asked for stands for, and its routes: the first that matches, and those of the same
        pattern, which serve it through other APIs. No routes where nothing serves it."""
        try:
            return self._found[model]
        except KeyError:
            found = self._resolved(model)
            if len(self._found) < REMEMBERED_MODELS:
                self._found[model] = found
            return found

    def _resolved(self, model: str) -> tuple[str, tuple[Route, ...]]:
        name = self.aliases.get(model) or self.aliases.get(bare_name(model)) or model
        if not any(route.pattern == name for route in self.routes):
            name = bare_name(name)
        first = next((route for route in self.routes if matches(route.pattern, name)), None)
        if first is None:
            return name, ()
        return name, tuple(route for route in self.routes if route.pattern == first.pattern)


def default_routes(upstreams: Sequence[tuple[str, str]]) -> list[Route]:
    """Routes for (name, kind) pairs: each kind's usual models, upstreams of one kind tried in order."""
    routes = []
    for kind, patterns in DEFAULT_PATTERNS.items():
        names = tuple(name for name, of in upstreams if of == kind)
        routes += [Route(pattern, names) for pattern in patterns if names]
    return routes
