"""The whole examination, in the order in which it is read: gathers facts, and lets the other modules judge them.

It changes nothing, but for the one call through a running server (`trial`). It never makes a data folder, opens the
database only through the store, and works with whatever is there: where a fact can't be had, the checks that need it are
left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from lumeproxy import __version__
from lumeproxy.clients import seen as clients
from lumeproxy.clock import Clock
from lumeproxy.compose import (
    KEY_VARIABLES,
    base_url,
    close_all,
    listen,
    make_admission,
    make_names,
    make_session,
    make_tls,
    make_upstreams,
    unpriced,
)
from lumeproxy.core import apikey
from lumeproxy.dashboard.control import NotRunning, call
from lumeproxy.doctor import machine, providers, tools, trial
from lumeproxy.doctor.certificate import first_der, validity_ms
from lumeproxy.doctor.finding import Finding, Hint, State, failed, ok, warning
from lumeproxy.doctor.machine import Private, Running, Served
from lumeproxy.errors import ConfigError, LumeError
from lumeproxy.folder import config_file, configures, data_folder, is_open_with_key
from lumeproxy.proxy.admission import Admission
from lumeproxy.routes import route_of
from lumeproxy.settings import Limits, Settings, load
from lumeproxy.store import inspection
from lumeproxy.store.database import FILE_NAME
from lumeproxy.store.inspection import Contents, Folder
from lumeproxy.upstreams.base import Upstream
from lumeproxy.upstreams.http import HttpUpstream
from lumeproxy.upstreams.probe import Probe, probe

DEFAULT_URL = "http://127.0.0.1:8787"
TOOL_FILE_BYTES = 1024 * 1024  # settings of a tool; what is larger is none
# A command has the lock for a moment, and a server that starts or stops for a few seconds.
LOOKS, PAUSE_S = 20, 0.1
# Where containers get their secrets: readable by all in there, who are one.
CONTAINER_SECRETS = Path("/run/secrets")
RENEWED = "name the right files in server.tls_certificate and server.tls_key"


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined: the options of the command line, the variables, and where the person is."""

    data: Path | None
    config: Path | None
    around: clients.Around

    @property
    def environ(self) -> Mapping[str, str]:
        """The variables."""
        return self.around.environ


async def examine(patient: Patient, clock: Clock, hint: Hint) -> AsyncIterator[Finding]:
    """All findings, each as soon as it is known."""
    folder, settings, finding = _configuration(patient)
    yield finding
    seen = _tools_seen(patient)
    running, contents = Running(), None
    files = None if folder is None else inspection.look(folder)
    # In a folder that is closed to this user, nothing is seen: neither a server nor that there is none.
    startable = files is None or (files.is_folder and files.readable)
    if folder is not None and startable:
        running = await _running(folder)
        yield machine.server(running, __version__, hint)
    yield machine.sqlite(inspection.sqlite_version(), sys.executable)
    if folder is not None and files is not None:
        for finding in _folder(folder, files, running, hint):
            yield finding
        if files.database_exists and files.readable:
            ids = {key_id for one in seen if one.key and (key_id := apikey.parse(one.key))}
            contents = await asyncio.to_thread(inspection.read, folder, sorted(ids), clock.now_ms())
            for finding in machine.database(folder / FILE_NAME, contents, inspection.newest_version(), hint):
                yield finding
        for finding in machine.modes(list(_private(folder, patient, settings))):
            yield finding
    admission = None
    if settings is not None:
        for finding in _listening(settings, startable and running.process_id is None and running.holder is None, clock):
            yield finding
            startable = startable and (finding.check, finding.state) != ("tls", State.FAILED)
        async with make_session(settings) as session:
            upstreams, faults = _upstreams(settings, patient.environ, session, running)
            for finding in faults:
                yield finding
            async for finding in _providers(settings, patient.environ, upstreams, clock):
                yield finding
            if not faults:
                admission, findings = _routes(settings, upstreams, clock)
                for finding in findings:
                    yield finding
    for finding in tools.tools(seen, _home(settings, running, contents, clock), hint):
        yield finding
    yield await _call(folder, settings, admission if startable else None, running, patient, clock, hint)


# --- configuration and data --------------------------------------------------------------------------------------------


def _configuration(patient: Patient) -> tuple[Path | None, Settings | None, Finding]:
    """The data folder as far as it can be told, the settings where they hold, and what is to be said of them."""
    folder, file, environ = None, patient.config, patient.environ
    try:
        folder = data_folder(patient.data, patient.config, environ)
        file = config_file(patient.config, folder, environ)
        settings = load(config=patient.config, data=patient.data, environ=environ)
    except ConfigError as error:
        variable = "change the variable, or unset it" if "LUMEPROXY_" in error.message else None
        mend = f"mend {file.absolute()}" if file is not None else variable
        return folder, None, failed("configuration", error.message, mend)
    variables = sorted(name for name in environ if configures(name))
    told = f", and {', '.join(variables)}" if variables else ""
    if file is None:
        return folder, settings, ok("configuration", f"No file; the defaults are in force{told}.")
    return folder, settings, ok("configuration", f"{file.absolute()} is valid{told}.")


