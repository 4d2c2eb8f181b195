"""The composition root: what is made, in which order, and who ends it. Decides nothing about a call.

sockets → database → recovery of calls that a crash left open → session to the upstreams → exchange → control socket →
routes → sites → on the very first run an account and a key; undone in the reverse order when the process is asked to stop,
so that commands reach the server for as long as a call is running.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import http_parser, web
from structlog.typing import FilteringBoundLogger

from lumeproxy import logs
from lumeproxy.administration import make_administration
from lumeproxy.background import background
from lumeproxy.clock import Clock
from lumeproxy.compose import (
    base_url,
    bind_sentence,
    close_all,
    listen,
    make_admission,
    make_exchange_limits,
    make_live,
    make_loop,
    make_names,
    make_pace,
    make_session,
    make_tls,
    make_upstreams,
    make_websockets,
)
from lumeproxy.dashboard.control import ControlSocket, NotRunning, call
from lumeproxy.dashboard.operations import Operations
from lumeproxy.dashboard.upstreams import UpstreamDesk
from lumeproxy.dialects import DIALECTS
from lumeproxy.discovery import Discovery
from lumeproxy.errors import ConfigError, LumeError
from lumeproxy.fleet import RunningFleet, make_dispatcher
from lumeproxy.front import make_pages, make_site, required_terms
from lumeproxy.greeting import Hint, Start, first_account, greet, make_offer, make_start, tell_stop, warn
from lumeproxy.proxy.address import Addresses
from lumeproxy.proxy.auth import Auth
from lumeproxy.proxy.call import Books
from lumeproxy.proxy.door import Runner
from lumeproxy.proxy.exchange import Exchange
from lumeproxy.proxy.free import Models
from lumeproxy.proxy.guessing import Guesses
from lumeproxy.proxy.live import Cause, LiveCalls
from lumeproxy.reload import Reload
from lumeproxy.settings import Settings
from lumeproxy.store import accounts, keys, ledger
from lumeproxy.store.database import Database
from lumeproxy.store.lock import Locked

# Waiting connections while the loop is busy; a burst of a thousand streams must not be refused.
BACKLOG = 4096
# asyncio takes so many in one turn of the loop; out of descriptors it tries as often, each time with a line in the log.
ACCEPTS = 64
ANY_TIME_MS = 2**62
# How often it is looked whether running calls still may: a suspension is in force within a second.
ENFORCE_S = 0.5
# How often the places of the database's files are looked at.
FILES_S = 0.5
# A command that works on the database without a server has it for a moment; it is waited for 5 s.
COMMAND_LOOKS, COMMAND_PAUSE_S = 50, 0.1


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it listens, and what tests and the control socket reach into."""

    port: int
    base_url: str
    database: Database
    operations: Operations
    live: LiveCalls
    start: Start

    @property
    def first_key(self) -> str | None:
        """The key of the very first start."""
        return self.start.first_key


@dataclass(frozen=True, slots=True)
class Signals:
    """What reaches a running server from outside: `hurry` ends its patience with calls that are running when it stops,
    `hangup` has it read its settings anew by `load`."""

    hurry: asyncio.Event
    hangup: asyncio.Event
    load: Callable[[], Settings]


def serve(
    load: Callable[[], Settings],
    environ: Mapping[str, str],
    *,
    config: Path | None,
    say: Callable[[str], object],
    hint: Hint,
) -> int:
    """Serve until a signal; the exit status. `load` reads the settings, now and on each SIGHUP, `config` is the file that
    they come from, `say` shows a person the greeting, `hint` spells a command. Raises ConfigError before the first request
    could be taken, LumeError where the first key can't be shown."""
    with asyncio.Runner(loop_factory=make_loop()) as runner:
        return runner.run(_serve(load, environ, config, say, hint))


