"""Many calls at the edge of credit, or of a key's budget: none is served that it does not pay for."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support import streams
from tests.support.proxy import Proxy
from tests.support.upstream import Connection, ScriptedUpstream

ASK = {"model": "claude-test-1", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
COST = 100 * 1000 + 20 * 10_000  # of one call: 100 tokens in at 1 dollar a million, 20 out at 10
STATUSES = {"/v1/messages": 402, "/v1/responses": 429, "/v1/chat/completions": 429}


async def _call(lume: Proxy, key: str, path: str = "/v1/messages") -> tuple[int, str]:
    ask = ASK if path == "/v1/messages" else {"model": "gpt-test-1", "max_tokens": 50, "max_output_tokens": 50}
    async with lume.post(path, ask, headers={"Authorization": f"Bearer {key}"}) as response:
        body = json.loads(await response.read())
        return response.status, body.get("error", {}).get("type", "")


@pytest.mark.parametrize("path", STATUSES)
@pytest.mark.parametrize("calls", [100, 300])
async def test_parallel_calls_never_spend_more_than_there_is(
    lume: Proxy, upstream: ScriptedUpstream, path: str, calls: int
) -> None:
    """Credit for ten calls; the hold of each is larger than its cost, so that some but not ten are served at once."""
    credit = 10 * COST
    await lume.run("account.create", name="edge", credit_nanousd=credit)
    key = (await lume.run("key.create", account="edge"))["key"]
    together = asyncio.Event()
    whole = streams.anthropic_whole()
    if path != "/v1/messages":
        usage = {"input_tokens": 100, "output_tokens": 20}
        whole = json.dumps({"model": "gpt-test-1", "usage": usage}).encode()

    async def script(connection: Connection) -> None:
        await together.wait()
        await connection.reply(whole)

    upstream.script = script
    lume.account = "edge"
    running = [asyncio.ensure_future(_call(lume, key, path)) for _ in range(calls)]
    while sum(task.done() for task in running) + len(upstream.received) < calls:
        balance = await lume.balance()
        assert 0 <= balance.held_nanousd <= balance.balance_nanousd == credit
    together.set()
    answers = await asyncio.gather(*running)
    served = [status for status, _ in answers].count(200)
    refused = [answer for answer in answers if answer[0] != 200]

    assert 1 <= served <= 10
    kind = "billing_error" if path == "/v1/messages" else "usage_limit_reached"
    assert set(refused) == {(STATUSES[path], kind)}
    balance = await lume.balance()
    assert balance.balance_nanousd == credit - served * COST
    assert balance.held_nanousd == 0

    # What is left serves again, one call after the other, until it is too little for a hold.
    before = served
    while (await _call(lume, key, path))[0] == 200:
        served += 1
    assert served > before
    assert (await lume.balance()).balance_nanousd == credit - served * COST >= 0


@pytest.mark.parametrize("path", STATUSES)
async def test_parallel_calls_of_a_key_never_spend_more_than_its_budget(
    lume: Proxy, upstream: ScriptedUpstream, path: str
) -> None:
    """A budget for ten calls on an account that has credit for hundreds, which another key goes on using."""
    made = await lume.run("key.create", account="tester", budget_day_nanousd=10 * COST)
    whole = streams.anthropic_whole()
    if path != "/v1/messages":
        whole = json.dumps({"model": "gpt-test-1", "usage": {"input_tokens": 100, "output_tokens": 20}}).encode()
    upstream.script = lambda c: c.reply(whole)

    answers = await asyncio.gather(*(_call(lume, made["key"], path) for _ in range(60)))
    served = [status for status, _ in answers].count(200)
    kind = "billing_error" if path == "/v1/messages" else "usage_limit_reached"
    assert {answer for answer in answers if answer[0] != 200} == {(STATUSES[path], kind)}
    while (await _call(lume, made["key"], path))[0] == 200:
        served += 1

    assert 1 <= served <= 10
    spent = sum(r["cost_nanousd"] for r in await lume.records() if r["key_id"] == made["id"])
    assert spent == served * COST
    listed = {key["id"]: key for key in await lume.run("key.list")}
    assert listed[made["id"]]["budget_left_nanousd"] == 10 * COST - spent
    assert (await _call(lume, lume.key, path))[0] == 200
