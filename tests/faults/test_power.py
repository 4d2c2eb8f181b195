"""Loss of power: what was answered stays settled, what went to a provider has a hold; and no byte before its hold.

kill -9 does not show this, for the page cache survives it. The real server is traced, and its disk rebuilt as it would be
found if the power had failed at a random moment.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lumeproxy.store import ledger
from lumeproxy.store.audit import audit
from tests.faults.conftest import Report, times
from tests.faults.crash import Disk, steps
from tests.faults.mixed import LAST, RICH, Bill, Clients
from tests.faults.product import session
from tests.faults.test_kill import without_guard
from tests.faults.tracing import Op, operations, traced_product
from tests.support.calls import FINAL

pytestmark = [pytest.mark.faults, pytest.mark.timeout(times(150, 3000))]

NORMAL = """
from lumeproxy.store import database
prepare = database._prepare
def less(conn):
    prepare(conn)
    conn.execute("PRAGMA synchronous = NORMAL")
database._prepare = less
"""

# The hold is asked for, but not waited for.
SENDS_BEFORE_THE_HOLD = """
import asyncio
from lumeproxy.proxy.call import Call
hold, settle = Call.hold, Call.settle
async def early(self):
    self.taking = asyncio.ensure_future(hold(self))
    self.held_nanousd = self.plan.want_nanousd
async def after(self, *args, **named):
    await self.taking
    return await settle(self, *args, **named)
