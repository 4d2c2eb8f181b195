"""Token counts and the list of models: free, never in the way of anything, and never a way around the key."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path

from lumeproxy.proxy import free
from tests.support.proxy import Proxy, proxy
from tests.support.upstream import Connection, ScriptedUpstream

COUNT = "/v1/messages/count_tokens"
ASK = {"model": "claude-test-1", "messages": [{"role": "user", "content": "How many words are these here?"}]}
COUNTED = b'{"input_tokens": 1234, "something_new": true}'
ROUTES = """
[[routes]]
model = "claude-test-*"
upstreams = ["anthropic", "anthropic-2"]
[[routes]]
model = "claude-alias"
upstreams = ["anthropic"]
upstream_model = "claude-test-9"
"""


async def nothing_was_booked(lume: Proxy, credit: int = 10**9) -> bool:
    balance = await lume.balance()
    return await lume.records() == [] and (balance.balance_nanousd, balance.held_nanousd) == (credit, 0)


# --- counts ------------------------------------------------------------------------------------------------------------


async def test_a_count_is_the_upstreams_own_and_free(lume: Proxy, upstream: ScriptedUpstream):
    upstream.script = lambda c: c.reply(COUNTED, headers={"x-new": "kept", "request-id": "req_up", "set-cookie": "a=b"})

    async with lume.post(COUNT + "?beta=true", ASK, headers={"anthropic-beta": "x", "cookie": "c"}) as response:
        assert (response.status, await response.read()) == (200, COUNTED)
        assert response.headers["x-new"] == "kept"
        assert response.headers["request-id"] == response.headers["x-request-id"] == "req_up"
        assert response.headers["x-lume-call-id"].startswith("call_")
        assert "set-cookie" not in response.headers

    (seen,) = upstream.received
    assert seen.target == COUNT + "?beta=true"
    assert json.loads(seen.body) == ASK
    assert (seen.header("x-api-key"), seen.header("anthropic-beta")) == ("provider-secret", "x")
    assert (seen.header("authorization"), seen.header("cookie")) == (None, None)
    assert await nothing_was_booked(lume)


async def test_a_header_that_cannot_be_written_again_does_not_lose_a_count(lume: Proxy, upstream: ScriptedUpstream):
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-odd: \xff\r\nx-even: 1\r\ncontent-length: %d\r\n\r\n"
    )
    upstream.script = lambda c: c.send(head % len(COUNTED) + COUNTED)

    async with lume.post(COUNT, ASK) as response:
        assert (response.status, await response.read()) == (200, COUNTED)
        assert response.headers["x-even"] == "1"
        assert "x-odd" not in response.headers


async def test_an_upstream_without_counts_is_replaced_by_our_estimate(lume: Proxy, upstream: ScriptedUpstream):
    for status in (404, 405, 501):
        upstream.script = partial(Connection.reply, body=b"not here", status=status)
        async with lume.post(COUNT, {**ASK, "system": "x" * 6}) as response:
            # Hundredths of a token: 105 for the system prompt, 6 * 105 + 75 for the message; Claude models count 1.55.
            assert (response.status, await response.json()) == (200, {"input_tokens": (1 + 7) * 1550 // 1000})
            assert response.headers["request-id"] == response.headers["x-request-id"] != ""
            assert response.headers["x-lume-call-id"] == response.headers["request-id"]
    assert await nothing_was_booked(lume)


async def test_an_upstreams_error_passes_unchanged(lume: Proxy, upstream: ScriptedUpstream):
    error = b'{"type":"error","error":{"type":"x","message":"prompt is too long"}}'
    headers = {"retry-after": "7", "x-should-retry": "true"}
    for status in (400, 413, 422, 429, 500, 503, 529):
        upstream.script = partial(Connection.reply, body=error, status=status, headers=headers)
        async with lume.post(COUNT, ASK) as response:
            assert (response.status, await response.read()) == (status, error)
            assert {name: response.headers[name] for name in headers} == headers


async def test_a_refusal_of_the_operators_credential_is_not_the_callers_fault(lume: Proxy, upstream: ScriptedUpstream):
    body = b'{"error":{"message":"invalid x-api-key provider-secret"}}'
    for status in (401, 402, 403):
        upstream.script = partial(Connection.reply, body=body, status=status)
        async with lume.post(COUNT, ASK) as response:
            text = await response.text()
            assert (response.status, response.headers["x-should-retry"]) == (502, "false")
            assert json.loads(text)["error"]["type"] == "api_error"
            assert "provider-secret" not in text and "operator" in text


async def test_a_redirect_is_neither_followed_nor_passed_on(lume: Proxy, upstream: ScriptedUpstream):
    statuses = (101, 300, 301, 302, 303, 304, 307, 308)
    headers = {"location": upstream.url + "/elsewhere", "content-length": "0"}
    for status in statuses:
        upstream.script = partial(Connection.head, status=status, headers=headers)
        async with lume.post(COUNT, ASK, allow_redirects=False) as response:
            assert response.status == 502
            assert "location" not in response.headers
    assert [received.target for received in upstream.received] == [COUNT] * len(statuses)


async def test_the_next_upstream_of_the_route_is_asked_when_one_gives_no_reply(
    tmp_path: Path, upstream: ScriptedUpstream
):
    good = ScriptedUpstream(script=lambda c: c.reply(COUNTED))
    await good.start()

    async def cut(connection: Connection) -> None:
        connection.abort()

    upstream.script = cut
    async with proxy(tmp_path, {"anthropic": upstream, "anthropic-2": good}, routes=ROUTES) as lume:
        async with lume.post(COUNT, ASK) as response:
            assert (response.status, await response.read()) == (200, COUNTED)
        await good.stop()
        async with lume.post(COUNT, ASK) as response:
            assert (response.status, response.headers["retry-after"]) == (503, "5")
            assert (await response.json())["error"]["type"] == "overloaded_error"
        assert len(upstream.received) == 2
        assert await nothing_was_booked(lume)


async def test_an_upstream_that_says_nothing_is_given_up(tmp_path: Path, upstream: ScriptedUpstream):
    closed = asyncio.Event()

    async def silent(connection: Connection) -> None:
        await connection.closed_by_peer()
        closed.set()

    upstream.script = silent
    short = proxy(tmp_path, {"anthropic": upstream}, more="[limits]\ncount_ms = 50")
    async with short as lume, lume.post(COUNT, ASK) as response:
        assert (response.status, response.headers["retry-after"]) == (503, "5")
        assert (await response.json())["error"]["type"] == "overloaded_error"
    await asyncio.wait_for(closed.wait(), 5)


async def test_a_count_that_breaks_off_or_never_ends_is_no_answer(lume: Proxy, upstream: ScriptedUpstream, monkeypatch):
    async def broken(connection: Connection) -> None:
        await connection.head(200, {"content-length": "100", "content-type": "application/json"})
        await connection.send(b'{"input_')
        connection.abort()

    upstream.script = broken
    async with lume.post(COUNT, ASK) as response:
        assert (response.status, response.headers["retry-after"]) == (503, "1")

    monkeypatch.setattr(free, "COUNT_REPLY_BYTES", 1000)
    upstream.script = lambda c: c.reply(b"x" * 1001)
    async with lume.post(COUNT, ASK) as response:
        assert response.status == 503
        assert b"xxx" not in await response.read()


async def test_counts_need_no_credit_and_are_not_counted_as_calls(tmp_path: Path, upstream: ScriptedUpstream):
    upstream.script = lambda c: c.reply(COUNTED)
    more = "[limits]\nkey_calls_per_minute = 1\naccount_concurrent_calls = 1"
    async with proxy(tmp_path, {"anthropic": upstream}, credit_nanousd=0, more=more) as lume:

        async def count() -> int:
            async with lume.post(COUNT, ASK) as response:
                await response.read()
                return response.status

        assert await asyncio.gather(*(count() for _ in range(25))) == [200] * 25
        async with lume.post("/v1/messages", {**ASK, "max_tokens": 9}) as response:
            assert response.status == 402
        assert await nothing_was_booked(lume, credit=0)


async def test_a_count_is_for_models_that_the_key_may_use(lume: Proxy, upstream: ScriptedUpstream):
    narrow = await lume.run("key.create", account="tester", models=["claude-test-2"])
    for headers, model in (({"x-api-key": narrow["key"]}, "claude-test-1"), (lume.headers, "claude-unknown")):
        async with lume.session.post(lume.url + COUNT, json={**ASK, "model": model}, headers=headers) as response:
            assert (response.status, (await response.json())["error"]["type"]) == (404, "not_found_error")
    assert upstream.received == []


async def test_a_routed_name_is_replaced_in_a_count_as_in_a_call(tmp_path: Path, upstream: ScriptedUpstream):
    upstream.script = lambda c: c.reply(COUNTED)
    more = {"anthropic": upstream, "anthropic-2": upstream}
    async with (
        proxy(tmp_path, more, routes=ROUTES) as lume,
        lume.post(COUNT, {**ASK, "model": "claude-alias"}) as response,
    ):
        assert response.status == 200

    assert json.loads(upstream.received[0].body)["model"] == "claude-test-9"


async def test_the_echo_counts_for_itself(lume: Proxy):
    async with lume.post(COUNT, {**ASK, "model": "claude-echo"}) as response:
        assert (response.status, await response.json()) == (200, {"input_tokens": 6})


# --- models ------------------------------------------------------------------------------------------------------------


async def models(lume: Proxy, key: str = "", query: str = "", **headers: str) -> dict:
    sent = {**headers, "x-api-key": key or lume.key}
    async with lume.session.get(lume.url + "/v1/models" + query, headers=sent, allow_redirects=False) as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        assert response.headers["request-id"] == response.headers["x-request-id"] != ""
        return await response.json()


async def test_one_answer_holds_what_each_client_looks_for(lume: Proxy):
    """openai: object, data, id, created, owned_by; anthropic: data, has_more, first_id, last_id, type, display_name,
    created_at as a date; Claude Code's discovery: data with ids."""
    listed = await models(lume, query="?limit=1000", **{"anthropic-version": "2023-06-01"})

    assert listed == await models(lume)
    assert (listed["object"], listed["has_more"]) == ("list", False)
    assert (listed["first_id"], listed["last_id"]) == ("claude-echo", "gpt-echo")
    assert listed["data"][0] == {
        "id": "claude-echo",
        "type": "model",
        "object": "model",
        "display_name": "claude-echo",
        "created_at": "1970-01-01T00:00:00Z",
        "created": 0,
        "owned_by": "lumeproxy",
    }


