"""Disk images as a loss of power would leave them, made from the trace of a real server.

A sync makes what was written to a file before it durable. Of what was not synced by then, a crash keeps some, drops some
and tears some at sectors of 512 bytes; order between two syncs says nothing. A file exists from its first sync.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.faults.tracing import Op

SECTOR = 512
KEPT, TORN = 0.4, 0.6


class Disk:
    """The files of one folder, as far as they are durable, and what is on its way to them."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder) + "/"
        self._durable: dict[str, bytearray] = {}
        self._pending: dict[str, list[Op]] = {}

    def apply(self, op: Op) -> None:
        """Take in the next operation."""
        if not op.where.startswith(self._folder) or op.where.endswith("-shm"):
            return
        if op.kind in ("write", "truncate"):
            self._pending.setdefault(op.where, []).append(op)
        elif op.kind == "sync":
            file = self._durable.setdefault(op.where, bytearray())
            for waiting in self._pending.pop(op.where, ()):
                _put(file, waiting)
        elif op.kind == "unlink":
            self._durable.pop(op.where, None)
            self._pending.pop(op.where, None)

    def crash(self, folder: Path, dice: random.Random) -> None:
        """Write the files into an empty folder as they may be found after the power failed now."""
        for where in {*self._durable, *self._pending}:
            file = bytearray(self._durable.get(where, b""))
            for waiting in self._pending.get(where, ()):
                chance = dice.random()
                if chance < KEPT:
                    _put(file, waiting)
                elif chance < TORN:
                    _put(file, waiting, dice)
            if where in self._durable or file:
                (folder / Path(where).name).write_bytes(file)


def _put(file: bytearray, op: Op, dice: random.Random | None = None) -> None:
    """One operation on a file; with `dice`, only about half of its sectors."""
    if op.kind == "truncate":
        del file[op.number :]
        file.extend(bytes(op.number - len(file)))
        return
    for start in range(0, len(op.data), SECTOR):
        if dice is None or dice.random() < 0.5:
            piece = op.data[start : start + SECTOR]
            at = op.number + start
            file.extend(bytes(max(0, at - len(file))))
            file[at : at + len(piece)] = piece


def steps(ops: Sequence[Op]) -> Iterator[tuple[int, Op]]:
    """Operations by the places in the trace at which they have their effect: a sync when it is done, all others when
    they begin."""
    return iter(sorted(((op.done if op.kind == "sync" else op.begun, op) for op in ops), key=lambda step: step[0]))
