"""The site put together from settings and from what runs: the dashboard, the set-up scripts, the map of it all. Part of the
composition root."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from aiohttp import web

from lumeproxy.clients.script import render
from lumeproxy.clock import Clock
from lumeproxy.compose import make_hosts
from lumeproxy.dashboard import texts
from lumeproxy.dashboard.operations import Operations
from lumeproxy.dashboard.pages import Handler, Pages
from lumeproxy.dashboard.passwords import Passwords
from lumeproxy.dashboard.render import Renderer
from lumeproxy.dashboard.sitemap import ROUTES
from lumeproxy.dashboard.texts import Texts
from lumeproxy.dashboard.visit import Desk, House, Priced, Rules
from lumeproxy.errors import ConfigError
from lumeproxy.proxy.address import Addresses
from lumeproxy.proxy.admission import Admission
from lumeproxy.proxy.auth import Terms
from lumeproxy.proxy.call import Books
from lumeproxy.proxy.exchange import Exchange
from lumeproxy.proxy.free import Counts, Models
from lumeproxy.proxy.guessing import Guesses
from lumeproxy.proxy.live import LiveCalls
from lumeproxy.proxy.scripts import Scripts
from lumeproxy.proxy.site import Site
from lumeproxy.proxy.websocket import WebSockets
from lumeproxy.settings import Settings

TEXT_BYTES = 1_000_000
HOUR_MS = 3_600_000


def make_pages(
    settings: Settings, operations: Operations, books: Books, live: LiveCalls, guesses: Guesses, models: Models
) -> Pages:
    """All pages. Raises ConfigError for a text of the operator's that can't be read."""
    rules, clock = settings.dashboard, books.clock
    addresses = Addresses(settings.server.trusted_proxies)

    def address(request: web.BaseRequest) -> str:
        return addresses.client(request.remote, request.headers.getall("X-Forwarded-For", ()))

    desk = Desk(
        database=books.database,
        operations=operations,
        clock=clock,
        log=books.log,
        renderer=Renderer(),
        passwords=Passwords(rules.password_chars),
        texts=make_texts(settings),
        guesses=guesses,
        registrations=_registrations(settings, clock),
        rules=Rules(
            secure=settings.server.tls_certificate is not None or bool(settings.server.trusted_proxies),
            registration=rules.registration,
            session_ms=rules.session_hours * HOUR_MS,
            keys_of_account=rules.keys_of_account,
            streams_of_account=rules.streams_of_account,
        ),
        address=address,
        url=Scripts(render, addresses).url,
        house=House(
            running=lambda: len(live),
            folder=settings.server.data,
            prices=lambda: priced(books.admission, models.listed, clock.now_ms()),
        ),
        ending=asyncio.Event(),
        waiting=Counter(),
    )
    return Pages(desk, ROUTES)


def make_site(
    settings: Settings,
    exchange: Exchange,
    models: Models,
    websockets: WebSockets,
    pages: Pages,
    others: Mapping[str, Handler],
) -> Site:
    """The map of the API with the set-up scripts and the pages in it."""
    return Site(
        exchange=exchange,
        counts=Counts(exchange),
        models=models,
        websockets=websockets,
        scripts=Scripts(render, Addresses(settings.server.trusted_proxies)),
        hosts=make_hosts(settings),
        others=others,
        pages=pages.handlers(),
    )


def priced(admission: Admission, names: Sequence[str], now_ms: int) -> list[Priced]:
    """What each route serves at which price, in the routes' order; a pattern of which no model is known, as it stands."""
    found = []
    for route in admission.routing.routes:
        mine = [name for name in names if admission.routing.find(name) is route]
        for name in mine or [route.pattern]:
            price = admission.usual_price(name.replace("*", "x"), now_ms)
            found.append(Priced(name, route.upstreams, price))
    return found


def make_texts(settings: Settings) -> Texts:
    """The operator's texts, or the defaults. Raises ConfigError for a file that can't be read."""
    rules = settings.dashboard
    return Texts(
        terms=texts.render(_text("terms_file", rules.terms_file) or texts.TERMS),
        privacy=texts.render(_text("privacy_file", rules.privacy_file) or texts.PRIVACY),
        version=rules.terms_version,
    )


def required_terms(settings: Settings, url: str) -> Terms | None:
    """What an account must have accepted before its first call, None for nothing. A server behind a proxy is named by the
    first of its allowed hosts."""
    server, rules = settings.server, settings.dashboard
    if not rules.terms_required:
        return None
    if server.trusted_proxies and server.allowed_hosts:
        url = f"https://{server.allowed_hosts[0]}"
    return Terms(rules.terms_version, f"{url}/sign-in")


def _text(field: str, file: Path | None) -> str:
    if file is None:
        return ""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"dashboard.{field}: {file} can't be read: {reason}.") from None
    if len(text) > TEXT_BYTES:
        raise ConfigError(f"dashboard.{field}: {file} is larger than a text can be.")
    return text


def _registrations(settings: Settings, clock: Clock) -> Guesses:
    """Counts accounts by address, as wrong keys are counted."""
    return Guesses(clock, per_minute=settings.dashboard.registrations_per_minute)