async def test_the_list_holds_what_the_routes_serve_and_the_key_may_use(tmp_path: Path, upstream: ScriptedUpstream):
    routes = """
[[routes]]
model = "claude-alias"
upstreams = ["anthropic"]
upstream_model = "claude-test-1"
[[routes]]
model = "claude-haiku-4-5*"
upstreams = ["anthropic"]
[[routes]]
model = "claude-alias"
upstreams = ["anthropic"]
[[routes]]
model = "without-a-price"
upstreams = ["anthropic"]
"""
    async with proxy(tmp_path, {"anthropic": upstream}, routes=routes) as lume:
        names = [entry["id"] for entry in (await models(lume))["data"]]
        found, echoes = [name for name in names if "echo" not in name], [name for name in names if "echo" in name]
        assert found[0] == "claude-alias"
        assert echoes == ["claude-echo", "gpt-echo"]
        assert len(names) == len(set(names)) > 3
        assert all(name.startswith("claude-haiku-4-5") for name in found[1:])

        for patterns, allowed in ((["*-echo"], echoes), (["claude-alias"], found[:1]), (["nothing"], [])):
            key = (await lume.run("key.create", account="tester", models=patterns))["key"]
            listed = await models(lume, key)
            assert [entry["id"] for entry in listed["data"]] == allowed
            assert listed["first_id"] == (allowed[0] if allowed else None)
            assert listed["last_id"] == (allowed[-1] if allowed else None)
        assert upstream.received == []


