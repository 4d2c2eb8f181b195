"""kill -9: what a client saw complete is charged exactly, what was open is charged by its checkpoint, nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Report, times
from tests.faults.mixed import RICH, Bill, Clients, Seen, books, operation, wrong_bills
from tests.faults.product import ROOT, Product, product, session
from tests.faults.tracing import injected
from tests.support.calls import ANTHROPIC, PATHS, tokens_out

pytestmark = [pytest.mark.faults, pytest.mark.timeout(times(150, 3000))]

# A checkpoint is written every 2 s and looked for every 50 ms; the rest is what two shared cores may be late by.
CHECKPOINT_S, LATE_S = 2.05, 0.75

# The settlement of a complete call is begun, but its last event is let go before it is committed.
LETS_GO_EARLY = """
import asyncio
from lumeproxy.proxy.call import Call
from lumeproxy.store.ledger import Settled
settle, begun = Call.settle, set()
async def early(self, ending, **more):
    if ending != "complete":
        return await settle(self, ending, **more)
    task = asyncio.ensure_future(settle(self, ending, **more))
    begun.add(task)
    return Settled(0, 0, 0, 0)
Call.settle = early
"""


def without_guard(folder: Path, text: str) -> dict[str, str]:
    """Variables with which a server runs `text` at its start: the product with one of its guards off."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(text)
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


@dataclass
class Tally:
    """What a number of kills came to."""

    complete: int = 0
    open: int = 0
    long_open: int = 0  # open for longer than a checkpoint takes
    short: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def holds_of(data: Path, scratch: Path) -> dict[str, int]:
    """What a dead server's open calls held, by their names; read from a copy."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(data, scratch, ignore=shutil.ignore_patterns("*.sock"))
    with closing(sqlite3.connect(scratch / "lumeproxy.db")) as copy:
        rows = copy.execute("SELECT json_extract(draft, '$.user_agent'), amount_nanousd FROM holds").fetchall()
    return dict(rows)


def judge_open(record: dict[str, Any], bill: Bill, held: int, killed: float, tally: Tally) -> None:
    """One call that was open when the server died: between the reported input and its hold, at most 2 s behind."""
    name, ending, cost = record["user_agent"], record["ending"], record["cost_nanousd"]
    tally.open += 1
    if (ending, record["error_code"]) != ("interrupted", "process_died") or cost > held:
        tally.wrong.append(f"{name}: {ending} at {cost}, held {held}")
    if bill.began is None or not bill.sent:
        if cost:
            tally.wrong.append(f"{name}: {cost} for an answer that had not begun")
        return
    most = max(tokens_out(bill.path, bill.characters(killed)), 1)
    if bill.reported is not None and bill.reported <= killed:
        most = max(most, bill.output)  # its settlement was on its way, and its checkpoint had been written before
    if record["output_tokens"] > most:
        tally.wrong.append(f"{name}: {record['output_tokens']} tokens of output, {most} were sent")
    behind = killed - bill.began
    if behind > LATE_S and bill.path == ANTHROPIC and cost < bill.input_nanousd:
        tally.short.append(f"{name}: {cost}, below its input of {bill.input_nanousd}, reported {behind:.2f} s before")
    if behind > CHECKPOINT_S + LATE_S:
        tally.long_open += 1
        least = tokens_out(bill.path, bill.characters(killed - CHECKPOINT_S - LATE_S))
        if record["output_tokens"] < least:
            tally.short.append(f"{name}: {record['output_tokens']} tokens of output, {least} were sent 2 s before")


async def kill_under_load(made: Product, clients: Clients, after_s: float, tally: Tally) -> None:
    """One kill in the midst of 16 parallel calls, and what the next start made of it."""
    async with clients.busy(most_s=12):
        await asyncio.sleep(after_s)
        killed = time.monotonic()
        await made.kill()
    holds = holds_of(made.data, made.folder / "copy")
    await made.start()
    found = await books(made)
    mine, bills = clients.seen, clients.provider.bills
    tally.wrong += wrong_bills(found, bills, mine.values())
    tally.complete += sum(seen.complete for seen in mine.values())
    for name, held in holds.items():
        if name not in found.records or mine[name].complete:
            tally.wrong.append(f"{name}: held {held} when the server died, no record or complete for its client")
        elif name in bills:
            judge_open(found.records[name], bills[name], held, killed, tally)
    for name in mine:
        record = found.records.get(name)
        if record is None or name in holds or name not in bills:
            continue
        # Settled before the kill: exact, whether its client has seen the end or not.
        if (record["ending"], record["cost_nanousd"]) != ("complete", bills[name].nanousd):
            tally.wrong.append(f"{name}: settled as {record['ending']} at {record['cost_nanousd']}")
    if found.held:
        tally.wrong.append(f"{found.held} still held after the start")
    clients.seen.clear()  # judged; a long run would keep all their bodies
    clients.provider.bills.clear()


async def test_kill_under_load(report: Report, dice: random.Random) -> None:
    """Check 1: 16 parallel calls of all kinds, killed at random moments."""
    cycles, tally, spent = times(5, 200), Tally(), 0
    async with product(more=RICH) as made, session() as client:
        clients = Clients(made, client, dice)
        granted = (await made.balance())["balance_nanousd"]
        for cycle in range(cycles):
            # Every fifth kill comes late enough to find streams that are older than a checkpoint.
            await kill_under_load(made, clients, 3.6 if cycle % 5 == 0 else dice.uniform(0, 3), tally)
        (total,) = await operation(made, "usage.totals", by="account")
        spent = granted - (await made.balance())["balance_nanousd"]
        assert not made.upstream.errors
    short, wrong = len(tally.short), len(tally.wrong)
    report(
        "1 kill -9 under load",
        cycles,
        "0 complete calls lost, doubled or inexact; open ones between input and hold, short by 2 s of output at most",
        f"{wrong} wrong of {tally.complete} complete, {tally.open} open ({tally.long_open} for over 2 s): {short} short",
    )
    assert tally.wrong == []
    assert tally.short == []
    assert spent == total["cost_nanousd"]
    assert tally.complete > cycles and tally.open > cycles and tally.long_open


async def test_kill_without_checkpoints(report: Report, dice: random.Random) -> None:
    """Check 1's control: where checkpoints are written every 10 minutes, open calls are charged too little."""
    tally = Tally()
    async with product(more=RICH + "[limits]\ncheckpoint_ms = 600000\n") as made, session() as client:
        await kill_under_load(made, Clients(made, client, dice), 3.6, tally)
    report("1 control: no checkpoints", 1, "open calls short", f"{len(tally.short)} of {tally.long_open} short")
    assert tally.wrong == []
    assert tally.short


