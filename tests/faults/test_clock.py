"""The wall clock jumps while calls run: nothing expires wrongly, no interval is measured by it, every bill stays right."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lumeproxy.dashboard.control import call as control
from tests.faults.conftest import Report, times
from tests.faults.product import Product, product, session
from tests.support.calls import BILL, PATHS, ask, events, whole
from tests.support.upstream import Connection

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="LD_PRELOAD is Linux's"),
]
HOUR_S, DAY_S = 3_600, 86_400
JUMPS = (HOUR_S, -HOUR_S, DAY_S, -DAY_S)
# Far below each jump: a limit that were measured by the wall clock would end every stream.
LIMITS = """
[limits]
stream_idle_ms = 60000
first_byte_ms = 60000
client_stall_ms = 60000
call_ms = 600000
key_calls_per_minute = 6000
"""
# Shifts CLOCK_REALTIME by the seconds in a file and leaves the monotonic clock alone.
SHIFT = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_REALTIME) {
        FILE *file = fopen(getenv("CLOCK_OFFSET_FILE"), "r");
        long offset = 0;
        if (file) {
            if (fscanf(file, "%ld", &offset) != 1) offset = 0;
            fclose(file);
        }
        now->tv_sec += offset;
    }
    return result;
}
"""


class WallClock:
    """The wall clock of one process."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._file = folder / "offset"
        self.environ = {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(self._file)}
        self.jump(0)

    def jump(self, offset_s: int) -> None:
        """Set it so far from the true time."""
        new = self._file.with_suffix(".new")
        new.write_text(str(offset_s))
        new.replace(self._file)


@pytest.fixture
def wall_clock(tmp_path: Path) -> Iterator[WallClock]:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        if os.environ.get("CI"):
            pytest.fail("no C compiler is installed (apt-get install gcc)")
        pytest.skip("no C compiler is installed (apt-get install gcc)")
    source, library = tmp_path / "shift.c", tmp_path / "shift.so"
    source.write_text(SHIFT)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True, timeout=60)
    yield WallClock(tmp_path, library)


class Streams:
    """Long answers that are written at once where a test says so."""

    def __init__(self, made: Product) -> None:
        self.made = made
        self.over = asyncio.Event()
        self.begun = 0
        made.upstream.script = self._script

    async def _script(self, connection: Connection) -> None:
        path = connection.received.target
        if b'"stream": false' in connection.received.body:
            await connection.reply(whole(path))
            return
        items = events(path, ["a", "b"])
        await connection.stream_head()
        for item in items[:-3]:
            await connection.chunk(item)
        self.begun += 1
        while not self.over.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await self.over.wait()
            await connection.chunk(b": still here\n\n")
        for item in items[-3:]:
            await connection.chunk(item)
        await connection.end()

    async def open(self, client: aiohttp.ClientSession, key: str, count: int) -> list[asyncio.Task[tuple[str, bool]]]:
        """So many of them, in all dialects, once each has begun."""
        before = self.begun
        tasks = [asyncio.ensure_future(self._take(client, key, PATHS[number % 3])) for number in range(count)]
        async with asyncio.timeout(30):
            while self.begun - before < count:  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(0.01)
        return tasks

    async def _take(self, client: aiohttp.ClientSession, key: str, path: str) -> tuple[str, bool]:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        with contextlib.suppress(aiohttp.ClientError):
            async with client.post(self.made.url + path, data=ask(path), headers=headers) as response:
                body = await response.read()
                return path, body.endswith(events(path)[-1].rpartition(b"\n\n")[0].rpartition(b"\n")[2] + b"\n\n")
        return path, False

    async def status(self, client: aiohttp.ClientSession, key: str) -> tuple[int, str]:
        """A short call: its status and its id."""
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        body = ask(PATHS[0], stream=False)
        async with client.post(self.made.url + PATHS[0], data=body, headers=headers) as response:
            await response.read()
            return response.status, response.headers.get("x-lume-call-id", "")


async def made_key(made: Product, life_s: int | None) -> str:
    """A key that lives so long from the true now on."""
    expires = None if life_s is None else (time.time_ns() // 10**6) + life_s * 1000
    answer = await control(made.data, "key.create", {"account": "me", "expires_ms": expires})
    return str(answer["key"])


async def test_the_wall_clock_jumps_under_streams(report: Report, wall_clock: WallClock) -> None:
    """Check 19."""
    rounds, count = times(1, 5), 50
    cut = wrong_times = bad_bills = bad_intervals = wrongly = rightly = 0
    async with product(environ=wall_clock.environ, more=LIMITS) as made, session() as client:
        began = time.monotonic()
        for _ in range(rounds):
            streams = Streams(made)
            eternal, month = await made_key(made, None), await made_key(made, 30 * DAY_S)
            half_day, short = await made_key(made, DAY_S // 2), []
            long = await streams.open(client, eternal, count // 2) + await streams.open(
                client, month, count - count // 2
            )
            for offset in JUMPS:
                short += await streams.open(client, half_day, 3)
                before = sum(task.done() for task in short)
                wall_clock.jump(offset)
                await asyncio.sleep(1.2)
                cut += sum(task.done() for task in long)
                expired = sum(task.done() for task in short) - before
                if offset == DAY_S:
                    rightly += expired
                else:
                    wrongly += expired
                for key, expected in ((eternal, 200), (month, 200), (half_day, 401 if offset == DAY_S else 200)):
                    status, call_id = await streams.status(client, key)
                    wrongly += status != expected
                    if status == 200:
                        wrong_times += not await _dated(made, call_id, offset)
                wall_clock.jump(0)
            streams.over.set()
            cut += sum(not complete for _, complete in await asyncio.gather(*long))
            wrongly += abs(sum(complete for _, complete in await asyncio.gather(*short)) - 3)
        lived_ms = (time.monotonic() - began) * 1000
        rows = await made.records()
        for row in rows:
            spans = [row["duration_ms"], row["ttfb_ms"] or 0]
            bad_intervals += not all(0 <= span <= lived_ms for span in spans)
            if row["ending"] == "complete":
                bad_bills += row["cost_nanousd"] != BILL[row["endpoint"]]
        assert await made.audit() == []
        assert (await made.balance())["held_nanousd"] == 0
        assert {row["ending"] for row in rows} == {"complete", "interrupted"}
        assert sum(row["ending"] == "interrupted" for row in rows) == rightly
    jumps = rounds * len(JUMPS)
    report("19 clock jumps under streams", jumps * count, "0 cut, 0 wrong expiries, bills, intervals, dates",
           f"{cut} cut; {wrongly}, {bad_bills}, {bad_intervals}, {wrong_times} wrong")  # fmt: skip
    report("19 control", rounds, "a key of half a day ends its 9 streams when a day passes", f"{rightly} ended")
    assert (cut, wrongly, bad_bills, bad_intervals, wrong_times) == (0, 0, 0, 0, 0)
    assert rightly == 9 * rounds


async def _dated(made: Product, call_id: str, offset_s: int) -> bool:
    """Whether a call's record has the time that the wall clock showed: the jump has reached the process."""
    found: list[dict[str, Any]] = [
        row for row in await control(made.data, "usage.list", {}) if row["call_id"] == call_id
    ]
    return len(found) == 1 and abs(found[0]["time_ms"] / 1000 - offset_s - time.time()) < 10


