"""`lumeproxy serve`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lumeproxy.cli.output import Port, say_secret
from lumeproxy.cli.program import hint
from lumeproxy.cli.reach import inherited, place_options
from lumeproxy.folder import config_file, data_folder


def serve_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of serving that are not the data's: where to listen."""
    function = click.option(
        "--port", type=Port(), metavar="PORT", help="Port to listen on [8787]; 0 takes a free one."
    )(function)
    return click.option("--host", metavar="HOST", help="Address to listen on [127.0.0.1].")(function)


@click.command()
@serve_options
@place_options
def serve(config: Path | None, data: Path | None, host: str | None, port: int | None) -> int:
    """Serve the API until a signal.

    The first start makes the data folder, an account with credit, and a key, which is shown once.
    """
    from lumeproxy import app, settings

    environ = dict(os.environ)
    config, data = inherited("config", config), inherited("data", data)
    host, port = inherited("host", host), inherited("port", port)

    def load() -> settings.Settings:
        return settings.load(config=config, data=data, host=host, port=port, environ=environ)

    file = config_file(config, data_folder(data, config, environ), environ)
    return app.serve(load, environ, config=file, say=say_secret, hint=lambda command: hint(command, data, config))
