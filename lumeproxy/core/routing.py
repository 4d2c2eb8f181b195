"""Which upstreams may serve a model. First match in the operator's order wins. Pure; knows no upstream's health."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lumeproxy.core.patterns import matches

# The models that an upstream serves when the operator wrote no routes, by the upstream's kind.
DEFAULT_PATTERNS = {
    "anthropic": ("claude-*",),
    "openai": ("gpt-*", "o1*", "o3*", "o4*", "chatgpt-*", "codex-*"),
    "echo": ("claude-echo", "gpt-echo"),
}
REMEMBERED_MODELS = 1024  # names asked so far whose route is kept at hand; the rest is matched anew


@dataclass(frozen=True, slots=True)
class Route:
    """`pattern` → upstream names in the order they are tried; `upstream_model` replaces the name asked, if set."""

    pattern: str
    upstreams: tuple[str, ...]
    upstream_model: str | None = None


class RoutingTable:
    """The routes in force, in order."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._found: dict[str, Route | None] = {}

    def find(self, model: str) -> Route | None:
        """The route of a model name, None when nothing serves it."""
        try:
            return self._found[model]
        except KeyError:
            found = next((route for route in self.routes if matches(route.pattern, model)), None)
            if len(self._found) < REMEMBERED_MODELS:
                self._found[model] = found
            return found


def default_routes(upstreams: Sequence[tuple[str, str]]) -> list[Route]:
    """Routes for (name, kind) pairs: each kind's usual models, upstreams of one kind tried in order."""
    routes = []
    for kind, patterns in DEFAULT_PATTERNS.items():
        names = tuple(name for name, of in upstreams if of == kind)
        routes += [Route(pattern, names) for pattern in patterns if names]
    return routes