@pytest.mark.parametrize("offset_s", [-DAY_S, DAY_S])
async def test_a_crash_and_a_clock_that_was_set_meanwhile(report: Report, wall_clock: WallClock, offset_s: int) -> None:
    """Check 19: what was open is settled at the next start, also where that seems to lie before the calls."""
    count = times(9, 50)
    async with product(environ=wall_clock.environ, more=LIMITS) as made, session() as client:
        streams = Streams(made)
        running = await streams.open(client, made.key, count)
        await asyncio.sleep(0.3)
        held = (await made.balance())["held_nanousd"]
        await made.kill()
        streams.over.set()
        await asyncio.gather(*running)
        wall_clock.jump(offset_s)
        await made.start()
        rows = await made.records()
        left = (await made.balance())["held_nanousd"]
        problems = await made.audit()
        odd = sum(row["ending"] != "interrupted" or row["duration_ms"] < 0 for row in rows)
        status, call_id = await streams.status(client, made.key)
        dated = await _dated(made, call_id, offset_s)
    sign = "-" if offset_s < 0 else "+"
    report(f"19 crash, then {sign}1 day", count, "0 holds left, all interrupted, audit ok, next call served",
           f"{left} held of {held}, {odd} odd, {len(problems)} problems, {status}")  # fmt: skip
    assert held > 0
    assert (len(rows), left, odd, problems, status, dated) == (count, 0, 0, [], 200, True)
