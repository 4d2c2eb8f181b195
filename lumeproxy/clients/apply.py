"""A set-up carried out on a machine's files: all of it or nothing, with the way back written down first.

The side file and the copies are on the disk before the first settings file is touched: whatever dies when, an undo knows
what to do. Must not know any tool.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lumeproxy.clients import files, record
from lumeproxy.clients.files import Found
from lumeproxy.clients.plan import Change, Wish, change, undone
from lumeproxy.clients.record import FileRecord, Record
from lumeproxy.errors import Refused


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done for one tool: a change and the file found for each, and the record that is to be kept then."""

    tool: str
    state: Path
    changes: tuple[Change, ...]
    found: tuple[Found, ...]
    record: Record | None

    @property
    def is_none(self) -> bool:
        """Whether every file stays as it is."""
        return all(change.is_none for change in self.changes)


def plan(tool: str, url: str, wishes: Sequence[Wish], state: Path) -> Plan:
    """What has to change for these wishes. Raises Refused where a file can't be read, merged or written."""
    earlier = _load(tool, state)
    changes, found = [], []
    for wish in wishes:
        known = None if earlier is None else earlier.of(wish.file)
        seen = files.look(wish.file)
        made = change(wish, seen.text, known, _backup(state, known))
        if not made.is_none:
            files.check_writable(wish.file, seen)
        changes.append(made)
        found.append(seen)
    records = [made.record for made in changes if made.record is not None]
    names = {made.file for made in records} | {str(made.file) for made in changes if made.record is None}
    records += [known for known in (earlier.files if earlier is not None else ()) if known.file not in names]
    folders = earlier.folders if earlier is not None else ()
    return Plan(tool, state, tuple(changes), tuple(found), Record(tool, url, tuple(records), folders))


def plan_undo(tool: str, state: Path) -> Plan:
    """What has to change to take a set-up back. Raises Refused where there was none, or a file can't be read or written."""
    earlier = _load(tool, state)
    if earlier is None:
        raise Refused(
            f"There is no record of a set-up of {tool} on this machine ({_side_file(tool, state)}). Nothing was changed."
        )
    changes, found = [], []
    for known in earlier.files:
        file = Path(known.file)
        seen = files.look(file)
        made = undone(known, seen.text, _backup(state, known))
        if not made.is_none:
            files.check_writable(file, seen)
        changes.append(made)
        found.append(seen)
    return Plan(tool, state, tuple(changes), tuple(found), None)


def apply(plan: Plan) -> None:
    """Write what a plan of a set-up says. Raises Refused; then every file is as it was."""
    assert plan.record is not None
    earlier = _load(plan.tool, plan.state)
    made: list[str] = []
    try:
        made += map(str, files.make_folders(plan.state))
        records = [_kept(plan, change) for change in plan.changes if change.record is not None]
        named = {kept.file for kept in records}
        records += [known for known in plan.record.files if known.file not in named]
        for change_ in plan.changes:
            if not change_.is_none:
                made += map(str, files.make_folders(Path(os.path.realpath(change_.file)).parent))
        kept = dataclasses.replace(plan.record, files=tuple(records), folders=(*plan.record.folders, *made))
        files.write(_side_file(plan.tool, plan.state), record.encode(kept), files.PRIVATE_FILE)
    except (OSError, Refused) as error:
        _forget(plan, earlier, tuple(made))
        raise _failed(error) from None
    try:
        _write_all(plan)
    except (OSError, Refused) as error:
        _forget(plan, earlier, tuple(made))
        raise _failed(error) from None


def apply_undo(plan: Plan) -> None:
    """Write what a plan of an undo says, then forget the set-up. Raises Refused, which says what was done."""
    earlier = _load(plan.tool, plan.state)
    assert earlier is not None
    try:
        _write_all(plan)
    except (OSError, Refused) as error:
        raise _failed(error) from None
    try:
        _remove_copies(plan)
        _side_file(plan.tool, plan.state).unlink()
    except OSError as error:
        raise Refused(f"The settings are as before, but {error.filename} can't be removed: {error.strerror}.") from None
    files.remove_folders(earlier.folders)
    with contextlib.suppress(OSError, Refused):  # an empty folder that is left behind harms nobody
        _hand_on(plan, [folder for folder in earlier.folders if Path(folder).exists()])


def _hand_on(plan: Plan, folders: list[str]) -> None:
    """Folders that were made for this tool and that another one's set-up now uses go when that one is taken back."""
    other = next(iter(sorted(plan.state.glob("*.json"))), None)
    if other is not None and folders:
        theirs = record.decode(files.look(other).text or "", other)
        kept = dataclasses.replace(theirs, folders=tuple(dict.fromkeys((*folders, *theirs.folders))))
        files.write(other, record.encode(kept), files.PRIVATE_FILE)


def _write_all(plan: Plan) -> None:
    """Write every file that changes. Raises OSError or Refused; what was written before is then put back."""
    done: list[tuple[Change, Found]] = []
    try:
        for made, found in zip(plan.changes, plan.found, strict=True):
            if made.is_none:
                continue
            if files.look(made.file).text != found.text:
                raise Refused(f"{made.file} was changed by somebody else meanwhile; run this again.")
            done.append((made, found))
            _put(found, made.after)
    except (OSError, Refused):
        for made, found in done:
            _put(found, made.now)
        raise


def _put(found: Found, text: str | None) -> None:
    if text is None:
        found.real.unlink(missing_ok=True)
    else:
        files.write(found.real, text, found.mode)


def _kept(plan: Plan, made: Change) -> FileRecord:
    """The record of a change, once the copy of the file as it was is there."""
    assert made.record is not None
    if made.before is None:
        return made.record
    name = f"{plan.tool}.{made.file.name.lstrip('.')}.before"
    files.write(plan.state / name, made.before, files.PRIVATE_FILE)
    return dataclasses.replace(made.record, backup=name)


def _forget(plan: Plan, earlier: Record | None, made: tuple[str, ...]) -> None:
    """After a failure: the side file as it was before this try, and nothing of what was made for it."""
    if earlier is not None:
        files.write(_side_file(plan.tool, plan.state), record.encode(earlier), files.PRIVATE_FILE)
        return
    _side_file(plan.tool, plan.state).unlink(missing_ok=True)
    _remove_copies(plan)
    files.remove_folders(made)


def _remove_copies(plan: Plan) -> None:
    for copy in plan.state.glob(f"{plan.tool}.*.before"):
        copy.unlink()


def _failed(error: OSError | Refused) -> Refused:
    if isinstance(error, Refused):
        return error
    return Refused(f"It can't be written: {error.strerror or error} ({error.filename}). Every file is as it was.")


def _load(tool: str, state: Path) -> Record | None:
    file = _side_file(tool, state)
    text = files.look(file).text
    return None if text is None else record.decode(text, file)


def _backup(state: Path, known: FileRecord | None) -> str | None:
    """The copy of a file as it was, None where there is none, or it is not what it was."""
    if known is None or known.backup is None:
        return None
    text = files.look(state / known.backup).text
    return text if text is not None and record.sha256(text) == known.before else None


def _side_file(tool: str, state: Path) -> Path:
    return state / f"{tool}.json"
