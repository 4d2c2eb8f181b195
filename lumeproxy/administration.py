"""The admin API, the metrics, notices and retention of a server, made from its settings. Part of the composition root."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from lumeproxy.core.metrics import gauge, gauges
from lumeproxy.core.money import parse_usd
from lumeproxy.core.selection import Selection
from lumeproxy.dashboard import metrics
from lumeproxy.dashboard.adminkeys import AdminAuth, Throttle
from lumeproxy.dashboard.api import Api
from lumeproxy.dashboard.notifier import Notifier, Webhook
from lumeproxy.dashboard.operations import Operations
from lumeproxy.dashboard.retention import Retention, Terms
from lumeproxy.dashboard.routes import PREFIX
from lumeproxy.proxy.address import Addresses
from lumeproxy.proxy.call import Books
from lumeproxy.proxy.live import LiveCalls
from lumeproxy.sections import webhook_secret
from lumeproxy.settings import Settings
from lumeproxy.store import notices

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Administration:
    """What a server runs beside the calls: `pages` by their paths, and endless `work`, which the server awaits."""

    pages: Mapping[str, Handler]
    work: tuple[Coroutine[Any, Any, None], ...]


async def make_administration(
    settings: Settings,
    environ: Mapping[str, str],
    books: Books,
    operations: Operations,
    guesses: Throttle,
    live: LiveCalls,
    session: aiohttp.ClientSession,
    selection: Selection,
) -> Administration:
    """Put it together. Raises ConfigError for a webhook without a usable secret."""
    database, clock, log = books.database, books.clock, books.log
    addresses = Addresses(settings.server.trusted_proxies)

    def address(request: web.BaseRequest) -> str:
        return addresses.client(request.remote, request.headers.getall("X-Forwarded-For", ()))

    def collect() -> Iterator[str]:
        yield from books.tally.lines()
        yield from gauge("lumeproxy_open_calls", "Calls that are running.", len(live))
        yield from gauge("lumeproxy_write_queue", "Transactions that wait for the database.", database.queue_length())
        members, now_ms = selection.members, clock.monotonic_ms()
        taking = {name: int(member.takes_calls(now_ms)) for name, member in members.items()}
        yield from gauges("lumeproxy_upstream_up", "Whether an upstream is sent calls.", "upstream", taking)
        refused = {name: member.refused for name, member in members.items()}
        text = "Credentials that are set aside, since their upstream refuses them."
        yield from gauges("lumeproxy_upstream_refused_credentials", text, "upstream", refused)
        yield from database.commit_times.lines(
            "lumeproxy_commit_seconds", "How long a commit took, waiting not included."
        )

    webhook = make_webhook(settings, environ)
    terms = Terms(settings.retention.address_days, settings.retention.usage_days, settings.retention.answer_days)
    await database.write(notices.set_usual, parse_usd(settings.notices.low_balance))
    auth = AdminAuth(database, clock, guesses, on_block=lambda blocked: log.warning("guessing", address=blocked))
    api = Api(
        operations,
        database,
        auth,
        clock,
        log,
        address=address,
        body_bytes=settings.limits.admin_body_bytes,
        body_idle_ms=settings.limits.body_idle_ms,
    )
    page = metrics.MetricsPage(auth, address, collect)
    work = [Retention(database, clock, log, terms).run()]
    if webhook is not None:
        work.append(Notifier(database, clock, log, session, webhook).run())
    pages = {PREFIX: api.serve, PREFIX + r"/{path:[\s\S]*}": api.serve, metrics.PATH: page.serve}
    return Administration(pages, tuple(work))


def make_webhook(settings: Settings, environ: Mapping[str, str]) -> Webhook | None:
    """Where notices go, None where nobody is told. Raises ConfigError."""
    given = settings.notices
    if given.webhook_url is None:
        return None
    return Webhook(given.webhook_url, webhook_secret(given, environ), given.timeout_ms, given.give_up_h)
