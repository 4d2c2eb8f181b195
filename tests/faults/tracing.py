"""strace on the product: faults put into its system calls, and what it wrote, synced and sent, in order."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.product import Product, product

# What a reader of this trace needs: the database's files and the sockets, bytes included.
SEEN = "pwrite64,fdatasync,fsync,ftruncate,unlink,sendto,sendmsg,write,writev"  # the last two by uvloop


def traced(strace: str, output: Path, syscalls: str = SEEN) -> tuple[str, ...]:
    """A command's prefix that writes its system calls to a file."""
    return (strace, "-f", "--seccomp-bpf", "-yy", "-xx", "-s", "70000", "-e", f"trace={syscalls}", "-o", str(output))


@contextlib.asynccontextmanager
async def traced_product(strace: str, output: Path, syscalls: str = SEEN, **options: Any) -> AsyncIterator[Product]:
    """A product under strace. It is killed before strace, which would leave it behind."""
    async with product(prefix=traced(strace, output, syscalls), **options) as made:
        try:
            yield made
        finally:
            if made.process is not None:
                await made.kill()


@dataclass
class Injected:
    """How many system calls had a fault put into them; known at the end."""

    count: int = 0


@contextlib.asynccontextmanager
async def injected(strace: str, pid: int, *injections: str) -> AsyncIterator[Injected]:
    """Faults in a running process, from here to the end of the block. It may die inside."""
    done = Injected()
    with tempfile.NamedTemporaryFile(prefix="lumeproxy-strace-") as output:
        async with _attached(strace, pid, output.name, injections):
            yield done
        done.count = Path(output.name).read_bytes().count(b"INJECTED")


@contextlib.asynccontextmanager
async def _attached(strace: str, pid: int, output: str, injections: Sequence[str]) -> AsyncIterator[None]:
    names = ",".join(dict.fromkeys(one.partition(":")[0] for one in injections))
    options = [part for one in injections for part in ("-e", f"inject={one}")]
    process = await asyncio.create_subprocess_exec(
        strace, "-f", "-o", output, "-e", f"trace={names}", *options, "-p", str(pid), stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(10):
            line = await process.stderr.readline()
        assert b"attached" in line, f"strace can't attach: {line.decode()}"
        yield
    finally:
        await _let_go(process, pid)


async def _let_go(process: asyncio.subprocess.Process, pid: int) -> None:
    """End strace: asked to let a process go that is just dying, it may wait for ever."""
    if _alive(pid):
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
    try:
        await asyncio.wait_for(process.communicate(), 3)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@dataclass(frozen=True, slots=True)
class Op:
    """One system call. `begun` and `done` are places in the trace; `where` is a file, or the two ends of a connection."""

    kind: str
    where: str
    begun: int
    done: int
    data: bytes = b""
    number: int = 0  # the offset of a write, the size of a truncation


_LINE = re.compile(r"(\d+) +(\w+)\((.*)$")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)$")
_PLACE = re.compile(r"\d+<((?:\\x[0-9a-f]{2})+|[A-Za-z0-9-]+:\[[^]]*])>")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def operations(trace: Path) -> list[Op]:
    """The system calls of a trace by `traced`, in the order of their beginnings; those that failed are left out."""
    with trace.open(encoding="ascii", errors="replace") as file:
        return sorted(_parsed(file), key=lambda op: op.begun)


def _parsed(lines: Iterator[str]) -> Iterator[Op]:
    unfinished: dict[tuple[str, str], tuple[int, str]] = {}
    for number, line in enumerate(lines):
        if found := _RESUMED.match(line):
            begun, arguments = unfinished.pop((found[1], found[2]), (-1, ""))
            if begun >= 0 and (op := _op(found[2], arguments + found[3], begun, number)) is not None:
                yield op
        elif found := _LINE.match(line):
            if "<unfinished ...>" in found[3]:
                unfinished[found[1], found[2]] = (number, found[3].partition(" <unfinished")[0])
            elif (op := _op(found[2], found[3], number, number)) is not None:
                yield op


def _op(kind: str, arguments: str, begun: int, done: int) -> Op | None:
    given, _, result = arguments.rpartition(" = ")
    if result.startswith(("-1", "?")):
        return None
    text = _TEXT.search(given)
    if kind == "unlink":
        assert text is not None
        return Op(kind, _unhex(text[1]).decode(), begun, done)
    place = _PLACE.match(given)
    if place is None:
        return None
    where = _unhex(place[1]).decode() if place[1].startswith("\\x") else place[1]
    if kind in ("write", "writev") and place[1].startswith("\\x"):
        return None  # to a log
    if kind in ("sendto", "sendmsg", "write", "writev"):
        return Op("sent", where, begun, done, b"".join(_unhex(part) for part in _TEXT.findall(given)))
    if kind in ("fdatasync", "fsync"):
        return Op("sync", where, begun, done)
    if kind == "ftruncate":
        size = re.search(r", (\d+)\)", given)
        assert size is not None
        return Op("truncate", where, begun, done, number=int(size[1]))
    if kind == "pwrite64":
        tail = re.search(r'"(\.\.\.)?, (\d+), (\d+)\)?', given)
        assert text is not None and tail is not None, given[:200]
        data = _unhex(text[1])
        assert len(data) == int(tail[2]) == int(result.split()[0]), "a write that was cut short"
        return Op("write", where, begun, done, data, int(tail[3]))
    return None
