"""What a person reads: tables within 100 columns, amounts, times; and what a machine reads: one JSON document."""

from __future__ import annotations

import datetime
import errno
import json
import re
import sys
import unicodedata
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from lumeproxy.clock import Clock
from lumeproxy.core import apikey
from lumeproxy.core.money import format_usd, parse_usd
from lumeproxy.errors import Refused

WIDTH = 100
LEAST = 6  # columns that a narrowed column keeps
_GAP = 2
_DECIMALS = 6
_DURATION = re.compile(r"([0-9]{1,9})([smhdw])")
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
LAST_PORT = 65535
MAX_DURATION_MS = 100 * 366 * _UNIT_MS["d"]


def emit_json(value: Any) -> None:
    """One JSON document on standard output, in ASCII so that no terminal's encoding can spoil it."""
    click.echo(json.dumps(value, indent=2))


def say_secret(text: str) -> None:
    """Print what is shown only once. Raises OSError also where there is no standard output, which else goes unnoticed."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "it is closed")
    click.echo(text)


# --- tables ------------------------------------------------------------------------------------------------------------


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = (), flexible: Sequence[str] = ()
) -> str:
    """Aligned columns under their names; those named `right` are right-aligned. Where the table would be wider than
    WIDTH, the widest of the `flexible` ones give way, then of all that are not `right`."""
    lines = [list(columns), *([_printable(cell) for cell in row] for row in rows)]
    widths = [max(_width(line[i]) for line in lines) for i in range(len(columns))]
    for names in (flexible, [name for name in columns if name not in right]):
        _narrow(widths, columns, [columns.index(name) for name in names])
    return "\n".join(_line(line, widths, columns, right) for line in lines)


def _narrow(widths: list[int], columns: Sequence[str], candidates: Sequence[int]) -> None:
    """Take the excess from the widest candidates, a column at a time, so that none loses more than it must."""
    for _ in range(sum(widths) + _GAP * (len(widths) - 1) - WIDTH):
        wide = [i for i in candidates if widths[i] > max(LEAST, len(columns[i]))]
        if not wide:
            return
        widths[max(wide, key=lambda i: widths[i])] -= 1


def _line(cells: Sequence[str], widths: Sequence[int], columns: Sequence[str], right: Sequence[str]) -> str:
    shown = []
    for cell, width, name in zip(cells, widths, columns, strict=True):
        text = _cut(cell, width)
        space = " " * (width - _width(text))
        shown.append(space + text if name in right else text + space)
    return (" " * _GAP).join(shown).rstrip()


def _cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    while _width(text) > width - 1:
        text = text[:-1]
    return text + "…"


def _width(text: str) -> int:
    """How many columns a terminal gives the text: two for wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def _printable(text: str) -> str:
    """A cell without line breaks and escape sequences: a model's name is whatever a client sent."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


# --- values ------------------------------------------------------------------------------------------------------------


def dollars(nanousd: int) -> str:
    """An amount for a person."""
    return format_usd(nanousd)


def amounts(column: Sequence[int]) -> list[str]:
    """Amounts that stand below each other: six decimals each, more only where there would be nothing to see."""
    shown = [format_usd(nanousd) for nanousd in column]
    return [text + "0" * (_DECIMALS - len(text.partition(".")[2])) for text in shown]


def when(time_ms: int | None) -> str:
    """A local time to the minute, or a dash."""
    if time_ms is None:
        return "-"
    try:
        return datetime.datetime.fromtimestamp(time_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return "never"


def count(number: int) -> str:
    """A count with thousands separated."""
    return f"{number:,}"


def short_count(number: int) -> str:
    """A count of at most seven characters: from a million on in millions, with three digits."""
    if number < 1_000_000:
        return count(number)
    return f"{Decimal(number) / 1_000_000:.3g}M" if number < 999_500_000 else f"{number // 1_000_000:,}M"


def plural(number: int, noun: str) -> str:
    """ "1 call", "2 calls"."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


# --- arguments ---------------------------------------------------------------------------------------------------------


def duration_ms(text: str) -> int:
    """Milliseconds of "30d", "12h", "90m". Raises ValueError with a sentence."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is no duration; write 30d, 12h or 90m")
    duration = int(match[1]) * _UNIT_MS[match[2]]
    if duration > MAX_DURATION_MS:
        raise ValueError(f"{text!r} is longer than 100 years")
    return duration


def since_ms(text: str, now_ms: int) -> int:
    """The start of a period: a duration back from now, or a local date. Raises ValueError with a sentence."""
    if _DURATION.fullmatch(text.strip().lower()):
        return now_ms - duration_ms(text)
    try:
        return int(datetime.datetime.fromisoformat(text.strip()).astimezone().timestamp()) * 1000
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text!r} is no period; write 7d, 24h or 2026-11-24") from None


class Text(click.ParamType[str]):
    """Words on the command line, of which there must be some."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The words without the space around them; none are a usage error."""
        text = str(value).strip()
        if not text:
            self.fail("it is empty.", param, ctx)
        return text


class KeyId(Text):
    """A key's public id on the command line, or the whole key, of which the rest is neither kept nor shown."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The id; what can't be one is a usage error that does not quote it."""
        text = super().convert(value, param, ctx)
        key_id = apikey.id_in(text) if text.startswith(apikey.PREFIX) else text
        if len(key_id) > apikey.ID_CHARS or not (key_id.isascii() and key_id.isalnum()):
            self.fail(f"an id has {apikey.ID_CHARS} letters and digits; key list shows them.", param, ctx)
        return key_id


class NewName(Text):
    """The name of an account to be made."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name in small letters; what can't be one is a usage error."""
        from lumeproxy.store.accounts import checked_name

        if apikey.parse(str(value)) is not None:
            self.fail(f"{value!r} is an API key, no name.", param, ctx)
        try:
            return checked_name(str(value))
        except Refused as error:
            self.fail(error.message, param, ctx)


class Port(click.ParamType[int]):
    """A port on the command line."""

    name = "port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The port; what is none is a usage error."""
        if re.fullmatch("[0-9]{1,5}", str(value)) and int(value) <= LAST_PORT:
            return int(value)
        raise click.UsageError(f"--port takes a number from 0 to {LAST_PORT}.", ctx)


class Amount(click.ParamType[int]):
    """Dollars on the command line, as nano-USD; `some`: above zero."""

    name = "dollars"

    def __init__(self, *, some: bool = False) -> None:
        self._some = some

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The amount; a value that is none is a usage error."""
        if isinstance(value, int):
            return value
        try:
            amount = parse_usd(Decimal(str(value).strip().removeprefix("$")))
        except InvalidOperation:
            self.fail(f"{value!r} is not an amount.", param, ctx)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
        if self._some and not amount:
            self.fail("it must be above $0.", param, ctx)
        return amount


class Duration(click.ParamType[int]):
    """A span of time on the command line, as milliseconds; `some`: above zero."""

    name = "duration"

    def __init__(self, *, some: bool = False) -> None:
        self._some = some

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The span; a value that is none is a usage error."""
        try:
            span = value if isinstance(value, int) else duration_ms(str(value))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
        if self._some and not span:
            self.fail("it must be above zero.", param, ctx)
        return span


class Since(click.ParamType[int]):
    """The start of a period on the command line, as epoch milliseconds."""

    name = "start"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The start; a value that is none is a usage error."""
        try:
            return value if isinstance(value, int) else since_ms(str(value), Clock().now_ms())
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
