"""`lumeproxy backup`: a checked copy while the server runs."""

from __future__ import annotations

from pathlib import Path

import click

from lumeproxy.cli.output import emit_json
from lumeproxy.cli.reach import Reach, data_options


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@data_options
def backup(file: Path, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Write a compact, checked copy of the database to a new FILE."""
    reach = Reach(data, config, as_json)
    made = reach.run("backup.run", path=str(file.absolute()))
    if reach.as_json:
        emit_json(made)
    else:
        click.echo(f"The backup {made['file']} is written and sound.")