async def complete_then_killed(made: Product, clients: Clients, strace: str) -> list[Seen]:
    """Kill the server in the moment in which a client has its last event, each write and sync being slow; the calls that
    were complete then."""
    before = set(clients.seen)
    pid = made.pid

    def kill(_seen: Seen) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    clients.on_complete = kill
    paths = clients.dice.sample(PATHS, len(PATHS))  # the first of them will mostly be the one that is complete
    slow = ("fdatasync:delay_enter=300000", "pwrite64:delay_enter=4000")
    async with injected(strace, pid, *slow):
        await asyncio.gather(
            *(clients.call(path, stream=clients.dice.random() < 0.7, wait=n * 0.08) for n, path in enumerate(paths))
        )
        await made.kill()
    return [seen for name, seen in clients.seen.items() if name not in before and seen.complete]


async def killed_at_the_end(made: Product, clients: Clients, strace: str) -> tuple[int, list[str]]:
    """How many calls were complete, and what is wrong with their bills after the next start."""
    complete = await complete_then_killed(made, clients, strace)
    await made.start()
    names = {seen.name for seen in complete}
    bills = {name: bill for name, bill in clients.provider.bills.items() if name in names}
    return len(complete), wrong_bills(await books(made), bills, complete)


async def test_kill_between_the_last_byte_and_the_commit(report: Report, dice: random.Random, strace: str) -> None:
    """Check 2: whoever has the last event has an exact record, also where commits take half a second."""
    cycles, complete, wrong = times(4, 100), 0, []
    async with product(more=RICH) as made, session() as client:
        clients = Clients(made, client, dice)
        for _ in range(cycles):
            number, problems = await killed_at_the_end(made, clients, strace)
            complete += number
            wrong += problems
    report("2 kill at the last byte", cycles, "every complete call exact", f"{complete - len(wrong)} of {complete}")
    assert wrong == []
    assert complete >= cycles


async def test_kill_where_the_last_event_is_let_go_early(
    report: Report, dice: random.Random, strace: str, tmp_path: Path
) -> None:
    """Check 2's control: with the last event sent before the commit, complete calls are lost."""
    environ = without_guard(tmp_path / "guard", LETS_GO_EARLY)
    async with product(more=RICH, environ=environ) as made, session() as client:
        complete, wrong = await killed_at_the_end(made, Clients(made, client, dice), strace)
    report("2 control: sent before the commit", 1, "complete calls lost", f"{len(wrong)} of {complete} lost")
    assert wrong


