"""The upstreams as a whole: where calls are sent from, and as the desk sees them, those of a running server or those that
the settings name where none runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from lumeproxy.clock import Clock
from lumeproxy.compose import configured, make_session, make_upstreams
from lumeproxy.core.health import HealthRules, RepeatBudget
from lumeproxy.core.selection import Selection
from lumeproxy.dashboard.upstreams import Asked, Known
from lumeproxy.proxy.call import Books
from lumeproxy.proxy.dispatch import Dispatcher, FailoverRules
from lumeproxy.settings import Limits, Settings
from lumeproxy.store import disabled
from lumeproxy.store.database import Database
from lumeproxy.upstreams import KINDS, echo
from lumeproxy.upstreams.base import Upstream
from lumeproxy.upstreams.http import HttpUpstream
from lumeproxy.upstreams.probe import Probe, probe


@dataclass(frozen=True, slots=True)
class RunningFleet:
    """The upstreams that a server sends calls to; they follow a change of its settings."""

    dispatcher: Dispatcher
    books: Books
    limits: Limits

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

    async def ask(self, name: str) -> Sequence[Asked]:
        """Ask one with each of its credentials."""
        return await _asked(self.books.admission.upstreams[name], self.books.clock, self.limits)


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

    async def ask(self, name: str) -> Sequence[Asked]:
        """Ask one with each of its credentials, which are read for it."""
        given = {one: upstream for one, upstream in configured(self.settings, self.environ).items() if one == name}
        async with make_session(self.settings) as session:
            made = make_upstreams(self.settings.model_copy(update={"upstreams": given}), self.environ, session)
            return await _asked(made[name], Clock(), self.settings.limits)


async def _asked(upstream: Upstream, clock: Clock, limits: Limits) -> list[Asked]:
    """All credentials at once; the echo, which is no server, is always there."""
    if not isinstance(upstream, HttpUpstream):
        return [Asked(reachable=True, status=None, accepted=None, latency_ms=0, models=None, error="")]
    ms, size = limits.probe_ms, limits.probe_bytes
    numbers = range(1, len(upstream.identities) + 1)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(probe(upstream, clock, timeout_ms=ms, body_bytes=size, credential=number))
            for number in numbers
        ]
    return [_told(task.result()) for task in tasks]


def _told(found: Probe) -> Asked:
    models = None if found.models is None else len(found.models)
    return Asked(found.reachable, found.status, found.credential_ok, found.latency_ms, models, found.error)


def concurrent_calls(settings: Settings) -> dict[str, int]:
    """How many calls each upstream may have running at once; 0 is no limit."""
    return {name: upstream.concurrent_calls for name, upstream in settings.upstreams.items()}


async def make_dispatcher(
    settings: Settings, upstreams: Mapping[str, Upstream], database: Database, clock: Clock, log: FilteringBoundLogger
) -> Dispatcher:
    """Where calls are sent from, by the rules of [failover], with the upstreams that the operator has not switched off."""
    given = settings.failover
    made = Dispatcher(
        clock,
        log,
        HealthRules(
            failures=given.failures,
            rest_ms=given.rest_ms,
            longest_rest_ms=given.longest_rest_ms,
            set_aside_ms=given.set_aside_ms,
        ),
        FailoverRules(
            attempts=given.attempts,
            budget_ms=given.budget_ms,
            brief_wait_ms=given.brief_wait_ms,
            slow_ms=given.slow_ms,
            queue_ms=given.queue_ms,
            queue_calls=given.queue_calls,
        ),
        RepeatBudget(percent=given.repeat_percent, burst=given.repeat_burst),
    )
    made.offer(upstreams, concurrent_calls(settings))
    made.selection.disable(await database.read(disabled.names))
    return made
