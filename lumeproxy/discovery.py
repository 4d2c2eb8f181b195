"""Asks upstreams with `models = "discover"` what models they have, so that GET /v1/models can list them: soon after the
start or a change of settings, then every `failover.discover_s`. A list is kept until the next one comes; routes decide
alone where a call goes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from structlog.typing import FilteringBoundLogger

from lumeproxy.clock import Clock
from lumeproxy.proxy.call import Books
from lumeproxy.proxy.free import Models
from lumeproxy.settings import Settings
from lumeproxy.upstreams.http import HttpUpstream
from lumeproxy.upstreams.probe import probe

# How often it is looked whether one is due: new settings may name one.
LOOK_S = 5.0
# One that could not be asked is asked again sooner.
AGAIN_MS = 60_000
# Of one upstream; the largest market of models lists about 400.
MOST_MODELS = 1_000


@dataclass(slots=True)
class Discovery:
    """What to ask, and whom to tell; `due_ms` is when each upstream is asked next, by its name and address."""

    settings: Settings
    books: Books
    models: Models
    clock: Clock
    log: FilteringBoundLogger
    due_ms: dict[tuple[str, str], int] = field(default_factory=dict)

    async def forever(self) -> None:
        """Ask whoever is due, for ever."""
        while True:
            await self.once()
            await asyncio.sleep(LOOK_S)

    async def once(self) -> None:
        """Ask whoever is due now."""
        now_ms = self.clock.monotonic_ms()
        upstreams = self.books.admission.upstreams
        due = [
            upstream
            for name in self.models.names.discovering
            if isinstance(upstream := upstreams.get(name), HttpUpstream)
            and self.due_ms.get((name, upstream.address), 0) <= now_ms
        ]
        async with asyncio.TaskGroup() as group:
            for upstream in due:
                group.create_task(self._ask(upstream, now_ms))
        if due:
            self.models.refresh()

    async def _ask(self, upstream: HttpUpstream, now_ms: int) -> None:
        limits = self.settings.limits
        found = await probe(upstream, self.clock, timeout_ms=limits.probe_ms, body_bytes=limits.probe_bytes)
        known = found.models is not None
        self.due_ms[upstream.name, upstream.address] = now_ms + (
            self.settings.failover.discover_s * 1000 if known else AGAIN_MS
        )
        if found.models is None:
            self.log.warning("discovery", upstream=upstream.name, error=found.error or "it gave no list")
        else:
            self.models.names.discovered[upstream.name] = found.models[:MOST_MODELS]
            self.log.debug("discovery", upstream=upstream.name, models=len(found.models))