# --- during recovery ---------------------------------------------------------------------------------------------------

# What a recovery writes depends on the moment at which it ran in these places only.
WRITES = ("pwrite64", "fdatasync", "ftruncate", "unlink")
MOMENTS = {"usage": ("duration_ms",), "entries": ("time_ms",)}


def rows_of(data: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of a database that no server has open, but for the moments of recovery."""
    with closing(sqlite3.connect(data / "lumeproxy.db")) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
        found = {}
        for table in tables:
            names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            kept = ", ".join(name for name in names if name not in MOMENTS.get(table, ()))
            # Entries are numbered in the order of recovery, which is the order of the calls.
            found[table] = sorted(db.execute(f"SELECT {kept} FROM {table}"), key=repr)
    return found


@contextlib.asynccontextmanager
async def copied(made: Product, name: str) -> AsyncIterator[Product]:
    """The dead server's data in a folder of its own."""
    folder = made.folder / name
    shutil.copytree(made.data, folder / "data", ignore=shutil.ignore_patterns("*.sock"))
    copy = replace(made, folder=folder, process=None, environ={})
    try:
        yield copy
    finally:
        if copy.process is not None:
            await copy.kill()
        shutil.rmtree(folder)


async def died_starting(made: Product, prefix: tuple[str, ...], seconds: float) -> bool:
    """Start a server that is killed by its prefix or after so many seconds; whether it did not come to serve."""
    process = await asyncio.create_subprocess_exec(
        *prefix,
        *made._command("serve", "--port", "0"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None
    line = b""
    try:
        with contextlib.suppress(TimeoutError):
            line = await asyncio.wait_for(process.stdout.readline(), seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()
    return b"serves on" not in line


async def recovered(copy: Product) -> dict[str, list[tuple[Any, ...]]]:
    """The rows after an undisturbed start and a clean stop."""
    await copy.start()
    assert (await books(copy)).problems == []
    assert await copy.stop() == 0
    return rows_of(copy.data)


async def writes_of(copy: Product, strace: str) -> dict[str, int]:
    """How often one thread of a start with a recovery writes, syncs and removes, by the name of the system call."""
    trace = copy.folder / "trace"
    copy.prefix = (strace, "-f", "--seccomp-bpf", "-o", str(trace), "-e", f"trace={','.join(WRITES)}")
    await copy.start()
    lines = [re.match(r"(\d+ +\w+)\(", line) for line in trace.read_text().splitlines()]
    await copy.kill()
    most: dict[str, int] = {}
    for found, number in Counter(line[1] for line in lines if line is not None).items():
        most[found.split()[1]] = max(most.get(found.split()[1], 0), number)
    return most


async def test_kill_during_recovery(report: Report, dice: random.Random, strace: str) -> None:
    """Check 3: killed up to 5 times in a row at any write, sync or moment of the start, the rows come out the same."""
    cycles, different, early, kills = times(3, 40), 0, 0, 0
    async with product(more=RICH) as made, session() as client:
        clients = Clients(made, client, dice)
        async with clients.busy(quick=6, slow=24, most_s=20):
            await asyncio.sleep(2.6)
            await made.kill()
        opened = len(holds_of(made.data, made.folder / "holds"))
        async with copied(made, "undisturbed") as copy:
            expected = await recovered(copy)
        async with copied(made, "counted") as copy:
            writes = await writes_of(copy, strace)
        interrupted = [row for row in expected["usage"] if "process_died" in row]
        for cycle in range(cycles):
            async with copied(made, f"killed-{cycle}") as copy:
                for _ in range(dice.randint(1, 5)):
                    kills += 1
                    name = dice.choice(("pwrite64", "pwrite64", "pwrite64", *WRITES, ""))
                    inject = f"inject={name}:signal=KILL:when={dice.randint(1, max(1, writes.get(name, 0)))}"
                    # Not with --seccomp-bpf, by which strace 6.1 forgets the signal.
                    prefix = (strace, "-f", "-o", os.devnull, "-e", f"trace={name}", "-e", inject)
                    if not await died_starting(copy, prefix if name else (), 3 if name else dice.uniform(0.2, 0.9)):
                        break  # it came to serve: there is no recovery left to be killed in
                    early += 1
                different += await recovered(copy) != expected
    report(
        "3 kill -9 during recovery",
        cycles,
        "rows as after an undisturbed recovery",
        f"{different} differ; {opened} open calls, {early} of {kills} kills before it served, writes {writes}",
    )
    assert different == 0
    assert len(interrupted) == opened > 10
    assert early >= cycles
