"""Connections: who may open one, what goes to the provider with it, what happens between two answers, and its end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lumeproxy.core.spans import MOST_TOKENS
from lumeproxy.proxy.live import Cause
from tests.support import streams, websocket
from tests.support.calls import BILL, RESPONSES, ask, until
from tests.support.client import take
from tests.support.proxy import Proxy
from tests.support.upstream import Connection, ScriptedUpstream
from tests.support.websocket import (
    BINARY,
    Peer,
    SocketProvider,
    SocketProxy,
    answering,
    create,
    frame,
    messages,
)

ASK = create().decode()
CODEX = {"originator": "codex_exec"}


async def got(client: Any, count: int = 4) -> list[bytes]:
    return [(await client.receive_str(timeout=5)).encode() for _ in range(count)]


async def error(client: Any) -> Any:
    return json.loads((await got(client, 1))[0])


async def close_code(client: Any) -> int:
    message = await client.receive(timeout=5)
    assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED), message
    code: int = client.close_code
    return code


async def refused(lume: SocketProxy, **options: Any) -> int:
    """The status of a handshake that is refused."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await lume.socket(**options)
    return caught.value.status


def announcing(model: str) -> dict[str, str]:
    """What Codex says of its turn when it opens a connection."""
    return {"x-codex-turn-metadata": json.dumps({"turn_id": "t", "model": model})}


async def no_socket(connection: Connection) -> None:
    raise AssertionError("the provider was asked")


# --- opening -------------------------------------------------------------------------------------------------------------


