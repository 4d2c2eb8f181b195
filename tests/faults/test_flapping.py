"""Check 39: an upstream that goes up and down beside a good one. New calls don't notice, and few requests are sent twice.

`FAULTS=full` takes the minute of the check; the short form makes about a thousand calls.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import Awaitable

import pytest

from tests.faults.conftest import FULL, Report, times
from tests.faults.product import product, session
from tests.support.calls import ANTHROPIC, BILL, ask, whole
from tests.support.upstream import Connection, ScriptedUpstream

pytestmark = pytest.mark.faults
ERROR = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
WORKERS, PAUSE_S = 8, 0.08
TWO = """
[upstreams.second]
kind = "anthropic"
base_url = "{url}"
api_key = "provider-secret"
[[routes]]
model = "claude-test-flapping"
upstreams = ["anthropic", "second"]
[[routes]]
model = "claude-test-plain"
upstreams = ["second"]
"""


class Flapping:
    """A provider that is up and down in turn: while it is down its port is closed, and open connections get 503."""

    def __init__(self, upstream: ScriptedUpstream, period_s: float) -> None:
        self.upstream = upstream
        self.period_s = period_s
        self.up = True
        self.times_down = 0
        upstream.script = self.answer

    def answer(self, c: Connection) -> Awaitable[None]:
        return c.reply(whole(ANTHROPIC)) if self.up else c.reply(ERROR, 503)

    async def flap(self) -> None:
        upstream = self.upstream
        while True:
            await asyncio.sleep(self.period_s)
            self.up = False
            self.times_down += 1
            assert upstream._server is not None
            upstream._server.close()
            await asyncio.sleep(self.period_s)
            upstream._server = await asyncio.start_server(upstream._serve, "127.0.0.1", upstream.port, limit=1 << 26)
            self.up = True


@pytest.mark.timeout(200)
@pytest.mark.parametrize("period_s", [2.0, 3.0] if FULL else [2.0])
async def test_a_flapping_upstream_is_not_noticed(period_s: float, report: Report, dice: random.Random) -> None:
    second = ScriptedUpstream(script=lambda c: c.reply(whole(ANTHROPIC)))
    await second.start()
    statuses: Counter[int] = Counter()
    took_ms: dict[str, list[float]] = {"claude-test-flapping": [], "claude-test-plain": []}
    try:
        async with product(more=TWO.format(url=second.url)) as made, session() as client:
            flapping = Flapping(made.upstream, period_s)
            ends = time.monotonic() + times(14, 60)

            async def work(number: int) -> None:
                calls = 0
                while time.monotonic() < ends:
                    calls += 1
                    for model, took in took_ms.items():
                        # A new session each few calls, as of users who come and go.
                        headers = {**made.headers, "x-claude-code-session-id": f"{number}-{calls // 5}"}
                        began = time.perf_counter()
                        body = ask(ANTHROPIC, model=model, stream=False)
                        async with client.post(made.url + ANTHROPIC, data=body, headers=headers) as answer:
                            await answer.read()
                        took.append((time.perf_counter() - began) * 1000)
                        statuses[answer.status] += 1
                        await asyncio.sleep(PAUSE_S * dice.uniform(0.5, 1.5))

            flap = asyncio.ensure_future(flapping.flap())
            async with asyncio.TaskGroup() as group:
                for number in range(WORKERS):
                    group.create_task(work(number))
            flap.cancel()
            await asyncio.gather(flap, return_exceptions=True)

            calls = statuses.total()
            requests = len(made.upstream.received) + len(second.received)
            p50 = {model: statistics.median(took) for model, took in took_ms.items()}
            added_ms = p50["claude-test-flapping"] - p50["claude-test-plain"]
            report(
                f"39 flapping each {period_s:g} s",
                calls,
                ">= 99.9 % served, <= 1.2 requests a call, p50 + <= 1 ms",
                f"{statuses[200]} served, {requests / calls:.3f} requests a call, p50 {added_ms:+.2f} ms, "
                f"{flapping.times_down} times down",
            )
            assert flapping.times_down >= 3
            assert statuses[200] >= calls * 0.999
            assert requests <= calls * 1.2
            assert added_ms <= 1
            assert await made.audit() == []
            balance = await made.balance()
            assert balance["balance_nanousd"] == 10 * 10**9 - statuses[200] * BILL[ANTHROPIC]
    finally:
        await second.stop()
