"""`lumeproxy serve`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lumeproxy.cli.reach import inherited


def serve_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of serving that are not the data's: where to listen."""
    function = click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on [8787].")(function)
    return click.option("--host", help="Address to listen on [127.0.0.1].")(function)


@click.command()
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="Configuration file (TOML).")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Data folder.")
@serve_options
def serve(config: Path | None, data: Path | None, host: str | None, port: int | None) -> int:
    """Serve the API until a signal."""
    from lumeproxy import app, settings

    environ = dict(os.environ)
    given = settings.load(
        config=inherited("config", config),
        data=inherited("data", data),
        host=inherited("host", host),
        port=inherited("port", port),
        environ=environ,
    )
    return app.serve(given, environ)