async def _running(folder: Path) -> Running:
    """Who serves the folder; one that has its lock without answering is looked at for two seconds."""
    for _ in range(LOOKS):
        try:
            shown: dict[str, Any] = await call(folder, "server.show", {})
        except NotRunning:
            holder = inspection.look(folder).holder
            if holder is None:
                return Running()
        except LumeError:  # one of another version, which can't say
            return Running(holder=inspection.look(folder).holder)
        else:
            return Running(shown["process_id"], shown["base_url"], shown["version"])
        await asyncio.sleep(PAUSE_S)
    return Running(holder=holder)


def _folder(folder: Path, files: Folder, running: Running, hint: Hint) -> Iterator[Finding]:
    yield machine.data_folder(folder, files, hint)
    if files.disk_bytes:
        yield machine.disk(files)
    if not files.readable:
        return
    if files.database_exists:
        yield machine.wal(files, hint, served=running.process_id is not None)
    elif files.exists and files.is_folder:
        yield ok("database", f"There is none in {folder} yet; the first start makes it.")


def _private(folder: Path, patient: Patient, settings: Settings | None) -> Iterator[Private]:
    """What nobody else should get at, as far as it is there."""
    wanted = [(folder, "the database", 0o077), (folder / FILE_NAME, "the database", 0o077)]
    if settings is not None:
        file = config_file(patient.config, folder, patient.environ)
        if file is not None and is_open_with_key(file):
            wanted.append((file.absolute(), "an upstream's key", 0o077))
        for upstream in settings.upstreams.values():
            for file in upstream.api_key_file:
                if CONTAINER_SECRETS not in file.parents:
                    wanted.append((file, "an upstream's key", 0o077))
        if settings.server.tls_key is not None:
            # A group of its own may read it, as some systems have one for certificates.
            wanted.append((settings.server.tls_key, "the key of the certificate", 0o007))
    for path, what, closed in wanted:
        with contextlib.suppress(OSError):
            yield Private(path, path.stat().st_mode, what, closed, path.is_dir())


def _listening(settings: Settings, free: bool, clock: Clock) -> Iterator[Finding]:
    """The address, which is to be `free` where no server of ours has it yet, and the certificate."""
    if free:
        try:
            close_all(listen(settings))
        except ConfigError as error:
            yield failed("address", error.message)
        else:
            yield ok("address", f"{base_url(settings, settings.server.port)} is free for a server.")
    try:
        context = make_tls(settings)
    except ConfigError as error:
        yield failed("tls", error.message, RENEWED)
        return
    file = settings.server.tls_certificate
    if context is not None and file is not None:
        der = _certificate(settings)
        yield machine.tls(Served(file, validity_ms(der) if der else None), clock.now_ms())


def _certificate(settings: Settings | None) -> bytes | None:
    """The server's certificate, None without TLS or where it can't be read."""
    file = None if settings is None else settings.server.tls_certificate
    if file is None:
        return None
    try:
        return first_der(file.read_text("ascii", "replace"))
    except OSError:
        return None


# --- upstreams ---------------------------------------------------------------------------------------------------------


def _upstreams(
    settings: Settings, environ: Mapping[str, str], session: aiohttp.ClientSession, running: Running
) -> tuple[dict[str, Upstream], list[Finding]]:
    """Those that can be made, and what is wrong with the others."""
    if not settings.upstreams:
        return make_upstreams(settings, environ, session), []
    made: dict[str, Upstream] = {}
    faults = []
    for name, given in settings.upstreams.items():
        try:
            made |= make_upstreams(settings.model_copy(update={"upstreams": {name: given}}), environ, session)
        except ConfigError as error:
            # The shell of a running server may have had a variable that this one lacks.
            elsewhere = bool(given.api_key_env) and running.process_id is not None
            make = warning if elsewhere else failed
            note = " The running server may have it." if elsewhere else ""
            lacking = [variable for variable in given.api_key_env if not environ.get(variable)]
            mend = f"export {lacking[0]}=…" if lacking else f"mend [upstreams.{name}]"
            faults.append(make(f"upstream:{name}", error.message + note, mend))
    return made, faults


