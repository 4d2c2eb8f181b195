"""The two questions to a proxy, over a real socket: what comes back, and how each failure is said."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from lumeproxy.clients import ask
from lumeproxy.clients.base import Trial
from lumeproxy.errors import Refused
from tests.clients.support import KEY
from tests.support.proxy import Proxy
from tests.support.upstream import Connection, ScriptedUpstream

TRIAL = Trial(
    "/v1/messages", {"model": "claude-test-1", "max_tokens": 16, "messages": [{"role": "user", "content": "Say OK."}]}
)


async def test_a_proxy_lists_its_models_and_answers_a_call(lume: Proxy, upstream: ScriptedUpstream):
    async def reply(connection: Connection) -> None:
        usage = {"input_tokens": 10, "output_tokens": 2}
        message = {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "x", "usage": usage}
        await connection.reply(json.dumps(message).encode())

    upstream.script = reply
    names = await asyncio.to_thread(ask.models, lume.url, lume.key)
    proof = await asyncio.to_thread(ask.prove, lume.url, lume.key, TRIAL)

    assert "claude-echo" in names
    (record,) = await lume.records()
    assert proof == ask.Proof("claude-test-1", record["call_id"], "0.000030000")
    assert record["user_agent"] == "lumeproxy-setup"


async def test_a_proxys_own_sentence_is_passed_on(lume: Proxy):
    with pytest.raises(Refused) as error:
        await asyncio.to_thread(ask.models, lume.url, KEY)
    assert error.value.message.startswith(f"{lume.url} answered 401: ")
    assert KEY not in error.value.message


@pytest.mark.parametrize(
    ("status", "body", "headers", "told"),
    [
        (200, b"<html>", {}, "is no such proxy: it does not speak JSON"),
        (200, b"[]", {}, "is no such proxy."),
        (200, b"{}", {}, "its list of models makes no sense"),
        (200, b'{"data": [{"id": 5}]}', {}, "its list of models makes no sense"),
        (302, b"", {"location": "https://evil.test/"}, "answered 302."),
        (401, b'{"error": {"message": "no \\u001b[31mkey"}}', {}, "answered 401: no [31mkey"),
        (500, b'{"error": "x"}', {}, "answered 500."),
    ],
)
async def test_what_is_no_such_proxy_is_told(upstream: ScriptedUpstream, status, body, headers, told):
    upstream.script = lambda connection: connection.reply(body, status, headers)

    with pytest.raises(Refused) as error:
        await asyncio.to_thread(ask.models, upstream.url, KEY)

    assert told in error.value.message
    assert len(upstream.received) == 1
    assert upstream.received[0].header("authorization") == f"Bearer {KEY}"


async def test_names_that_would_spoil_a_terminal_are_left_out(upstream: ScriptedUpstream):
    listed: dict[str, Any] = {"data": [{"id": "good"}, {"id": "\x1b[2J"}]}
    upstream.script = lambda connection: connection.reply(json.dumps(listed).encode())

    assert await asyncio.to_thread(ask.models, upstream.url, KEY) == ("good",)


async def test_a_connection_that_breaks_off_and_a_server_that_is_not_there_are_told(
    upstream: ScriptedUpstream, monkeypatch
):
    async def break_off(connection: Connection) -> None:
        connection.abort()

    upstream.script = break_off
    with pytest.raises(Refused, match=r"can't be reached: "):
        await asyncio.to_thread(ask.models, upstream.url, KEY)
    with pytest.raises(Refused, match=r"http://127\.0\.0\.1:9 can't be reached: Connection refused"):
        await asyncio.to_thread(ask.models, "http://127.0.0.1:9", KEY)


async def test_nobodys_web_proxy_sees_what_is_for_this_machine(upstream: ScriptedUpstream, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    upstream.script = lambda connection: connection.reply(b'{"data": []}')

    assert await asyncio.to_thread(ask.models, upstream.url, KEY) == ()
