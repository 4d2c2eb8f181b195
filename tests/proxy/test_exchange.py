"""The way of a call: held, relayed, settled; errors before the hold; whatever is cancelled or breaks on the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lumeproxy.dialects.anthropic_messages import AnthropicReader
from lumeproxy.proxy.exchange import Exchange, new_call_id
from lumeproxy.proxy.live import Cause
from lumeproxy.store import accounts
from tests.conftest import ROUTES
from tests.support import streams
from tests.support.calls import (
    ANTHROPIC,
    BILL,
    CHAT,
    FINAL,
    RESPONSES,
    ask,
    ending,
    events,
    noticed,
    settled,
    whole,
)
from tests.support.client import Wire, dial, take
from tests.support.proxy import Proxy, proxy
from tests.support.stepping import Steps
from tests.support.upstream import Connection, ScriptedUpstream

ASK = {"model": "claude-test-1", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}


async def test_a_streamed_call_is_charged_exactly_what_was_reported(lume: Proxy, upstream: ScriptedUpstream) -> None:
    events = streams.anthropic(
        start={
            "input_tokens": 100,
            "cache_read_input_tokens": 50,
            "cache_creation_input_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
            "output_tokens": 1,
        },
        delta={"output_tokens": 7},
    )
    upstream.script = lambda c: c.stream(events)

    async with lume.post("/v1/messages", {**ASK, "stream": True}) as response:
        body = await response.read()

    assert response.status == 200, lume.log.getvalue()
    assert body == b"".join(events)
    (record,) = await lume.records()
    by_hand = 100 * 1000 + 50 * 100 + 10 * 2000 + 20 * 3000 + 7 * 10_000  # nano-USD a token
    assert record["cost_nanousd"] == by_hand
    assert (record["ending"], record["settled_by"], record["estimated"]) == ("complete", "reported", False)
    assert (await lume.balance()).balance_nanousd == 10**9 - by_hand
    assert (await lume.balance()).held_nanousd == 0


async def test_a_whole_answer_carries_its_charge_and_the_balance(lume: Proxy, upstream: ScriptedUpstream) -> None:
    upstream.script = lambda c: c.reply(streams.anthropic_whole())

    async with lume.post("/v1/messages", ASK) as response:
        body = await response.read()

    assert body == streams.anthropic_whole()
    cost = 100 * 1000 + 20 * 10_000
    assert response.headers["x-lume-charge"] == f"0.{cost:09}"
    assert response.headers["x-lume-balance"] == f"0.{10**9 - cost:09}"
    (record,) = await lume.records()
    assert record["cost_nanousd"] == cost
    assert record["call_id"] == response.headers["x-lume-call-id"]


async def test_a_call_without_a_key_gets_the_dialects_401_and_goes_nowhere(
    lume: Proxy, upstream: ScriptedUpstream
) -> None:
    async with lume.session.post(lume.url + "/v1/messages", json=ASK) as response:
        error = await response.json()

    assert response.status == 401
    assert error["error"]["type"] == "authentication_error"
    assert response.headers["x-should-retry"] == "false"
    assert upstream.received == []
    assert await lume.records() == []


async def test_the_provider_sees_the_operators_credential_and_none_of_the_clients(
    lume: Proxy, upstream: ScriptedUpstream
) -> None:
    upstream.script = lambda c: c.reply(streams.anthropic_whole())
    headers = {"x-api-key": "sk-ant-something", "Cookie": "a=b", "anthropic-beta": "x,y", "X-Custom": "kept"}

    async with lume.post("/v1/messages?beta=true", ASK, headers=headers) as response:
        await response.read()

    (seen,) = upstream.received
    assert seen.target == "/v1/messages?beta=true"
    assert seen.header("x-api-key") == "provider-secret"
    assert seen.header("authorization") is None
    assert seen.header("cookie") is None
    assert seen.header("accept-encoding") == "identity"
    assert (seen.header("anthropic-beta"), seen.header("x-custom")) == ("x,y", "kept")


async def test_all_three_dialects_are_served(lume: Proxy, upstream: ScriptedUpstream) -> None:
    async def answer(connection: Connection) -> None:
        target = connection.received.target
        events = streams.responses() if target.endswith("/responses") else streams.chat()
        await connection.stream(events)

    upstream.script = answer
    ask = {"model": "gpt-test-1", "stream": True, "input": "hi"}
    async with lume.post("/v1/responses", ask) as response:
        assert await response.read() == b"".join(streams.responses())
    ask = {"model": "gpt-test-1", "stream": True, "messages": [], "stream_options": {"include_usage": True}}
    async with lume.post("/v1/v1/chat/completions", ask) as response:
        assert await response.read() == b"".join(streams.chat())

    for record in await lume.records():
        assert record["input_tokens"] == 60
        assert record["cache_read_tokens"] == 40
        assert (record["output_tokens"], record["reasoning_tokens"]) == (20, 5)
        assert record["cost_nanousd"] == 60 * 1000 + 40 * 100 + 20 * 10_000


async def test_a_bug_of_ours_keeps_no_credit_and_is_answered_in_the_dialect(
    lume: Proxy, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret text")

    monkeypatch.setattr("lumeproxy.proxy.passage.JsonMeter", broken)
    upstream.script = lambda c: c.reply(streams.anthropic_whole())

    async with lume.post("/v1/messages", ASK) as response:
        error = json.loads(await response.read())

    assert response.status == 500
    assert error["error"]["type"] == "api_error"
    (record,) = await lume.records()
    assert (record["ending"], record["cost_nanousd"]) == ("interrupted", 0)
    assert (await lume.balance()).held_nanousd == 0
    assert "ZeroDivisionError" in lume.log.getvalue()
    assert "secret text" not in lume.log.getvalue()


def test_call_ids_are_new_each_time_and_sort_by_time() -> None:
    made = [new_call_id(ms) for ms in (1_795_000_000_122, 1_795_000_000_123, 1_795_000_001_000)]

    assert made == sorted(made)
    assert new_call_id(5) != new_call_id(5)


async def test_a_key_that_is_revoked_while_the_body_arrives_is_refused(
    lume: Proxy, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = ask(ANTHROPIC)
    wire = await dial(lume, ANTHROPIC, b"")
    wire.transport.abort()
    wire = await dial(lume, ANTHROPIC, body[:-1], announced=len(body))
    await lume.run("key.list")  # the head has been read by now, and the key with it
    await lume.run("key.revoke", id=lume.key.split("_")[1])
    wire.transport.write(body[-1:])

    await wire.until(b"authentication_error")

    assert b" 401 " in wire.head
    assert upstream.received == []
    assert await lume.records() == []


# --- what breaks on the way --------------------------------------------------------------------------------------------


def failing(after: int) -> Callable[..., Any]:
    """A reader's method that works so many times and then has a bug."""
    works, left = AnthropicReader.event, [after]

    def event(self: AnthropicReader, data: bytes) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise ZeroDivisionError("secret text")
        return works(self, data)

    return event


