"""What the built-in stand-in answers in each dialect: the newest user text said back, with true usage.

A dialect reads the request and counts its tokens, this module composes the answer in the dialect's own shape, as a
provider would send it: one event a chunk. Wire formats as in the dialects' own files.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lumeproxy.core.types import Asked
from lumeproxy.dialects import base
from lumeproxy.dialects.base import Answer

SAID_CHARS = 2_000  # of the newest text that are said back
HEADERS = {"content-type": "application/json"}
STREAM_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


def said(newest: str) -> list[str]:
    """What the echo says, in the pieces in which it is streamed."""
    # Half of a surrogate pair can be read in a request but not written in an answer.
    heard = newest[:SAID_CHARS].encode("utf-8", "replace").decode()
    answer = f"You said: {heard}" if heard.strip() else "Hello from lumeproxy's echo. Nothing was said to it."
    words = answer.split(" ")
    return [word if index == 0 else " " + word for index, word in enumerate(words)]


def newest_user_text(messages: object) -> str:
    """The last text of the last message or item of a user, "" where there is none. Coding agents put reminders of their
    own before what was typed."""
    if isinstance(messages, str):
        return messages
    items = messages if isinstance(messages, list) else []
    users = [item for item in items if isinstance(item, dict) and item.get("role") == "user"]
    found = base.texts(users[-1]) if users else []
    return found[-1] if found else ""


def tokens(text: str) -> int:
    """The echo's own measure, which is true by definition: a token for each word between white space."""
    return len(text.split())


def _answer(whole: dict[str, Any]) -> Answer:
    return Answer(200, HEADERS, (msgspec.json.encode(whole),))


def anthropic_messages(asked: Asked, answer_id: str, pieces: list[str], input_tokens: int) -> Answer:
    """An answer of the Messages API."""
    text = "".join(pieces)
    usage = {
        "input_tokens": input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": tokens(text),
        "service_tier": "standard",
    }
    message = {
        "id": "msg_" + answer_id,
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }
    if not asked.stream:
        return _answer(message)
    begun = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    deltas = [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": p}} for p in pieces]
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *deltas,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]
    return Answer(200, STREAM_HEADERS, tuple(base.sse(event, event["type"]) for event in events))


def openai_responses(asked: Asked, answer_id: str, created_s: int, pieces: list[str], input_tokens: int) -> Answer:
    """An answer of the Responses API."""
    text = "".join(pieces)
    usage = {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": tokens(text),
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": input_tokens + tokens(text),
    }
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"type": "message", "id": "msg_" + answer_id, "status": "completed", "role": "assistant", "content": [part]}
    response = {
        "id": "resp_" + answer_id,
        "object": "response",
        "created_at": created_s,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": asked.model,
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
    }
    if not asked.stream:
        return _answer(response)
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    opened = {**item, "status": "in_progress", "content": []}
    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": opened},
        {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
        *({"type": "response.output_text.delta", **at, "delta": piece} for piece in pieces),
        {"type": "response.output_text.done", **at, "text": text},
        {"type": "response.content_part.done", **at, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response},
    ]
    chunks = (base.sse({**event, "sequence_number": n}, event["type"]) for n, event in enumerate(events))
    return Answer(200, STREAM_HEADERS, tuple(chunks))


def openai_chat(
    asked: Asked, answer_id: str, created_s: int, pieces: list[str], input_tokens: int, *, states_usage: bool
) -> Answer:
    """An answer of the Chat Completions API; a stream ends with a usage chunk where `states_usage`."""
    text = "".join(pieces)
    usage = {
        "prompt_tokens": input_tokens,
        "completion_tokens": tokens(text),
        "total_tokens": input_tokens + tokens(text),
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    head = {"id": "chatcmpl_" + answer_id, "created": created_s, "model": asked.model}
    if not asked.stream:
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return _answer({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
    deltas: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": piece}, None) for piece in pieces]
    deltas.append(({}, "stop"))
    shared = {**head, "object": "chat.completion.chunk"}
    chunks: list[dict[str, Any]] = [
        {**shared, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}
        for delta, finish in deltas
    ]
    if states_usage:
        chunks = [{**chunk, "usage": None} for chunk in chunks]
        chunks.append({**shared, "choices": [], "usage": usage})
    return Answer(200, STREAM_HEADERS, (*map(base.sse, chunks), base.sse(b"[DONE]")))
