"""`lumeproxy doctor`: what is wrong here, and the mend."""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lumeproxy.cli.output import WIDTH, count, emit_json, plural
from lumeproxy.cli.program import hint
from lumeproxy.cli.reach import data_options, inherited
from lumeproxy.clock import Clock

if TYPE_CHECKING:
    from lumeproxy.doctor.finding import Finding

COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}
_STATE, _CHECK = 9, 15  # columns


@click.command()
@data_options
def doctor(data: Path | None, config: Path | None, as_json: bool) -> int:
    """Find out what is wrong, and say how to mend it. Exit 1 when something failed.

    Looks at configuration, database, disk, upstreams and their credentials, prices, clock, TLS, file modes and the tools on
    this machine, and makes one call that costs no user anything. Changes nothing else.
    """
    from lumeproxy.clients.seen import Around
    from lumeproxy.doctor.examination import Patient, examine

    data, config = inherited("data", data), inherited("config", config)
    as_json = bool(inherited("as_json", as_json or None))
    home = Path(os.environ.get("HOME") or "/")  # as the tools themselves find their files
    patient = Patient(data, config, Around(home, _here(), dict(os.environ)))

    async def look() -> list[Finding]:
        found = []
        async for finding in examine(patient, Clock(), lambda command: hint(command, data, config)):
            found.append(finding)
            if not as_json:
                _say(finding)
        return found

    found = asyncio.run(look())
    states = Counter(str(finding.state) for finding in found)
    if as_json:
        emit_json([_shown(finding) for finding in found])
    else:
        told = [f"{count(states['failed'])} failed"] if states["failed"] else []
        told += [plural(states["warning"], "warning")] if states["warning"] else []
        click.echo("\n" + (", ".join(told) + f", {count(states['ok'])} ok." if told else "All is well."))
    return 1 if states["failed"] else 0


def _here() -> Path:
    """The current folder, where a tool may have settings of a project; the root where it was removed."""
    try:
        return Path.cwd()
    except OSError:
        return Path("/")


def _shown(finding: Finding) -> dict[str, str | None]:
    from lumeproxy.logs import masked  # brings the loggers along, which no other command waits for

    return {name: masked(value) if isinstance(value, str) else value for name, value in asdict(finding).items()}


def _say(finding: Finding) -> None:
    """One finding in a line or a few, its mend on a line of its own, whole, so that it can be copied."""
    shown = _shown(finding)
    state, check, text, mend = (shown[name] or "" for name in ("state", "check", "text", "mend"))
    indent = " " * (_STATE + _CHECK)
    room = WIDTH - len(indent)
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
    # Which of several it is, its sentence says.
    what = check.partition(":")[0].ljust(_CHECK)
    first = f"{click.style(state.ljust(_STATE), fg=COLOURS[state])}{what}{lines[0]}"
    click.echo("\n".join([first, *(indent + line for line in lines[1:])]), color=_colour())
    if mend:
        click.echo(f"{indent}{click.style('→', fg=COLOURS[state])} {mend}", color=_colour())


def _colour() -> bool | None:
    """None leaves it to click, which colours on a terminal only (https://no-color.org, 2026-11)."""
    return False if os.environ.get("NO_COLOR") or sys.stdout is None else None
