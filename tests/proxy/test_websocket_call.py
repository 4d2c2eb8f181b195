"""One answer over a WebSocket: every ending as a transcript on real sockets, charged by the rule, the books after it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lumeproxy.proxy.live import Cause
from lumeproxy.store import ledger
from lumeproxy.upstreams.base import NotReached
from tests.support import websocket
from tests.support.calls import BILL, INPUT, OUTPUT, RESPONSES, ending, noticed, settled, tokens_in, tokens_out, until
from tests.support.clock import FakeClock
from tests.support.upstream import ScriptedUpstream
from tests.support.websocket import Peer, SocketProvider, SocketProxy, answering, create, messages, warmed

WORDS = ["Hello", " there", " and", " so", " on"]
BEGUN = messages(WORDS)[:-1]
SAID = sum(map(len, WORDS))
ASK = create()


async def received(client: Any, count: int) -> list[bytes]:
    """So many messages, as text."""
    return [(await client.receive_str(timeout=5)).encode() for _ in range(count)]


async def closed(client: Any) -> int | None:
    """Wait until the proxy has closed; the code."""
    message = await client.receive(timeout=5)
    assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED), message
    code: int | None = client.close_code
    return code


async def holding(peer: Peer) -> None:
    """Begin an answer, and never go on with it; what the proxy does is awaited."""
    await peer.receive()
    await peer.send(*BEGUN)
    await peer.receive()


# --- complete ------------------------------------------------------------------------------------------------------------


async def test_an_answer_passes_byte_for_byte_and_is_charged_what_the_provider_claimed(
    socketed: SocketProxy, provider: SocketProvider
) -> None:
    answer = [b'{"type" : "codex.rate_limits", "x": "\xc3\xa9"}', *messages(WORDS)]
    provider.script = answering(answer)
    asked = create("h\u00e9llo", odd=[1, 2])

    async with socketed.socket() as client:
        await client.send_str(asked.decode())
        got = await received(client, len(answer))

    assert got == answer
    assert provider.messages == [asked]
    assert provider.claimed == [json.loads(answer[-1])["response"]["usage"]]
    record = await settled(socketed)
    assert ending(record) == ("complete", "reported", False)
    assert record["cost_nanousd"] == BILL[RESPONSES]
    assert (record["endpoint"], record["status"], record["upstream"]) == ("/v1/responses", 200, "openai")
    assert (record["model"], record["model_served"]) == ("gpt-test-1", "gpt-test-1")
    assert record["ttfb_ms"] is not None


async def test_the_last_event_is_let_go_when_the_charge_is_committed(
    socketed: SocketProxy, provider: SocketProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = asyncio.Event()
    provider.script = answering(messages(WORDS))
    socketed.delay(ledger.settle, release, monkeypatch)

    async with socketed.socket() as client:
        await client.send_str(ASK.decode())
        assert await received(client, len(BEGUN)) == BEGUN
        last = asyncio.ensure_future(client.receive_str())
        await until(lambda: any(call.stage.name == "OURSELVES" for call in socketed.server.live._calls.values()))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not last.done()
        assert (await socketed.balance()).held_nanousd > 0
        release.set()
        assert (await last).encode() == messages(WORDS)[-1]
        assert (await socketed.balance()).balance_nanousd == 10**9 - BILL[RESPONSES]


async def test_several_answers_on_one_connection_are_several_calls(
    socketed: SocketProxy, provider: SocketProvider
) -> None:
    provider.script = answering(messages(["a"]), messages(["b"], usage={"input_tokens": 7, "output_tokens": 3}))

    async with socketed.socket() as client:
        for number in range(3):
            await client.send_str(create(str(number)).decode())
            await received(client, 3)

    records = await socketed.records()
    assert [record["cost_nanousd"] for record in records] == [
        BILL[RESPONSES],
        7 * INPUT + 3 * OUTPUT,
        7 * INPUT + 3 * OUTPUT,
    ]
    assert len({record["call_id"] for record in records}) == 3
    assert len(provider.openings) == 1
    assert sum(usage["input_tokens"] for usage in provider.claimed) == sum(
        record["input_tokens"] + record["cache_read_tokens"] for record in records
    )


async def test_a_request_that_comes_while_an_answer_runs_waits_for_it(
    socketed: SocketProxy, provider: SocketProvider
) -> None:
    go, second = asyncio.Event(), create("second")

    async def play(peer: Peer) -> None:
        await peer.receive()
        await peer.send(*BEGUN)
        await go.wait()
        assert provider.messages == [ASK]
        await peer.send(messages(WORDS)[-1])
        await peer.receive()
        await peer.send(*messages(["b"]))
        await peer.receive()

    provider.script = play
    async with socketed.socket() as client:
        await client.send_str(ASK.decode())
        await received(client, len(BEGUN))
        await client.send_str(second.decode())
        for _ in range(50):
            await asyncio.sleep(0)
        go.set()
        got = await received(client, 1 + 3)

    assert got == [messages(WORDS)[-1], *messages(["b"])]
    assert provider.messages == [ASK, second]
    assert [record["ending"] for record in await socketed.records()] == ["complete", "complete"]


async def test_an_answer_without_usage_is_estimated(socketed: SocketProxy, provider: SocketProvider) -> None:
    provider.script = answering(messages(WORDS, usage=None))

    async with socketed.socket() as client:
        await client.send_str(ASK.decode())
        await received(client, len(WORDS) + 2)

    record = await settled(socketed)
    assert ending(record) == ("complete", "estimate", True)
    assert record["input_tokens"] == tokens_in(RESPONSES, ASK)
    assert record["output_tokens"] == tokens_out(RESPONSES, SAID)


async def test_an_answer_larger_than_any_event_is_passed_on_and_read(
    socketed: SocketProxy, provider: SocketProvider
) -> None:
    last = json.loads(messages(WORDS)[-1])
    last["response"]["output"] = ["x" * 1_000_000]
    provider.script = answering([*BEGUN, json.dumps(last).encode()])

    async with socketed.socket(max_msg_size=1 << 21) as client:
        await client.send_str(ASK.decode())
        got = await received(client, len(BEGUN) + 1)

    assert json.loads(got[-1]) == last
    assert (await settled(socketed))["cost_nanousd"] == BILL[RESPONSES]


# --- warm-up and what it leads to -----------------------------------------------------------------------------------------


async def test_a_warm_up_of_which_no_usage_is_said_costs_nothing(
    socketed: SocketProxy, provider: SocketProvider
) -> None:
    provider.script = answering(warmed())

    async with socketed.socket() as client:
        await client.send_str(create("x" * 4000, generate=False).decode())
        assert await received(client, 2) == warmed()

    record = await settled(socketed)
    assert ending(record) == ("complete", "none", False)
    assert (record["cost_nanousd"], record["input_tokens"]) == (0, 0)


@pytest.mark.parametrize("generated", [True, False])
async def test_a_warm_up_is_charged_what_it_claims_or_generates(
    socketed: SocketProxy, provider: SocketProvider, generated: bool
) -> None:
    usage = {"input_tokens": 50, "output_tokens": 0}
    provider.script = answering(messages(WORDS, usage=None) if generated else warmed(usage=usage))
    asked = create(generate=False)

    async with socketed.socket() as client:
        await client.send_str(asked.decode())
        await received(client, len(WORDS) + 2 if generated else 2)

    record = await settled(socketed)
    by_hand = tokens_in(RESPONSES, asked) * INPUT + tokens_out(RESPONSES, SAID) * OUTPUT
    assert record["cost_nanousd"] == (by_hand if generated else 50 * INPUT)


async def test_a_hold_covers_what_the_earlier_answer_brings_along(
    socketed: SocketProxy, provider: SocketProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = {"input_tokens": 30_000, "output_tokens": 500}
    provider.script = answering(messages(["a"], usage=usage), messages(["b"], usage=None))
    held: list[int] = []
    submit = socketed.server.database.submit

    def watched(fn: Any, *args: Any, **options: Any) -> Any:
        if fn is ledger.hold:
            held.append(args[2])
        return submit(fn, *args, **options)

    monkeypatch.setattr(socketed.server.database, "submit", watched)
    following, other = create(previous_response_id="resp_1"), create(previous_response_id="resp_2")

    async with socketed.socket() as client:
        for asked in (ASK, following, other):
            await client.send_str(asked.decode())
            await received(client, 3)

    assert held[1] - held[2] == 30_500 * INPUT * 125 // 100
    first, second, third = await socketed.records()
    assert second["input_tokens"] == tokens_in(RESPONSES, following) + 30_500
    assert third["input_tokens"] == tokens_in(RESPONSES, other)
    assert first["input_tokens"] == 30_000


# --- credit --------------------------------------------------------------------------------------------------------------


async def test_a_request_that_the_credit_does_not_cover_gets_the_error_that_http_gives(
    socketed: SocketProxy, provider: SocketProvider
) -> None:
    await socketed.run("account.create", name="poor", credit_nanousd=1000)
    poor = (await socketed.run("key.create", account="poor"))["key"]
    provider.script = answering(messages(WORDS))

    async with socketed.socket(headers={"Authorization": f"Bearer {poor}"}) as client:
        for _ in range(2):  # the connection stays, for credit may come
            await client.send_str(create(stream_id="lane").decode())
            error = json.loads((await received(client, 1))[0])
            assert (error["type"], error["status"], error["stream_id"]) == ("error", 429, "lane")
            assert error["error"]["code"] == error["error"]["type"] == "usage_limit_reached"
            assert error["error"]["message"].startswith("Out of credit: this call needs $")
            assert error["headers"]["x-codex-promo-message"].startswith("Out of credit: this call needs $")
        await socketed.run("credit.grant", account="poor", amount_nanousd=10**9)
        await client.send_str(ASK.decode())
        assert await received(client, len(WORDS) + 2) == messages(WORDS)

    assert provider.messages == [ASK]
    assert [record["cost_nanousd"] for record in await socketed.records()] == [BILL[RESPONSES]]


@pytest.mark.parametrize(("budget", "what"), [(False, "Your credit"), (True, "The budget of this key, or its credit,")])
async def test_credit_that_runs_out_ends_the_answer_in_the_apis_words_and_never_goes_below_zero(
    socketed: SocketProxy, provider: SocketProvider, budget: bool, what: str
) -> None:
    gone = asyncio.Event()

    async def play(peer: Peer) -> None:
        await peer.receive()
        await peer.send(messages()[0])
        for _ in range(2000):
            await peer.send(json.dumps({"type": "response.output_text.delta", "delta": "x" * 380}).encode())
            if peer.connection.reader.at_eof() or peer.connection.writer.is_closing():
                break
        while await peer.receive() is not None:
            pass
        gone.set()

    provider.script = play
    credit = 30_000_000  # 3,000 tokens of output
    await socketed.run("account.create", name="poor", credit_nanousd=credit * (2 if budget else 1))
    limits = {"budget_week_nanousd": credit} if budget else {}
    poor = (await socketed.run("key.create", account="poor", **limits))["key"]

    async with socketed.socket(headers={"Authorization": f"Bearer {poor}"}) as client:
        await client.send_str(create(stream_id="lane").decode())
        got = []
        while (message := await client.receive(timeout=5)).type is aiohttp.WSMsgType.TEXT:
            got.append(json.loads(message.data))
        assert client.close_code == 1011
    await asyncio.wait_for(gone.wait(), 5)

    last = got[-1]
    assert (last["type"], last["response"]["error"]["code"]) == ("response.failed", "invalid_prompt")
    assert last["response"]["error"]["message"].startswith(f"{what} ran out while this answer was being written")
    assert (last["response"]["id"], last["stream_id"]) == ("resp_1", "lane")
    (record,) = await socketed.records()
    assert record["ending"] == record["error_code"] == "out_of_credit"
    delivered = sum(len(event.get("delta", "")) for event in got)
    balance = await socketed.server.database.read(ledger.balance, "poor")
    had = credit * (2 if budget else 1)
    assert (balance.balance_nanousd, balance.held_nanousd) == (had - record["cost_nanousd"], 0)
    assert credit - 110 * OUTPUT < record["cost_nanousd"] <= credit
    # What was given away beyond the credit is less than one event.
    assert tokens_out(RESPONSES, delivered - 380) * OUTPUT <= credit


# --- the provider fails --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code"), [(400, "previous_response_not_found"), (429, "rate_limit_exceeded"), (0, "x")]
)
async def test_a_provider_s_refusal_passes_unchanged_and_costs_nothing(
    socketed: SocketProxy, provider: SocketProvider, status: int, code: str
) -> None:
    error = {"type": "error", "error": {"code": code, "message": "no"}, **({"status": status} if status else {})}
    provider.script = answering([json.dumps(error).encode()], messages(WORDS))

    async with socketed.socket() as client:
        await client.send_str(ASK.decode())
        assert await received(client, 1) == [json.dumps(error).encode()]
        await client.send_str(ASK.decode())
        await received(client, len(WORDS) + 2)

    refused, served = await socketed.records()
    assert ending(refused) == ("refused", "none", False)
    assert (refused["status"], refused["error_code"], refused["cost_nanousd"]) == (status or None, code, 0)
    assert refused["error_text"] == ("no" if status == 429 else "")
    assert served["cost_nanousd"] == BILL[RESPONSES]


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_a_refusal_of_the_operators_own_credential_is_told_as_what_it_is(
    socketed: SocketProxy, provider: SocketProvider, status: int
) -> None:
    error = {
        "type": "error",
        "status": status,
        "error": {"code": "invalid_api_key", "message": "provider-secret is wrong"},
    }
    provider.script = answering([json.dumps(error).encode()])

    async with socketed.socket() as client:
        await client.send_str(ASK.decode())
        told = json.loads((await received(client, 1))[0])
        assert await closed(client) == 1011

    assert (told["type"], told["status"]) == ("error", 502)
    assert "Tell your operator; your key is fine." in told["error"]["message"]
    assert "provider-secret" not in json.dumps(told)
    assert ending(await settled(socketed)) == ("refused", "none", False)


@pytest.mark.parametrize("kind", ["response.failed", "error"])
async def test_an_answer_that_fails_in_the_middle_is_charged_for_what_was_delivered(
    socketed: SocketProxy, provider: SocketProvider, kind: str
) -> None:
    failure = {"type": kind, "response": {"error": {"code": "server_error"}}, "error": {"code": "server_error"}}
    provider.script = answering([*BEGUN, json.dumps(failure).encode()])

    async with socketed.socket() as client:
        await client.send_str(ASK.decode())
        got = await received(client, len(BEGUN) + 1)

    assert got[-1] == json.dumps(failure).encode()
    record = await settled(socketed)
    assert ending(record) == ("cut_by_upstream", "estimate", True)
    assert record["error_code"] == "server_error"
    assert record["output_tokens"] == tokens_out(RESPONSES, SAID)


@pytest.mark.parametrize("how", ["closes", "drops", "garbles"])
async def test_a_provider_that_goes_in_mid_answer_breaks_the_clients_connection_too(
    socketed: SocketProxy, provider: SocketProvider, how: str
) -> None:
    async def play(peer: Peer) -> None:
        await peer.receive()
        await peer.send(*BEGUN)
        if how == "closes":
            await peer.close()
        elif how == "drops":
            peer.connection.abort()
        else:
            await peer.connection.send(b"\xff\xff\xff no frame")
            await peer.receive()

    provider.script = play
    async with socketed.socket() as client:
        await client.send_str(ASK.decode())
        assert await received(client, len(BEGUN)) == BEGUN
        assert await closed(client) == 1011

    record = await settled(socketed)
    assert ending(record) == ("cut_by_upstream", "estimate", True)
    assert record["error_code"] == "upstream_cut"
    assert record["cost_nanousd"] == tokens_in(RESPONSES, ASK) * INPUT + tokens_out(RESPONSES, SAID) * OUTPUT


async def test_a_provider_that_goes_at_any_byte_is_charged_by_the_rule_and_never_taken_for_complete(
    socketed: SocketProxy, provider: SocketProvider
) -> None:
    wire = b"".join(map(websocket.frame, messages(WORDS)))
    whole = [len(b"".join(map(websocket.frame, messages(WORDS)[:count]))) for count in range(len(WORDS) + 3)]
    endings = set()
    for cut in [*range(0, len(wire), 23), *whole[1:]]:

        async def play(peer: Peer, cut: int = cut) -> None:
            await peer.receive()
            await peer.connection.send(wire[:cut])

        provider.script = play
        client = await socketed.socket()
        await client.send_str(ASK.decode())
        got = []
        while (message := await client.receive(timeout=5)).type is aiohttp.WSMsgType.TEXT:
            got.append(message.data.encode())
        await client.close()
        record = await settled(socketed)
        came = sum(cut >= size for size in whole[1:])
        delivered = got[:came]
        assert delivered == messages(WORDS)[:came]
        if came == len(whole) - 1:
            assert (ending(record), got[came:]) == (("complete", "reported", False), [])
        elif came:
            assert (record["ending"], got[came:]) == ("cut_by_upstream", [])
            said = sum(map(len, WORDS[: came - 1]))
            by_hand = tokens_in(RESPONSES, ASK) * INPUT + tokens_out(RESPONSES, said) * OUTPUT if said else 0
            assert record["cost_nanousd"] == by_hand
        else:
            assert (record["ending"], json.loads(got[0])["status"], len(got)) == ("unreachable", 503, 1)
        endings.add(record["ending"])
    assert endings == {"complete", "cut_by_upstream", "unreachable"}


async def test_a_provider_that_closes_before_an_answer_costs_nothing(
    socketed: SocketProxy, provider: SocketProvider
) -> None:
    async def play(peer: Peer) -> None:
        await peer.receive()
        await peer.close()

    provider.script = play
    async with socketed.socket() as client:
        await client.send_str(ASK.decode())
        error = json.loads((await received(client, 1))[0])
        assert await closed(client) == 1011

    assert (error["status"], error["error"]["code"]) == (503, "server_is_overloaded")
    record = await settled(socketed)
    assert (*ending(record), record["cost_nanousd"]) == ("unreachable", "none", False, 0)


async def test_messages_that_are_no_events_pass_and_the_answer_is_metered_all_the_same(
    socketed: SocketProxy, provider: SocketProvider
) -> None:
    odd = [b"no json", b"[]", b'{"type":7}', *(b"x" * size for size in (0, 125, 126, 127, 65_535, 65_536))]
    provider.script = answering([*odd, *messages(WORDS)])

    async with socketed.socket() as client:
        await client.send_str(ASK.decode())
        assert await received(client, len(odd) + len(WORDS) + 2) == [*odd, *messages(WORDS)]

    assert (await settled(socketed))["cost_nanousd"] == BILL[RESPONSES]


async def test_binary_messages_pass_and_count_by_their_size(socketed: SocketProxy, provider: SocketProvider) -> None:
    async def play(peer: Peer) -> None:
        await peer.receive()
        await peer.connection.send(websocket.frame(b"\0" * 3800, websocket.BINARY))
        await peer.close()

    provider.script = play
    async with socketed.socket() as client:
        await client.send_str(ASK.decode())
        assert await client.receive_bytes(timeout=5) == b"\0" * 3800
        await closed(client)

    record = await settled(socketed)
    assert ending(record) == ("cut_by_upstream", "estimate", True)
    assert record["output_tokens"] == 1000


# --- the client leaves ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cleanly", [True, False])
async def test_a_client_that_leaves_in_mid_answer_is_charged_the_truth_that_is_drained(
    socketed: SocketProxy, provider: SocketProvider, cleanly: bool
) -> None:
    go = asyncio.Event()

    async def play(peer: Peer) -> None:
        await peer.receive()
        await peer.send(*BEGUN)
        await go.wait()
        await peer.send(messages(WORDS)[-1])
        await peer.receive()

    provider.script = play
    client = await socketed.socket()
    await client.send_str(ASK.decode())
    await received(client, len(BEGUN))
    closing = asyncio.ensure_future(client.close()) if cleanly else None
    if closing is None:
        client._response.close()
    await noticed(socketed)
    go.set()
    record = await settled(socketed)
    if closing is not None:
        await closing

    assert ending(record) == ("cut_by_client", "reported", False)
    assert (record["cost_nanousd"], record["error_code"]) == (BILL[RESPONSES], "client_gone")


async def test_a_client_may_leave_at_any_message_and_what_the_provider_bills_is_charged_once(
    socketed: SocketProxy, provider: SocketProvider
) -> None:
    for count in range(len(WORDS) + 3):
        go = asyncio.Event()

        async def play(peer: Peer, count: int = count, go: asyncio.Event = go) -> None:
            await peer.receive()
            await peer.send(*messages(WORDS)[:count])
            await go.wait()
            await peer.send(*messages(WORDS)[count:])
            await peer.receive()

        provider.script = play
        client = await socketed.socket()
        await client.send_str(ASK.decode())
        await until(lambda: len(socketed.server.live) > 0)
        assert await received(client, count) == messages(WORDS)[:count]
        client._response.close()
        go.set()
        record = await settled(socketed)
        assert record["cost_nanousd"] == BILL[RESPONSES]
        assert record["ending"] in (("complete",) if count == len(WORDS) + 2 else ("complete", "cut_by_client"))


async def test_a_client_that_leaves_before_an_answer_is_charged_when_it_comes(
    socketed: SocketProxy, provider: SocketProvider
) -> None:
    go = asyncio.Event()

    async def play(peer: Peer) -> None:
        await peer.receive()
        await go.wait()
        await peer.send(*messages(WORDS))
        await peer.receive()

    provider.script = play
    client = await socketed.socket()
    await client.send_str(ASK.decode())
    await until(lambda: provider.messages == [ASK])
    client._response.close()
    await noticed(socketed)
    go.set()

    record = await settled(socketed)
    assert ending(record) == ("cut_by_client", "reported", False)
    assert record["cost_nanousd"] == BILL[RESPONSES]


@pytest.mark.parametrize(
    ("event", "ended", "code"),
    [
        (b'{"type":"error","status":429,"error":{"code":"slow_down","message":"wait"}}', "refused", "slow_down"),
        (b'{"type":"response.failed","response":{"error":{"code":"oops"}}}', "cut_by_upstream", "oops"),
    ],
)
async def test_a_client_that_left_is_not_charged_where_the_provider_then_gives_no_answer(
    socketed: SocketProxy, provider: SocketProvider, event: bytes, ended: str, code: str
) -> None:
    go = asyncio.Event()

    async def play(peer: Peer) -> None:
        await peer.receive()
        await go.wait()
        await peer.send(b'{"type":"codex.rate_limits"}', event)
        await peer.receive()

    provider.script = play
    client = await socketed.socket()
    await client.send_str(ASK.decode())
    await until(lambda: provider.messages == [ASK])
    client._response.close()
    await noticed(socketed)
    go.set()

    record = await settled(socketed)
    assert ending(record) == (ended, "none", False)
    assert (record["cost_nanousd"], record["error_code"]) == (0, code)


async def test_a_warm_up_whose_client_has_left_costs_nothing_either(
    socketed: SocketProxy, provider: SocketProvider
) -> None:
    go, asked = asyncio.Event(), create(generate=False)

    async def play(peer: Peer) -> None:
        await peer.receive()
        await go.wait()
        await peer.send(*warmed())
        await peer.receive()

    provider.script = play
    client = await socketed.socket()
    await client.send_str(asked.decode())
    await until(lambda: provider.messages == [asked])
    client._response.close()
    await noticed(socketed)
    go.set()

    record = await settled(socketed)
    assert ending(record) == ("cut_by_client", "none", False)
    assert record["cost_nanousd"] == 0


async def test_a_client_that_left_is_estimated_where_the_rest_does_not_come(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    provider = SocketProvider(holding)
    upstream.script = provider.serve
    async with websocket.proxied(tmp_path, upstream, more="[billing]\ndrain_ms = 50\n") as lume:
        client = await lume.socket()
        await client.send_str(ASK.decode())
        await received(client, len(BEGUN))
        client._response.close()

        record = await settled(lume)

    assert ending(record) == ("cut_by_client", "estimate", True)
    assert record["output_tokens"] == tokens_out(RESPONSES, SAID)


async def test_a_client_that_takes_nothing_is_given_up_and_charged(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    async def play(peer: Peer) -> None:
        await peer.receive()
        await peer.send(messages()[0])
        try:
            while not peer.connection.writer.is_closing():
                await peer.send(json.dumps({"type": "response.output_text.delta", "delta": "x" * 30_000}).encode())
        except ConnectionError:
            return

    provider = SocketProvider(play)
    upstream.script = provider.serve
    more = "[limits]\nclient_stall_ms = 200\n[billing]\ndrain_ms = 1\n"
    async with websocket.proxied(tmp_path, upstream, more=more, credit_nanousd=10**12) as lume:
        client = await lume.socket()
        await client.send_str(ASK.decode())
        client._response.connection.transport.pause_reading()
        await until(lambda: provider.messages == [ASK])

        record = await settled(lume)

    assert (record["ending"], record["error_code"]) == ("cut_by_client", "client_gone")
    assert record["cost_nanousd"] > 0


# --- ended from outside --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (Cause.SUSPENDED, "This account was suspended"),
        (Cause.REVOKED, "This API key was revoked"),
        (Cause.STOPPING, ""),
    ],
)
async def test_an_interruption_is_charged_as_metered_and_said(
    socketed: SocketProxy, provider: SocketProvider, cause: Cause, said: str
) -> None:
    provider.script = holding
    async with socketed.socket() as client:
        await client.send_str(ASK.decode())
        await received(client, len(BEGUN))
        if cause is Cause.SUSPENDED:
            await socketed.run("account.suspend", name="tester", reason="x")
        elif cause is Cause.REVOKED:
            await socketed.run("key.revoke", id=socketed.key[5:13])
        else:
            socketed.server.live.interrupt_account(None, Cause.STOPPING)
        last = json.loads((await received(client, 1))[0])
        await closed(client)

    assert last["response"]["error"]["message"].startswith(said)
    assert (last["type"], last["response"]["error"]["code"]) == ("response.failed", "invalid_prompt")
    record = await settled(socketed)
    assert ending(record) == ("interrupted", "estimate", True)
    assert record["error_code"] == cause.value
    assert record["cost_nanousd"] == tokens_in(RESPONSES, ASK) * INPUT + tokens_out(RESPONSES, SAID) * OUTPUT


@pytest.mark.parametrize("begun", [True, False])
async def test_a_silent_provider_is_given_up(
    tmp_path: Path, upstream: ScriptedUpstream, clock: FakeClock, begun: bool
) -> None:
    async def play(peer: Peer) -> None:
        await peer.receive()
        await peer.send(*(BEGUN if begun else []))
        await peer.receive()

    provider = SocketProvider(play)
    upstream.script = provider.serve
    async with websocket.proxied(tmp_path, upstream, clock=clock) as lume, lume.socket() as client:
        await client.send_str(ASK.decode())
        await received(client, len(BEGUN) if begun else 0)
        await until(lambda: provider.messages == [ASK])
        lume.server.live.look()
        clock.advance(600_001)
        if not begun:
            error = json.loads((await received(client, 1))[0])
            assert (error["status"], error["error"]["code"]) == (503, "server_is_overloaded")
        assert await closed(client) == 1011
        record = await settled(lume)

    assert record["ending"] == ("cut_by_upstream" if begun else "unreachable")
    assert (record["cost_nanousd"] > 0) == begun


async def test_a_bug_in_the_middle_releases_the_hold_and_closes(
    socketed: SocketProxy, provider: SocketProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.script = answering(messages(WORDS))
    monkeypatch.setattr("lumeproxy.proxy.websocket_call.SocketCall._metered", lambda *_: 1 // 0)

    async with socketed.socket() as client:
        await client.send_str(ASK.decode())
        assert await closed(client) == 1011

    record = await settled(socketed)
    assert (record["ending"], record["error_code"], record["cost_nanousd"]) == ("interrupted", "internal_error", 0)
    assert '"event":"bug"' in socketed.log.getvalue()


async def test_an_interruption_before_an_answer_is_an_error_instead_of_one(
    socketed: SocketProxy, provider: SocketProvider
) -> None:
    async def play(peer: Peer) -> None:
        while await peer.receive() is not None:
            pass

    provider.script = play
    async with socketed.socket() as client:
        await client.send_str(ASK.decode())
        await until(lambda: provider.messages == [ASK])
        await socketed.run("account.suspend", name="tester", reason="x")
        error = json.loads((await received(client, 1))[0])
        assert await closed(client) == 1011

    assert (error["status"], error["error"]["code"]) == (403, "account_suspended")
    record = await settled(socketed)
    assert (*ending(record), record["cost_nanousd"]) == ("interrupted", "none", False, 0)


async def test_a_request_that_cannot_be_sent_costs_nothing(
    socketed: SocketProxy, provider: SocketProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(_socket: Any, _data: bytes) -> None:
        raise NotReached("The upstream openai closed its WebSocket.", sent=True)

    monkeypatch.setattr("lumeproxy.upstreams.websocket.HttpSocket.send", lost)
    async with socketed.socket() as client:
        await client.send_str(ASK.decode())
        error = json.loads((await received(client, 1))[0])
        assert await closed(client) == 1011

    assert (error["status"], error["error"]["code"]) == (503, "server_is_overloaded")
    record = await settled(socketed)
    assert (*ending(record), record["cost_nanousd"]) == ("unreachable", "none", False, 0)


async def test_a_server_that_does_not_wait_settles_what_was_metered(
    socketed: SocketProxy, provider: SocketProvider
) -> None:
    provider.script = holding

    async with socketed.socket() as client:
        await client.send_str(ASK.decode())
        await received(client, len(BEGUN))
        (call,) = socketed.server.live._calls.values()
        call.task.cancel()  # as aiohttp does with a handler that outlives its patience
        await client.receive(timeout=5)

    record = await settled(socketed)
    assert (record["ending"], record["error_code"]) == ("interrupted", "stopping")
    assert record["output_tokens"] == tokens_out(RESPONSES, SAID)


async def test_a_running_answer_is_written_down_for_the_case_of_a_crash(
    socketed: SocketProxy, provider: SocketProvider
) -> None:
    go = asyncio.Event()

    async def play(peer: Peer) -> None:
        await peer.receive()
        await peer.send(*BEGUN)
        await go.wait()
        await peer.send(messages(WORDS)[-1])
        await peer.receive()

    provider.script = play
    async with socketed.socket() as client:
        await client.send_str(ASK.decode())
        await received(client, len(BEGUN))
        (call,) = socketed.server.live._calls.values()
        point = call.checkpoint()
        assert point is not None
        assert (point.input_tokens, point.output_tokens) == (tokens_in(RESPONSES, ASK), tokens_out(RESPONSES, SAID))
        go.set()
        await received(client, 1)
    await settled(socketed)
