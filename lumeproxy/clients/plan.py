"""What a set-up would change, and what taking it back would: decided from texts, without touching a file.

A set-up that is repeated starts from what was there before the first one, so that one undo takes back all of them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lumeproxy.clients import documents
from lumeproxy.clients.documents import Format
from lumeproxy.clients.jsontext import KeyPath, Tree, Unreadable
from lumeproxy.clients.record import FileRecord, Leaf, digest, sha256
from lumeproxy.errors import Refused

CONTEXT_LINES = 2
SHOWN_COLUMNS = 160  # a settings file on one line is not shown whole

# What is secret in a line that is shown: of our keys all but the public id, of others what stands behind a telling name.
_OUR_KEY = re.compile(r"(lume_[0-9A-Za-z]{8})_[0-9A-Za-z]+")
_TELLING = re.compile(
    r"""((?:token|key|secret|password|credential|authorization|cookie)[\w-]*["']?\s*[:=]\s*["'](?:Bearer )?)"""
    r"""(?!lume_)[^"']{6,}""",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Wish:
    """The values that a file should have. `paired` go back together; `gentle` are set only where there is nothing."""

    file: Path
    format: Format
    values: Tree
    paired: tuple[KeyPath, ...] = ()
    gentle: tuple[KeyPath, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One file as it is, as it was before any set-up and as it will be; None where there is no file. Of the keys
    that somebody has changed since, `kept` stay as they are, and `along` go all the same, with the one they belong to."""

    file: Path
    now: str | None
    before: str | None
    after: str | None
    record: FileRecord | None
    kept: tuple[KeyPath, ...] = ()
    along: tuple[KeyPath, ...] = ()

    @property
    def is_none(self) -> bool:
        """Whether the file stays as it is."""
        return self.now == self.after


def change(wish: Wish, now: str | None, earlier: FileRecord | None, backup: str | None) -> Change:
    """What a wish changes in a file whose text is `now`; `earlier` and `backup` are of a set-up that was here before.

    Raises Refused for a text that can't be read or merged, with the place.
    """
    try:
        if earlier is not None and now is not None and sha256(now) not in (earlier.before, earlier.after):
            return _repeated(wish, now, earlier)
        before = now if earlier is None else _restored(now, earlier, backup).text
        tree = {} if before is None else documents.parsed(before, wish.format)
        values = _wanted(tree, wish)
        if not values:
            return Change(wish.file, now, before, before, None)
        after = (
            documents.fresh(values, wish.format) if before is None else documents.assigned(before, values, wish.format)
        )
    except Unreadable as error:
        raise _unreadable(wish.file, error) from None
    return Change(wish.file, now, before, after, _record(wish, tree, values, before, after))


def undone(record: FileRecord, now: str | None, backup: str | None) -> Change:
    """What taking a set-up back changes in a file. Raises Refused for a text that can't be read, with the place."""
    file = Path(record.file)
    try:
        back = _restored(now, record, backup)
    except Unreadable as error:
        raise _unreadable(file, error) from None
    return Change(file, now, back.text, back.text, None, back.kept, back.along)


def shown(changes: Iterable[Change], home: Path) -> str:
    """The changes as a unified diff, without what is secret in them."""
    return "".join(_diff(change, home) for change in changes if not change.is_none)


def changed_keys(change: Change) -> list[str]:
    """The keys that a set-up sets in a file, as dotted names."""
    return [".".join(leaf.path) for leaf in change.record.leaves] if change.record is not None else []


def masked(line: str) -> str:
    """A line without what is secret in it."""
    return _TELLING.sub(r"\1…", _OUR_KEY.sub(r"\1_…", line))


# --- setting -----------------------------------------------------------------------------------------------------------


def _unreadable(file: Path, error: Unreadable) -> Refused:
    return Refused(f"{file} can't be merged: {error}. Nothing was changed.")


def _wanted(tree: Tree, wish: Wish) -> Tree:
    made: Tree = {}
    for path, value in documents.leaves(wish.values):
        if path not in wish.gentle or not documents.has(tree, path):
            made = documents.merged(made, documents.nested(path, value))
    return made


def _record(wish: Wish, tree: Tree, values: Tree, before: str | None, after: str) -> FileRecord:
    leaves = []
    for path, value in documents.leaves(values):
        had = documents.has(tree, path)
        leaves.append(
            Leaf(path, had, documents.at(tree, path) if had else None, digest(value), paired=path in wish.paired)
        )
    # Our own address that somebody had set without a token would send the user's own login here: it does not come back.
    lone = {
        leaf.path
        for leaf in leaves
        if leaf.paired and leaf.had and digest(leaf.was) == leaf.digest and not all(o.had for o in leaves if o.paired)
    }
    leaves = [Leaf(leaf.path, False, None, leaf.digest, True) if leaf.path in lone else leaf for leaf in leaves]
    made = [path for path in _inner(values) if not documents.has(tree, path)]
    return FileRecord(
        file=str(wish.file),
        format=wish.format,
        before=None if before is None else sha256(before),
        after=sha256(after),
        backup=None,
        made=tuple(made),
        leaves=tuple(leaves),
        exact=not lone,
    )


def _repeated(wish: Wish, now: str, earlier: FileRecord) -> Change:
    """A set-up on a file that has one, and that was changed otherwise since: what is still ours keeps its past."""
    tree = documents.parsed(now, wish.format)
    known = {leaf.path: leaf for leaf in earlier.leaves if _is_ours(tree, leaf)}
    values = _wanted(documents.removed_all(tree, known), wish)
    wanted = dict(documents.leaves(values))
    text = _taken_back(now, tree, [leaf for path, leaf in known.items() if path not in wanted], earlier)
    after = documents.assigned(text, values, wish.format)
    fresh = _record(wish, tree, values, now, after)
    leaves = []
    for leaf in fresh.leaves:
        past = known.get(leaf.path, leaf)
        leaves.append(Leaf(leaf.path, past.had, past.was, leaf.digest, leaf.paired))
    made = (*earlier.made, *(path for path in fresh.made if path not in earlier.made))
    record = FileRecord(
        earlier.file, wish.format, earlier.before, sha256(after), earlier.backup, made, tuple(leaves), exact=False
    )
    return Change(wish.file, now, None, after, record)


def _inner(values: Tree, above: KeyPath = ()) -> list[KeyPath]:
    """The paths of all objects in the tree, outermost first."""
    found: list[KeyPath] = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found += [(*above, key), *_inner(value, (*above, key))]
    return found


# --- taking back -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Restored:
    """A file's text without a set-up, None for no file; `kept` and `along` as in Change."""

    text: str | None
    kept: tuple[KeyPath, ...] = ()
    along: tuple[KeyPath, ...] = ()


def _restored(now: str | None, record: FileRecord, backup: str | None) -> _Restored:
    """A file without the set-up. Raises Unreadable."""
    if now is None:
        return _Restored(None)
    if record.exact and sha256(now) == record.after and (record.before is None or backup is not None):
        return _Restored(None if record.before is None else backup)
    if sha256(now) == record.before:
        return _Restored(now)
    tree = documents.parsed(now, record.format)
    ours = _ours(tree, record.leaves)
    changed = [leaf for leaf in record.leaves if documents.has(tree, leaf.path) and not _is_ours(tree, leaf)]
    kept = tuple(leaf.path for leaf in changed if leaf not in ours)
    along = tuple(leaf.path for leaf in changed if leaf in ours)
    text = _taken_back(now, tree, ours, record)
    is_left_empty = record.before is None and not text.strip("{} \t\r\n")
    return _Restored(None if is_left_empty else text, kept, along)


def _taken_back(text: str, tree: Tree, ours: list[Leaf], record: FileRecord) -> str:
    """The text with these leaves as they were before."""
    back: Tree = {}
    for leaf in ours:
        if leaf.had:
            back = documents.merged(back, documents.nested(leaf.path, leaf.was))
    gone = [leaf.path for leaf in ours if not leaf.had and documents.has(tree, leaf.path)]
    text = documents.removed(text, _collapsed(tree, gone, record.made), record.format)
    return documents.assigned(text, back, record.format) if back else text


def _ours(tree: Tree, leaves: tuple[Leaf, ...]) -> list[Leaf]:
    """Those leaves that go back. Paired ones go together: as long as one of them is still ours, all of them go."""
    pair = any(leaf.paired and _is_ours(tree, leaf) for leaf in leaves)
    return [leaf for leaf in leaves if (leaf.paired and pair) or _is_ours(tree, leaf)]


def _is_ours(tree: Tree, leaf: Leaf) -> bool:
    return documents.has(tree, leaf.path) and digest(documents.at(tree, leaf.path)) == leaf.digest


def _collapsed(tree: Tree, gone: list[KeyPath], made: tuple[KeyPath, ...]) -> list[KeyPath]:
    """The same removals, with an object that we made and that would be left empty in the place of all that is in it."""
    rest = set(gone)
    chosen: list[KeyPath] = []
    for path in made:
        if not documents.has(tree, path) or any(path[: len(above)] == above for above in chosen):
            continue
        value = documents.at(tree, path)
        inside = {inner for inner, _ in documents.leaves(documents.nested(path, value))}
        if inside <= rest | {path}:
            chosen.append(path)
            rest -= inside
    return chosen + [path for path in gone if path in rest]


# --- showing -----------------------------------------------------------------------------------------------------------


def _diff(change: Change, home: Path) -> str:
    name = str(change.file)
    name = "~" + name.removeprefix(str(home)) if change.file.is_relative_to(home) else name
    lines = difflib.unified_diff(
        _lines(change.now),
        _lines(change.after),
        name if change.now is not None else "(no file)",
        name if change.after is not None else "(no file)",
        n=CONTEXT_LINES,
        lineterm="",
    )
    return "".join(_cut(masked(line)) + "\n" for line in lines)


def _lines(text: str | None) -> list[str]:
    return [] if text is None else text.splitlines()


def _cut(line: str) -> str:
    return line if len(line) <= SHOWN_COLUMNS else line[: SHOWN_COLUMNS - 1] + "…"
