"""kill -9 under load: what a client saw complete is charged exactly, what was open is charged by its checkpoint."""

from __future__ import annotations

import asyncio
import contextlib
import random

import aiohttp
import pytest

from tests.faults.conftest import Report, times
from tests.faults.product import product, session
from tests.support import streams

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]
ASK = {"model": "claude-test-1", "stream": True, "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
COST = 100 * 1000 + 20 * 10_000


async def test_kill_under_load(report: Report, dice: random.Random) -> None:
    """Check 1, a first form: whole answers in parallel, killed at a random moment."""
    cycles, complete, lost = times(2, 5), set(), 0
    async with product() as made, session() as client:
        made.upstream.script = lambda c: c.stream(streams.anthropic())

        async def call() -> None:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with client.post(made.url + "/v1/messages", json=ASK, headers=made.headers) as response:
                    if b"message_stop" in await response.read():
                        complete.add(response.headers["x-lume-call-id"])

        async def load() -> None:
            while True:
                await call()

        for _ in range(cycles):
            running = [asyncio.ensure_future(load()) for _ in range(16)]
            await asyncio.sleep(dice.uniform(0.1, 1.0))
            await made.kill()
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await made.start()
            assert await made.audit() == []
            records = {record["call_id"]: record for record in await made.records()}
            lost += sum(1 for call_id in complete if call_id not in records)
            assert all(records[call_id]["cost_nanousd"] == COST for call_id in complete if call_id in records)
            assert (await made.balance())["held_nanousd"] == 0
    report("1 kill -9 under load", cycles, "0 of the calls seen complete lost", f"{lost} of {len(complete)}")
    assert lost == 0
    assert complete