Call.hold, Call.settle = early, after
"""
_NAME = re.compile(rb"user-agent: (fault-\d+)", re.IGNORECASE)
_CALL = re.compile(rb"x-lume-call-id: (call_\w+)", re.IGNORECASE)


@dataclass
class Trace:
    """What a server did while it served some calls: its operations, and by call when it promised what."""

    data: Path
    ops: list[Op]
    bills: dict[str, Bill]
    settled: dict[str, int] = field(default_factory=dict)  # by name: when its client was sent the end
    sent: dict[str, int] = field(default_factory=dict)  # by name: when its provider was sent the first byte
    names: dict[str, str] = field(default_factory=dict)  # by call id


async def served(
    folder: Path, strace: str, dice: random.Random, *, number: int, parallel: int, environ: dict[str, str] | None = None
) -> Trace:
    """The trace of a server that is started, answers so many calls, and is killed."""
    output = folder / "trace"
    async with (
        traced_product(strace, output, more=RICH, environ=environ or {}) as made,
        session() as client,
    ):
        clients = Clients(made, client, dice)

        async def work() -> None:
            while len(clients.seen) < number:
                await clients.any_call(slow=dice.random() < 0.2, most_s=1.0)

        await asyncio.gather(*(work() for _ in range(parallel)))
        await made.kill()
        assert all(seen.complete for seen in clients.seen.values())
        ops = operations(output)
        output.unlink()
        found = Trace(made.data, ops, clients.provider.bills)
        found.names = {seen.call_id: seen.name for seen in clients.seen.values()}
        _promises(found, made.port, made.upstream.port)
        return found


def _promises(trace: Trace, port: int, upstream: int) -> None:
    """Find in what was sent when providers and clients had what."""
    answering: dict[str, str] = {}  # by connection: the call that is answered on it
    for op in trace.ops:
        if op.kind != "sent" or not op.where.startswith("TCP:"):
            continue
        near, _, far = op.where[5:-1].partition("->")
        if far.endswith(f":{upstream}"):
            if found := _NAME.search(op.data):
                trace.sent.setdefault(found[1].decode(), op.begun)
        elif near.endswith(f":{port}"):
            if found := _CALL.search(op.data):
                answering[far] = trace.names[found[1].decode()]
            name = answering.get(far)
            if name is not None and (FINAL[trace.bills[name].path] in op.data or LAST in op.data):
                trace.settled.setdefault(name, op.begun)


@dataclass
class Losses:
    """What was found in crash images."""

    images: int = 0
    settled: int = 0  # promises looked for
    lost: int = 0
    broken: int = 0
    sentences: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return (
            f"{self.lost} lost and {self.broken} inconsistent of {self.images}, {self.settled} settlements looked for"
        )


def crash_images(trace: Trace, images: int, dice: random.Random, scratch: Path) -> Losses:
    """Fail the power at random moments after the first call began, and look into each disk that is left."""
    losses = Losses()
    steps_taken = list(steps(trace.ops))
    first = min(trace.sent.values())
    start = next(n for n, (place, _) in enumerate(steps_taken) if place >= first)
    moments = sorted(dice.randrange(start, len(steps_taken)) for _ in range(images))
    disk = Disk(trace.data)
    for n, (place, op) in enumerate(steps_taken):
        disk.apply(op)
        while moments and moments[0] == n:
            moments.pop(0)
            losses.images += 1
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            disk.crash(scratch, dice)
            try:
                _look(trace, place, scratch / "lumeproxy.db", losses)
            except sqlite3.Error as error:
                losses.broken += 1
                losses.sentences.append(f"at {place}: {error}")
    return losses


def _look(trace: Trace, place: int, file: Path, losses: Losses) -> None:
    """Open what a crash left, and look for all that was promised until then, before and after the recovery."""
    settled = {name for name, when in trace.settled.items() if when <= place}
    sent = {name for name, when in trace.sent.items() if when <= place}
    losses.settled += len(settled)
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        wrong = audit(db)
        held = {json.loads(row[0])["user_agent"] for row in db.execute("SELECT draft FROM holds")}
        costs = dict(db.execute("SELECT user_agent, cost_nanousd FROM usage"))
        lost = [name for name in settled if costs.get(name) != trace.bills[name].nanousd]
        lost += [name for name in sent if name not in held and name not in costs]
        db.execute("BEGIN IMMEDIATE")
        ledger.recover(db, 2**62, 2**41)
        db.execute("COMMIT")
        wrong += audit(db)
        if (left := db.execute("SELECT sum(held_nanousd) FROM accounts").fetchone()[0]) != 0:
            wrong.append(f"{left} held after the recovery")
    if lost:
        losses.lost += 1
        losses.sentences.append(f"at {place}: lost {lost[:5]}")
    if wrong:
        losses.broken += 1
        losses.sentences.append(f"at {place}: {wrong[:3]}")


def checkpoints(trace: Trace) -> int:
    """How often pages were moved from the log into the database while calls were served."""
    first = min(trace.sent.values())
    return sum(op.kind == "sync" and op.where.endswith("lumeproxy.db") and op.begun > first for op in trace.ops)


async def test_loss_of_power(report: Report, dice: random.Random, strace: str, tmp_path: Path) -> None:
    """Checks 4 and 5, on the same traces of a server at work."""
    runs, sum_up, early, calls = times(1, 3), Losses(), [], 0
    for run in range(runs):
        folder = tmp_path / str(run)
        folder.mkdir()
        trace = await served(folder, strace, dice, number=times(120, 350), parallel=8)
        assert len(trace.settled) == len(trace.sent) == len(trace.bills)
        assert checkpoints(trace), "no checkpoint among the operations"
        losses = crash_images(trace, times(200, 1000), dice, folder / "image")
        sum_up.images += losses.images
        sum_up.settled += losses.settled
        sum_up.lost += losses.lost
        sum_up.broken += losses.broken
        sum_up.sentences += losses.sentences
        early += before_their_holds(trace)
        calls += len(trace.sent)
    report("4 loss of power", sum_up.images, "0 promises lost, 0 images inconsistent", sum_up.text)
    report("5 nothing sent before its hold is synced", calls, "0 calls", f"{len(early)} of {calls}")
    assert sum_up.sentences == []
    assert early == []
    assert sum_up.settled > sum_up.images


async def test_loss_of_power_with_normal(report: Report, dice: random.Random, strace: str, tmp_path: Path) -> None:
    """Check 4's control: with synchronous = NORMAL, settled calls are lost."""
    environ = without_guard(tmp_path / "guard", NORMAL)
    trace = await served(tmp_path, strace, dice, number=times(60, 300), parallel=8, environ=environ)
    losses = crash_images(trace, times(60, 1000), dice, tmp_path / "image")
    report("4 control: synchronous = NORMAL", losses.images, "promises lost", losses.text)
    assert losses.lost > losses.images // 4


def before_their_holds(trace: Trace) -> list[str]:
    """The calls of which a byte went to the provider before their hold was on the disk."""
    call_ids = {name: call_id.encode() for call_id, name in trace.names.items()}
    log = [op for op in trace.ops if op.where.endswith("lumeproxy.db-wal")]
    writes = [op for op in log if op.kind == "write"]
    syncs = [op for op in log if op.kind == "sync"]
    early = []
    for name, sent in trace.sent.items():
        written = next((op.done for op in writes if call_ids[name] in op.data), None)
        synced = next((op.done for op in syncs if written is not None and op.begun > written), None)
        if synced is None or synced > sent:
            early.append(name)
    return early


async def test_sending_before_the_hold(report: Report, dice: random.Random, strace: str, tmp_path: Path) -> None:
    """Check 5's control: where the hold is not waited for, bytes are on their way before it is on the disk."""
    environ = without_guard(tmp_path / "guard", SENDS_BEFORE_THE_HOLD)
    trace = await served(tmp_path, strace, dice, number=20, parallel=2, environ=environ)
    early = before_their_holds(trace)
    report("5 control: the hold is not waited for", len(trace.sent), "calls sent too early", f"{len(early)}")
    assert len(early) > len(trace.sent) // 2
