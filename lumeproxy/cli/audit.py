"""`lumeproxy audit`: recompute every bill, check every invariant."""

from __future__ import annotations

from pathlib import Path

import click

from lumeproxy.cli.output import emit_json
from lumeproxy.cli.reach import Reach, data_options


@click.command()
@data_options
def audit(data: Path | None, config: Path | None, as_json: bool) -> int:
    """Recompute every bill from its record and check the books. Exit 1 when something is wrong."""
    reach = Reach(data, config, as_json)
    found = reach.run("audit.run")
    if reach.as_json:
        emit_json(found)
    elif found["ok"]:
        click.echo("The books are in order: every bill follows from its record, every balance from its entries.")
    else:
        for problem in found["problems"]:
            click.echo(f"- {problem}")
    return 0 if found["ok"] else 1
