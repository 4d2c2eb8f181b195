"""A disk that fails, is full, or has its files taken away: new calls are refused, running ones settle, nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import resource
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from lumeproxy.errors import StoreUnavailable
from tests.faults.conftest import Report, times
from tests.faults.mixed import RICH, Clients, Seen, books, operation, wrong_bills
from tests.faults.product import ROOT, Product, product, session
from tests.faults.test_kill import without_guard
from tests.faults.tracing import injected, traced, traced_product
from tests.support.calls import ANTHROPIC, PATHS
from tests.support.upstream import ScriptedUpstream

pytestmark = [pytest.mark.faults, pytest.mark.timeout(times(150, 3000))]

# Holds are so small that each stream has to extend its own while the disk takes nothing.
TIGHT = RICH.replace("= 256", "= 32").replace("= 64", "= 16")
RECOVERED_S = 5.0
SOON_S = 1.0  # what the list allows for an answer, and for taking notice
BUSY_S = 0.5  # what two shared cores may be late by

UNWATCHED = """
from lumeproxy.store.files import Files
Files.changed = lambda self: None
"""
OPENS_THE_DATABASE = """
from lumeproxy.store import files
place = files._place
def opened(path):
    if path.exists():
        open(path, "rb").close()
    return place(path)
files._place = opened
"""


@dataclass
class Faults:
    """What was found wrong, and how long things took at worst."""

    wrong: list[str] = field(default_factory=list)
    calls: int = 0
    hit: int = 0  # system calls that failed
    refused: int = 0
    streams: int = 0
    slowest_refusal_s: float = 0.0
    slowest_recovery_s: float = 0.0

    def refusal(self, seen: Seen, clients: Clients) -> None:
        """A call that was not taken: told so at once, with a wait, and its provider knows nothing of it."""
        self.refused += 1
        self.slowest_refusal_s = max(self.slowest_refusal_s, seen.seconds)
        if not (seen.status == 503 and seen.retry_after) or seen.name in clients.provider.bills:
            sent = seen.name in clients.provider.bills
            self.wrong.append(f"{seen.name}: {seen.status} after {seen.seconds:.1f} s, sent: {sent}")


async def is_ready(made: Product, http: aiohttp.ClientSession) -> bool:
    async with http.get(made.url + "/readyz") as response:
        return response.status == 200


async def takes_calls_again(made: Product, clients: Clients, http: aiohttp.ClientSession) -> float:
    """How long it takes until new calls are served."""
    started = time.monotonic()
    while not (await is_ready(made, http) and (await clients.call(PATHS[0])).complete):
        assert time.monotonic() - started < 30, "no calls taken 30 s after the fault"
        await asyncio.sleep(0.05)
    return time.monotonic() - started


# --- the nth write or sync ---------------------------------------------------------------------------------------------

KINDS = ("pwrite64:error=EIO", "pwrite64:error=ENOSPC", "fdatasync:error=EIO", "fdatasync:error=ENOSPC")


async def one_failure(made: Product, clients: Clients, http: aiohttp.ClientSession, strace: str, fault: str, all_: Faults
                      ) -> None:  # fmt: skip
    """Let a write or sync fail under load, and see that the server comes back to itself."""
    before = set(clients.seen)
    pid = made.pid
    streams = await clients.open_streams(3, words=50, pause=0.012)
    tasks = []
    async with injected(strace, pid, fault) as done:
        for _ in range(8):
            tasks += [asyncio.ensure_future(clients.any_call()) for _ in range(3)]
            await asyncio.sleep(0.08)
    all_.hit += done.count
    all_.slowest_recovery_s = max(all_.slowest_recovery_s, await takes_calls_again(made, clients, http))
    for seen in await asyncio.wait_for(asyncio.gather(*tasks), 30):
        if not seen.complete:
            all_.refusal(seen, clients)
    for seen in await asyncio.gather(*streams):
        all_.streams += 1
        if not seen.complete:
            all_.wrong.append(f"{seen.name}: a running stream did not come to its end")
    if made.pid != pid:
        all_.wrong.append("the server was started anew")
    found = await books(made)
    mine = {name: seen for name, seen in clients.seen.items() if name not in before}
    bills = {name: bill for name, bill in clients.provider.bills.items() if name in mine}
    all_.calls += len(mine)
    all_.wrong += wrong_bills(found, bills, mine.values())
    if found.held:
        all_.wrong.append(f"{found.held} is still held")


async def test_a_write_or_sync_fails(report: Report, dice: random.Random, strace: str) -> None:
    """Check 6: the nth write or sync fails, once or from there on; the server lives on without a restart."""
    chosen = [(kind, n) for kind in KINDS for n in (range(1, 51) if times(0, 1) else (dice.randint(1, 50),))]
    all_ = Faults()
    async with product(more=TIGHT) as made, session() as http:
        clients = Clients(made, http, dice)
        for number, (kind, n) in enumerate(chosen):
            # Once on even turns; on odd ones all from there on, as a disk that is gone for a while.
            await one_failure(made, clients, http, strace, f"{kind}:when={n}{'+' if number % 2 else ''}", all_)
        assert not made.upstream.errors
    report(
        "6 the nth write or sync fails",
        len(chosen),
        "0 lost, new calls 503 with a wait, running streams settle, back within 5 s",
        f"{len(all_.wrong)} wrong of {all_.calls} calls, {all_.refused} refused, {all_.streams} streams settled, "
        f"{all_.hit} failures, "
        f"back after {all_.slowest_recovery_s:.1f} s at most",
    )
    assert all_.wrong == []
    assert all_.refused
    assert all_.hit >= len(chosen)
    assert all_.slowest_recovery_s <= RECOVERED_S


async def test_a_refused_change_is_not_done(report: Report, dice: random.Random, strace: str) -> None:
    """Check 6: what was refused since a sync failed once does not come back after a crash: a grant would be made twice."""
    cycles, back = times(2, 10), 0
    async with product(more=TIGHT) as made:
        for _ in range(cycles):
            before = (await made.balance())["balance_nanousd"]
            async with injected(strace, made.pid, "fdatasync:error=EIO:when=1") as done:
                with pytest.raises(StoreUnavailable):
                    key = f"{dice.random()}"
                    await operation(made, "credit.grant", account="me", amount_nanousd=10**9, idempotency_key=key)
            assert done.count >= 1
            assert (await made.balance())["balance_nanousd"] == before
            await asyncio.sleep(0.5)
            await made.kill()
            await made.start()
            back += (await made.balance())["balance_nanousd"] != before
    report("6 a refused grant, then kill -9", cycles, "0 there after all", f"{back}")
    assert back == 0


# --- no space ----------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def on_a_small_disk() -> AsyncIterator[Product]:
    """A product whose data folder is a file system of 4 MB."""
    upstream = ScriptedUpstream()
    await upstream.start()
    with tempfile.TemporaryDirectory(prefix="lumeproxy-faults-") as folder:
        made = Product(Path(folder), upstream, more=TIGHT)
        made.data.mkdir(mode=0o700)
        mounted = await _ran("mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "none", str(made.data))
        try:
            if not mounted:
                pytest.skip("no file system can be mounted here (needs root); the other two forms ran")
            await made.start()
            yield made
        finally:
            if made.process is not None:
                await made.kill()
            if mounted:
                assert await _ran("umount", str(made.data))
            await upstream.stop()


async def _ran(*command: str) -> bool:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        return await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()


@contextlib.asynccontextmanager
async def ballast(made: Product, _strace: str) -> AsyncIterator[None]:
    """No space left on the device, until the end of the block."""
    file = made.data / "ballast"
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as heavy:
        while True:
            heavy.write(bytes(4096))
    try:
        yield
    finally:
        file.unlink()


@contextlib.asynccontextmanager
async def small_files(made: Product, _strace: str) -> AsyncIterator[None]:
    """No file may grow, the log's included, until the end of the block."""
    soft, hard = resource.prlimit(made.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(made.pid, resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.prlimit(made.pid, resource.RLIMIT_FSIZE, (soft, hard))


def read_only(made: Product, strace: str) -> AbstractAsyncContextManager[object]:
    """The device takes no writes, until the end of the block."""
    return injected(strace, made.pid, "pwrite64:error=EROFS", "ftruncate:error=EROFS")


async def no_space(
    made: Product,
    clients: Clients,
    http: aiohttp.ClientSession,
    full: Callable[[], AbstractAsyncContextManager[object]],
    all_: Faults,
) -> None:
    """20 streams run into a disk that takes nothing, which lasts for longer than they do."""
    streams = await clients.open_streams(20, words=25, pause=0.02)
    async with full():
        started = time.monotonic()
        ready = await is_ready(made, http)
        if ready or time.monotonic() - started > SOON_S + BUSY_S:
            all_.wrong.append(f"/readyz says ready: {ready}, after {time.monotonic() - started:.1f} s")
        for path in (*PATHS, *PATHS):
            all_.refusal(await clients.call(path), clients)
        await asyncio.sleep(0.8)  # all streams have come to their last event
        early = [task.result().name for task in streams if task.done()]
        if early:
            all_.wrong.append(f"{early} had their end before they were settled")
    started = time.monotonic()
    ended = await asyncio.wait_for(asyncio.gather(*streams), 30)
    all_.slowest_recovery_s = max(
        all_.slowest_recovery_s, time.monotonic() - started, await takes_calls_again(made, clients, http)
    )
    all_.streams += len(ended)
    all_.wrong += [f"{seen.name}: a running stream did not come to its end" for seen in ended if not seen.complete]
    found = await books(made)
    all_.wrong += wrong_bills(found, clients.provider.bills, clients.seen.values())
    if found.held:
        all_.wrong.append(f"{found.held} is still held")


@pytest.mark.parametrize("form", ["disk full", "file-size limit", "read-only"])
async def test_no_space(form: str, report: Report, dice: random.Random, strace: str) -> None:
    """Check 7: nothing can be written for a while; new calls are refused at once, 20 open streams settle afterwards."""
    cycles, all_ = times(2, 20), Faults()
    way = {"disk full": ballast, "file-size limit": small_files, "read-only": read_only}[form]
    for _ in range(0, cycles, 2):
        # A log that has been begun anew needs no space for a while: then a full disk is none to the server.
        context = on_a_small_disk() if form == "disk full" else product(more=TIGHT)
        async with context as made, session() as http:
            clients, pid = Clients(made, http, dice), made.pid
            for _ in range(2):
                await no_space(made, clients, http, lambda: way(made, strace), all_)
            assert made.pid == pid and made.process is not None and made.process.returncode is None
            assert not made.upstream.errors
    report(
        f"7 {form}",
        cycles,
        "/readyz and new calls 503 within 1 s, 20 streams settled 5 s after",
        f"{len(all_.wrong)} wrong; {all_.refused} refused within {all_.slowest_refusal_s:.2f} s, "
        f"{all_.streams} streams settled within {all_.slowest_recovery_s:.1f} s",
    )
    assert all_.wrong == []
    assert all_.slowest_refusal_s < SOON_S + BUSY_S
    assert all_.slowest_recovery_s <= RECOVERED_S


# --- files taken away --------------------------------------------------------------------------------------------------


def _remove(name: str) -> Callable[[Path], None]:
    return lambda data: (data / name).unlink()


def _replace(name: str) -> Callable[[Path], None]:
    def act(data: Path) -> None:
        (data / "new").write_bytes(b"")
        (data / "new").rename(data / name)

    return act


def _move_away(data: Path) -> None:
    data.rename(data.with_name("elsewhere"))


def _swap(data: Path) -> None:
    _move_away(data)
    data.mkdir(mode=0o700)


TAKEN: dict[str, Callable[[Path], None]] = {
    "-wal removed": _remove("lumeproxy.db-wal"),
    "-shm removed": _remove("lumeproxy.db-shm"),
    "-wal replaced": _replace("lumeproxy.db-wal"),
    "folder moved": _move_away,
    "folder replaced": _swap,
    "folder removed": shutil.rmtree,
    "database replaced": _replace("lumeproxy.db"),
}
# What was written to a file that has no name any more goes with the process.
BEYOND_SAVING = ("folder removed", "database replaced")


async def taken_away(made: Product, clients: Clients, http: aiohttp.ClientSession, what: str, all_: Faults) -> float:
    """Take files away under load; how long it took until the server refused calls."""
    streams = await clients.open_streams(4, words=50, pause=0.02)
    async with clients.busy(quick=6, slow=0):
        await asyncio.sleep(0.2)
        TAKEN[what](made.data)
        taken = time.monotonic()
        while await is_ready(made, http):
            await asyncio.sleep(0.02)
            assert time.monotonic() - taken < 10, "it was not noticed that files were taken away"
        noticed = time.monotonic() - taken
        begun = time.monotonic()
        await asyncio.sleep(0.4)
    for seen in clients.seen.values():
        if seen.began > begun and seen.status:
            all_.refusal(seen, clients)
    for seen in await asyncio.gather(*streams):
        all_.streams += 1
        if not seen.complete:
            all_.wrong.append(f"{seen.name}: a running stream did not come to its end")
    if '"event":"database_files"' not in made.log:
        all_.wrong.append("nothing in the log")
    return noticed


async def saved(made: Product, clients: Clients, what: str, all_: Faults) -> None:
    """Stop cleanly, put a moved folder back, and look whether all is there."""
    if (status := await made.stop()) != 0:
        all_.wrong.append(f"{what}: exit status {status}")
    if what in BEYOND_SAVING:
        return
    if (elsewhere := made.data.with_name("elsewhere")).exists():
        shutil.rmtree(made.data, ignore_errors=True)
        elsewhere.rename(made.data)
    await made.start()
    found = await books(made)
    # Calls whose clients were cancelled are charged too, if they were sent; all that were complete are exact.
    all_.wrong += [f"{what}: {one}" for one in wrong_bills(found, clients.provider.bills, clients.seen.values())]
    if found.held:
        all_.wrong.append(f"{what}: {found.held} is still held")


async def test_files_are_taken_away(report: Report, dice: random.Random) -> None:
    """Check 8: removed, replaced and moved files are noticed within a second; a clean stop keeps all."""
    chosen = list(TAKEN) * times(1, 3)
    all_, noticed = Faults(), []
    for what in chosen:
        async with product(more=TIGHT) as made, session() as http:
            clients = Clients(made, http, dice)
            noticed.append(await taken_away(made, clients, http, what, all_))
            await saved(made, clients, what, all_)
    report(
        "8 files removed or replaced",
        len(chosen),
        "noticed within 1 s, 0 calls taken after, 0 lost at a clean stop",
        f"within {max(noticed):.2f} s; {len(all_.wrong)} wrong, {all_.refused} refused, {all_.streams} streams settled",
    )
    assert all_.wrong == []
    assert max(noticed) <= SOON_S + BUSY_S
    assert all_.refused


async def test_files_are_taken_away_unwatched(report: Report, dice: random.Random, tmp_path: Path) -> None:
    """Check 8's control: without the watch, calls are taken on a file that is gone, and lost with the process."""
    async with product(more=TIGHT, environ=without_guard(tmp_path / "guard", UNWATCHED)) as made, session() as http:
        clients = Clients(made, http, dice)
        _remove("lumeproxy.db-wal")(made.data)
        await asyncio.sleep(1.2)
        taken = [await clients.call(ANTHROPIC) for _ in range(5)]
        await made.kill()
        await made.start()
        found = await books(made)
        lost = [seen.name for seen in taken if seen.complete and seen.name not in found.records]
    report("8 control: no watch over the files", 1, "calls taken, and lost", f"{len(lost)} of {len(taken)} lost")
    assert lost


# --- one process -------------------------------------------------------------------------------------------------------


async def second(made: Product) -> tuple[int | None, str, str]:
    """Start one more server on the same folder: its status and what it said."""
    process = await asyncio.create_subprocess_exec(
        *made._command("serve", "--port", "0"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), 20)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, out.decode(), err.decode()


async def test_one_process(report: Report, dice: random.Random) -> None:
    """Check 9: a second server is refused with a sentence, commands write through the running one; no call is harmed."""
    starts, wrong = times(4, 50), []
    async with product(more=TIGHT) as made, session() as http:
        clients = Clients(made, http, dice)
        granted = (await made.balance())["balance_nanousd"]
        async with clients.busy(quick=4, slow=2, most_s=1.0):
            for _ in range(starts):
                (status, out, err), after = await asyncio.gather(second(made), made.cli("credit", "grant", "me", "1"))
                lines = err.strip().splitlines()
                if status != 2 or out or len(lines) != 1 or "Another lumeproxy" not in err:
                    wrong.append(f"{status} {out} {err}")
                if after["account"] != "me":
                    wrong.append(f"granted: {after}")
        await asyncio.sleep(0.5)  # what the last clients left behind is settled
        await eventually_settled(made)
        found = await books(made)
        wrong += wrong_bills(found, clients.provider.bills, clients.seen.values())
        if found.balance != granted + starts * 10**9 - found.charged():
            wrong.append(f"the balance is {found.balance}")
    report("9 a second server, and commands beside it", starts, "0 started, 0 harmed", f"{len(wrong)} wrong")
    assert wrong == []


async def eventually_settled(made: Product) -> None:
    """Wait until nothing is held any more."""
    for _ in range(200):
        if not (await operation(made, "credit.balance", account="me"))["held_nanousd"]:
            return
        await asyncio.sleep(0.1)


def _hex(text: str) -> str:
    """A text as strace writes it, as a pattern."""
    return "".join(rf"\\x{byte:02x}" for byte in text.encode())


SUFFIXES = ("-wal", "-shm", "-journal")
OPENS = "open,openat,openat2,creat"


def opens_of_the_database(trace: Path) -> tuple[int, list[str]]:
    """How often database files were opened, and the lines of those opens that are not SQLite's own: it follows no links
    (O_NOFOLLOW), which nobody else asks for."""
    names = re.compile(
        '"' + r"(?:\\x[0-9a-f]{2})*" + _hex("/lumeproxy.db") + "(?:" + "|".join(map(_hex, SUFFIXES)) + ')?"'
    )
    lines = [line for line in trace.read_text().splitlines() if names.search(line)]
    done = [line for line in lines if " = -1 " not in line]
    return len(done), [line for line in done if "O_NOFOLLOW" not in line]


async def opened(strace: str, trace: Path, dice: random.Random, environ: dict[str, str]) -> tuple[int, list[str]]:
    """The opens of a server that is started, serves, is audited, backed up and stopped, and of the commands beside it."""
    beside = trace.with_name(f"{trace.name}-command")
    async with traced_product(strace, trace, OPENS, more=TIGHT, environ=environ) as made, session() as http:
        clients = Clients(made, http, dice)
        for seen in await asyncio.gather(*(clients.any_call() for _ in range(20))):
            assert seen.complete
        assert await made.audit() == []
        await operation(made, "backup.run", path=str(made.folder / "saved.db"))
        await asyncio.sleep(1.2)  # the watch looks twice
        assert await _ran(*traced(strace, beside, OPENS), *made._command("credit", "grant", "me", "1"))
        assert opens_of_the_database(beside) == (0, []), "a command opened the database beside a server"
        assert await made.stop() == 0
    return opens_of_the_database(trace)


async def test_nobody_else_opens_the_database(report: Report, dice: random.Random, strace: str, tmp_path: Path) -> None:
    """Check 9: each open of a database file is SQLite's own; with a control that opens one itself."""
    number, strange = await opened(strace, tmp_path / "trace", dice, {})
    environ = without_guard(tmp_path / "guard", OPENS_THE_DATABASE)
    _, control = await opened(strace, tmp_path / "control", dice, environ)
    report("9 opens of the database", number, "0 not made by SQLite", f"{len(strange)}")
    report("9 control: opened by our own code", 1, "such opens found", f"{len(control)} found")
    assert strange == []
    assert number >= 6
    assert control
