"""The composition root: what is made, in which order, and who ends it. Decides nothing about a call.

database → recovery of calls that a crash left open → session to the upstreams → exchange → routes → sites → control
socket; undone in the reverse order when the process is asked to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from structlog.typing import FilteringBoundLogger

from lumeproxy import __version__, logs
from lumeproxy.clock import Clock
from lumeproxy.compose import make_admission, make_names, make_upstreams
from lumeproxy.dashboard.control import ControlSocket
from lumeproxy.dashboard.operations import Operations
from lumeproxy.dialects import DIALECTS
from lumeproxy.errors import ConfigError
from lumeproxy.proxy.address import Addresses
from lumeproxy.proxy.auth import Auth
from lumeproxy.proxy.call import Books
from lumeproxy.proxy.door import Runner
from lumeproxy.proxy.exchange import Exchange
from lumeproxy.proxy.free import Counts, Models
from lumeproxy.proxy.live import Cause, LiveCalls, Patience
from lumeproxy.proxy.passage import ExchangeLimits
from lumeproxy.proxy.site import Site
from lumeproxy.settings import Settings
from lumeproxy.store import accounts, ledger
from lumeproxy.store.database import Database

# Waiting connections while the loop is busy; a burst of a thousand streams must not be refused.
BACKLOG = 4096
FIRST_ACCOUNT = "me"


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it listens, and what tests and the control socket reach into."""

    port: int
    host: str
    database: Database
    operations: Operations
    live: LiveCalls
    first_key: str | None


def serve(settings: Settings, environ: Mapping[str, str]) -> int:
    """Serve until a signal; the exit status. Raises ConfigError before the first request could be taken."""
    return asyncio.run(_serve(settings, environ))


async def _serve(settings: Settings, environ: Mapping[str, str]) -> int:
    clock = Clock()
    log = logs.make(level=settings.log.level, style=settings.log.format, clock=clock)
    undo = logs.bridge_library_loggers(log)
    try:
        async with running(settings, environ, clock, log) as server:
            sys.stdout.write(greeting(settings, server))
            sys.stdout.flush()
            await _until_signalled()
            log.info("stopping", running_calls=len(server.live), drain_s=settings.server.drain_s)
    finally:
        undo()
    return 0


@contextlib.asynccontextmanager
async def running(
    settings: Settings, environ: Mapping[str, str], clock: Clock, log: FilteringBoundLogger
) -> AsyncIterator[Server]:
    """A server from its first file to its last settlement."""
    sockets = _listen(settings)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(_close_all, sockets)
        database = await Database.open(settings.server.data, queue_limit=settings.limits.write_queue)
        stack.push_async_callback(database.close)
        if database.has_wal_reset_bug:
            log.info(
                "sqlite", version=database.sqlite_version, note="has the WAL-reset bug; kept harmless by one writer"
            )
        await _recover(database, clock, log)
        session = await stack.enter_async_context(_session(settings))
        upstreams = make_upstreams(settings, environ, session)
        admission = make_admission(settings, upstreams)
        books = Books(database, admission, clock, log, set())
        live = LiveCalls(
            clock,
            _patience(settings),
            checkpoint_ms=settings.limits.checkpoint_ms,
            keep=lambda rows: _keep(database, rows),
        )
        auth = Auth(database, clock)
        operations = Operations(database, clock, on_change=lambda: _changed(auth, database, live, stack_tasks))
        stack_tasks = await stack.enter_async_context(asyncio.TaskGroup())
        watch = stack_tasks.create_task(live.watch())
        stack.callback(watch.cancel)
        first_key = await _first_account(settings, database, operations)
        exchange = Exchange(
            books=books,
            auth=auth,
            live=live,
            addresses=Addresses(settings.server.trusted_proxies),
            limits=_exchange_limits(settings),
        )
        site = Site(
            exchange=exchange,
            counts=Counts(exchange),
            models=Models(auth, admission.routing, make_names(settings, upstreams)),
            hosts=_hosts(settings),
        )
        runner = Runner(site.application(DIALECTS), log, header_bytes=settings.limits.header_bytes)
        await runner.setup()
        stack.push_async_callback(_stop, runner, live, settings.server.drain_s, log)
        for sock in sockets:
            await web.SockSite(runner, sock, backlog=BACKLOG, ssl_context=_tls(settings)).start()
        control = ControlSocket(operations, settings.server.data, log)
        await control.start()
        stack.push_async_callback(control.stop)
        port = sockets[0].getsockname()[1]
        yield Server(port, settings.server.host, database, operations, live, first_key)


def greeting(settings: Settings, server: Server) -> str:
    """What a person reads at the start: address, data, and on the very first run the key and how to use it."""
    scheme = "https" if settings.server.tls_certificate else "http"
    host = f"[{server.host}]" if ":" in server.host else server.host
    base = f"{scheme}://{host}:{server.port}"
    lines = [f"lumeproxy {__version__} serves on {base}", f"  data folder: {settings.server.data}"]
    if server.first_key is not None:
        model = "" if settings.upstreams else " --model claude-echo"
        lines += [
            f"  account '{FIRST_ACCOUNT}' was made with {settings.billing.first_credit} credits. Its key, shown only now:",
            "",
            f"    {server.first_key}",
            "",
            "  Connect Claude Code:",
            "",
            f"    ANTHROPIC_BASE_URL={base} ANTHROPIC_AUTH_TOKEN={server.first_key} claude{model}",
            "",
            "  Other clients: base URL "
            f"{base} (Anthropic SDKs) or {base}/v1 (OpenAI SDKs, Codex), model claude-echo or gpt-echo to try it out.",
        ]
    return "\n".join(lines) + "\n"


