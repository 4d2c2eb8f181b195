"""From settings to the values that the layers below take: upstreams, routes, prices, sockets. Part of the composition root.

Everything that can be wrong in a configuration beyond the form of a field is found here, before a port is opened for
calls, and said in one sentence.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

import aiohttp
from structlog.typing import FilteringBoundLogger

from lumeproxy import upstreams as kinds
from lumeproxy.clock import Clock
from lumeproxy.core.catalogue import Catalogue
from lumeproxy.core.limits import Limits
from lumeproxy.core.money import multiplier_ppm
from lumeproxy.core.patterns import is_pattern, matches
from lumeproxy.core.pricing import OperatorPrice, PriceBook
from lumeproxy.core.routing import RoutingTable
from lumeproxy.dialects import WEBSOCKET
from lumeproxy.errors import ConfigError
from lumeproxy.proxy.admission import Admission, Billing
from lumeproxy.proxy.exchange import Exchange
from lumeproxy.proxy.live import LiveCalls, Patience
from lumeproxy.proxy.pace import Pace
from lumeproxy.proxy.passage import ExchangeLimits
from lumeproxy.proxy.websocket import ConnectionLimits, WebSockets
from lumeproxy.routes import DISCOVER, ECHO_MODELS, listed_models, make_routing
from lumeproxy.settings import ModelPrice, Settings, Upstream
from lumeproxy.store import ledger
from lumeproxy.store.database import Database, unattended
from lumeproxy.upstreams import echo
from lumeproxy.upstreams.base import Access
from lumeproxy.upstreams.base import Upstream as Endpoint
from lumeproxy.upstreams.connector import READ_BYTES, Connector
from lumeproxy.upstreams.credentials import credentials
from lumeproxy.upstreams.websocket import HttpDialer, WebSocketLimits

# Kinds that are set up from a lone environment variable when the configuration names no upstreams.
KEY_VARIABLES = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY"}
MESSAGES = "anthropic_messages"  # the dialect of Claude Code
ECHO_PRICE = ("1", "5")  # dollars per million tokens in and out: round figures, so that a bill can be checked by eye


def make_upstreams(
    settings: Settings, environ: Mapping[str, str], session: aiohttp.ClientSession
) -> dict[str, Endpoint]:
    """All upstreams by name, the built-in echo among them. Raises ConfigError for one without a credential."""
    made: dict[str, Endpoint] = {}
    for name, upstream in configured(settings, environ).items():
        if upstream.kind == echo.KIND:
            made[name] = echo.EchoUpstream(name)
        else:
            access = Access(
                base_url=upstream.base_url,
                credentials=credentials(name, upstream, environ),
                auth=upstream.auth,
                path_prefix=upstream.path_prefix,
                headers=tuple((header, secret.get_secret_value()) for header, secret in upstream.headers.items()),
            )
            http = made[name] = kinds.KINDS[upstream.kind].make(name, access, frozenset(upstream.dialects), session)
            if upstream.websocket and WEBSOCKET.dialect.name in http.dialects:
                http.websocket = HttpDialer(http, session, make_websocket_limits(settings))
        if upstream.websocket and made[name].websocket is None:
            raise ConfigError(
                f"upstreams.{name}.websocket: only an upstream that speaks {WEBSOCKET.dialect.name} over HTTP can have it."
            )
    made.setdefault(echo.NAME, echo.EchoUpstream())
    return made


def configured(settings: Settings, environ: Mapping[str, str]) -> dict[str, Upstream]:
    """The upstreams that the settings name, else those that the environment has a key for."""
    if settings.upstreams:
        return settings.upstreams
    return {
        kind: Upstream.model_validate({"kind": kind, "api_key_env": variable})
        for kind, variable in KEY_VARIABLES.items()
        if environ.get(variable)
    }


def serves_claude(upstreams: Mapping[str, Endpoint]) -> bool:
    """Whether Claude Code gets an answer from a provider, not only from the echo."""
    return any(u.kind != echo.KIND and MESSAGES in u.dialects for u in upstreams.values())


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
        served=listed_models(settings),
        costs={name: make_costs(name, upstream) for name, upstream in settings.upstreams.items() if upstream.prices},
    )


def make_costs(name: str, upstream: Upstream) -> PriceBook:
    """What the provider behind an upstream bills. Raises ConfigError."""
    return PriceBook(_operator_prices(f"upstreams.{name}.prices", upstream.prices), None)


def make_prices(settings: Settings, routing: RoutingTable) -> PriceBook:
    """The operator's prices over the bundled list, which is loaded only where some route needs it."""
    overrides = _operator_prices("prices", settings.prices)
    priced = {name for name, _ in overrides}
    for model in ECHO_MODELS:
        dollars_in, dollars_out = ECHO_PRICE
        overrides.append((model, OperatorPrice.of(input=dollars_in, output=dollars_out)))
    needed = any(route.pattern not in priced and route.pattern not in ECHO_MODELS for route in routing.routes)
    return PriceBook(overrides, Catalogue.load() if needed else None)


