"""What a person reads: tables within 100 columns, amounts, times; and what a machine reads: one JSON document."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from lumeproxy.core.money import format_usd, parse_usd

WIDTH = 100
_GAP = 2
_DURATION = re.compile(r"(\d{1,9})([smhdw])")
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def emit_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = (), flexible: str = ""
) -> str:
    """Aligned columns under their names; those named `right` are right-aligned, the `flexible` one gives way when the
    table would be wider than WIDTH."""
    widths = [max(len(name), *(len(row[i]) for row in rows)) if rows else len(name) for i, name in enumerate(columns)]
    spare = WIDTH - sum(widths) - _GAP * (len(columns) - 1)
    if spare < 0:
        order = [columns.index(flexible)] if flexible in columns else []
        order += sorted((i for i in range(len(columns)) if columns[i] not in right), key=lambda i: -widths[i])
        for i in order:
            cut = min(-spare, widths[i] - max(6, len(columns[i])))
            if cut > 0:
                widths[i] -= cut
                spare += cut
            if spare >= 0:
                break
    lines = [_line(list(columns), widths, columns, right)]
    lines += [_line(row, widths, columns, right) for row in rows]
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int], columns: Sequence[str], right: Sequence[str]) -> str:
    shown = []
    for cell, width, name in zip(cells, widths, columns, strict=True):
        text = cell if len(cell) <= width else cell[: width - 1] + "…"
        shown.append(text.rjust(width) if name in right else text.ljust(width))
    return (" " * _GAP).join(shown).rstrip()


def dollars(nanousd: int) -> str:
    """An amount for a person."""
    return format_usd(nanousd)


def when(time_ms: int | None) -> str:
    """A local time to the minute, or a dash."""
    if time_ms is None:
        return "-"
    return datetime.datetime.fromtimestamp(time_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M")


def count(number: int) -> str:
    """A count with thousands separated."""
    return f"{number:,}"


def duration_ms(text: str) -> int:
    """Milliseconds of "30d", "12h", "90m". Raises click.BadParameter."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise click.BadParameter(f"{text!r} is no duration; write 30d, 12h or 90m.")
    return int(match[1]) * _UNIT_MS[match[2]]


def since_ms(text: str, now_ms: int) -> int:
    """The start of a period: a duration back from now, or a local date. Raises click.BadParameter."""
    if _DURATION.fullmatch(text.strip().lower()):
        return now_ms - duration_ms(text)
    try:
        return int(datetime.datetime.fromisoformat(text).astimezone().timestamp()) * 1000
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is no period; write 7d, 24h or 2026-11-24.") from None


class Amount(click.ParamType[int]):
    """Dollars on the command line, as nano-USD."""

    name = "dollars"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The amount; a value that is none is a usage error."""
        if isinstance(value, int):
            return value
        try:
            return parse_usd(Decimal(str(value).strip().removeprefix("$")))
        except (ValueError, InvalidOperation) as error:
            reason = str(error) if isinstance(error, ValueError) else f"{value!r} is not an amount"
            self.fail(f"{reason}.", param, ctx)