async def _providers(
    settings: Settings, environ: Mapping[str, str], upstreams: Mapping[str, Upstream], clock: Clock
) -> AsyncIterator[Finding]:
    """Ask all upstreams at once, and tell in their order."""
    asked = [one for one in upstreams.values() if isinstance(one, HttpUpstream)]
    if not asked and not settings.upstreams:
        known = " or ".join(KEY_VARIABLES.values())
        yield ok("upstreams", f"None but the built-in echo; set {known}, or configure some.")
    limits = settings.limits
    async with asyncio.TaskGroup() as group:
        tasks = {
            (one, number): group.create_task(_probed(one, number, clock, limits))
            for one in asked
            for number in range(1, len(one.identities) + 1)
        }
    found = [
        providers.Asked(_asked_name(one, number), one.base_url, _credential_from(settings, one, number), task.result())
        for (one, number), task in tasks.items()
    ]
    for one in found:
        yield providers.upstream(one)
    told = providers.clock(found)
    if told is not None:
        yield told
    routes = [route_of(route) for route in settings.routes]
    for finding in providers.unlisted(routes, {one.name: task.result() for (one, _), task in tasks.items()}):
        yield finding


def _asked_name(upstream: HttpUpstream, number: int) -> str:
    """An upstream's name, and which of its credentials where it has several."""
    return upstream.name if len(upstream.identities) == 1 else f"{upstream.name}, credential {number}"


async def _probed(upstream: HttpUpstream, number: int, clock: Clock, limits: Limits) -> Probe:
    limit = limits.probe_bytes
    return await probe(upstream, clock, timeout_ms=limits.probe_ms, body_bytes=limit, credential=number)


def _credential_from(settings: Settings, upstream: HttpUpstream, number: int) -> str:
    """Where an upstream's credential stands, in words."""
    given = settings.upstreams.get(upstream.name)
    if given is None:
        return f"the variable {KEY_VARIABLES.get(upstream.kind, '')}"
    if given.api_key_env:
        return f"the variable {given.api_key_env[number - 1]}"
    if given.api_key_file:
        return f"the file {given.api_key_file[number - 1]}"
    return f"upstreams.{upstream.name}.api_key"


def _routes(
    settings: Settings, upstreams: Mapping[str, Upstream], clock: Clock
) -> tuple[Admission | None, list[Finding]]:
    """The rules as a server would have them, and which routes have no price."""
    try:
        admission = make_admission(settings, upstreams)
    except ConfigError as error:
        return None, [failed("routes", error.message, "mend the configuration")]
    names = make_names(settings, upstreams)
    return admission, providers.prices(unpriced(settings, admission, names, clock.now_ms()))


# --- tools and the call ------------------------------------------------------------------------------------------------


def _tools_seen(patient: Patient) -> list[clients.Seen]:
    """The tools by their files; what can't be read counts as not there."""
    contents = {}
    for file in clients.files(patient.around):
        with contextlib.suppress(OSError):
            if file.is_file() and file.stat().st_size <= TOOL_FILE_BYTES:
                contents[file] = file.read_bytes()
    return clients.seen(contents, patient.around)


def _home(settings: Settings | None, running: Running, contents: Contents | None, clock: Clock) -> tools.Home:
    urls: Iterable[str | None] = (
        running.base_url,
        None if settings is None or running.base_url else base_url(settings, settings.server.port),
    )
    known = tuple(url for url in urls if url) or (DEFAULT_URL,)
    readable = contents is not None and not contents.error and contents.version is None and not contents.problems
    keys = {key.id: key for key in contents.keys} if contents is not None and readable else None
    hosts = frozenset() if settings is None else frozenset(host.lower() for host in settings.server.allowed_hosts)
    return tools.Home(known, hosts, keys, clock.now_ms())


async def _call(
    folder: Path | None,
    settings: Settings | None,
    admission: Admission | None,
    running: Running,
    patient: Patient,
    clock: Clock,
    hint: Hint,
) -> Finding:
    """One real call, where one can be made and costs nothing."""
    if admission is not None:
        route = admission.routing.find(trial.MODEL)
        if route is None or route.upstreams != ("echo",):
            return ok(trial.CHECK, f"None was made: a route of yours takes {trial.MODEL} elsewhere, where it may cost.")
    limits = Limits() if settings is None else settings.limits
    allowed = () if settings is None else settings.server.allowed_hosts
    host = allowed[0] if allowed else None
    way = trial.Way(running.base_url or "", host, _certificate(settings), limits.probe_ms)
    known = way.certificate is not None or not (running.base_url or "").startswith("https:")
    if folder is not None and running.base_url is not None and known:
        multiplier = 1 if settings is None else max(1, math.ceil(settings.billing.multiplier))
        return await trial.through_running(folder, way, multiplier, clock, hint)
    if settings is None or admission is None or running.holder is not None or running.base_url is not None:
        return warning(trial.CHECK, "None was made: first mend what failed above.", hint("doctor"))
    return await trial.through_own(settings, patient.environ, way, clock)
