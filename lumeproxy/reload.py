"""Reading the settings anew while calls are running, on SIGHUP: upstreams with their credentials, routes, prices, billing.

All or nothing: what is wrong in the new settings leaves the old in force. A running call keeps what it began with. What
belongs to the start (where the server listens, its data, its limits) stays; the log says that it would need a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import aiohttp
from structlog.typing import FilteringBoundLogger

from lumeproxy.compose import make_admission, make_names, make_upstreams, warn_unpriced
from lumeproxy.errors import ConfigError
from lumeproxy.fleet import concurrent_calls
from lumeproxy.proxy.call import Books
from lumeproxy.proxy.dispatch import Dispatcher
from lumeproxy.proxy.free import Models
from lumeproxy.settings import Settings

STARTING_SECTIONS = ("server", "failover", "limits", "notices", "retention", "log")


@dataclass(frozen=True, slots=True)
class Reload:
    """What is read anew (`load` raises ConfigError), and where it comes into force."""

    load: Callable[[], Settings]
    environ: Mapping[str, str]
    session: aiohttp.ClientSession
    books: Books
    dispatcher: Dispatcher
    models: Models
    log: FilteringBoundLogger

    async def whenever(self, asked: asyncio.Event, settings: Settings) -> None:
        """Reload each time the event is set, for ever; `settings` are those in force."""
        while True:
            await asked.wait()
            asked.clear()
            settings = self.once(settings)

    def once(self, old: Settings) -> Settings:
        """Read the settings and put them into force; those that are in force then."""
        try:
            new = self.load()
            upstreams = make_upstreams(new, self.environ, self.session)
            admission = make_admission(new, upstreams)
            names = make_names(new, upstreams)
        except ConfigError as error:
            self.log.error("reload_refused", reason=error.message)
            return old
        admission.calibration = self.books.admission.calibration
        self.books.admission = admission
        self.dispatcher.offer(upstreams, concurrent_calls(new))
        self.models.offer(admission, names)
        need = [name for name in STARTING_SECTIONS if getattr(new, name) != getattr(old, name)]
        note = {"note": f"changes in {', '.join(need)} need a restart"} if need else {}
        self.log.info("reloaded", upstreams=sorted(upstreams), routes=len(admission.routing.routes), **note)
        warn_unpriced(self.log, new, admission, names, self.books.clock.now_ms())
        return new
