"""How a command reaches the data: the running server through its socket, else the database itself under the lock.

Both run the same operations, so a command does the same whether the server is up or not.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lumeproxy.cli.program import hint
from lumeproxy.errors import ConfigError, LumeError, Refused
from lumeproxy.folder import config_file, configures, data_folder

if TYPE_CHECKING:
    from lumeproxy.dashboard.upstreams import Fleet
    from lumeproxy.settings import Settings

T = TypeVar("T")
# Carries out an operation of a name with arguments.
Ask = Callable[[str, dict[str, Any]], Awaitable[Any]]
# The one operation that may begin a database; for all others, a folder without one is a slip in --data.
BEGINS = "account.create"
# A server that is starting or stopping holds the lock without answering; it is waited for this long.
PATIENCE_S = 5.0
PAUSE_S = 0.1


class Place(click.Path):
    """A path that is not empty: "" would be the folder that the command is started in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; an empty one is a usage error."""
        if value == "":
            self.fail("it is empty.", param, ctx)
        return super().convert(value, param, ctx)


def place_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--data and --config: where everything is."""
    file = Place(path_type=Path, dir_okay=False)
    function = click.option("--config", type=file, help="Configuration file [config.toml in the data folder].")(
        function
    )
    # Not asked to be a folder: what is wrong with it is said where it is opened, in one sentence.
    return click.option("--data", type=Place(path_type=Path), help="Data folder [the user's own].")(function)


def data_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--data, --config and --json, on every command that needs the data."""
    told = "Print one JSON document: amounts in nano-USD (1e-9 $), times in ms."
    return place_options(click.option("--json", "as_json", is_flag=True, help=told)(function))


def inherited(name: str, value: T | None) -> T | None:
    """An option's value, or the one given before the sub-command."""
    context: click.Context | None = click.get_current_context(silent=True)
    while value is None and context is not None:
        context = context.parent
        if context is not None:
            value = context.params.get(name)
    return value


class Reach:
    """The data folder of a command line, and its wish for JSON. Raises ConfigError for settings that don't hold."""

    def __init__(self, data: Path | None, config: Path | None, as_json: bool) -> None:
        self.as_json = bool(inherited("as_json", as_json or None))
        self._data, self._config = inherited("data", data), inherited("config", config)
        self.folder = data_folder(self._data, self._config, os.environ)
        self._settings = self._loaded()

    def _loaded(self) -> Settings | None:
        """The settings, None where there are none but defaults: to load them takes longer than most commands."""
        environ = os.environ
        if config_file(self._config, self.folder, environ) is None and not any(map(configures, environ)):
            return None
        from lumeproxy import settings

        return settings.load(config=self._config, data=self._data, environ=environ)

    def hint(self, command: str) -> str:
        """A command that the user may type next, as this one was typed."""
        return hint(command, self._data, self._config)

    def run(self, operation: str, **arguments: Any) -> Any:
        """Carry out an operation and return its answer. Raises LumeError kinds."""
        return asyncio.run(self._run(operation, lambda ask: ask(operation, arguments)))

    def pages(self, operation: str, take: Callable[[list[Any]], bool], **arguments: Any) -> None:
        """Read a list part by part; `take` gets the rows of each and says whether to go on. A server that starts or stops
        meanwhile changes nothing: the cursor holds. Raises LumeError kinds."""
        cursor: str | None = None

        async def read(ask: Ask) -> None:
            nonlocal cursor
            while True:
                part = await ask(operation, {**arguments, "cursor": cursor})
                cursor = part["next_cursor"]
                if not take(part["items"]) or cursor is None:
                    return

        asyncio.run(self._run(operation, read))

    def server_url(self) -> str | None:
        """Where clients reach the running server, None when none runs."""
        from lumeproxy.dashboard.control import NotRunning, call

        try:
            url = asyncio.run(call(self.folder, "server.show", {}))["base_url"]
        except (NotRunning, LumeError):  # none, or one of a version that can't say
            return None
        return url if isinstance(url, str) else None

    def configured_url(self) -> str | None:
        """Where clients would reach a server of these settings, None where they don't say."""
        if self._settings is None or not self._settings.server.port:
            return None
        from lumeproxy.compose import base_url

        return base_url(self._settings, self._settings.server.port)

    def _fleet(self) -> Fleet:
        """The upstreams that the settings name."""
        from lumeproxy import settings
        from lumeproxy.fleet import ConfiguredFleet

        given = self._settings or settings.load(config=self._config, data=self._data, environ=os.environ)
        return ConfiguredFleet(given, os.environ)

    async def _run(self, operation: str, work: Callable[[Ask], Awaitable[T]]) -> T:
        """Do work that asks for operations; it goes on with another `ask` where a server ends in the middle."""
        from lumeproxy.dashboard.control import NotRunning, call
        from lumeproxy.store.lock import Locked

        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await work(partial(call, self.folder))
            except NotRunning:
                pass
            try:
                return await self._alone(operation, work)
            except Locked as error:
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"{error.message.split(';')[0]} and does not answer; wait until it runs or end it."
                    ) from None
            await asyncio.sleep(PAUSE_S)

    async def _alone(self, operation: str, work: Callable[[Ask], Awaitable[T]]) -> T:
        """No server runs: take its place for a moment."""
        from lumeproxy.clock import Clock
        from lumeproxy.dashboard.operations import Operations
        from lumeproxy.dashboard.upstreams import UpstreamDesk
        from lumeproxy.store.database import FILE_NAME, Database

        if operation != BEGINS and not _is_there(self.folder / FILE_NAME):
            raise Refused(f"There is no lumeproxy database in {self.folder}; start the server once, or check --data.")
        database = await Database.open(self.folder)
        try:
            clock = Clock()
            more = (
                UpstreamDesk(database, clock, self._fleet()).operations() if operation.startswith("upstream.") else {}
            )
            return await work(Operations(database, clock, on_change=lambda: None, more=more).run)
        finally:
            await database.close()


def _is_there(file: Path) -> bool:
    try:
        return file.exists()
    except OSError:  # a folder that may not be entered: who opens it says so
        return True