async def _serve(
    load: Callable[[], Settings],
    environ: Mapping[str, str],
    config: Path | None,
    say: Callable[[str], object],
    hint: Hint,
) -> int:
    settings, clock = load(), Clock()
    log = logs.make(level=settings.log.level, style=settings.log.format, clock=clock)
    undo = logs.bridge_library_loggers(log)
    try:
        _check_parser()
        with _signals() as (stop, hurry, hangup):
            signals = Signals(hurry, hangup, load)
            async with running(settings, environ, clock, log, signals=signals, config=config) as server:
                await greet(server.start, say, hint, log)
                # What is there now stays; the collector need not look through it again for every few hundred calls.
                gc.collect()
                gc.freeze()
                await stop.wait()
                tell_stop(log, len(server.live), settings.server.drain_s)
            log.info("stopped")
    finally:
        undo()
    return 0


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    environ: Mapping[str, str],
    clock: Clock,
    log: FilteringBoundLogger,
    *,
    signals: Signals | None = None,
    config: Path | None = None,
) -> AsyncIterator[Server]:
    """A server from its first file to its last settlement."""
    signals = signals or Signals(asyncio.Event(), asyncio.Event(), lambda: settings)
    tls = make_tls(settings)
    sockets = await _listening(settings)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(close_all, sockets)
        port = sockets[0].getsockname()[1]
        url = base_url(settings, port)
        session = await stack.enter_async_context(make_session(settings))
        upstreams = make_upstreams(settings, environ, session)
        admission = make_admission(settings, upstreams)
        database = await _opened(settings)
        stack.push_async_callback(database.close)
        await _recover(database, clock, log)
        live = make_live(settings, clock, database)
        guesses = Guesses(clock, per_minute=settings.limits.failed_keys_per_minute)
        auth = Auth(database, clock, guesses, on_block=_told(log), terms=required_terms(settings, url))
        changed = asyncio.Event()
        dispatcher = await make_dispatcher(settings, upstreams, database, clock, log)
        books = Books(database, admission, clock, log, set())
        desk = UpstreamDesk(database, clock, RunningFleet(dispatcher, books, settings.limits))
        more = desk.operations()
        operations = Operations(database, clock, on_change=lambda: _changed(auth, changed), base_url=url, more=more)
        watches = (live.watch(), _enforce(database, live, clock, changed, log), _watch_files(database, log))
        await stack.enter_async_context(background(*watches))
        control = ControlSocket(operations, settings.server.data, log)
        stack.push_async_callback(control.stop)
        await control.start()
        exchange = Exchange(
            books=books,
            auth=auth,
            live=live,
            pace=make_pace(settings, clock),
            addresses=Addresses(settings.server.trusted_proxies),
            limits=make_exchange_limits(settings),
            dispatcher=dispatcher,
        )
        beside = await make_administration(
            settings, environ, books, operations, guesses, live, session, dispatcher.selection
        )
        names = make_names(settings, upstreams)
        models = Models(exchange, names, clock)
        reload = Reload(signals.load, environ, session, books, dispatcher, models, log)
        discovery = Discovery(settings, books, models, clock, log)
        await stack.enter_async_context(
            background(reload.whenever(signals.hangup, settings), discovery.forever(), *beside.work)
        )
        websockets = make_websockets(settings, exchange)
        pages = make_pages(settings, operations, books, live, guesses, models)
        site = make_site(settings, exchange, models, websockets, pages, beside.pages)
        limits = settings.limits
        runner = Runner(site.application(DIALECTS), log, header_bytes=limits.header_bytes, head_ms=limits.head_ms)
        stack.push_async_callback(_stop, runner, live, settings.server.drain_s, signals.hurry, log)
        stack.callback(websockets.stop)
        stack.callback(pages.end)
        await _open_doors(runner, sockets, tls, settings.server.host)
        warn(log, settings, admission, names, config, clock.now_ms())
        offer = make_offer(admission, names, upstreams, clock.now_ms())
        first_key = await first_account(settings, database, operations)
        start = await make_start(settings, url, config, offer, database, first_key, clock.now_ms())
        yield Server(port, url, database, operations, live, start)


# --- parts -------------------------------------------------------------------------------------------------------------


async def _recover(database: Database, clock: Clock, log: FilteringBoundLogger) -> None:
    """Charge what a crash left open by its last checkpoint, release the rest, and say so."""
    if database.has_wal_reset_bug:
        note = "it has the WAL-reset bug, which one writer keeps harmless; lumeproxy[sqlite] brings a newer one"
        log.info("sqlite", version=database.sqlite_version, note=note)
    # Whatever is open now was left behind, also where the clock has been set back since: the lock says that nobody else
    # can have opened it.
    ended = await database.write(ledger.recover, ANY_TIME_MS, clock.now_ms())
    if ended:
        log.warning(
            "recovered",
            interrupted_calls=len(ended),
            charged_nanousd=sum(settled.cost_nanousd for _, settled in ended),
        )


def _told(log: FilteringBoundLogger) -> Callable[[str], None]:
    """Writes down which address is blocked for trying out keys."""
    return lambda address: log.warning("guessing", address=address)


def _changed(auth: Auth, changed: asyncio.Event) -> None:
    """An account or key has changed: forget what is remembered, and look whose calls must end."""
    auth.forget()
    changed.set()


