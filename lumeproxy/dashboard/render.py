"""From values to HTML: jinja2 with autoescape, and how amounts, times and counts are shown.

No I/O but reading templates and static files at the start.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from lumeproxy import __version__
from lumeproxy.core.money import NANOUSD_PER_USD

_HERE = Path(__file__).parent
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_TENTH_MS = 100
_MINUTE_MS, _HOUR_MS, _DAY_MS = 60_000, 3_600_000, 86_400_000


@dataclass(frozen=True, slots=True)
class Static:
    """A file that is served as it is."""

    body: bytes
    content_type: str


class Renderer:
    """The templates, compiled once, and the static files with the mark that changes with them."""

    def __init__(self) -> None:
        self.files = {
            file.name: Static(file.read_bytes(), _TYPES[file.suffix]) for file in sorted((_HERE / "static").iterdir())
        }
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters |= {
            "usd": usd,
            "fit": fit,
            "told": told,
            "named": named,
            "count": count,
            "short": short,
            "time": time_tag,
            "day": day_text,
            "ms": duration,
            "percent": percent,
            "plural": plural,
        }
        mark = hashlib.sha256(b"".join(static.body for static in self.files.values())).hexdigest()[:12]
        self._environment.globals |= {"version": __version__, "mark": mark}

    def offer(self, places: Iterable[str]) -> None:
        """Tell the templates which pages there are, so that they link to no other."""
        self._environment.globals["places"] = frozenset(places)

    def page(self, template: str, **context: Any) -> str:
        """A template with its values."""
        return self._environment.get_template(template).render(**context)


def usd(nanousd: int, digits: int = 2) -> str:
    """Dollars with so many decimals, rounded half up; an amount too small to be seen as "<" the smallest."""
    unit = NANOUSD_PER_USD // 10**digits
    shown = (abs(nanousd) + unit // 2) // unit
    if not shown and nanousd:
        return f"<${1 / 10**digits:.{digits}f}"
    whole, part = divmod(shown, 10**digits)
    return f"{'-' if nanousd < 0 else ''}${whole:,}" + (f".{part:0{digits}}" if digits else "")


def fit(nanousd: int) -> str:
    """Dollars with two decimals, or four where it is less than one."""
    return usd(nanousd, 2 if not nanousd or abs(nanousd) >= NANOUSD_PER_USD else 4)


def told(value: Any, name: str) -> Markup:
    """A value of the log of what was done, by its name's unit."""
    if name.endswith("_nanousd") and isinstance(value, int):
        return Markup("<code>{}</code>").format(usd(value, 6))
    if name.endswith("_ms") and isinstance(value, int) and name != "overlap_ms":
        return time_tag(value)
    shown = ", ".join(map(str, value)) if isinstance(value, list) else value
    return Markup("<code>{}</code>").format("–" if shown in (None, "") else shown)


def named(name: str) -> str:
    """A field's name as words, without its unit."""
    return name.removesuffix("_nanousd").removesuffix("_ms").replace("_", " ")


def count(number: int) -> str:
    """A count with thousands separated."""
    return f"{number:,}"


def short(number: int) -> str:
    """A count in few characters: 812, 4.2k, 13M."""
    for unit, sign in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            tenths = number * 10 // unit
            return f"{tenths // 10}.{tenths % 10}{sign}" if tenths < 100 and tenths % 10 else f"{tenths // 10}{sign}"
    return str(number)


def plural(number: int, noun: str) -> str:
    """A count with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def time_tag(time_ms: int | None, empty: str = "never") -> Markup:
    """A point in time as UTC, in an element that the page's script shows in the reader's own zone."""
    if time_ms is None:
        return Markup("<span class=quiet>{}</span>").format(empty)
    try:
        at = datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        return Markup("<span class=quiet>far away</span>")
    return Markup('<time datetime="{}">{} UTC</time>').format(
        at.isoformat(timespec="seconds").replace("+00:00", "Z"), at.strftime("%Y-%m-%d %H:%M")
    )


def day_text(day: int | None, today: int) -> str:
    """A day (days since 1970-01-01 UTC) as a person says it."""
    if day is None:
        return "never"
    if today - day in (0, 1):
        return "yesterday" if today - day else "today"
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()


def duration(ms: int | None) -> str:
    """A span of time in its fitting unit, a dash for none."""
    if ms is None:
        return "–"
    if ms < 1000:
        return f"{ms} ms"
    if ms < _MINUTE_MS:
        return f"{ms // 1000}.{ms % 1000 // _TENTH_MS} s"
    if ms < _HOUR_MS:
        return f"{ms // _MINUTE_MS} min {ms % _MINUTE_MS // 1000} s"
    if ms < 2 * _DAY_MS:
        return f"{ms // _HOUR_MS} h {ms % _HOUR_MS // _MINUTE_MS} min"
    return f"{ms // _DAY_MS} days"


def percent(part: int, whole: int) -> str:
    """A share in whole percent, a dash where there is nothing to share."""
    return f"{100 * part // whole} %" if whole else "–"
