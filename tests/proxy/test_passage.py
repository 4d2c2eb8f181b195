"""From upstream to upstream, and how a call comes to the ending it takes. The endings' charges are in test_endings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lumeproxy.proxy import answers, dispatch, passage
from lumeproxy.proxy.live import Cause, Stage
from lumeproxy.upstreams.base import CutShort
from tests.conftest import ROUTES
from tests.support.calls import (
    ANTHROPIC,
    BILL,
    CHAT,
    INPUT,
    OUTPUT,
    RESPONSES,
    ask,
    ending,
    events,
    noticed,
    settled,
    tokens_in,
    tokens_out,
    until,
    whole,
)
from tests.support.client import dial, take
from tests.support.clock import FakeClock
from tests.support.proxy import Proxy, proxy
from tests.support.upstream import Connection, ScriptedUpstream

TWO = """
[[routes]]
model = "*"
upstreams = ["anthropic", "anthropic-2"]
"""


@pytest.fixture
async def second() -> AsyncIterator[ScriptedUpstream]:
    made = ScriptedUpstream(script=lambda c: c.reply(whole(ANTHROPIC)))
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def timed(tmp_path: Path, upstream: ScriptedUpstream, clock: FakeClock) -> AsyncIterator[Proxy]:
    """The proxy with a clock that stands."""
    async with proxy(tmp_path, {"anthropic": upstream, "openai": upstream}, routes=ROUTES, clock=clock) as made:
        yield made


async def nothing(_: Connection) -> None:
    """Take the request and hang up."""
    _.writer.close()


# --- the upstreams of a route ------------------------------------------------------------------------------------------


async def test_where_the_first_upstream_can_not_be_reached_the_second_serves(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    await upstream.stop()
    async with proxy(tmp_path, {"anthropic": upstream, "anthropic-2": second}, routes=TWO) as lume:
        taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC, stream=False)))

        assert (taken.status, taken.body) == (200, whole(ANTHROPIC))
        record = await settled(lume)
        assert (record["upstream"], record["cost_nanousd"]) == ("anthropic-2", BILL[ANTHROPIC])


async def test_a_request_that_may_have_arrived_is_not_sent_again(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.script = nothing
    async with proxy(tmp_path, {"anthropic": upstream, "anthropic-2": second}, routes=TWO) as lume:
        taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC, stream=False)))

        assert taken.status == 503
        assert (len(upstream.received), len(second.received)) == (1, 0)
        assert ending(await settled(lume)) == ("unreachable", "none", False)


async def test_a_client_that_left_before_anything_was_sent_costs_nobody_anything(
    lume: Proxy, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, holding, left = passage.Passage.go, asyncio.Event(), asyncio.Event()

    async def late(self: Any) -> Any:
        holding.set()
        await left.wait()
        return await go(self)

    monkeypatch.setattr(passage.Passage, "go", late)
    wire = await dial(lume, ANTHROPIC, ask(ANTHROPIC))
    await asyncio.wait_for(holding.wait(), 5)
    wire.transport.abort()
    await noticed(lume)
    left.set()

    record = await settled(lume)
    assert ending(record) == ("cut_by_client", "none", False)
    assert (record["cost_nanousd"], record["upstream"]) == (0, "")
    assert upstream.received == []


# --- refusals ----------------------------------------------------------------------------------------------------------


async def test_an_error_that_breaks_off_is_passed_on_as_far_as_it_came(lume: Proxy, upstream: ScriptedUpstream) -> None:
    async def answer(c: Connection) -> None:
        await c.head(529, {"content-length": "100", "content-type": "text/plain"})
        await c.send(b"Overlo")
        c.writer.close()

    upstream.script = answer

    taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC)))

    assert (taken.status, taken.body, taken.clean) == (529, b"Overlo", True)
    assert ending(await settled(lume)) == ("refused", "none", False)


async def test_of_an_error_a_mebibyte_is_passed_on(lume: Proxy, upstream: ScriptedUpstream) -> None:
    upstream.script = lambda c: c.reply(b"e" * 3_000_000, 500)

    taken = await take(lume.post(CHAT, ask(CHAT)))

    assert (taken.status, len(taken.body)) == (500, 1 << 20)
    assert ending(await settled(lume)) == ("refused", "none", False)


async def test_who_leaves_while_an_error_arrives_pays_nothing(
    timed: Proxy, upstream: ScriptedUpstream, clock: FakeClock
) -> None:
    sent = asyncio.Event()

    async def answer(c: Connection) -> None:
        await c.head(429, {"content-length": "100"})
        sent.set()
        await c.closed_by_peer()

    upstream.script = answer
    wire = await dial(timed, ANTHROPIC, ask(ANTHROPIC))
    await asyncio.wait_for(sent.wait(), 5)
    (call,) = timed.server.live._calls.values()
    await until(lambda: call.checkpoint.__self__.status == 429)  # type: ignore[attr-defined]
    wire.transport.abort()
    await noticed(timed)
    clock.advance(15_001)
    timed.server.live.look()

    record = await settled(timed)
    assert ending(record) == ("refused", "none", False)
    assert (record["cost_nanousd"], record["status"]) == (0, 429)


# --- silence -----------------------------------------------------------------------------------------------------------


async def silent_after(timed: Proxy, upstream: ScriptedUpstream, chunks: list[bytes], headers: dict[str, str]) -> Any:
    """A client that has read what the upstream sent before it fell silent."""

    async def answer(c: Connection) -> None:
        await c.head(200, {"transfer-encoding": "chunked", **headers})
        for chunk in chunks:
            await c.chunk(chunk)
        await c.closed_by_peer()

    upstream.script = answer
    streamed = headers["content-type"] == "text/event-stream"
    wire = await dial(timed, RESPONSES, ask(RESPONSES, stream=streamed))
    if chunks:
        await wire.until(chunks[-1][-9:] if streamed else chunks[0][-9:])
    timed.server.live.look()
    return wire


async def test_an_upstream_that_falls_silent_in_mid_stream_is_cut(
    timed: Proxy, upstream: ScriptedUpstream, clock: FakeClock
) -> None:
    sent = events(RESPONSES)[:3]
    wire = await silent_after(timed, upstream, sent, {"content-type": "text/event-stream"})

    clock.advance(300_000)
    timed.server.live.look()
    assert not wire.closed.is_set()
    clock.advance(1)
    timed.server.live.look()

    await wire.ended()
    assert (wire.body, wire.clean) == (b"".join(sent), False)
    record = await settled(timed)
    assert ending(record) == ("cut_by_upstream", "estimate", True)
    assert record["error_code"] == "upstream_silent"


async def test_an_upstream_that_falls_silent_in_a_large_answer_is_not_taken_for_a_client_that_stalls(
    timed: Proxy, upstream: ScriptedUpstream, clock: FakeClock
) -> None:
    await timed.grant(10**11)
    parts = [b"a" * 300_000 + b"<first>", b"b" * 20_000]  # of which the last piece that was read is held back
    wire = await silent_after(timed, upstream, parts, {"content-type": "application/json"})
    (call,) = timed.server.live._calls.values()
    metered = call.checkpoint.__self__.reader.reading  # type: ignore[attr-defined]
    await until(lambda: metered.output_bytes == 320_007 and call.stage is Stage.UPSTREAM)
    timed.server.live.look()

    clock.advance(60_001)
    timed.server.live.look()
    assert len(timed.server.live) == 1
    clock.advance(240_000)
    timed.server.live.look()

    await wire.ended()
    assert not wire.clean
    record = await settled(timed)
    assert (record["ending"], record["error_code"]) == ("cut_by_upstream", "upstream_silent")
    chars = 300_007 + 20_000
    assert record["cost_nanousd"] == record["input_tokens"] * INPUT + tokens_out(RESPONSES, chars) * OUTPUT


async def test_an_upstream_that_never_answers_is_given_up_after_ten_minutes(
    timed: Proxy, upstream: ScriptedUpstream, clock: FakeClock
) -> None:
    arrived = asyncio.Event()

    async def answer(c: Connection) -> None:
        arrived.set()
        await c.closed_by_peer()

    upstream.script = answer
    calling = asyncio.ensure_future(take(timed.post(ANTHROPIC, ask(ANTHROPIC))))
    await asyncio.wait_for(arrived.wait(), 5)
    clock.advance(600_000)
    timed.server.live.look()
    assert len(timed.server.live) == 1
    clock.advance(1)
    timed.server.live.look()

    taken = await calling
    assert (taken.status, taken.json()["error"]["type"]) == (503, "overloaded_error")
    assert ending(await settled(timed)) == ("unreachable", "none", False)


async def test_no_stream_is_too_long_before_two_hours(
    timed: Proxy, upstream: ScriptedUpstream, clock: FakeClock
) -> None:
    wire = await silent_after(timed, upstream, events(RESPONSES)[:3], {"content-type": "text/event-stream"})
    (call,) = timed.server.live._calls.values()
    for _ in range(72):
        clock.advance(100_000)
        call.progress += 1
        timed.server.live.look()
    assert (call.cause, len(timed.server.live)) == (None, 1)

    clock.advance(1)
    timed.server.live.look()

    await wire.ended()
    assert (await settled(timed))["error_code"] == Cause.TOO_LONG.value


# --- the client has left -----------------------------------------------------------------------------------------------


async def test_who_has_left_is_not_learned_of_beyond_the_credit(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """The rest of an answer costs the operator money too: without credit for it, it is not waited for."""
    closed = asyncio.Event()

    async def answer(c: Connection) -> None:
        await c.stream_head()
        await c.chunk(events(CHAT)[0])
        await left.wait()
        for _ in range(50):
            await c.chunk(events(CHAT, ["x" * 4000])[0])
        await c.closed_by_peer()
        closed.set()

    left = asyncio.Event()
    upstream.script = answer
    body = ask(CHAT)
    upstreams = {"anthropic": upstream, "openai": upstream}
    async with proxy(tmp_path, upstreams, routes=ROUTES, credit_nanousd=20_000_000) as lume:
        wire = await dial(lume, CHAT, body)
        await wire.until(b"Hello")
        wire.transport.abort()
        await noticed(lume)
        left.set()

        await asyncio.wait_for(closed.wait(), 5)
        record = await settled(lume)
        assert ending(record) == ("cut_by_client", "estimate", True)
        chars = (record["output_tokens"] - tokens_out(CHAT, 5)) / tokens_out(CHAT, 4000)
        assert chars < 50
        assert (await lume.balance()).balance_nanousd == 0
        assert record["cost_nanousd"] == tokens_in(CHAT, body) * INPUT + record["output_tokens"] * OUTPUT


async def test_who_left_before_the_reply_pays_what_it_then_says(lume: Proxy, upstream: ScriptedUpstream) -> None:
    arrived, left = asyncio.Event(), asyncio.Event()

    async def answer(c: Connection) -> None:
        arrived.set()
        await left.wait()
        await c.stream(events(CHAT))

    upstream.script = answer
    wire = await dial(lume, CHAT, ask(CHAT))
    await asyncio.wait_for(arrived.wait(), 5)
    wire.transport.close()
    await noticed(lume)
    left.set()

    record = await settled(lume)
    assert ending(record) == ("cut_by_client", "reported", False)
    assert record["cost_nanousd"] == BILL[CHAT]


async def test_who_left_before_the_reply_does_not_hold_credit_for_one_that_never_ends(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """The head comes before the client has left, some of the body after, and then nothing."""
    arrived, left = asyncio.Event(), asyncio.Event()

    async def answer(c: Connection) -> None:
        await c.head(200, {"content-type": "application/json", "content-length": "500"})
        arrived.set()
        await left.wait()
        await c.send(b"{" + b" " * 99)
        await c.closed_by_peer()

    upstream.script = answer
    body = ask(CHAT, stream=False)
    upstreams = {"anthropic": upstream, "openai": upstream}
    async with proxy(tmp_path, upstreams, routes=ROUTES, more="[billing]\ndrain_ms = 50\n") as lume:
        wire = await dial(lume, CHAT, body)
        await asyncio.wait_for(arrived.wait(), 5)
        wire.transport.close()
        await noticed(lume)
        left.set()

        async with asyncio.timeout(2):
            record = await settled(lume)
        assert ending(record) == ("cut_by_client", "estimate", True)
        assert record["output_tokens"] == tokens_out(CHAT, 100)


# --- parts -------------------------------------------------------------------------------------------------------------


class Broken:
    """A reply that breaks off."""

    async def read(self) -> bytes:
        raise CutShort("reset")


async def test_a_reply_that_breaks_at_once_reads_as_empty() -> None:
    reply: Any = Broken()

    assert await dispatch.read_all(reply) == b""


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([("X-Request-Id", "b"), ("Request-ID", "a")], "b"),
        ([("request-id", "x" * 300)], "x" * 200),
        ([("request-id", "a\tb\u202e")], "ab"),
        ([("other", "a")], ""),
    ],
)
def test_the_upstreams_request_id_is_kept_as_far_as_it_is_text(headers: list[tuple[str, str]], found: str) -> None:
    reply: Any = Broken()
    reply.headers = headers

    assert answers.request_id(reply) == found
