"""What the doctor says: one line each, with what mends it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

Hint = Callable[[str], str]  # a command of lumeproxy as the user would have to type it here


class State(StrEnum):
    """How bad it is: `warning` is worth a look, `failed` keeps some calls from working."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's outcome. `check` is what was looked at in a word or two, "upstream:NAME" and "tool:NAME" where there are
    several; `text` is a sentence, `mend` a command to type or what to change, None where there is nothing to do."""

    check: str
    state: State
    text: str
    mend: str | None = None


def ok(check: str, text: str, mend: str | None = None) -> Finding:
    """All is well; `mend` is then a command worth knowing."""
    return Finding(check, State.OK, text, mend)


def warning(check: str, text: str, mend: str | None = None) -> Finding:
    """Worth a look."""
    return Finding(check, State.WARNING, text, mend)


def failed(check: str, text: str, mend: str | None = None) -> Finding:
    """Something does not work."""
    return Finding(check, State.FAILED, text, mend)


def spelled(count: int, noun: str) -> str:
    """ "1 model", "2 models"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size(count_bytes: int) -> str:
    """Bytes for a person: "512 KB", "64 MB", "1.5 GB", in powers of 1,000 as disks are sold."""
    for unit, power in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if count_bytes >= power:
            return (
                f"{count_bytes / power:.3g} {unit}"
                if count_bytes < 1000 * power
                else f"{count_bytes // power:,} {unit}"
            )
    return spelled(count_bytes, "byte")
