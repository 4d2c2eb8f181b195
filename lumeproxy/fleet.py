"""The upstreams as the desk sees them: those of a running server, or those that the settings name where none runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lumeproxy.compose import configured
from lumeproxy.core.selection import Selection
from lumeproxy.dashboard.upstreams import Known
from lumeproxy.proxy.call import Books
from lumeproxy.proxy.dispatch import Dispatcher
from lumeproxy.settings import Settings
from lumeproxy.upstreams import KINDS, echo


@dataclass(frozen=True, slots=True)
class RunningFleet:
    """The upstreams that a server sends calls to; they follow a change of its settings."""

    dispatcher: Dispatcher
    books: Books

    @property
    def selection(self) -> Selection | None:
        """Their health."""
        return self.dispatcher.selection

    def known(self) -> Mapping[str, Known]:
        """All of them by name."""
        return {
            name: Known(upstream.kind, upstream.address, len(upstream.identities))
            for name, upstream in self.books.admission.upstreams.items()
        }

    def places(self, name: str) -> tuple[int, int]:
        """How many calls one has running, and waiting for it."""
        slots = self.dispatcher.slots.get(name)
        return (0, 0) if slots is None else (slots.running, slots.waiting)


@dataclass(frozen=True, slots=True)
class ConfiguredFleet:
    """The upstreams that the settings name; no credential is read for it, which only the server may have."""

    settings: Settings
    environ: Mapping[str, str]

    @property
    def selection(self) -> Selection | None:
        """Nobody knows their health."""
        return None

    def known(self) -> Mapping[str, Known]:
        """All of them by name, the built-in echo among them."""
        found = {}
        for name, one in configured(self.settings, self.environ).items():
            kind = KINDS.get(one.kind)
            address = echo.ADDRESS if kind is None else one.base_url or kind.DEFAULT_BASE_URL
            found[name] = Known(one.kind, address, max(1, len(one.api_key or one.api_key_env or one.api_key_file)))
        found.setdefault(echo.NAME, Known(echo.KIND, echo.ADDRESS, 1))
        return found

    def places(self, name: str) -> tuple[int, int]:
        """Nobody runs them."""
        return (0, 0)