async def _enforce(
    database: Database, live: LiveCalls, clock: Clock, changed: asyncio.Event, log: FilteringBoundLogger
) -> None:
    """End running calls whose key or account is no longer in force: at once after a change, and for keys that expire
    or were authenticated just before a change, every ENFORCE_S."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ENFORCE_S):
                await changed.wait()
        changed.clear()
        if not len(live):
            continue
        try:
            # On the writer, which goes before what is waiting there: the reader may be busy with a long report.
            # Keys first: they end with their account, and one suspended in between would be told that its key was revoked.
            ended = await database.submit_urgent(keys.not_in_force, list(live.key_ids()), clock.now_ms())
            suspended = await database.submit_urgent(accounts.inactive_ids)
        except LumeError as error:
            log.error("enforcing", error=error.code)  # the next round follows in ENFORCE_S
            continue
        for account_id in suspended:
            live.interrupt_account(account_id, Cause.SUSPENDED)
        for key_id in ended:
            live.interrupt_key(key_id, Cause.REVOKED)


async def _watch_files(database: Database, log: FilteringBoundLogger) -> None:
    """Look every FILES_S whether somebody took the database's files away; no new call is taken then."""
    while True:
        await asyncio.sleep(FILES_S)
        lost = database.look_at_files()
        if lost is not None:
            log.error(
                "database_files", file=lost, note="was removed or replaced; no new calls: stop lumeproxy to save all"
            )


async def _stop(runner: Runner, live: LiveCalls, drain_s: int, hurry: asyncio.Event, log: FilteringBoundLogger) -> None:
    """Take no more calls, let the running ones end, cut and settle what is left."""
    for site in tuple(runner.sites):
        await site.stop()
    try:
        async with asyncio.timeout(drain_s), asyncio.TaskGroup() as group:
            hurried = group.create_task(_raise_when(hurry))
            await live.emptied()
            hurried.cancel()
    except (TimeoutError, ExceptionGroup):
        log.warning("cutting", running_calls=len(live))
        live.interrupt_account(None, Cause.STOPPING)
        await live.emptied()
    await runner.cleanup()


async def _raise_when(event: asyncio.Event) -> None:
    await event.wait()
    raise TimeoutError


@contextlib.contextmanager
def _signals() -> Iterator[tuple[asyncio.Event, asyncio.Event, asyncio.Event]]:
    """Three events: the process was asked to stop, was asked again, and to read its settings anew. A third wish to stop
    ends it on the spot."""
    loop = asyncio.get_running_loop()
    stop, hurry, hangup = asyncio.Event(), asyncio.Event(), asyncio.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def heard() -> None:
        if stop.is_set():
            hurry.set()
            deafen()
        stop.set()

    def deafen() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)

    for number in numbers:
        loop.add_signal_handler(number, heard)
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    try:
        yield stop, hurry, hangup
    finally:
        deafen()
        loop.remove_signal_handler(signal.SIGHUP)


async def _opened(settings: Settings) -> Database:
    """The database; a command that has it for its own moment is waited for, another server is not."""
    folder = settings.server.data
    for _ in range(COMMAND_LOOKS):
        try:
            return await Database.open(folder, queue_limit=settings.limits.write_queue)
        except Locked:
            await _refuse_second(folder)
        await asyncio.sleep(COMMAND_PAUSE_S)
    return await Database.open(folder, queue_limit=settings.limits.write_queue)


async def _listening(settings: Settings) -> list[socket.socket]:
    """The bound sockets; a port that is busy because a server runs on the same data is told as that."""
    try:
        return listen(settings)
    except ConfigError:
        await _refuse_second(settings.server.data)
        raise


async def _refuse_second(folder: Path) -> None:
    """Raise Locked where a server answers on the data folder."""
    try:
        shown = await call(folder, "server.show", {})
    except NotRunning:
        return
    except LumeError:  # a server of another version
        shown = {}
    where = f" (process {shown['process_id']}, {shown['base_url']})" if "process_id" in shown else ""
    raise Locked(
        f"Another lumeproxy{where} serves the data folder {folder}; stop that one or choose another folder with --data."
    )


async def _open_doors(runner: Runner, sockets: list[socket.socket], tls: ssl.SSLContext | None, host: str) -> None:
    """Take calls. Of two processes that bound one port at the same moment, the second is refused only here."""
    await runner.setup()
    for sock in sockets:
        try:
            await web.SockSite(runner, sock, backlog=ACCEPTS, ssl_context=tls).start()
            sock.listen(BACKLOG)
        except OSError as error:
            raise ConfigError(bind_sentence(error, host, sock.getsockname()[1])) from None


def _check_parser() -> None:
    """Half of the parser faults that others were attacked by lie in aiohttp's pure Python one (reliability.md 3)."""
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise ConfigError(
            "aiohttp runs without its C parser here, which is not safe: unset AIOHTTP_NO_EXTENSIONS, or install aiohttp "
            "from a wheel for this platform."
        )
