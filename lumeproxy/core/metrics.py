"""Counters and histograms, and their text for Prometheus (prometheus.io/docs/instrumenting/exposition_formats, text format
0.0.4, 2026-11). A count is one dictionary access. Labels come from sets that this program bounds: never an account's name,
never a model's, which a client may invent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

# In seconds: a commit takes 0.2 ms on a quick disk and 20 ms on a slow one; what takes longer is a fault.
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Counter:
    """Numbers that only grow, one for each combination of labels; at most `limit` of these, the rest is counted under
    `other`, so that no bug fills the memory."""

    def __init__(self, name: str, text: str, labels: Sequence[str], *, limit: int = 1000) -> None:
        self.name = name
        self.text = text
        self._labels = tuple(labels)
        self._limit = limit
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, amount: int, *labels: str) -> None:
        """Count, under one value for each label."""
        counts = self._counts
        if labels in counts:
            counts[labels] += amount
        elif len(counts) < self._limit:
            counts[labels] = amount
        else:
            other = ("other",) * len(self._labels)
            counts[other] = counts.get(other, 0) + amount

    def lines(self) -> Iterator[str]:
        """Its lines of the text."""
        yield from _head(self.name, self.text, "counter")
        for values, count in sorted(self._counts.items()):
            yield _line(self.name, zip(self._labels, values, strict=True), count)


class Histogram:
    """How many observations were at most as large as each of the buckets, which ascend; their number and their sum."""

    def __init__(self, buckets: Sequence[float] = BUCKETS_S) -> None:
        self._buckets = tuple(buckets)
        self._counts = [0] * (len(self._buckets) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one."""
        self._sum += value
        for place, bucket in enumerate(self._buckets):
            if value <= bucket:
                self._counts[place] += 1
                return
        self._counts[-1] += 1

    def lines(self, name: str, text: str) -> Iterator[str]:
        """Its lines of the text."""
        yield from _head(name, text, "histogram")
        total = 0
        for bucket, count in zip((*map(repr, self._buckets), "+Inf"), self._counts, strict=True):
            total += count
            yield _line(name + "_bucket", [("le", bucket)], total)
        yield f"{name}_sum {self._sum!r}"
        yield f"{name}_count {total}"


def gauge(name: str, text: str, value: int) -> Iterator[str]:
    """The lines of a number that goes up and down."""
    yield from _head(name, text, "gauge")
    yield f"{name} {value}"


def gauges(name: str, text: str, label: str, values: Mapping[str, int]) -> Iterator[str]:
    """The same of one number for each value of a label."""
    yield from _head(name, text, "gauge")
    for shown, value in sorted(values.items()):
        yield _line(name, [(label, shown)], value)


def _head(name: str, text: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _line(name: str, labels: Iterable[tuple[str, str]], value: int) -> str:
    shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    return f"{name}{{{shown}}} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
