"""How a command reaches the data: the running server through its socket, else the database itself under the lock.

Both run the same operations, so a command does the same whether the server is up or not.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from lumeproxy.errors import ConfigError, LumeError
from lumeproxy.folder import data_folder

T = TypeVar("T")
# A server that is starting or stopping holds the lock without answering; it is waited for this long.
PATIENCE_S = 5.0
PAUSE_S = 0.1


def place_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--data and --config: where everything is."""
    file = click.Path(path_type=Path, dir_okay=False)
    function = click.option("--config", type=file, help="Configuration file [config.toml in the data folder].")(
        function
    )
    # Not asked to be a folder: what is wrong with it is said where it is opened, in one sentence.
    return click.option("--data", type=click.Path(path_type=Path), help="Data folder [the user's own].")(function)


def data_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--data, --config and --json, on every command that needs the data."""
    return place_options(click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(function))


def inherited(name: str, value: T | None) -> T | None:
    """An option's value, or the one given before the sub-command."""
    context: click.Context | None = click.get_current_context(silent=True)
    while value is None and context is not None:
        context = context.parent
        if context is not None:
            value = context.params.get(name)
    return value


class Reach:
    """The data folder of a command line, and its wish for JSON."""

    def __init__(self, data: Path | None, config: Path | None, as_json: bool) -> None:
        self.as_json = bool(inherited("as_json", as_json or None))
        self.folder = data_folder(inherited("data", data), inherited("config", config), os.environ)

    def run(self, operation: str, **arguments: Any) -> Any:
        """Carry out an operation and return its answer. Raises LumeError kinds."""
        return asyncio.run(self._run(operation, arguments))

    def server_url(self) -> str | None:
        """Where clients reach the running server, None when none runs."""
        from lumeproxy.dashboard.control import NotRunning, call

        try:
            url = asyncio.run(call(self.folder, "server.show", {}))["base_url"]
        except (NotRunning, LumeError):  # none, or one of a version that can't say
            return None
        return url if isinstance(url, str) else None

    async def _run(self, operation: str, arguments: dict[str, Any]) -> Any:
        from lumeproxy.dashboard.control import NotRunning, call
        from lumeproxy.store.lock import Locked

        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await call(self.folder, operation, arguments)
            except NotRunning:
                pass
            try:
                return await self._alone(operation, arguments)
            except Locked as error:
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"{error.message.split(';')[0]} and does not answer; wait until it runs or end it."
                    ) from None
            await asyncio.sleep(PAUSE_S)

    async def _alone(self, operation: str, arguments: dict[str, Any]) -> Any:
        """No server runs: take its place for one operation."""
        from lumeproxy.clock import Clock
        from lumeproxy.dashboard.operations import Operations
        from lumeproxy.store.database import Database

        database = await Database.open(self.folder)
        try:
            return await Operations(database, Clock(), on_change=lambda: None).run(operation, arguments)
        finally:
            await database.close()