async def test_it_is_off_by_default_and_says_so_whatever_the_key(lume: Proxy, upstream: ScriptedUpstream) -> None:
    upstream.script = no_socket

    for key in (lume.key, "wrong"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await lume.session.ws_connect(lume.url + "/v1/responses", headers={"Authorization": f"Bearer {key}"})
        assert caught.value.status == 426

    assert upstream.received == []


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/v1/responses"])
async def test_the_providers_handshake_has_the_operators_credential_and_the_clients_other_headers(
    socketed: SocketProxy, provider: SocketProvider, path: str
) -> None:
    provider.extra = {"x-codex-turn-state": "sticky", "x-request-id": "req_1", "Set-Cookie": "a=b", "Server": "them",
                      "x-echo": "Bearer provider-secret", "openai-model": "gpt-test-1"}  # fmt: skip
    sent = {"openai-beta": "responses_websockets=2026-02-06", "session-id": "s1", "Cookie": "c=d", "x-api-key": "sk-mine",
            "Origin": "http://page.test"}  # fmt: skip

    async with socketed.socket(
        path + "?a=b%20c", headers=sent, protocols=["openai-insecure-api-key.sk-mine"]
    ) as client:
        answered = client._response.headers

    (opening,) = provider.openings
    assert opening.target == "/v1/responses?a=b%20c"
    assert opening.header("authorization") == "Bearer provider-secret"
    assert opening.header("openai-beta") == "responses_websockets=2026-02-06"
    assert opening.header("session-id") == "s1"
    assert not [pair for pair in opening.headers if "sk-mine" in pair[1] or socketed.key in pair[1]]
    for name in ("cookie", "sec-websocket-protocol", "sec-websocket-extensions"):
        assert opening.header(name) is None
    assert (answered["x-codex-turn-state"], answered["x-request-id"]) == ("sticky", "req_1")
    assert answered["openai-model"] == "gpt-test-1"
    assert answered["x-lume-call-id"].startswith("call_")
    for name in ("set-cookie", "server", "x-echo", "sec-websocket-extensions"):
        assert name not in answered or answered[name] not in provider.extra.values()


async def test_a_client_that_offers_compression_gets_none(socketed: SocketProxy) -> None:
    async with socketed.socket(compress=15) as client:
        assert "sec-websocket-extensions" not in client._response.headers
        await client.send_str(ASK)
        assert await got(client) == messages()


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer wrong"}, {"Authorization": "Bearer sk-ant-api03-x"}])
async def test_a_wrong_key_opens_nothing_and_codex_is_sent_to_http_which_says_why(
    socketed: SocketProxy, upstream: ScriptedUpstream, headers: dict[str, str]
) -> None:
    assert await refused(socketed, headers=headers) == 401
    assert await refused(socketed, headers={**headers, **CODEX}) == 426
    assert upstream.received == []


async def test_a_suspended_account_opens_nothing(socketed: SocketProxy, upstream: ScriptedUpstream) -> None:
    await socketed.run("account.suspend", name="tester", reason="x")

    assert await refused(socketed) == 403
    assert await refused(socketed, headers=CODEX) == 426
    assert upstream.received == []


async def test_a_bad_handshake_is_refused_before_the_provider_is_asked(
    socketed: SocketProxy, upstream: ScriptedUpstream
) -> None:
    headers = {**socketed.headers, "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "7"}
    async with socketed.session.get(socketed.url + "/v1/responses", headers=headers) as response:
        body = await response.json()

    assert (response.status, body["error"]["type"]) == (400, "invalid_request_error")
    assert upstream.received == []


@pytest.mark.parametrize("status", [401, 404, 426, 429, 503])
async def test_a_provider_that_refuses_the_upgrade_sends_the_client_to_http(
    socketed: SocketProxy, upstream: ScriptedUpstream, status: int
) -> None:
    upstream.script = lambda c: c.reply(b'{"error": {"message": "provider-secret"}}', status)

    assert await refused(socketed) == 426

    said = next(
        line for line in map(json.loads, socketed.log.getvalue().splitlines()) if line["event"] == "websocket_refused"
    )
    assert said["reason"] == f"The upstream openai refused a WebSocket with status {status}."
    assert "provider-secret" not in socketed.log.getvalue()


async def test_a_provider_that_cannot_be_reached_or_does_not_answer_sends_the_client_to_http(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    silent = asyncio.Event()

    async def say_nothing(connection: Connection) -> None:
        await silent.wait()

    upstream.script = say_nothing
    async with websocket.proxied(tmp_path, upstream, more="[limits]\nwebsocket_connect_ms = 50\n") as lume:
        assert await refused(lume) == 426
        silent.set()
        await upstream.stop()
        assert await refused(lume) == 426
        await upstream.start()


async def test_an_account_may_have_only_so_many_open(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.script = SocketProvider(answering(messages())).serve
    async with websocket.proxied(tmp_path, upstream, more="[limits]\nwebsockets_per_account = 2\n") as lume:
        await lume.run("account.create", name="other", credit_nanousd=10**9)
        other = {"Authorization": "Bearer " + (await lume.run("key.create", account="other"))["key"]}
        async with lume.socket(), lume.socket():
            assert await refused(lume) == 426
            async with lume.socket(headers=other) as client:
                await client.send_str(ASK)
                await got(client)
        async with lume.socket() as client:
            await client.send_str(ASK)
            assert await got(client) == messages()


# --- requests that are refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "status", "code"),
    [
        ("no json", 400, "invalid_request"),
        ("[]", 400, "invalid_request"),
        ("{}", 400, "invalid_request"),
        ('{"type": "response.steer", "previous_response_id": "r", "input": "go"}', 400, "invalid_request"),
        ('{"type": "response.create"}', 400, "invalid_request"),
        (create(background=True).decode(), 400, "invalid_request"),
        (create(model="nobody").decode(), 404, "model_not_found"),
        (create(model="gpt-echo").decode(), 426, "upgrade_required"),
    ],
)
async def test_what_cannot_be_metered_or_served_is_refused_and_the_connection_stays(
    socketed: SocketProxy, provider: SocketProvider, message: str, status: int, code: str
) -> None:
    async with socketed.socket() as client:
        await client.send_str(message)
        told = await error(client)
        await client.send_str(ASK)
        assert await got(client) == messages()

    assert (told["type"], told["status"], told["error"]["code"]) == ("error", status, code)
    assert provider.messages == [ASK.encode()]
    assert [record["cost_nanousd"] for record in await socketed.records()] == [BILL[RESPONSES]]


async def test_a_binary_message_is_refused(socketed: SocketProxy, provider: SocketProvider) -> None:
    async with socketed.socket() as client:
        await client.send_bytes(ASK.encode())
        assert (await error(client))["error"]["message"] == "Messages here are text."

    assert provider.messages == []


async def test_an_acknowledgement_passes_and_is_no_call(socketed: SocketProxy, provider: SocketProvider) -> None:
    told = '{"type":"response.processed","response_id":"resp_1"}'

    async with socketed.socket() as client:
        await client.send_str(told)
        await until(lambda: provider.messages == [told.encode()])

    assert await socketed.records() == []


async def test_a_message_over_the_limit_closes_the_connection(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    provider = SocketProvider(answering(messages()))
    upstream.script = provider.serve
    more = "[limits]\nbody_bytes = 1000\nwebsocket_message_bytes = 2000\n"
    async with websocket.proxied(tmp_path, upstream, more=more) as lume:
        async with lume.socket() as client:
            await client.send_str("x" * 1001)
            assert await close_code(client) == 1009
        assert provider.messages == []

        provider.script = answering([messages()[0], b"x" * 2001])
        async with lume.socket() as client:
            await client.send_str(ASK)
            await got(client, 1)
            assert await close_code(client) == 1011
        (record,) = await lume.records()
        assert record["ending"] == "cut_by_upstream"


async def test_the_rate_limit_counts_answers_not_connections(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.script = SocketProvider(answering(messages())).serve
    async with websocket.proxied(tmp_path, upstream, more="[limits]\nkey_calls_per_minute = 2\n") as lume:
        async with lume.socket() as client:
            for _ in range(2):
                await client.send_str(ASK)
                await got(client)
            await client.send_str(ASK)
            told = await error(client)
        assert (told["status"], told["error"]["code"]) == (429, "rate_limit_exceeded")
        assert 0 < int(told["headers"]["retry-after"]) <= 30
        assert len(await lume.records()) == 2


@pytest.mark.parametrize("how", ["suspended", "revoked"])
async def test_a_key_that_ended_meanwhile_gets_no_answer_and_is_shown_out(
    socketed: SocketProxy, provider: SocketProvider, how: str
) -> None:
    async with socketed.socket() as client:
        await client.send_str(ASK)
        await got(client)
        if how == "suspended":
            await socketed.run("account.suspend", name="tester", reason="x")
        else:
            await socketed.run("key.revoke", id=socketed.key[5:13])
        await client.send_str(ASK)
        assert (await error(client))["status"] == (403 if how == "suspended" else 401)
        await close_code(client)

    assert len(provider.messages) == 1
    assert len(await socketed.records()) == 1


# --- where to -------------------------------------------------------------------------------------------------------------


async def test_a_routes_upstream_model_is_spliced_in_and_nothing_else_changes(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    provider = SocketProvider(answering(messages()))
    upstream.script = provider.serve
    routes = '[[routes]]\nmodel = "mine"\nupstreams = ["openai"]\nupstream_model = "gpt-test-9"\n'
    asked = '{ "type":"response.create", "model" : "mine" , "input":"h\\u00e9"}'
    async with websocket.proxied(tmp_path, upstream, routes=routes) as lume, lume.socket() as client:
        await client.send_str(asked)
        await got(client)

    assert provider.messages == [asked.replace('"mine"', '"gpt-test-9"').encode()]


async def test_a_request_that_can_not_be_changed_for_its_route_is_refused_and_holds_nothing(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """A name of the route's own is spliced in, for which a key that is there twice has to be looked for by token."""
    provider = SocketProvider(answering(messages()))
    upstream.script = provider.serve
    routes = '[[routes]]\nmodel = "mine"\nupstreams = ["openai"]\nupstream_model = "gpt-test-9"\n'
    asked = f'{{"type":"response.create","x":1,"x":[{"0," * MOST_TOKENS}0],"input":"hi","model":"mine"}}'
    async with websocket.proxied(tmp_path, upstream, routes=routes) as lume:
        async with lume.socket() as client:
            await client.send_str(asked)
            told = await error(client)
            assert (told["status"], told["error"]["code"]) == (400, "invalid_request")
            assert (await lume.balance()).held_nanousd == 0
            await client.send_str(create(model="mine").decode())
            await got(client)

        assert provider.messages == [create(model="gpt-test-9")]
        assert [record["cost_nanousd"] for record in await lume.records()] == [BILL[RESPONSES]]
        assert (await lume.balance()).held_nanousd == 0


async def test_a_model_of_another_upstream_gets_a_connection_of_its_own(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    other = ScriptedUpstream()
    await other.start()
    first, second = SocketProvider(answering(messages())), SocketProvider(answering(messages(["b"])))
    upstream.script, other.script = first.serve, second.serve
    extra = (
        f'[upstreams.other]\nkind = "openai"\nbase_url = "{other.url}"\napi_key = "other-secret"\nwebsocket = true\n'
    )
    routes = ('[[routes]]\nmodel = "gpt-test-1"\nupstreams = ["echo", "openai"]\n'
              '[[routes]]\nmodel = "gpt-test-2"\nupstreams = ["other", "openai"]\n')  # fmt: skip
    async with websocket.proxied(tmp_path, upstream, more=extra, routes=routes) as lume:
        async with lume.socket(headers=announcing("gpt-test-2")) as client:
            await client.send_str(create(model="gpt-test-2").decode())
            await got(client, 3)
        assert (len(first.openings), len(second.openings)) == (0, 1)
        async with lume.socket() as client:
            for model in ("gpt-test-1", "gpt-test-2", "gpt-test-2", "gpt-test-1"):
                await client.send_str(create(model=model).decode())
                await got(client, 4 if model == "gpt-test-1" else 3)
        records = await lume.records()
    await other.stop()

    assert [record["upstream"] for record in records] == ["other", "openai", "other", "other", "openai"]
    assert (len(first.openings), len(second.openings)) == (2, 2)
    assert second.openings[0].header("authorization") == "Bearer other-secret"
    assert other.errors == []


@pytest.mark.parametrize("model", ["gpt-echo", "nobody"])
async def test_a_model_that_only_http_serves_is_sent_there_with_the_handshake(
    socketed: SocketProxy, upstream: ScriptedUpstream, model: str
) -> None:
    assert await refused(socketed, headers=announcing(model)) == 426
    assert upstream.received == []


async def test_an_upstream_that_takes_no_second_connection_ends_this_one(
    socketed: SocketProxy, upstream: ScriptedUpstream, provider: SocketProvider
) -> None:
    async with socketed.socket() as client:
        await client.send_str(ASK)
        await got(client)
        await socketed.reload()  # makes new upstreams, which are dialled anew
        upstream.script = lambda c: c.reply(b"{}", 503)
        await client.send_str(ASK)
        told = await error(client)
        assert await close_code(client) == 1011

    assert (told["status"], told["error"]["code"]) == (503, "server_is_overloaded")
    assert len(await socketed.records()) == 1
    assert (await socketed.balance()).held_nanousd == 0


# --- between answers -----------------------------------------------------------------------------------------------------


async def test_what_the_provider_says_of_the_connection_passes(socketed: SocketProxy, provider: SocketProvider) -> None:
    told = b'{"type":"codex.rate_limits","x":1}'

    async def play(peer: Peer) -> None:
        await peer.send(told)
        await peer.receive()
        await peer.send(*messages(), told)
        await peer.receive()

    provider.script = play
    async with socketed.socket() as client:
        assert await got(client, 1) == [told]
        await client.send_str(ASK)
        assert await got(client, 5) == [*messages(), told]

    assert [record["ending"] for record in await socketed.records()] == ["complete"]


@pytest.mark.parametrize("binary", [True, False])
async def test_an_answer_that_nobody_asked_for_is_not_given_away(
    socketed: SocketProxy, provider: SocketProvider, binary: bool
) -> None:
    async def play(peer: Peer) -> None:
        await peer.connection.send(frame(messages()[0], BINARY) if binary else frame(messages()[0]))
        await peer.receive()

    provider.script = play
    async with socketed.socket() as client:
        assert await close_code(client) == 1011

    assert '"event":"websocket_unasked"' in socketed.log.getvalue()


@pytest.mark.parametrize("cleanly", [True, False])
async def test_the_providers_closing_is_passed_on(
    socketed: SocketProxy, provider: SocketProvider, cleanly: bool
) -> None:
    async def play(peer: Peer) -> None:
        if cleanly:
            await peer.close()
        else:
            peer.connection.abort()

    provider.script = play
    async with socketed.socket() as client:
        assert await close_code(client) == 1001


async def test_the_clients_closing_ends_the_providers_connection(
    socketed: SocketProxy, provider: SocketProvider
) -> None:
    ended = asyncio.Event()

    async def play(peer: Peer) -> None:
        assert await peer.receive() is None
        ended.set()

    provider.script = play
    async with socketed.socket():
        pass

    await asyncio.wait_for(ended.wait(), 5)


async def test_pings_of_both_sides_are_answered_also_while_an_answer_runs(
    socketed: SocketProxy, provider: SocketProvider
) -> None:
    async def play(peer: Peer) -> None:
        await peer.receive()
        await peer.send(messages()[0])
        await peer.connection.send(frame(b"from them", websocket.PING))
        assert await peer.frame() == (websocket.PONG, b"from them")
        await peer.send(*messages()[1:])
        await peer.receive()

    provider.script = play
    async with socketed.socket(autoping=False) as client:
        await client.send_str(ASK)
        await got(client, 1)
        await client.ping(b"from us")
        seen = [await client.receive(timeout=5) for _ in range(4)]

    assert [message.data for message in seen if message.type is aiohttp.WSMsgType.PONG] == [b"from us"]
    assert [message.data.encode() for message in seen if message.type is aiohttp.WSMsgType.TEXT] == messages()[1:]


@pytest.mark.parametrize("limit", ["websocket_idle_ms", "websocket_open_ms"])
async def test_a_connection_without_an_answer_is_closed_when_its_time_is_up(
    tmp_path: Path, upstream: ScriptedUpstream, limit: str
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def play(peer: Peer) -> None:
        await peer.receive()
        await peer.send(messages()[0])
        begun.set()
        await go.wait()
        await peer.send(*messages()[1:])
        await peer.receive()

    upstream.script = SocketProvider(play).serve
    async with websocket.proxied(tmp_path, upstream, more=f"[limits]\n{limit} = 80\n") as lume, lume.socket() as client:
        await client.send_str(ASK)
        await begun.wait()
        with pytest.raises(TimeoutError):  # longer than the limit, which is not one of a running answer
            await asyncio.wait_for(asyncio.Event().wait(), 0.1)
        go.set()
        assert await got(client) == messages()
        assert await close_code(client) == 1001


# --- stopping ------------------------------------------------------------------------------------------------------------


async def test_a_server_that_stops_lets_a_running_answer_end_and_takes_no_other(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def play(peer: Peer) -> None:
        await peer.receive()
        await peer.send(messages()[0])
        begun.set()
        await go.wait()
        await peer.send(*messages()[1:])
        await peer.receive()

    provider = SocketProvider(play)
    upstream.script = provider.serve

    async def watch(idle: Any, busy: Any) -> None:
        assert await close_code(idle) == 1001
        await busy.send_str(create("another").decode())
        go.set()
        assert await got(busy) == messages()
        assert await close_code(busy) == 1001

    async with (
        aiohttp.ClientSession() as session,
        asyncio.TaskGroup() as group,
        websocket.proxied(tmp_path, upstream) as lume,
    ):
        url = lume.url + "/v1/responses"
        idle, busy = [await session.ws_connect(url, headers=lume.headers) for _ in range(2)]
        await busy.send_str(ASK)
        await begun.wait()
        group.create_task(watch(idle, busy))

    assert provider.messages == [ASK.encode()]


async def test_a_stop_that_hurries_cuts_the_answer_and_settles_it(
    socketed: SocketProxy, provider: SocketProvider
) -> None:
    async def play(peer: Peer) -> None:
        await peer.receive()
        await peer.send(messages()[0])
        await peer.receive()

    provider.script = play
    async with socketed.socket() as client:
        await client.send_str(ASK)
        await got(client, 1)
        socketed.server.live.interrupt_account(None, Cause.STOPPING)
        await got(client, 1)
        await close_code(client)

    (record,) = await socketed.records()
    assert (record["ending"], record["error_code"]) == ("interrupted", "stopping")


async def test_http_goes_on_beside_it(
    socketed: SocketProxy, upstream: ScriptedUpstream, provider: SocketProvider
) -> None:
    async def either(connection: Connection) -> None:
        if connection.received.method == "GET":
            await provider.serve(connection)
        else:
            await connection.stream(streams.responses())

    upstream.script = either
    async with socketed.socket() as client:
        await client.send_str(ASK)
        over_http = await take(socketed.post(RESPONSES, ask(RESPONSES)))
        assert await got(client) == messages()

    assert over_http.body == b"".join(streams.responses())
    assert [record["cost_nanousd"] for record in await socketed.records()] == [BILL[RESPONSES]] * 2


# --- what hardly ever happens --------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_while_the_provider_is_dialled_leaves_nothing_open(
    socketed: SocketProxy, upstream: ScriptedUpstream, provider: SocketProvider
) -> None:
    asked, gone, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(connection: Connection) -> None:
        asked.set()
        await gone.wait()
        await provider.serve(connection)

    async def play(peer: Peer) -> None:
        assert await peer.receive() is None
        closed.set()

    upstream.script, provider.script = slow, play
    opening = asyncio.ensure_future(socketed.socket())
    await asyncio.wait_for(asked.wait(), 5)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await socketed.session.close()
    for _ in range(20):
        await asyncio.sleep(0)
    gone.set()

    await asyncio.wait_for(closed.wait(), 5)
    assert '"event":"bug"' not in socketed.log.getvalue()


async def test_a_bug_between_two_answers_closes_the_connection_and_is_logged(
    socketed: SocketProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lumeproxy.dialects.openai_websocket.OpenAIWebSocket.read", lambda *_: 1 // 0)

    async with socketed.socket() as client:
        await client.send_str(ASK)
        assert await close_code(client) == 1011

    assert '"event":"bug"' in socketed.log.getvalue()


async def test_a_client_that_takes_nothing_is_not_told_for_ever(
    socketed: SocketProxy, provider: SocketProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lumeproxy.proxy.websocket.TELL_S", 0.05)
    ended = asyncio.Event()

    async def play(peer: Peer) -> None:
        try:
            while not peer.connection.reader.at_eof():
                await peer.send(b"x" * 60_000)
        except ConnectionError:
            pass
        ended.set()

    provider.script = play
    client = await socketed.socket()
    client._response.connection.transport.pause_reading()

    await asyncio.wait_for(ended.wait(), 5)
    client._response.close()
    assert '"event":"bug"' not in socketed.log.getvalue()


async def test_what_many_answers_brought_along_is_forgotten_oldest_first(
    socketed: SocketProxy, provider: SocketProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lumeproxy.proxy.websocket.REMEMBERED_ANSWERS", 2)
    answers = [websocket.warmed(f"resp_{number}", {"input_tokens": 1000, "output_tokens": 0}) for number in range(3)]
    provider.script = answering(*answers, messages(usage=None))

    async with socketed.socket() as client:
        for _ in answers:
            await client.send_str(ASK)
            await got(client, 2)
        for number in (0, 2):
            await client.send_str(create(previous_response_id=f"resp_{number}").decode())
            await got(client)

    *_, forgotten, known = [record["input_tokens"] for record in await socketed.records()]
    assert known - forgotten == 1000