def _operator_prices(section: str, prices: Mapping[str, ModelPrice]) -> list[tuple[str, OperatorPrice]]:
    """Prices by model or pattern. Raises ConfigError for one finer than money."""
    found = []
    for name, given in prices.items():
        try:
            found.append((name, OperatorPrice.of(**given.model_dump())))
        except ValueError as error:
            raise ConfigError(f'The setting {section}."{name}" is wrong: {error}.') from None
    return found


class Names:
    """Model names behind route patterns: the operator's price names and the bundled list of each provider; `discovered`
    are the lists of upstreams that are asked for theirs (`discovering`), once they are known."""

    def __init__(self, priced: Iterable[str], listed: Iterable[str], discovering: Iterable[str] = ()) -> None:
        self._known = tuple(dict.fromkeys([*(name for name in priced if not is_pattern(name)), *listed]))
        self.discovering = frozenset(discovering)
        self.discovered: dict[str, tuple[str, ...]] = {}

    def models(self, pattern: str, upstreams: Sequence[str] = ()) -> list[str]:
        """Known names that match the pattern; of a route's `upstreams`, those that one of them may have."""
        lists = [frozenset(self.discovered[name]) for name in upstreams if name in self.discovered]
        known = self._known
        if lists and len(lists) == len(upstreams):
            known = tuple(name for name in known if any(name in one for one in lists))
        own = (name for upstream in upstreams for name in self.discovered.get(upstream, ()))
        return [name for name in dict.fromkeys([*known, *own]) if matches(pattern, name)]


def make_names(settings: Settings, upstreams: Mapping[str, Endpoint]) -> Names:
    """What GET /v1/models can list."""
    providers = sorted({u.provider for u in upstreams.values() if u.provider is not None})
    wanted = not settings.prices or any(is_pattern(route.model) for route in settings.routes) or not settings.routes
    listed = (
        [name for provider in providers for name in Catalogue.load().models(provider)] if wanted and providers else []
    )
    own = [model for models in listed_models(settings).values() for model in models if not is_pattern(model)]
    asked = (name for name, upstream in settings.upstreams.items() if upstream.models == (DISCOVER,))
    return Names([*settings.prices, *own], listed, asked)


def unpriced(settings: Settings, admission: Admission, names: Names, now_ms: int) -> list[str]:
    """The operator's routes of which no model has a price, so that every call is refused."""
    found = []
    for route in settings.routes:
        known = [route.model.replace("*", "x"), *(names.models(route.model) if is_pattern(route.model) else ())]
        own = (price for price in settings.prices if matches(route.model, price.replace("*", "x")))
        if not any(admission.is_priced(name, now_ms) for name in known) and next(own, None) is None:
            found.append(route.model)
    return found


def warn_unpriced(
    log: FilteringBoundLogger, settings: Settings, admission: Admission, names: Names, now_ms: int
) -> None:
    """One line for each of the operator's routes that has no price."""
    for model in unpriced(settings, admission, names, now_ms):
        log.warning("no_price", route=model, note=f'calls of it are refused: add [prices."{model}"] with input, output')


# --- connections -------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def make_session(settings: Settings) -> AsyncIterator[aiohttp.ClientSession]:
    """The session to all upstreams, with aiohttp's defaults put right (reliability.md section 3)."""
    connector = Connector(
        receive_buffer_bytes=settings.limits.receive_buffer_bytes, limit=0, keepalive_timeout=15, ttl_dns_cache=60
    )
    async with aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.limits.connect_ms / 1000),
        max_line_size=settings.limits.header_bytes,
        max_field_size=settings.limits.header_bytes,
        read_bufsize=READ_BYTES // 4,
    ) as session:
        yield session


def listen(settings: Settings) -> list[socket.socket]:
    """Bound sockets, whose small send buffer every connection inherits: a client that never reads would otherwise
    hold megabytes of the kernel's memory. A name may have an address that this machine does not (localhost without
    IPv6); one that can be bound is enough."""
    server = settings.server
    made: list[socket.socket] = []
    absent: OSError | None = None
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            try:
                made.append(_bound(family, address, settings.limits.send_buffer_bytes))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                absent = error
        if absent is not None and not made:
            raise absent
    except (OSError, UnicodeError) as error:  # the latter for what can't be a host's name
        close_all(made)
        known = error if isinstance(error, OSError) else OSError(None, "it can't be a name")
        raise ConfigError(bind_sentence(known, server.host, server.port)) from None
    return made


