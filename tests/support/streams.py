"""Answers as the three APIs give them, with usage to choose."""

from __future__ import annotations

import json
from typing import Any


def event(data: Any, name: str = "") -> bytes:
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def anthropic(
    words: list[str] | None = None, *, start: dict[str, Any] | None = None, delta: dict[str, Any] | None = None
) -> list[bytes]:
    """A Messages stream, one event an element."""
    words = ["Hello", " there"] if words is None else words
    start = {"input_tokens": 100, "output_tokens": 1} if start is None else start
    delta = {"output_tokens": 20} if delta is None else delta
    message: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test-1",
               "content": [], "stop_reason": None, "usage": start}  # fmt: skip
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in words),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": delta},
        {"type": "message_stop"},
    ]
    return [event(item, item["type"]) for item in events]


def anthropic_whole(usage: dict[str, Any] | None = None, text: str = "Hello there") -> bytes:
    usage = {"input_tokens": 100, "output_tokens": 20} if usage is None else usage
    return json.dumps({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test-1",
                       "content": [{"type": "text", "text": text}], "stop_reason": "end_turn",
                       "usage": usage}).encode()  # fmt: skip


RESPONSES_USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 40},
    "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 120,
}


def responses(words: list[str] | None = None, *, usage: Any = RESPONSES_USAGE, last: str = "completed") -> list[bytes]:
    """A Responses stream, one event an element."""
    words = ["Hello", " there"] if words is None else words
    begun = {"id": "resp_1", "object": "response", "model": "gpt-test-1", "status": "in_progress", "usage": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        *({"type": "response.output_text.delta", "item_id": "m", "output_index": 0, "delta": word} for word in words),
        {"type": f"response.{last}", "response": {**begun, "status": last, "usage": usage}},
    ]
    return [event({**item, "sequence_number": n}, item["type"]) for n, item in enumerate(events)]


CHAT_USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 40},
    "completion_tokens_details": {"reasoning_tokens": 5},
}


def chat(words: list[str] | None = None, *, usage: Any = CHAT_USAGE, done: bool = True) -> list[bytes]:
    """A Chat Completions stream as asked for with include_usage, one event an element."""
    words = ["Hello", " there"] if words is None else words
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-test-1"}
    chunks: list[Any] = [
        {**head, "choices": [{"index": 0, "delta": {"role": "assistant", "content": word}}], "usage": None}
        for word in words
    ]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None})
    if usage is not None:
        chunks.append({**head, "choices": [], "usage": usage})
    if done:
        chunks.append("[DONE]")
    return [event(item) for item in chunks]
