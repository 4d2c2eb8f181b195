"""One JSON document written part by part: lists of any length come through memory a page at a time."""

from __future__ import annotations

import json
import textwrap
from typing import Any

import click

from lumeproxy.cli.reach import Reach

PAGE_ROWS = 1000


def write_list(reach: Reach, operation: str, *, indent: int = 0, most: int | None = None, **arguments: Any) -> None:
    """Write all rows of a listing operation as one JSON list, at most so many; no new line at its end."""
    written = 0

    def take(rows: list[Any]) -> bool:
        nonlocal written
        for row in rows[: None if most is None else most - written]:
            text = textwrap.indent(json.dumps(row, indent=2), " " * (indent + 2))
            click.echo(("," if written else "[") + "\n" + text, nl=False)
            written += 1
        return written != most

    reach.pages(operation, take, limit=PAGE_ROWS if most is None else min(most, PAGE_ROWS), **arguments)
    click.echo("\n" + " " * indent + "]" if written else "[]", nl=False)


def write_export(reach: Reach, name: str) -> None:
    """Write all that is stored of an account. Raises Missing before the first character."""
    found = reach.run("account.show", name=name)
    keys = found.pop("keys")
    sums = reach.run("usage.days", account=name)
    for part, value in (("account", found), ("keys", keys), ("days", sums)):
        head = "{" if part == "account" else ","
        click.echo(f'{head}\n  "{part}": {textwrap.indent(json.dumps(value, indent=2), "  ").lstrip()}', nl=False)
    for part, operation in (("entries", "credit.page"), ("usage", "usage.page")):
        click.echo(f',\n  "{part}": ', nl=False)
        write_list(reach, operation, indent=2, account=name)
    click.echo("\n}")