@pytest.mark.parametrize("after", [0, 1, 4])
async def test_a_bug_in_a_reader_costs_what_was_metered_and_cuts_the_answer(
    lume: Proxy, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(AnthropicReader, "event", failing(after))
    upstream.script = lambda c: c.stream(events(ANTHROPIC))

    taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC)))

    assert not taken.clean
    record = await settled(lume)
    assert (record["ending"], record["error_code"]) == ("interrupted", "internal_error")
    assert record["cost_nanousd"] == (0 if after == 0 else 100 * 1000 + (10_000 if after == 1 else 3 * 10_000))
    assert "ZeroDivisionError" in lume.log.getvalue()
    assert "secret text" not in lume.log.getvalue()


async def test_a_bug_while_the_rest_is_read_for_a_client_that_left_keeps_no_hold(
    lume: Proxy, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endings themselves may break too."""
    arrived, left = asyncio.Event(), asyncio.Event()

    async def answer(c: Connection) -> None:
        await c.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        arrived.set()
        await left.wait()
        for one in events(ANTHROPIC):
            await c.chunk(one)
        await c.end()

    upstream.script = answer
    monkeypatch.setattr(AnthropicReader, "event", failing(0))
    wire = await dial(lume, ANTHROPIC, ask(ANTHROPIC))
    await wire.until(b"text/event-stream")
    wire.transport.abort()
    await noticed(lume)
    left.set()

    record = await settled(lume)
    assert ending(record) == ("interrupted", "none", False)
    assert record["cost_nanousd"] == 0


async def test_a_reply_that_can_not_be_written_ends_the_hold(
    lume: Proxy, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lumeproxy.proxy.relay.headers_for_client", lambda *_: [("x-a", "b\r\nc: d")])
    upstream.script = lambda c: c.stream(events(ANTHROPIC))

    wire = await dial(lume, ANTHROPIC, ask(ANTHROPIC))

    await wire.ended()
    assert wire.data == b""
    assert ending(await settled(lume)) == ("interrupted", "none", False)


# --- cancelled anywhere ------------------------------------------------------------------------------------------------


async def stream_to_its_end(lume: Proxy) -> bool:
    wire = await dial(lume, ANTHROPIC, ask(ANTHROPIC))
    return await seen_or_closed(wire, FINAL[ANTHROPIC])


async def whole_answer(lume: Proxy) -> bool:
    wire = await dial(lume, CHAT, ask(CHAT, stream=False))
    return await seen_or_closed(wire, b"prompt_tokens")


async def large_answer(lume: Proxy) -> bool:
    wire = await dial(lume, RESPONSES, ask(RESPONSES, stream=False))
    return await seen_or_closed(wire, b"input_tokens")


async def leave(lume: Proxy) -> bool:
    """A client of Chat that leaves in the middle, so that the rest is drained."""
    wire = await dial(lume, CHAT, ask(CHAT))
    await seen_or_closed(wire, b"Hello")
    wire.transport.abort()
    return False


async def refused(lume: Proxy) -> bool:
    wire = await dial(lume, "/v1/messages", ask(ANTHROPIC, x="refuse"))
    await seen_or_closed(wire, b"no such thing")
    return False


async def out_of_credit(lume: Proxy) -> bool:
    wire = await dial(lume, RESPONSES, ask(RESPONSES, x="flood"))
    await seen_or_closed(wire, b"response.failed")
    return False


async def seen_or_closed(wire: Wire, marker: bytes) -> bool:
    seen = await wire.sees(marker)
    wire.transport.abort()
    return seen


async def step_by_step(c: Connection, chunks: list[bytes]) -> None:
    """So that there is something to wait for before each of them."""
    for chunk in chunks:
        await c.chunk(chunk)
        for _ in range(8):
            await asyncio.sleep(0)


async def play(c: Connection) -> None:
    asked = c.received.body
    if b'"refuse"' in asked:
        return await c.reply(b'{"error":{"message":"no such thing"}}', 400)
    if b'"flood"' in asked:
        await c.stream_head()
        await step_by_step(c, events(RESPONSES, ["x" * 15_000] * 4)[:-1])
        return await c.closed_by_peer()
    if b'"stream": true' in asked:
        await c.stream_head()
        await step_by_step(c, events(ANTHROPIC if b"claude" in asked else CHAT))
        return await c.end()
    body = whole(RESPONSES, "x" * 400_000) if c.received.target == RESPONSES else whole(CHAT)
    await c.head(200, {"content-type": "application/json", "transfer-encoding": "chunked"})
    third = len(body) // 3 + 1
    await step_by_step(c, [body[at : at + third] for at in range(0, len(body), third)])
    return await c.end()


ROUNDS = [stream_to_its_end, whole_answer, large_answer, leave, refused, out_of_credit]


@pytest.mark.parametrize("how", ["cancelled", "cancelled again and again", "suspended"])
@pytest.mark.parametrize("go", ROUNDS)
async def test_wherever_a_call_is_cancelled_its_hold_ends_once(
    tmp_path: Path,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    go: Callable[[Proxy], Awaitable[bool]],
    how: str,
) -> None:
    """At each point where the handler waits: by aiohttp, at the end of the server's patience, or by the watch."""
    steps, serve = Steps(), Exchange.serve
    monkeypatch.setattr(Exchange, "serve", lambda *args: steps.run(serve(*args)))
    upstream.script = play
    paths: dict[Any, str] = {stream_to_its_end: ANTHROPIC, whole_answer: CHAT, large_answer: RESPONSES}
    upstreams = {"anthropic": upstream, "openai": upstream}
    async with proxy(tmp_path, upstreams, routes=ROUTES, credit_nanousd=100_000_000) as lume:
        await go(lume)  # key and price are known from now on, so that each round waits for the same things
        await ended(lume)
        steps.ever_after = how == "cancelled again and again"
        if how == "suspended":
            steps.act = lambda: lume.server.live.interrupt_account(None, Cause.SUSPENDED)
        for at in range(1, 200):
            steps.at = at
            complete = await go(lume)
            record = await ended(lume)

            if complete:
                assert record is not None
                assert (record["ending"], record["cost_nanousd"]) == ("complete", BILL[paths[go]])
            if steps.reached < at:
                break
        assert steps.reached >= (3 if go is refused else 5)
        assert {r["shortfall_nanousd"] for r in await lume.records()} <= {0}


async def ended(lume: Proxy) -> dict[str, Any] | None:
    """The record of the last call, None where it had not come to a hold; the books are in order either way."""
    await asyncio.wait_for(lume.server.live.emptied(), 5)
    for _ in range(3):  # a hold that was being taken is given back by the writer
        await lume.server.database.write(accounts.probe)
    records = [r for r in await lume.records() if r["call_id"] not in lume.told]
    assert len(records) <= 1
    lume.told |= {r["call_id"] for r in records}
    balance = await lume.balance()
    assert balance.held_nanousd == 0, records
    charged = sum(r["cost_nanousd"] for r in await lume.records())
    assert balance.balance_nanousd == lume.credit_nanousd - charged
    if records and records[0]["cost_nanousd"]:
        await lume.grant(records[0]["cost_nanousd"])  # the next round is to find the same credit
    return records[0] if records else None
