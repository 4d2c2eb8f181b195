"""What the set-up of a tool is made of: the machine it runs on, the proxy it is to use, and what each tool must tell.

A tool is one file beside this one and one line in registry.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lumeproxy.clients import documents
from lumeproxy.clients.documents import Format
from lumeproxy.clients.files import Found, look
from lumeproxy.clients.jsontext import Unreadable
from lumeproxy.clients.plan import Wish
from lumeproxy.errors import Refused

NAME = "lumeproxy"  # of our entry in a tool's list of providers


@dataclass(frozen=True, slots=True)
class Machine:
    """A developer's machine: `platform` as sys.platform has it, the variables, the home and the current folder."""

    platform: str
    environ: Mapping[str, str]
    home: Path
    cwd: Path

    def folder(self, variable: str, *default: str) -> Path:
        """The folder that a variable names, else one below the home."""
        named = self.environ.get(variable)
        return Path(named).expanduser() if named else self.home.joinpath(*default)

    def values(self, file: Path, format: Format) -> dict[str, Any]:
        """What a file says, nothing where it is missing or can't be read: for warnings, and for looking before a choice.
        A file that is to be changed is read again by what changes it, which refuses such a one."""
        with contextlib.suppress(Refused, Unreadable):
            found: Found = look(file)
            if found.text is not None:
                return documents.parsed(found.text, format)
        return {}

    @property
    def state(self) -> Path:
        """Where the side files are kept: as platformdirs has it, and apply.mjs too."""
        if self.platform == "win32":
            return self.folder("LOCALAPPDATA", "AppData", "Local") / NAME / "setup"
        if self.platform == "darwin":
            return self.home / "Library" / "Application Support" / NAME / "setup"
        return self.folder("XDG_STATE_HOME", ".local", "state") / NAME / "setup"


@dataclass(frozen=True, slots=True)
class Target:
    """The proxy that a tool is to use: `url` without a version or a slash at its end, the key, and the models that the key
    may use. `default`: the tool is to use it without being asked to."""

    url: str
    key: str
    models: tuple[str, ...]
    default: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """One small call as the tool makes it: the path below the address, and the body."""

    path: str
    body: dict[str, Any]


class Tool(Protocol):
    """What is known of one tool."""

    name: str  # on the command line
    title: str  # to a person
    link_app: str  # in CC Switch

    def wishes(self, machine: Machine, target: Target) -> Sequence[Wish]:
        """What its files should say. Raises Refused where the key may use no model that the tool can."""
        ...

    def warnings(self, machine: Machine, target: Target | None) -> Sequence[str]:
        """What on this machine would defeat the set-up, a sentence each."""
        ...

    def trial(self, machine: Machine, target: Target) -> Trial:
        """A call that shows that it works, as cheap as can be."""
        ...

    def next_steps(self, machine: Machine, target: Target) -> Sequence[str]:
        """What to type next, then what else is worth knowing, a line each."""
        ...
