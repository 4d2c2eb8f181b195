"""Calls of the three APIs by path, and what they cost by hand: nano-USD a token, tokens by the rule of thumb."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
from collections.abc import Awaitable, Callable
from typing import Any

from tests.support import streams
from tests.support.proxy import Proxy

ANTHROPIC, RESPONSES, CHAT = "/v1/messages", "/v1/responses", "/v1/chat/completions"
PATHS = (ANTHROPIC, RESPONSES, CHAT)
INCLUDED = {"stream_options": {"include_usage": True}}

INPUT, CACHED, OUTPUT = 1000, 100, 10_000
# What the answers of `streams` claim.
BILL = {
    ANTHROPIC: 100 * INPUT + 20 * OUTPUT,
    RESPONSES: 60 * INPUT + 40 * CACHED + 20 * OUTPUT,
    CHAT: 60 * INPUT + 40 * CACHED + 20 * OUTPUT,
}
_STREAMS: dict[str, Callable[..., list[bytes]]] = {
    ANTHROPIC: streams.anthropic,
    RESPONSES: streams.responses,
    CHAT: streams.chat,
}
FINAL = {ANTHROPIC: b'"message_stop"', RESPONSES: b'"response.completed"', CHAT: b"[DONE]"}


def in_every_dialect(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Run a test once a `path`, before the same proxy: to set one up takes longer than most calls."""

    @functools.wraps(test)
    async def run(**given: Any) -> None:
        for path in PATHS:
            try:
                await test(path=path, **given)
            except BaseException as error:
                error.add_note(f"in {path}")
                raise

    parameters = inspect.signature(test).parameters
    run.__signature__ = inspect.Signature([it for name, it in parameters.items() if name != "path"])  # type: ignore[attr-defined]
    return run


def model(path: str) -> str:
    return "claude-test-1" if path == ANTHROPIC else "gpt-test-1"


def ask(path: str, **more: Any) -> bytes:
    """A request; streamed Chat asks for its usage itself, so that the answer's bytes stay as they are."""
    asked = {"model": model(path), "messages": [], "input": "hi", "stream": True, **more}
    if path == CHAT and asked["stream"]:
        asked |= INCLUDED
    return json.dumps(asked).encode()


def events(path: str, words: list[str] | None = None, **options: Any) -> list[bytes]:
    """A streamed answer, one event an element."""
    return _STREAMS[path](words, **options)


def whole(path: str, text: str = "Hello there", usage: Any = True) -> bytes:
    """A whole answer; `usage` is the standard one, or another, or None."""
    if path == ANTHROPIC:
        usage = {"input_tokens": 100, "output_tokens": 20} if usage is True else usage
        return json.dumps({"id": "m", "model": "claude-test-1", "content": [{"type": "text", "text": text}],
                           "usage": usage}).encode()  # fmt: skip
    if path == RESPONSES:
        item = {"type": "message", "content": [{"type": "output_text", "text": text}]}
        usage = streams.RESPONSES_USAGE if usage is True else usage
        return json.dumps({"id": "r", "model": "gpt-test-1", "output": [item], "usage": usage}).encode()
    usage = streams.CHAT_USAGE if usage is True else usage
    return json.dumps({"id": "c", "choices": [{"message": {"content": text}}], "usage": usage}).encode()


def tokens_in(path: str, body: bytes) -> int:
    """The estimate of a request: ten tokens in 38 bytes, half as many again for Claude, and one."""
    return len(body) * 10 // 38 * (1550 if path == ANTHROPIC else 1000) // 1000 + 1


def tokens_out(path: str, chars: int) -> int:
    """The estimate of so many characters of an answer."""
    return -(-chars * 10 // 38) * (1550 if path == ANTHROPIC else 1000) // 1000


async def settled(lume: Proxy) -> dict[str, Any]:
    """The record of the one call since the last time, when it has ended, with the books found in order around it."""
    records = await lume.records()
    (record,) = (one for one in records if one["call_id"] not in lume.told)
    lume.told.add(record["call_id"])
    balance = await lume.balance()
    assert balance.held_nanousd == 0
    charged = sum(one["cost_nanousd"] - one["shortfall_nanousd"] for one in records)
    assert balance.balance_nanousd == lume.credit_nanousd - charged
    assert await lume.audit() == []
    return record


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to be so")


async def noticed(lume: Proxy) -> None:
    """Let the watch look until it has seen that the client of the only running call has left."""
    async with asyncio.timeout(5):
        while any(call.cause is None for call in lume.server.live._calls.values()):
            lume.server.live.look()
            await asyncio.sleep(0)


def ending(record: dict[str, Any]) -> tuple[str, str, bool]:
    """The three words of a record that tell how its charge came about."""
    return record["ending"], record["settled_by"], record["estimated"]
