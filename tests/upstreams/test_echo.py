"""The stand-in: an answer without a network, piece by piece as a provider would give it."""

from __future__ import annotations

import asyncio
import json

import pytest

from lumeproxy.core.types import Asked
from lumeproxy.dialects import DIALECTS
from lumeproxy.upstreams.base import Outgoing
from lumeproxy.upstreams.echo import DIALECTS as SPOKEN
from lumeproxy.upstreams.echo import EchoReply, EchoUpstream

ASK = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "one two"}], "input": "one two"}


def outgoing(name: str, path: str, *, stream: bool) -> Outgoing:
    dialect = next(known for known in DIALECTS if known.name == name)
    body = json.dumps({**ASK, "stream": stream}).encode()
    return Outgoing(dialect, Asked("m", stream=stream), path, "", (), body, "call_7", 1_795_000_000)


async def everything(reply) -> list[bytes]:
    pieces = []
    while piece := await reply.read():
        pieces.append(piece)
    return pieces


def test_it_speaks_every_dialect_there_is():
    made = EchoUpstream()

    assert made.dialects == SPOKEN == {dialect.name for dialect in DIALECTS}
    assert (made.name, made.kind, made.provider, made.takes_encoded) == ("echo", "echo", None, False)
    assert EchoUpstream("other").name == "other"


@pytest.mark.parametrize(
    ("name", "path"),
    [("anthropic_messages", "/messages"), ("openai_responses", "/responses"), ("openai_chat", "/chat/completions")],
)
async def test_a_whole_answer_is_one_piece_with_its_length_and_a_stream_is_many_without(name, path):
    whole = await EchoUpstream().send(outgoing(name, path, stream=False))
    (body,) = await everything(whole)
    assert (whole.status, whole.content_type, whole.encoding) == (200, "application/json", "")
    assert whole.content_length == len(body)
    assert b"You said: one two" in body and b"call_7" in body

    stream = await EchoUpstream().send(outgoing(name, path, stream=True))
    events = await everything(stream)
    assert (stream.status, stream.content_type, stream.content_length) == (200, "text/event-stream", None)
    assert len(events) > 4
    assert all(event.endswith(b"\n\n") for event in events)


async def test_a_count_is_answered_too():
    reply = await EchoUpstream().send(outgoing("anthropic_messages", "/messages/count_tokens", stream=False))

    assert await everything(reply) == [b'{"input_tokens":2}']


async def test_other_tasks_get_their_turn_between_two_pieces():
    reply = EchoReply(200, (), [b"1", b"2"])
    seen: list[object] = []

    async def other() -> None:
        seen.append("other")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(other())
        seen.append(await reply.read())
    assert seen == ["other", b"1"]


async def test_after_closing_nothing_is_left_to_read():
    reply = EchoReply(200, (("Content-Type", "a/b; charset=x"),), [b"1", b"2"])
    assert await reply.read() == b"1"

    reply.close()
    reply.close()
    assert await reply.read() == b""
    assert (reply.content_type, reply.content_length) == ("a/b", None)