async def test_one_model_is_found_by_its_name_where_the_key_may_use_it(lume: Proxy):
    narrow = (await lume.run("key.create", account="tester", models=["gpt-*"]))["key"]
    found = {}
    for key, name in ((lume.key, "claude-echo"), (narrow, "claude-echo"), (narrow, "gpt-echo"), (lume.key, "a/b%2Fc")):
        async with lume.session.get(f"{lume.url}/v1/models/{name}", headers={"x-api-key": key}) as response:
            found[key == narrow, name] = (response.status, (await response.json()).get("id"))

    assert found == {
        (False, "claude-echo"): (200, "claude-echo"),
        (True, "claude-echo"): (404, None),
        (True, "gpt-echo"): (200, "gpt-echo"),
        (False, "a/b%2Fc"): (404, None),
    }


async def test_the_list_is_there_at_once_with_every_bundled_price_in_it(tmp_path: Path, upstream: ScriptedUpstream):
    more = {"anthropic": upstream, "openai": upstream}
    async with proxy(tmp_path, more, routes='[[routes]]\nmodel = "*"\nupstreams = ["anthropic", "openai"]') as lume:
        async with asyncio.timeout(1):
            names = [entry["id"] for entry in (await models(lume))["data"]]

    assert len(names) > 100
    assert any(name.startswith("claude-") for name in names) and any(name.startswith("gpt-") for name in names)
