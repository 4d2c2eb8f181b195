"""Model patterns: `*` stands for any run of characters, everything else for itself.

Linear, so hostile names cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable


def is_pattern(text: str) -> bool:
    """Whether the text holds a `*`."""
    return "*" in text


def matches(pattern: str, name: str) -> bool:
    """Whether the whole name matches, letter case included."""
    if "*" not in pattern:
        return pattern == name
    first, *middle, last = pattern.split("*")
    if not name.startswith(first) or not name.endswith(last) or len(name) < len(first) + len(last):
        return False
    at, end = len(first), len(name) - len(last)
    for piece in middle:
        found = name.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def first_match(patterns: Iterable[str], name: str) -> str | None:
    """The first pattern that matches, None when none does."""
    return next((pattern for pattern in patterns if matches(pattern, name)), None)