def _bound(family: int, address: Any, send_buffer_bytes: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def bind_sentence(error: OSError, host: str, port: int) -> str:
    """What is wrong with an address that can't be bound, and the mend."""
    if error.errno == errno.EADDRINUSE:
        return (
            f"server.port {port} on {host} is in use by another program; stop that one or choose another with --port."
        )
    if error.errno == errno.EACCES:
        return f"server.port {port} may not be opened by this user; choose one above 1023 with --port."
    return f"server.host {host!r} is no address of this machine ({error.strerror or error}); set it with --host."


def base_url(settings: Settings, port: int) -> str:
    """The address that clients on this machine reach the server by."""
    host = settings.server.host
    scheme = "https" if settings.server.tls_certificate else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Close the sockets; harmless to repeat."""
    for sock in sockets:
        sock.close()


def make_tls(settings: Settings) -> ssl.SSLContext | None:
    """The context of https, None for http. Raises ConfigError for files that can't be used."""
    if settings.server.tls_certificate is None:
        return None
    certificate, key = settings.server.tls_certificate, settings.server.tls_key
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    for name, file in (("tls_certificate", certificate), ("tls_key", key)):
        try:
            assert file is not None
            file.read_bytes()
        except OSError as error:
            raise ConfigError(f"server.{name}: {file} can't be read: {error.strerror or error}.") from None
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"server.tls_certificate and server.tls_key can't be used: {error.strerror or error}; they are {certificate} "
            f"and {key}."
        ) from None
    return context


def make_hosts(settings: Settings) -> frozenset[str] | None:
    """The Host names that are answered, None for all: a web page must not reach a local proxy by DNS rebinding."""
    server = settings.server
    if server.allowed_hosts:
        return frozenset(host.lower() for host in server.allowed_hosts)
    if server.trusted_proxies or server.tls_certificate:
        return None
    return frozenset({"localhost", "127.0.0.1", "[::1]", server.host.lower()})


def make_pace(settings: Settings, clock: Clock) -> Pace:
    """How fast and how many at once."""
    limits = settings.limits
    return Pace(
        clock,
        key=Limits(limits.key_calls_per_minute, limits.key_concurrent_calls),
        account=Limits(limits.account_calls_per_minute, limits.account_concurrent_calls),
        address=Limits(limits.address_calls_per_minute, limits.address_concurrent_calls),
    )


def make_live(settings: Settings, clock: Clock, database: Database) -> LiveCalls:
    """The watch over running calls."""

    def keep(rows: list[tuple[str, ledger.CheckPoint]]) -> None:
        """Hand checkpoints to the writer; nobody waits for them, and a failed one is followed by the next."""
        database.submit_urgent(ledger.checkpoint, rows).add_done_callback(unattended)

    return LiveCalls(clock, make_patience(settings), checkpoint_ms=settings.limits.checkpoint_ms, keep=keep)


def make_patience(settings: Settings) -> Patience:
    """How long a call may make no progress."""
    limits = settings.limits
    return Patience(
        first_byte_ms=limits.first_byte_ms,
        stream_idle_ms=limits.stream_idle_ms,
        client_stall_ms=limits.client_stall_ms,
        call_ms=limits.call_ms,
        drain_ms=settings.billing.drain_ms,
    )


def make_websocket_limits(settings: Settings) -> WebSocketLimits:
    """Of WebSockets to upstreams."""
    limits = settings.limits
    return WebSocketLimits(
        message_bytes=limits.websocket_message_bytes,
        header_bytes=limits.header_bytes,
        connect_ms=limits.websocket_connect_ms,
    )


def make_websockets(settings: Settings, exchange: Exchange) -> WebSockets:
    """The WebSockets that clients open, and their limits."""
    limits = ConnectionLimits(
        idle_ms=settings.limits.websocket_idle_ms,
        open_ms=settings.limits.websocket_open_ms,
        per_account=settings.limits.websockets_per_account,
    )
    return WebSockets(exchange, WEBSOCKET, limits)


def make_exchange_limits(settings: Settings) -> ExchangeLimits:
    """What a call may carry."""
    limits = settings.limits
    return ExchangeLimits(
        body_bytes=limits.body_bytes,
        body_idle_ms=limits.body_idle_ms,
        body_bytes_per_s=limits.body_bytes_per_s,
        event_bytes=limits.event_bytes,
        json_reply_bytes=limits.json_reply_bytes,
        json_buffer_bytes=limits.json_buffer_bytes,
        count_ms=limits.count_ms,
        drain_ms=settings.billing.drain_ms,
    )


def make_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop: uvloop where the extra brought it, which costs 6 % less a call; None for Python's own."""
    try:
        import uvloop
    except ImportError:
        return None
    made: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return made
