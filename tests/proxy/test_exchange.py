"""The way of a call: held, relayed, settled; errors before the hold."""

from __future__ import annotations

import json

from tests.support import streams
from tests.support.proxy import Proxy
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
    lume: Proxy, upstream: ScriptedUpstream, monkeypatch
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