# --- parts -------------------------------------------------------------------------------------------------------------


async def _recover(database: Database, clock: Clock, log: FilteringBoundLogger) -> None:
    """Charge what a crash left open by its last checkpoint, release the rest, and say so."""
    now_ms = clock.now_ms()
    ended = await database.write(ledger.recover, now_ms + 1, now_ms)
    if ended:
        log.warning(
            "recovered",
            interrupted_calls=len(ended),
            charged_nanousd=sum(settled.cost_nanousd for _, settled in ended),
        )


async def _first_account(settings: Settings, database: Database, operations: Operations) -> str | None:
    """On an empty database, the first account with credit and a key; the key's text, else None."""
    if await database.read(accounts.count):
        return None
    nanousd = int(settings.billing.first_credit * 10**9)
    await operations.run("account.create", {"name": FIRST_ACCOUNT, "credit_nanousd": nanousd})
    made = await operations.run(
        "key.create", {"account": FIRST_ACCOUNT, "name": "first", "expires_ms": None, "models": []}
    )
    key: str = made["key"]
    return key


def _keep(database: Database, rows: list[tuple[str, ledger.CheckPoint]]) -> None:
    """Hand checkpoints to the writer; nobody waits for them, and a failed one is followed by the next."""
    database.submit_urgent(ledger.checkpoint, rows).add_done_callback(_seen)


def _seen(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()


def _changed(auth: Auth, database: Database, live: LiveCalls, tasks: asyncio.TaskGroup) -> None:
    """An account or key has changed: forget what is remembered, and end the calls of those suspended."""
    auth.forget()
    tasks.create_task(_end_suspended(database, live))


async def _end_suspended(database: Database, live: LiveCalls) -> None:
    for account_id in await database.read(accounts.inactive_ids):
        live.interrupt_account(account_id, Cause.SUSPENDED)


async def _stop(runner: Runner, live: LiveCalls, drain_s: int, log: FilteringBoundLogger) -> None:
    """Take no more calls, let the running ones end, cut and settle what is left."""
    for site in tuple(runner.sites):
        await site.stop()
    try:
        async with asyncio.timeout(drain_s):
            await live.emptied()
    except TimeoutError:
        log.warning("cutting", running_calls=len(live))
        live.interrupt_account(None, Cause.STOPPING)
        await live.emptied()
    await runner.cleanup()


async def _until_signalled() -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def _session(settings: Settings) -> AsyncIterator[aiohttp.ClientSession]:
    """The session to all upstreams, with aiohttp's defaults put right (reliability.md section 3)."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=15, ttl_dns_cache=60)
    async with aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.limits.connect_ms / 1000),
        max_line_size=settings.limits.header_bytes,
        max_field_size=settings.limits.header_bytes,
        read_bufsize=65_536,
    ) as session:
        yield session


def _listen(settings: Settings) -> list[socket.socket]:
    """Bound sockets, whose small send buffer every connection inherits: a client that never reads would otherwise
    hold megabytes of the kernel's memory."""
    server = settings.server
    made: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            made.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.limits.send_buffer_bytes)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.setblocking(False)
    except OSError as error:
        _close_all(made)
        raise ConfigError(_bind_sentence(error, server.host, server.port)) from None
    return made


def _bind_sentence(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"server.port {port} on {host} is in use by another program; stop that one or choose another with --port."
        )
    if error.errno == errno.EACCES:
        return f"server.port {port} may not be opened by this user; choose one above 1023 with --port."
    return f"server.host {host!r} is no address of this machine ({error.strerror or error}); set it with --host."


def _close_all(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.server.tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.server.tls_certificate, settings.server.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"server.tls_certificate and server.tls_key can't be used: {error.strerror or error}."
        ) from None
    return context


def _hosts(settings: Settings) -> frozenset[str] | None:
    """The Host names that are answered, None for all: a web page must not reach a local proxy by DNS rebinding."""
    server = settings.server
    if server.allowed_hosts:
        return frozenset(host.lower() for host in server.allowed_hosts)
    if server.trusted_proxies or server.tls_certificate:
        return None
    return frozenset({"localhost", "127.0.0.1", "[::1]", server.host.lower()})


def _patience(settings: Settings) -> Patience:
    limits = settings.limits
    return Patience(
        first_byte_ms=limits.first_byte_ms,
        stream_idle_ms=limits.stream_idle_ms,
        client_stall_ms=limits.client_stall_ms,
        call_ms=limits.call_ms,
        drain_ms=settings.billing.drain_ms,
    )


def _exchange_limits(settings: Settings) -> ExchangeLimits:
    limits = settings.limits
    return ExchangeLimits(
        body_bytes=limits.body_bytes,
        body_idle_ms=limits.body_idle_ms,
        event_bytes=limits.event_bytes,
        json_reply_bytes=limits.json_reply_bytes,
        json_buffer_bytes=limits.json_buffer_bytes,
        drain_ms=settings.billing.drain_ms,
    )
