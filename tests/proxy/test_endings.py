"""Who pays when a call ends early: each row of the table as a transcript on real sockets, with the books after it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lumeproxy.proxy.live import Cause
from lumeproxy.store import ledger
from tests.conftest import ROUTES
from tests.support import streams
from tests.support.calls import (
    ANTHROPIC,
    BILL,
    CACHED,
    CHAT,
    FINAL,
    INPUT,
    OUTPUT,
    PATHS,
    RESPONSES,
    ask,
    ending,
    events,
    in_every_dialect,
    model,
    noticed,
    settled,
    tokens_in,
    tokens_out,
    until,
    whole,
)
from tests.support.client import Taken, dechunked, dial, take
from tests.support.clock import FakeClock
from tests.support.proxy import Proxy, proxy
from tests.support.upstream import Connection, ScriptedUpstream

REPORTED_IN = {ANTHROPIC: 100 * INPUT, RESPONSES: 60 * INPUT + 40 * CACHED, CHAT: 60 * INPUT + 40 * CACHED}
NO_USAGE: dict[str, dict[str, Any]] = {
    ANTHROPIC: {"start": {}, "delta": {}},
    RESPONSES: {"usage": None},
    CHAT: {"usage": None},
}
WORDS = ["Hello", " there", " and", " so", " on"]


def begun(path: str) -> list[bytes]:
    """The events of an answer up to its words, without what comes behind them."""
    made = events(path, WORDS)
    return made[: {ANTHROPIC: 3, RESPONSES: 1, CHAT: 0}[path] + len(WORDS)]


def estimate(path: str, body: bytes, said: list[str]) -> int:
    """What a call costs that broke off after these words: Anthropic has reported its input by then."""
    known = REPORTED_IN[ANTHROPIC] if path == ANTHROPIC else tokens_in(path, body) * INPUT
    return known + tokens_out(path, len("".join(said))) * OUTPUT


def play(chunks: list[bytes], then: Callable[[Connection], Awaitable[None]]) -> Callable[[Connection], Awaitable[None]]:
    async def script(c: Connection) -> None:
        await c.stream_head()
        for chunk in chunks:
            await c.chunk(chunk)
        await then(c)

    return script


async def hang_up(c: Connection) -> None:
    c.writer.close()


@pytest.fixture
async def quick(tmp_path: Path, upstream: ScriptedUpstream):
    """The proxy with little patience for learning a usage after the client has left."""
    async with proxy(tmp_path, both(upstream), routes=ROUTES, more="[billing]\ndrain_ms = 60\n") as made:
        yield made


def both(upstream: ScriptedUpstream) -> dict[str, ScriptedUpstream]:
    return {"anthropic": upstream, "openai": upstream}


# --- complete ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [True, False])
@in_every_dialect
async def test_complete_with_usage(lume: Proxy, upstream: ScriptedUpstream, path: str, streamed: bool) -> None:
    upstream.script = lambda c: c.stream(events(path)) if streamed else c.reply(whole(path))

    taken = await take(lume.post(path, ask(path, stream=streamed)))

    assert (taken.status, taken.clean) == (200, True)
    record = await settled(lume)
    assert ending(record) == ("complete", "reported", False)
    assert record["cost_nanousd"] == BILL[path]


@pytest.mark.parametrize("streamed", [True, False])
@in_every_dialect
async def test_complete_without_usage(lume: Proxy, upstream: ScriptedUpstream, path: str, streamed: bool) -> None:
    upstream.script = lambda c: (
        c.stream(events(path, WORDS, **NO_USAGE[path])) if streamed else c.reply(whole(path, "".join(WORDS), None))
    )
    body = ask(path, stream=streamed)

    taken = await take(lume.post(path, body))

    assert (taken.status, taken.clean) == (200, True)
    record = await settled(lume)
    assert ending(record) == ("complete", "estimate", True)
    by_hand = tokens_in(path, body) * INPUT + tokens_out(path, len("".join(WORDS))) * OUTPUT
    assert record["cost_nanousd"] == by_hand


@in_every_dialect
async def test_complete_by_a_stream_that_is_not_called_one(lume: Proxy, upstream: ScriptedUpstream, path: str) -> None:
    """Some servers send events as text/plain; clients take them as events."""
    body = b"".join(events(path))
    upstream.script = lambda c: c.reply(body, 200, {"content-type": "text/plain"})

    taken = await take(lume.post(path, ask(path)))

    assert (taken.status, taken.body, taken.clean) == (200, body, True)
    record = await settled(lume)
    assert ending(record) == ("complete", "reported", False)
    assert record["cost_nanousd"] == BILL[path]


async def test_complete_with_the_usage_of_its_beginning_only(lume: Proxy, upstream: ScriptedUpstream) -> None:
    """Some providers state the output once, as one token, before there is any."""
    upstream.script = lambda c: c.stream(events(ANTHROPIC, ["word "] * 100, delta={}))

    await take(lume.post(ANTHROPIC, ask(ANTHROPIC)))

    record = await settled(lume)
    assert ending(record) == ("complete", "estimate", True)
    assert record["cost_nanousd"] == 100 * INPUT + tokens_out(ANTHROPIC, 500) * OUTPUT


# --- refused and unreachable -------------------------------------------------------------------------------------------

REFUSALS = [
    (400, b'{"error": {"type":"invalid_request_error","message":"quotes the prompt"}}', "invalid_request_error", ""),
    (404, b'{"error":"gone"}', "http_404", ""),
    (429, b'{"error": {"type":"rate_limit_error","message":"slow down"}} ', "rate_limit_error", "slow down"),
    (500, b'{"error":{"code":"oops","message":"broken"}}', "oops", "broken"),
    (502, b"<html>Bad Gateway</html>", "http_502", ""),
]


@pytest.mark.parametrize(("status", "body", "code", "text"), REFUSALS)
async def test_refused(lume: Proxy, upstream: ScriptedUpstream, status: int, body: bytes, code: str, text: str) -> None:
    headers = {"retry-after": "7", "request-id": "req_7", "content-type": "text/odd", "anthropic-ratelimit-x": "1"}
    upstream.script = lambda c: c.reply(body, status, headers)

    taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC)))

    assert (taken.status, taken.body) == (status, body)
    assert [taken.headers[name] for name in ("retry-after", "request-id", "content-type")] == ["7", "req_7", "text/odd"]
    assert "anthropic-ratelimit-x" not in taken.headers
    record = await settled(lume)
    assert ending(record) == ("refused", "none", False)
    assert (record["cost_nanousd"], record["status"], record["upstream_request_id"]) == (0, status, "req_7")
    assert (record["error_code"], record["error_text"]) == (code, text)


@pytest.mark.parametrize("status", [401, 402, 403, 307])
async def test_refused_for_a_reason_that_is_the_operators(lume: Proxy, upstream: ScriptedUpstream, status: int) -> None:
    upstream.script = lambda c: c.reply(b'{"error":{"type":"secret_error"}}', status, {"location": "http://other/"})

    taken = {path: await take(lume.post(path, ask(path))) for path in PATHS}

    assert {one.status for one in taken.values()} == {502}
    assert taken[ANTHROPIC].json()["error"]["type"] == "api_error"
    assert taken[CHAT].json()["error"]["type"] == "server_error"
    for one in taken.values():
        assert b"secret_error" not in one.body
        assert "location" not in one.headers
        assert one.headers["x-should-retry"] == "false"
    assert len(upstream.received) == 3
    records = await lume.records()
    assert {ending(r) for r in records} == {("refused", "none", False)}
    assert {r["error_code"] for r in records} == {"secret_error"}
    assert await lume.audit() == []
    assert (await lume.balance()).balance_nanousd == lume.credit_nanousd


async def test_unreachable(lume: Proxy, upstream: ScriptedUpstream) -> None:
    await upstream.stop()

    taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC)))

    assert (taken.status, taken.json()["error"]["type"]) == (503, "overloaded_error")
    assert taken.headers["retry-after"] == "5"
    record = await settled(lume)
    assert ending(record) == ("unreachable", "none", False)
    assert (record["cost_nanousd"], record["status"]) == (0, None)


async def test_closed_before_a_reply(lume: Proxy, upstream: ScriptedUpstream) -> None:
    upstream.script = hang_up

    taken = await take(lume.post(CHAT, ask(CHAT)))

    assert (taken.status, taken.json()["error"]["code"]) == (503, "server_is_overloaded")
    assert len(upstream.received) == 1
    assert ending(await settled(lume)) == ("unreachable", "none", False)


# --- cut by upstream ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cut", "chunked end", "close-delimited end"])
@in_every_dialect
async def test_cut_by_upstream_in_mid_stream(lume: Proxy, upstream: ScriptedUpstream, path: str, how: str) -> None:
    sent = b"".join(begun(path))

    async def answer(c: Connection) -> None:
        if how == "close-delimited end":
            await c.head(200, {"content-type": "text/event-stream", "connection": "close"})
            await c.send(sent)
            return c.writer.close()
        await c.stream_head()
        await c.chunk(sent)
        return await c.end() if how == "chunked end" else c.writer.close()

    upstream.script = answer
    body = ask(path)

    taken = await take(lume.post(path, body))

    assert (taken.status, taken.body, taken.clean) == (200, sent, False)
    record = await settled(lume)
    assert ending(record) == ("cut_by_upstream", "estimate", True)
    assert record["cost_nanousd"] == estimate(path, body, WORDS)
    assert record["error_code"] == "upstream_cut"


@in_every_dialect
async def test_cut_by_upstream_within_an_event(lume: Proxy, upstream: ScriptedUpstream, path: str) -> None:
    sent = b"".join(begun(path))[:-20]
    upstream.script = play([sent], hang_up)
    body = ask(path)

    taken = await take(lume.post(path, body))

    assert (taken.body, taken.clean) == (sent, False)
    assert (await settled(lume))["cost_nanousd"] == estimate(path, body, WORDS[:-1])


@in_every_dialect
async def test_cut_by_upstream_before_the_first_byte(lume: Proxy, upstream: ScriptedUpstream, path: str) -> None:
    upstream.script = play([], hang_up)

    taken = await take(lume.post(path, ask(path)))

    assert (taken.body, taken.clean) == (b"", False)
    assert ending(await settled(lume)) == ("cut_by_upstream", "none", False)


ERRORS = {
    ANTHROPIC: streams.event({"type": "error", "error": {"type": "overloaded_error", "message": "m"}}, "error"),
    RESPONSES: streams.event({"type": "error", "code": "server_error", "message": "m", "sequence_number": 9}, "error"),
    CHAT: streams.event({"error": {"code": "server_error", "message": "m"}}),
}


@pytest.mark.parametrize("clean", [True, False])
@in_every_dialect
async def test_cut_by_upstream_with_an_error_event(
    lume: Proxy, upstream: ScriptedUpstream, path: str, clean: bool
) -> None:
    sent = [*begun(path), ERRORS[path]]
    upstream.script = play(sent, Connection.end if clean else hang_up)
    body = ask(path)

    taken = await take(lume.post(path, body))

    assert (taken.body, taken.clean) == (b"".join(sent), clean)
    record = await settled(lume)
    assert ending(record) == ("cut_by_upstream", "estimate", True)
    assert record["cost_nanousd"] == estimate(path, body, WORDS)
    assert record["error_code"] in ("overloaded_error", "server_error")


async def test_an_error_event_may_state_the_usage(lume: Proxy, upstream: ScriptedUpstream) -> None:
    upstream.script = lambda c: c.stream(events(RESPONSES, WORDS, last="failed"))

    await take(lume.post(RESPONSES, ask(RESPONSES)))

    record = await settled(lume)
    assert ending(record) == ("cut_by_upstream", "reported", False)
    assert record["cost_nanousd"] == BILL[RESPONSES]


@in_every_dialect
async def test_a_whole_answer_that_breaks_off(lume: Proxy, upstream: ScriptedUpstream, path: str) -> None:
    async def answer(c: Connection) -> None:
        await c.head(200, {"content-type": "application/json", "content-length": "5000"})
        await c.send(whole(path)[:60])
        c.writer.close()

    upstream.script = answer

    taken = await take(lume.post(path, ask(path, stream=False)))

    assert (taken.status, taken.clean, taken.headers["retry-after"]) == (503, True, "1")
    assert ending(await settled(lume)) == ("cut_by_upstream", "none", False)


async def test_a_large_answer_that_breaks_off_is_charged_by_what_was_delivered(
    lume: Proxy, upstream: ScriptedUpstream
) -> None:
    async def answer(c: Connection) -> None:
        await c.head(200, {"content-type": "application/json", "content-length": "1000000"})
        await c.send(b"x" * 400_000)
        c.writer.close()

    upstream.script = answer
    body = ask(CHAT, stream=False)
    await lume.grant(2 * 10**9)

    taken = await take(lume.post(CHAT, body))

    assert (taken.status, taken.clean) == (200, False)
    record = await settled(lume)
    assert ending(record) == ("cut_by_upstream", "estimate", True)
    assert record["cost_nanousd"] == tokens_in(CHAT, body) * INPUT + tokens_out(CHAT, 400_000) * OUTPUT


# --- cut by client -----------------------------------------------------------------------------------------------------


async def leave_when(lume: Proxy, path: str, body: bytes, marker: bytes) -> None:
    wire = await dial(lume, path, body)
    await wire.until(marker)
    wire.transport.abort()
    await noticed(lume)


@in_every_dialect
async def test_cut_by_client_in_mid_stream(quick: Proxy, upstream: ScriptedUpstream, path: str) -> None:
    closed = asyncio.Event()

    async def watch(c: Connection) -> None:
        await c.closed_by_peer()
        closed.set()

    upstream.script = play(begun(path), watch)
    body = ask(path)

    await leave_when(quick, path, body, b" on")

    await asyncio.wait_for(closed.wait(), 5)
    record = await settled(quick)
    assert ending(record) == ("cut_by_client", "estimate", True)
    assert record["cost_nanousd"] == estimate(path, body, WORDS)


async def test_where_the_input_is_known_the_upstream_is_closed_at_once(lume: Proxy, upstream: ScriptedUpstream) -> None:
    """`lume` would learn for 15 seconds where there is something to learn."""
    upstream.script = play(begun(ANTHROPIC), lambda c: c.closed_by_peer())

    await leave_when(lume, ANTHROPIC, ask(ANTHROPIC), b" on")

    async with asyncio.timeout(2):
        record = await settled(lume)
    assert ending(record) == ("cut_by_client", "estimate", True)


@pytest.mark.parametrize("path", [RESPONSES, CHAT])
async def test_where_usage_comes_last_the_rest_is_drained_to_learn_it(
    lume: Proxy, upstream: ScriptedUpstream, path: str
) -> None:
    left = asyncio.Event()
    made = events(path, WORDS)

    async def rest(c: Connection) -> None:
        await left.wait()
        for one in made[len(begun(path)) :]:
            await c.chunk(one)
        await c.end()

    upstream.script = play(begun(path), rest)

    await leave_when(lume, path, ask(path), b" on")
    left.set()

    record = await settled(lume)
    assert ending(record) == ("cut_by_client", "reported", False)
    assert record["cost_nanousd"] == BILL[path]


@in_every_dialect
async def test_cut_by_client_on_a_whole_answer_is_charged_what_it_cost(
    lume: Proxy, upstream: ScriptedUpstream, path: str
) -> None:
    arrived, left = asyncio.Event(), asyncio.Event()

    async def answer(c: Connection) -> None:
        arrived.set()
        await left.wait()
        await c.reply(whole(path))

    upstream.script = answer
    wire = await dial(lume, path, ask(path, stream=False))
    await asyncio.wait_for(arrived.wait(), 5)
    wire.transport.close()
    await noticed(lume)
    left.set()

    record = await settled(lume)
    assert ending(record) == ("cut_by_client", "reported", False)
    assert record["cost_nanousd"] == BILL[path]


@pytest.mark.parametrize("path", [ANTHROPIC, CHAT])
async def test_a_whole_answer_that_does_not_come_in_time_is_estimated(
    quick: Proxy, upstream: ScriptedUpstream, path: str
) -> None:
    arrived = asyncio.Event()

    async def answer(c: Connection) -> None:
        await c.head(200, {"content-type": "application/json", "content-length": "5000"})
        await c.send(b'{"text": "' + b"y" * 300)
        arrived.set()
        await c.closed_by_peer()

    upstream.script = answer
    body = ask(path, stream=False)
    wire = await dial(quick, path, body)
    await asyncio.wait_for(arrived.wait(), 5)
    wire.transport.abort()
    await noticed(quick)

    record = await settled(quick)
    assert ending(record) == ("cut_by_client", "estimate", True)
    assert record["cost_nanousd"] == tokens_in(path, body) * INPUT + tokens_out(path, 310) * OUTPUT


async def test_a_whole_answer_that_comes_after_the_client_has_left_is_charged_what_it_cost(
    lume: Proxy, upstream: ScriptedUpstream
) -> None:
    """The head was there, and nothing of the body."""
    arrived, left = asyncio.Event(), asyncio.Event()
    body = whole(CHAT)

    async def answer(c: Connection) -> None:
        await c.head(200, {"content-type": "application/json", "content-length": str(len(body))})
        arrived.set()
        await left.wait()
        await c.send(body[:50])
        await c.send(body[50:])

    upstream.script = answer
    wire = await dial(lume, CHAT, ask(CHAT, stream=False))
    await asyncio.wait_for(arrived.wait(), 5)
    (call,) = lume.server.live._calls.values()
    await until(lambda: call.checkpoint.__self__.status == 200)  # type: ignore[attr-defined]
    wire.transport.abort()
    await noticed(lume)
    left.set()

    record = await settled(lume)
    assert ending(record) == ("cut_by_client", "reported", False)
    assert record["cost_nanousd"] == BILL[CHAT]


@in_every_dialect
async def test_a_client_that_left_is_not_charged_where_the_upstream_then_fails(
    lume: Proxy, upstream: ScriptedUpstream, path: str
) -> None:
    arrived, left = asyncio.Event(), asyncio.Event()

    async def answer(c: Connection) -> None:
        arrived.set()
        await left.wait()
        await c.stream([ERRORS[path]])

    upstream.script = answer
    wire = await dial(lume, path, ask(path))
    await asyncio.wait_for(arrived.wait(), 5)
    wire.transport.abort()
    await noticed(lume)
    left.set()

    record = await settled(lume)
    assert ending(record) == ("cut_by_upstream", "none", False)
    assert record["cost_nanousd"] == 0
    assert record["error_code"] in ("overloaded_error", "server_error")


async def test_cut_by_client_before_the_headers_is_charged_the_input(
    tmp_path: Path, upstream: ScriptedUpstream, clock: FakeClock
) -> None:
    arrived = asyncio.Event()

    async def answer(c: Connection) -> None:
        arrived.set()
        await c.closed_by_peer()

    upstream.script = answer
    body = ask(ANTHROPIC)
    async with proxy(tmp_path, both(upstream), routes=ROUTES, clock=clock) as lume:
        wire = await dial(lume, ANTHROPIC, body)
        await asyncio.wait_for(arrived.wait(), 5)
        wire.transport.abort()
        await noticed(lume)
        clock.advance(15_000)
        lume.server.live.look()
        await asyncio.sleep(0)
        assert len(lume.server.live) == 1  # the answer might still have come
        clock.advance(1)
        lume.server.live.look()

        record = await settled(lume)
        assert ending(record) == ("cut_by_client", "estimate", True)
        assert record["cost_nanousd"] == tokens_in(ANTHROPIC, body) * INPUT


@in_every_dialect
async def test_cut_by_client_after_the_last_event_is_complete(
    lume: Proxy, upstream: ScriptedUpstream, path: str
) -> None:
    upstream.script = play(events(path), lambda c: c.closed_by_peer())

    await leave_when(lume, path, ask(path), FINAL[path])

    record = await settled(lume)
    assert ending(record) == ("complete", "reported", False)
    assert record["cost_nanousd"] == BILL[path]


# --- out of credit -----------------------------------------------------------------------------------------------------

REST = 5_000_000  # 500 tokens of output
LONG = ["four" * 100] * 200  # 40 times as many


def last_words(path: str, body: bytes) -> tuple[list[Any], bytes]:
    """The events that we put behind an answer, and what came before them."""
    count = 2 if path == ANTHROPIC else 1
    parts = body.split(b"\n\n")
    assert parts.pop() == b""
    own = [json.loads(part.partition(b"data: ")[2]) for part in parts[-count:]]
    return own, b"".join(part + b"\n\n" for part in parts[:-count])


def said_why(path: str, own: list[Any], text: str, kind: str) -> None:
    if path == ANTHROPIC:
        assert own[0] == {"type": "content_block_stop", "index": 0}
        assert (own[1]["type"], own[1]["error"]["type"]) == ("error", kind)
        assert text in own[1]["error"]["message"]
    elif path == RESPONSES:
        assert (own[0]["type"], own[0]["response"]["status"]) == ("response.failed", "failed")
        assert own[0]["response"]["error"]["code"] == "invalid_prompt"
        assert text in own[0]["response"]["error"]["message"]
    else:
        assert text in own[0]["error"]["message"]


@pytest.mark.parametrize(("path", "stripped"), [(ANTHROPIC, False), (RESPONSES, False), (CHAT, False), (CHAT, True)])
async def test_out_of_credit_in_mid_stream(
    tmp_path: Path, upstream: ScriptedUpstream, path: str, stripped: bool
) -> None:
    made = events(path, LONG)
    stopped = asyncio.Event()

    async def flood(c: Connection) -> None:
        await c.closed_by_peer()
        stopped.set()

    upstream.script = play(made[:150], flood)
    body = ask(path, **({"stream_options": None} if stripped else {}))
    async with proxy(tmp_path, both(upstream), routes=ROUTES, credit_nanousd=REST) as lume:
        if stripped:
            body = json.dumps({"model": "gpt-test-1", "stream": True}).encode()

        taken = await take(lume.post(path, body))

        await asyncio.wait_for(stopped.wait(), 5)
        record = await settled(lume)
        assert (record["ending"], record["settled_by"]) == ("out_of_credit", "bound")
        assert (record["cost_nanousd"], record["shortfall_nanousd"]) == (REST, 0)
        assert record["error_code"] == "out_of_credit"
    own, before = last_words(path, taken.body)
    said_why(path, own, "credit ran out", "billing_error")
    assert taken.clean
    assert b"[DONE]" not in taken.body
    whole_answer = b"".join(made).replace(b', "usage": null', b"") if stripped else b"".join(made)
    assert whole_answer.startswith(before)
    # What was delivered is worth the credit, give or take what one read of the upstream brings.
    delivered = tokens_out(path, before.count(b"fourfour") * 8) * OUTPUT
    assert delivered > 0.9 * REST


async def test_parallel_streams_spend_no_more_than_there_is(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    made = events(ANTHROPIC, LONG)
    upstream.script = play(made[:150], lambda c: c.closed_by_peer())
    async with proxy(tmp_path, both(upstream), routes=ROUTES, credit_nanousd=3 * REST) as lume:
        taken: list[Taken] = await asyncio.gather(*(take(lume.post(ANTHROPIC, ask(ANTHROPIC))) for _ in range(20)))

        records = await lume.records()
        assert sum(r["cost_nanousd"] for r in records) <= 3 * REST
        assert {r["shortfall_nanousd"] for r in records} == {0}
        assert {r["ending"] for r in records} == {"out_of_credit"}
        assert (await lume.balance()).held_nanousd == 0
        assert 1 <= len(records) < 20
    assert sorted({one.status for one in taken}) == [200, 402]
    assert all(one.clean and b"billing_error" in one.body for one in taken)


@pytest.mark.parametrize("path", [ANTHROPIC, RESPONSES, CHAT])
async def test_a_keys_budget_ends_a_stream_as_credit_does(
    tmp_path: Path, upstream: ScriptedUpstream, path: str
) -> None:
    upstream.script = play(events(path, LONG)[:150], lambda c: c.closed_by_peer())
    async with proxy(tmp_path, both(upstream), routes=ROUTES) as lume:
        key = (await lume.run("key.create", account="tester", budget_week_nanousd=REST))["key"]

        taken = await take(lume.post(path, ask(path), headers={"Authorization": f"Bearer {key}"}))

        record = await settled(lume)
        assert (record["ending"], record["cost_nanousd"], record["shortfall_nanousd"]) == ("out_of_credit", REST, 0)
        refused = await take(lume.post(path, ask(path), headers={"Authorization": f"Bearer {key}"}))
        assert refused.status == (402 if path == ANTHROPIC else 429)
        assert b"The budget of this key is $" in refused.body
        assert b" a week: this call needs $" in refused.body
    own, _ = last_words(path, taken.body)
    said_why(path, own, "The budget of this key, or its credit, ran out", "billing_error")
    assert taken.clean


async def test_out_of_credit_in_a_coded_stream_cuts_it(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    coder = zlib.compressobj(wbits=31)
    parts = [coder.compress(one) + coder.flush(zlib.Z_SYNC_FLUSH) for one in events(ANTHROPIC, LONG)]

    async def answer(c: Connection) -> None:
        await c.stream_head({"content-encoding": "gzip"})
        for part in parts[:150]:
            await c.chunk(part)
        await c.closed_by_peer()

    upstream.script = answer
    async with proxy(tmp_path, both(upstream), routes=ROUTES, credit_nanousd=REST) as lume:
        taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC)))

        record = await settled(lume)
        assert (record["ending"], record["cost_nanousd"]) == ("out_of_credit", REST)
    assert not taken.clean
    assert b"".join(parts).startswith(taken.body)


# --- ended from outside ------------------------------------------------------------------------------------------------


async def suspend(lume: Proxy) -> None:
    await lume.run("account.suspend", name="tester", reason="test")


async def stop(lume: Proxy) -> None:
    lume.server.live.interrupt_account(None, Cause.STOPPING)


async def revoke(lume: Proxy) -> None:
    (key_id,) = lume.server.live.key_ids()
    lume.server.live.interrupt_key("another", Cause.REVOKED)
    lume.server.live.interrupt_key(key_id, Cause.REVOKED)


OUTSIDE = {
    "suspended": (suspend, 403, "account was suspended", "permission_error"),
    "stopping": (stop, 503, "being restarted", "overloaded_error"),
    "revoked": (revoke, 401, "key was revoked", "authentication_error"),
}


@pytest.mark.parametrize("cause", OUTSIDE)
@in_every_dialect
async def test_ended_from_outside_in_mid_stream(lume: Proxy, upstream: ScriptedUpstream, path: str, cause: str) -> None:
    act, _, text, kind = OUTSIDE[cause]
    upstream.script = play(begun(path), lambda c: c.closed_by_peer())
    body = ask(path)
    wire = await dial(lume, path, body)
    await wire.until(b" on")

    await act(lume)

    async with asyncio.timeout(1):
        record = await settled(lume)
    await lume.run("account.resume", name="tester")
    assert ending(record) == ("interrupted", "estimate", True)
    assert record["cost_nanousd"] == estimate(path, body, WORDS)
    assert record["error_code"] == cause
    await wire.until(b"0\r\n\r\n")
    own, before = last_words(path, wire.body)
    said_why(path, own, text, kind)
    assert before == b"".join(begun(path))


@pytest.mark.parametrize("cause", OUTSIDE)
async def test_ended_from_outside_within_an_event_the_answer_is_cut(
    lume: Proxy, upstream: ScriptedUpstream, cause: str
) -> None:
    sent = b"".join(begun(ANTHROPIC))[:-7]
    upstream.script = play([sent], lambda c: c.closed_by_peer())
    wire = await dial(lume, ANTHROPIC, ask(ANTHROPIC))
    await wire.until(sent[-9:])

    await OUTSIDE[cause][0](lume)

    await wire.ended()
    assert (wire.body, wire.clean) == (sent, False)
    assert (await settled(lume))["cost_nanousd"] == estimate(ANTHROPIC, b"", WORDS[:-1])


@pytest.mark.parametrize("cause", OUTSIDE)
async def test_ended_from_outside_before_the_reply_costs_nothing(
    lume: Proxy, upstream: ScriptedUpstream, cause: str
) -> None:
    act, status, text, kind = OUTSIDE[cause]
    arrived = asyncio.Event()

    async def answer(c: Connection) -> None:
        arrived.set()
        await c.closed_by_peer()

    upstream.script = answer
    call = asyncio.ensure_future(take(lume.post(ANTHROPIC, ask(ANTHROPIC))))
    await asyncio.wait_for(arrived.wait(), 5)

    await act(lume)

    taken = await call
    assert (taken.status, taken.json()["error"]["type"]) == (status, kind)
    assert text in taken.json()["error"]["message"]
    assert ending(await settled(lume)) == ("interrupted", "none", False)


# --- lying usage -------------------------------------------------------------------------------------------------------

BOUND_IN, BOUND_REASONING = 32_768, 131_072  # the settings' own
LIES = [-1, -(10**18), 10**18, 10**30, 1.5, 1e300, "100", True, [1], {"a": 1}]


def lying(path: str, value: Any) -> list[dict[str, Any]]:
    """Options of `events` with a lie on the input side, on the output side, and on both sides at once."""
    if path == ANTHROPIC:
        return [
            {"start": {"input_tokens": value, "output_tokens": 1}},
            {"delta": {"output_tokens": value}},
            {"start": {"input_tokens": value, "cache_creation_input_tokens": value}, "delta": {"output_tokens": value}},
        ]
    names = ("input_tokens", "output_tokens") if path == RESPONSES else ("prompt_tokens", "completion_tokens")
    base = streams.RESPONSES_USAGE if path == RESPONSES else streams.CHAT_USAGE
    return [{"usage": {**base, names[0]: value}}, {"usage": {**base, names[1]: value}},
            {"usage": dict.fromkeys(names, value)}]  # fmt: skip


@in_every_dialect
async def test_lies_are_charged_within_the_bound_and_flagged(
    lume: Proxy, upstream: ScriptedUpstream, path: str
) -> None:
    await lume.grant(10**13)
    sent: list[bytes] = []
    upstream.script = lambda c: c.stream(sent)
    for value in LIES:
        for options in lying(path, value):
            sent = events(path, WORDS, **options)

            taken = await take(lume.post(path, ask(path)))

            assert taken.body == b"".join(sent), options
            assert taken.clean
    records = [r for r in await lume.records() if r["endpoint"] == path]
    assert len(records) == 3 * len(LIES)
    # The dearest input class at its bound, and as many output tokens as the answer has bytes beside the reasoning.
    most = BOUND_IN * 3000 + (BOUND_REASONING + 4000) * OUTPUT
    for record in records:
        assert (record["ending"], record["settled_by"], record["estimated"]) == ("complete", "bound", True), record
        assert 0 <= record["cost_nanousd"] <= most
        assert record["shortfall_nanousd"] == 0
    assert any(r["input_tokens"] + r["cache_write_5m_tokens"] == BOUND_IN for r in records)
    assert any(r["output_tokens"] > BOUND_REASONING for r in records)


async def test_usage_that_shrinks_or_comes_twice(lume: Proxy, upstream: ScriptedUpstream) -> None:
    made = events(ANTHROPIC, WORDS)
    twice = [*made[:-1], made[-2], made[-1]]
    less = [*made[:-1], streams.event({"type": "message_delta", "usage": {"output_tokens": 3}}), made[-1]]
    null = [*made[:-1], streams.event({"type": "message_delta", "usage": {"output_tokens": None}}), made[-1]]
    for sent in (twice, less, null):
        upstream.script = lambda c, sent=sent: c.stream(sent)
        assert (await take(lume.post(ANTHROPIC, ask(ANTHROPIC)))).body == b"".join(sent)

    records = await lume.records()
    assert [r["cost_nanousd"] for r in records] == [BILL[ANTHROPIC]] * 3
    assert sorted(r["settled_by"] for r in records) == ["bound", "reported", "reported"]


async def test_a_lie_at_the_beginning_neither_takes_all_the_credit_nor_spoils_a_checkpoint(
    tmp_path: Path, upstream: ScriptedUpstream, clock: FakeClock
) -> None:
    lie = {"input_tokens": 10**30, "output_tokens": 1}
    upstream.script = play(events(ANTHROPIC, WORDS, start=lie)[:-3], lambda c: c.closed_by_peer())
    async with proxy(tmp_path, both(upstream), routes=ROUTES, clock=clock) as lume:
        wire = await dial(lume, ANTHROPIC, ask(ANTHROPIC))
        await wire.until(b" on")
        clock.advance(2_001)
        lume.server.live.look()
        await lume.grant(1)  # behind the checkpoint in the queue

        held = (await lume.balance()).held_nanousd
        assert BOUND_IN * INPUT < held < BOUND_IN * INPUT + 2 * 4096 * OUTPUT
        (row,) = await lume.server.database.read(lambda tx: tx.execute("SELECT checkpoint FROM holds").fetchall())
        assert json.loads(row[0])["input_tokens"] == BOUND_IN
        wire.transport.abort()
        await lume.records()


# --- settled before let go ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["stream", "stripped", "no blank line yet", "gzip", "whole", "large"])
@in_every_dialect
async def test_whoever_sees_the_end_finds_the_charge_in_the_database(
    lume: Proxy, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, path: str, kind: str
) -> None:
    """Looked up by a connection of its own in the very moment in which the bytes arrive, before the loop turns. The
    settlement takes its time, so that bytes which did not wait for it would be seen."""
    slow = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, slow.set)
    lume.delay(ledger.settle, slow, monkeypatch)
    parts, last = streamed_or_whole(path, kind)
    seen = asyncio.Event()

    async def script(c: Connection) -> None:
        if kind in ("whole", "large"):
            return await c.reply(b"".join(parts))
        await c.stream_head({"content-encoding": "gzip"} if kind == "gzip" else None)
        for part in parts:
            await c.chunk(part)
        await seen.wait()  # so that not even the end of the connection can be what the client went by
        return await c.end()

    upstream.script = script
    uri = (lume.settings.server.data / "lumeproxy.db").absolute().as_uri()
    found: list[tuple[str, int]] = []

    def look(data: bytes) -> None:
        if not found and last in body_of(data, coded=kind == "gzip"):
            call_id = data.partition(b"x-lume-call-id: ")[2].partition(b"\r\n")[0].decode()
            with contextlib.closing(sqlite3.connect(f"{uri}?mode=ro", uri=True)) as tx:
                found.append(
                    tx.execute("SELECT ending, cost_nanousd FROM usage WHERE call_id = ?", [call_id]).fetchone()
                )
            seen.set()

    body = ask(path, stream=kind not in ("whole", "large"))
    if kind == "stripped":
        body = json.dumps({"model": model(path), "stream": True}).encode()
    wire = await dial(lume, path, body, watch=look)
    await asyncio.wait_for(seen.wait(), 5)
    wire.transport.abort()

    assert found == [("complete", BILL[path])]
    await settled(lume)
    monkeypatch.undo()


def streamed_or_whole(path: str, kind: str) -> tuple[list[bytes], bytes]:
    """The pieces of an answer, and what stands at its end and nowhere else."""
    made = events(path)
    if kind == "gzip":
        coder = zlib.compressobj(wbits=31)
        return [coder.compress(one) + coder.flush(zlib.Z_SYNC_FLUSH) for one in made], FINAL[path]
    if kind == "no blank line yet":
        return [*made[:-1], made[-1][:-1]], FINAL[path]
    if kind == "stripped":
        return [*made[:-2], made[-2] + made[-1]], FINAL[path]
    if kind == "stream":
        return made, FINAL[path]
    return [whole(path, "x" * (400_000 if kind == "large" else 10)), b"\n\n\n"], b"\n\n\n"


def body_of(data: bytes, *, coded: bool) -> bytes:
    """The body of what came so far, decoded as far as it goes."""
    head, _, body = data.partition(b"\r\n\r\n")
    if b"chunked" in head.lower():
        body = dechunked(body)[0]
    return zlib.decompressobj(wbits=31).decompress(body) if coded else body


# --- portions of a chunk -------------------------------------------------------------------------------------------------


@in_every_dialect
async def test_a_client_that_leaves_between_two_portions_of_a_chunk_is_charged_for_all_of_it(
    tmp_path: Path, upstream: ScriptedUpstream, path: str
) -> None:
    """The chunk has the usage at its end; in its middle, more credit is waited for."""
    said = ["word "] * 60
    upstream.script = play([b"".join(events(path, said))], Connection.closed_by_peer)
    folder = tmp_path / path.replace("/", "-")
    folder.mkdir()
    more = "[billing]\nhold_output_tokens = 20\nhold_least_output_tokens = 20\ndrain_ms = 200\n"
    async with proxy(folder, both(upstream), routes=ROUTES, more=more) as lume:
        with pytest.MonkeyPatch.context() as patch:
            lume.delay(ledger.extend, asyncio.Event(), patch)
            wire = await dial(lume, path, ask(path))
            await until(lambda: len(lume.server.live) == 1)
            (live,) = lume.server.live._calls.values()
            await until(lambda: live.checkpoint.__self__._extending is not None)  # type: ignore[attr-defined]
            wire.transport.abort()
            await noticed(lume)
            record = await settled(lume)

    assert ending(record) == ("cut_by_client", "reported", False)
    assert record["cost_nanousd"] == BILL[path]


@in_every_dialect
async def test_a_client_whose_leaving_is_seen_in_the_turn_in_which_bytes_come_is_charged_for_them(
    lume: Proxy, upstream: ScriptedUpstream, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = asyncio.Event()
    first, rest = events(path)[0], b"".join(events(path)[1:])

    async def answer(c: Connection) -> None:
        await c.stream_head()
        await c.chunk(first)
        await go.wait()
        await c.chunk(rest)
        await c.closed_by_peer()

    upstream.script = answer
    wire = await dial(lume, path, ask(path))
    await wire.until(first)
    for _ in range(20):  # until the upstream is waited for again
        await asyncio.sleep(0)
    (live,) = lume.server.live._calls.values()

    def covers(_call: Any, _size: int) -> bool:
        asyncio.get_running_loop().call_soon(live.interrupt, Cause.CLIENT_GONE)
        return False

    with monkeypatch.context() as patch:
        patch.setattr("lumeproxy.proxy.call.Call.covers", covers)
        go.set()
        record = await settled(lume)
    wire.transport.abort()

    assert ending(record) == ("cut_by_client", "reported", False)
    assert record["cost_nanousd"] == BILL[path]
