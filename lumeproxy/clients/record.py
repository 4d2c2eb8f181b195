"""The side file of a set-up: what each key was before, and what it was set to, so that it can be taken back key by key.

One JSON file a tool in the state folder; `plan.mjs` has the same. Values before are kept as they were, what
we set as a digest only: the key stands in one file less. Must not know how a file is read or written.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lumeproxy.clients.documents import Format
from lumeproxy.clients.jsontext import KeyPath
from lumeproxy.errors import Refused

VERSION = 1


@dataclass(frozen=True, slots=True)
class Leaf:
    """One key that we set. `had` and `was`: whether it was there, and its value; `digest` of what we set; `paired`: it goes
    back together with the other paired keys of its file, as an address does with its token."""

    path: KeyPath
    had: bool
    was: Any
    digest: str
    paired: bool


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What was done to one file. `before` and `after` are SHA-256 of the whole text in hex, None where there was no file;
    `backup` is the name of the copy in the state folder; `made` are the objects that were not there; `exact`: the text
    before may come back as it stands."""

    file: str
    format: Format
    before: str | None
    after: str
    backup: str | None
    made: tuple[KeyPath, ...]
    leaves: tuple[Leaf, ...]
    exact: bool


@dataclass(frozen=True, slots=True)
class Record:
    """One tool's set-up. `folders` are those that were made for it, outermost first."""

    tool: str
    url: str
    files: tuple[FileRecord, ...]
    folders: tuple[str, ...] = field(default=())

    def of(self, file: Path) -> FileRecord | None:
        """What was done to a file, None for nothing."""
        return next((record for record in self.files if record.file == str(file)), None)


def digest(value: object) -> str:
    """SHA-256 of a value's JSON, in hex."""
    return sha256(json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=str))


def sha256(text: str) -> str:
    """SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def encode(record: Record) -> str:
    """The side file's text. Raises Refused where a value before was one that JSON has no form for."""
    try:
        return json.dumps({"version": VERSION, **asdict(record)}, indent=2) + "\n"
    except TypeError:
        raise Refused("A key that is to be set has a date or time as its value; nothing was changed.") from None


def decode(text: str, file: Path) -> Record:
    """A side file's record. Raises Refused for one that is damaged or of a later version; nothing is then changed."""
    try:
        tree = json.loads(text)
        if tree["version"] != VERSION:
            raise ValueError
        files = tuple(_file_record(known) for known in tree["files"])
        return Record(str(tree["tool"]), str(tree["url"]), files, tuple(map(str, tree["folders"])))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refused(
            f"{file} is not a set-up's record that this version can read; nothing was changed. The copies of the files as "
            "they were before are beside it."
        ) from None


def _file_record(known: dict[str, Any]) -> FileRecord:
    leaves = tuple(
        Leaf(tuple(leaf["path"]), bool(leaf["had"]), leaf["was"], str(leaf["digest"]), bool(leaf["paired"]))
        for leaf in known["leaves"]
    )
    made = tuple(tuple(path) for path in known["made"])
    return FileRecord(str(known["file"]), Format(known["format"]), known["before"], str(known["after"]), known["backup"],
                      made, leaves, bool(known["exact"]))  # fmt: skip
