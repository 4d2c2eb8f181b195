"""Pictures as SVG text, made here so that no script and no style of a stranger is needed. Pure: values in, markup out.

Colours are classes of the style sheet, in light and dark. Each picture is drawn twice, wide and narrow, and the style sheet
shows the one that fits, since text in a scaled picture can't be read on a phone. Each has a title and a description for
screen readers, each column a title of its own; the page shows the same figures in a table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDE, NARROW = (760, 220), (340, 200)
SERIES = 6  # colours of the style sheet; the last is for the rest
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 4, 10, 24
_STEPS = (1, 2, 5)
_LINES = 4  # of the grid, at most


@dataclass(frozen=True, slots=True)
class Series:
    """One colour: its name and a value for each column."""

    name: str
    values: tuple[int, ...]


def ranked(series: Sequence[Series], rest: str = "other") -> list[Series]:
    """The largest series each in a colour of its own, what is left in the last one."""
    order = sorted(series, key=lambda one: (-sum(one.values), one.name))
    shown, left = order[: SERIES - 1], order[SERIES - 1 :]
    if len(left) == 1:
        return [*shown, *left]
    if left:
        shown.append(Series(rest, tuple(sum(column) for column in zip(*(one.values for one in left), strict=True))))
    return shown


def stacked(
    name: str, title: str, columns: Sequence[str], series: Sequence[Series], told: Callable[[int], str]
) -> Markup:
    """Stacked columns. `name` is unique on the page, `told` says a value."""
    totals = [sum(values) for values in zip(*(one.values for one in series), strict=True)] or [0] * len(columns)
    top = max(totals, default=0)
    most = f"The highest is {told(top)} on {columns[totals.index(top)]}." if top else "There is nothing yet."
    described = f"{len(columns)} columns from {columns[0]} to {columns[-1]}. In all {told(sum(totals))}. {most}"
    pictures = (
        _picture(
            f"{name}-{size}",
            size,
            width,
            height,
            title,
            described,
            _columns(columns, series, totals, told, width, height),
        )
        for size, (width, height) in (("wide", WIDE), ("narrow", NARROW))
    )
    return Markup("").join(pictures)


def spark(name: str, title: str, values: Sequence[int]) -> Markup:
    """A small line without axes."""
    width, height = 240, 44
    top = max(values, default=0) or 1
    step = width / max(1, len(values) - 1)
    points = " ".join(
        f"{at * step:.1f},{height - 3 - value * (height - 6) / top:.1f}" for at, value in enumerate(values)
    )
    area = f"0,{height} {points} {width},{height}"
    inside = Markup('<polygon class="area" points="{}"/><polyline class="line" points="{}"/>').format(area, points)
    return Markup(
        '<svg class="spark" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-labelledby="{}-t">'
        '<title id="{}-t">{}</title>{}</svg>'
    ).format(width, height, name, name, title, inside)


def nice_steps(top: int) -> list[int]:
    """Round values for the grid, up to the first one that is not below the top."""
    if top <= 0:
        return [0, 1]
    unit = 1
    while True:
        for factor in _STEPS:
            step = unit * factor
            if step * _LINES >= top:
                return [step * line for line in range(-(-top // step) + 1)]
        unit *= 10


# --- parts -------------------------------------------------------------------------------------------------------------


def _picture(name: str, size: str, width: int, height: int, title: str, described: str, inside: str) -> Markup:
    return Markup(
        '<svg class="chart {size}" viewBox="0 0 {width} {height}" role="img" aria-labelledby="{name}-t {name}-d">'
        '<title id="{name}-t">{title}</title><desc id="{name}-d">{described}</desc>{inside}</svg>'
    ).format(size=size, width=width, height=height, name=name, title=title, described=described, inside=Markup(inside))


def _columns(
    columns: Sequence[str],
    series: Sequence[Series],
    totals: Sequence[int],
    told: Callable[[int], str],
    width: int,
    height: int,
) -> str:
    steps = nice_steps(max(totals, default=0))
    room = height - _TOP - _BOTTOM
    floor = height - _BOTTOM

    def length(value: int) -> float:
        return value * room / steps[-1]

    parts = []
    for step in steps:
        y = floor - length(step)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="scale" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(told(step))}</text>'
        )
    pitch = (width - _LEFT - _RIGHT) / max(1, len(columns))
    bar = max(1.0, pitch * 0.72)
    for at, column in enumerate(columns):
        x = _LEFT + at * pitch + (pitch - bar) / 2
        y = float(floor)
        lines = [f"{column}: {told(totals[at])}"]
        rectangles = []
        for colour, one in enumerate(series):
            value = one.values[at]
            if value:
                y -= length(value)
                rectangles.append(
                    f'<rect class="c{colour}" x="{x:.1f}" y="{y:.1f}" width="{bar:.1f}" height="{length(value):.1f}"/>'
                )
                lines.append(f"{one.name} {told(value)}")
        whole = f'<rect class="hit" x="{_LEFT + at * pitch:.1f}" y="{_TOP}" width="{pitch:.1f}" height="{room}"/>'
        parts.append(f"<g><title>{escape(chr(10).join(lines))}</title>{''.join(rectangles)}{whole}</g>")
    parts += _names(columns, pitch, width, height)
    return "".join(parts)


def _names(columns: Sequence[str], pitch: float, width: int, height: int) -> list[str]:
    """As many of the columns' names as there is room for, spread evenly."""
    widest = max(map(len, columns), default=1) * 7 + 14
    every = max(1, -(-widest // max(1, int(pitch))))
    shown = []
    for at in range(0, len(columns), every):
        middle = _LEFT + (at + 0.5) * pitch
        half = widest / 2 - 7
        x = min(max(middle, half), width - half)
        shown.append(
            f'<text class="scale" x="{x:.1f}" y="{height - 6}" text-anchor="middle">{escape(columns[at])}</text>'
        )
    return shown
