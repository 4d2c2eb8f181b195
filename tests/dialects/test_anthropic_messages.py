"""Messages: facts, usage with all its traps, errors, endings, the echo."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lumeproxy import errors
from lumeproxy.core.sse import SseScanner
from lumeproxy.core.types import Terms, Usage
from lumeproxy.dialects.anthropic_messages import AnthropicMessages
from lumeproxy.dialects.base import Mark
from tests.support import streams
from tests.support.streams import event

DIALECT = AnthropicMessages()
ASKED = DIALECT.ask(b'{"model":"claude-test-1","stream":true}')


def read(events: list[bytes], chunks: list[bytes] | None = None):
    """A reader that has been fed a stream, and the mark of its last event."""
    reader, scanner, last = DIALECT.reader(ASKED), SseScanner(131_072), Mark.NONE
    for chunk in chunks or events:
        for found in scanner.feed(chunk):
            mark = reader.event(found.data)
            last = mark if mark is not Mark.NONE else last
    return reader, last


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
LINK = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
FILE = {"type": "document", "source": {"type": "file", "file_id": "f"}}


def user(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    ("more", "elsewhere", "attached"),
    [
        ({}, False, False),
        ({"messages": None, "tools": None, "system": None, "container": None, "mcp_servers": None}, False, False),
        (user("see https://example.com"), False, False),
        (user([{"type": "text", "text": '"url" "file_id" base64'}]), False, False),
        (user([IMAGE]), False, True),
        (user([LINK]), True, True),
        (user([FILE]), True, True),
        (user([{"type": "document", "source": {"type": "text", "data": "x"}}]), False, True),
        (user([{"type": "container_upload", "file_id": "f"}]), True, True),
        (user([{"type": "tool_result", "content": "x"}]), False, False),
        (user([{"type": "tool_result", "content": [{"type": "text", "text": "x"}, LINK]}]), True, True),
        ({"system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]}, False, False),
        ({"tools": [{"name": "t", "input_schema": {"properties": {"url": {"type": "string"}}}}]}, False, False),
        ({"tools": [{"type": "custom", "name": "t"}, {"type": "bash_20250124", "name": "bash"}]}, False, False),
        ({"tools": [{"type": "web_search_20260101", "name": "web_search"}]}, True, False),
        ({"container": "c"}, True, False),
        ({"mcp_servers": [{"url": "https://x"}]}, True, False),
        (user(7), True, True),
        ({"messages": "odd", "tools": 3}, True, True),
    ],
    ids=str,
)
def test_what_a_request_names_beyond_its_bytes_is_found(more, elsewhere, attached):
    asked = DIALECT.ask(json.dumps({"model": "m", **more}).encode())

    assert (asked.refers_elsewhere, asked.has_attachments) == (elsewhere, attached)


def test_facts_of_a_request():
    asked = DIALECT.ask(b'{"model":"m","max_tokens":9,"stream":true,"speed":"fast","inference_geo":"us"}')

    assert (asked.model, asked.max_output_tokens, asked.stream) == ("m", 9, True)
    assert asked.terms == Terms("standard", "fast", "us")
    assert not asked.refers_elsewhere


CACHE = {
    "input_tokens": 100,
    "cache_read_input_tokens": 4000,
    "cache_creation_input_tokens": 300,
    "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
    "output_tokens": 1,
    "service_tier": "standard",
}
FULL = Usage(100, 4000, 200, 100, 42)


@pytest.mark.parametrize(
    "delta",
    [
        {"output_tokens": 42},
        {**CACHE, "output_tokens": 42},
        {k: v for k, v in {**CACHE, "output_tokens": 42}.items() if k != "cache_creation"},
        {"output_tokens": 42, "input_tokens": None, "cache_read_input_tokens": None, "cache_creation": None},
    ],
    ids=["slim", "whole", "without the split", "nulls"],
)
def test_the_input_side_and_its_split_survive_whatever_the_delta_carries(delta):
    reader, last = read(streams.anthropic(start=CACHE, delta=delta))

    assert reader.reading.usage == FULL
    assert last is Mark.FINAL
    assert reader.reading.output_final
    assert not reader.reading.absurd


def test_every_split_point_of_a_stream_gives_the_same_reading():
    whole = b"".join(streams.anthropic(["a", "b c", "ü"], start=CACHE, delta={"output_tokens": 42}))
    expected = read([whole])[0].reading
    for at in range(len(whole)):
        assert read([], [whole[:at], whole[at:]])[0].reading == expected
    assert read([], [whole[i : i + 1] for i in range(len(whole))])[0].reading == expected


def test_several_deltas_are_cumulative_and_server_tools_raise_the_input():
    events = streams.anthropic(start=CACHE, delta={"output_tokens": 42})
    more = {"type": "message_delta", "delta": {}, "usage": {"input_tokens": 900, "output_tokens": 30,
            "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1}}}  # fmt: skip
    events.insert(-2, event(more, "message_delta"))

    reader, _ = read(events)

    assert reader.reading.usage == Usage(900, 4000, 200, 100, 42, 0, 2)
    assert not reader.reading.absurd


def test_thinking_is_a_part_of_the_output():
    usage = {"output_tokens": 42, "output_tokens_details": {"thinking_tokens": 16}}

    reader, _ = read(streams.anthropic(delta=usage))

    assert (reader.reading.usage.output_tokens, reader.reading.usage.reasoning_tokens) == (42, 16)


def test_written_tokens_without_lifetimes_count_as_five_minutes():
    reader, _ = read(
        streams.anthropic(start={"input_tokens": 1, "cache_creation_input_tokens": 50, "output_tokens": 1})
    )

    assert reader.reading.usage.cache_write_5m_tokens == 50


def test_what_the_reply_does_not_state_was_served_as_asked():
    reader = DIALECT.reader(DIALECT.ask(b'{"model":"m","speed":"fast","inference_geo":"us"}'))

    reader.whole(streams.anthropic_whole({"input_tokens": 1, "output_tokens": 1, "service_tier": "priority"}))

    assert reader.reading.terms == Terms("priority", "fast", "us")


def test_terms_come_from_the_reply():
    start = {**CACHE, "service_tier": "priority", "speed": "fast", "inference_geo": "us"}

    assert read(streams.anthropic(start=start))[0].reading.terms == Terms("priority", "fast", "us")


LIES = [-1, 1.5, "42", True, [], {}, -(10**18)]
FIELDS = ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"]


@pytest.mark.parametrize("lie", LIES, ids=str)
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("where", ["start", "delta"])
def test_a_lie_is_ignored_marked_and_loses_nothing_else(lie, field, where):
    start, delta = dict(CACHE), {"output_tokens": 42}
    (start if where == "start" else delta)[field] = lie

    reader, last = read(streams.anthropic(start=start, delta=delta))

    assert reader.reading.absurd
    assert last is Mark.FINAL
    counted = reader.reading.usage
    assert all(0 <= getattr(counted, name) <= 4000 for name in Usage.__slots__)
    if (where, field) != ("start", "cache_read_input_tokens"):
        assert counted.cache_read_tokens == 4000


def test_a_shrinking_number_keeps_the_larger_one_and_is_marked():
    reader, _ = read(streams.anthropic(start=CACHE, delta={"input_tokens": 3, "output_tokens": 42}))

    assert reader.reading.usage.input_tokens == 100
    assert reader.reading.absurd


def test_a_field_of_an_unforeseen_type_does_not_lose_the_event():
    odd = {"type": "message_start", "message": {"model": 7, "usage": CACHE}, "index": "x"}

    reader, _ = read([event(odd)])

    assert reader.reading.usage == Usage(100, 4000, 200, 100, 1)


def test_output_is_counted_by_text_thinking_and_tool_arguments():
    deltas = [{"text": "abc"}, {"thinking": "de"}, {"partial_json": "f"}, {"signature": "zzzz"}]
    reader, _ = read([event({"type": "content_block_delta", "index": 0, "delta": delta}) for delta in deltas])

    assert reader.reading.output_chars == 6


def test_an_error_event_ends_the_stream_as_failed():
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}

    reader, last = read([*streams.anthropic()[:4], event(error, "error")])

    assert last is Mark.FAILED
    assert reader.reading.error_code == "overloaded_error"


def test_whole_answers_are_read_and_odd_ones_as_far_as_they_go():
    reader = DIALECT.reader(ASKED)
    reader.whole(streams.anthropic_whole(CACHE | {"output_tokens": 42}, "four"))
    assert reader.reading.usage == FULL
    assert (reader.reading.output_chars, reader.reading.model_served) == (4, "claude-test-1")

    reader = DIALECT.reader(ASKED)
    reader.whole(json.dumps({"content": "odd", "usage": {"input_tokens": 3, "output_tokens": 4}}).encode())
    assert reader.reading.usage == Usage(input_tokens=3, output_tokens=4)


TABLE = [
    (errors.Unauthorized, 401, "authentication_error", True),
    (errors.ForeignCredential, 401, "authentication_error", True),
    (errors.AccountSuspended, 403, "permission_error", True),
    (errors.OutOfCredit, 402, "billing_error", True),
    (errors.ModelNotFound, 404, "not_found_error", True),
    (errors.NotFound, 404, "not_found_error", True),
    (errors.RateLimited, 429, "rate_limit_error", False),
    (errors.BodyTooLarge, 413, "request_too_large", True),
    (errors.UnsupportedEncoding, 415, "invalid_request_error", True),
    (errors.BodyTimeout, 408, "timeout_error", False),
    (errors.UpgradeRequired, 426, "invalid_request_error", True),
    (errors.InvalidRequest, 400, "invalid_request_error", True),
    (errors.Unreachable, 503, "overloaded_error", False),
    (errors.UpstreamError, 502, "api_error", True),
    (errors.CredentialRejected, 502, "api_error", True),
    (errors.StoreUnavailable, 503, "overloaded_error", False),
    (errors.LumeError, 500, "api_error", False),
]


@pytest.mark.parametrize(("kind", "status", "type_", "final"), TABLE, ids=lambda v: getattr(v, "__name__", str(v)))
def test_each_error_has_the_status_and_type_that_clients_understand(kind, status, type_, final):
    answer = DIALECT.error(kind("what happened"), "req_1")
    body = json.loads(b"".join(answer.chunks))

    assert answer.status == status
    assert body == {"type": "error", "error": {"type": type_, "message": "what happened"}, "request_id": "req_1"}
    assert (answer.headers.get("x-should-retry") == "false") is final


def test_an_early_ending_closes_the_open_block_first():
    reader, _ = read(streams.anthropic()[:4])
    ending = DIALECT.ending(errors.OutOfCredit("no more"), reader)
    stop, error = ending.split(b"\n\n")[:2]

    assert b'"content_block_stop","index":0' in stop
    assert error.startswith(b"event: error\n")
    assert b'"billing_error"' in error
    finished, _ = read(streams.anthropic()[:-2])
    assert b"content_block_stop" not in DIALECT.ending(errors.AccountSuspended("x"), finished)


def test_sessions_and_agents_come_from_the_headers():
    headers = {"x-claude-code-session-id": "s\x00" + "1" * 300, "x-claude-code-agent-id": "a"}

    session, agent = DIALECT.session(headers)

    assert session == "s" + "1" * 126
    assert agent == "a"
    assert DIALECT.session({"x-session-id": "oc"}) == ("oc", "")


def test_the_echo_answers_with_true_usage_streamed_or_not():
    messages = [{"role": "user", "content": [{"type": "text", "text": "one two"}]}]
    tools = [{"name": "t"}]
    body = json.dumps({"model": "claude-echo", "system": "be kind", "tools": tools, "messages": messages}).encode()
    asked = DIALECT.ask(body)
    whole = json.loads(DIALECT.echo(body, asked, "id", 1, "/messages").chunks[0])
    counted = json.loads(DIALECT.echo(body, asked, "id", 1, "/messages/count_tokens").chunks[0])
    streaming = DIALECT.ask(body[:-1] + b',"stream":true}')
    reader, last = read(list(DIALECT.echo(body, streaming, "id", 1, "/messages").chunks))

    assert whole["content"][0]["text"] == "You said: one two"
    assert (counted["input_tokens"], whole["usage"]["output_tokens"]) == (whole["usage"]["input_tokens"], 4)
    assert reader.reading.usage == Usage(input_tokens=counted["input_tokens"], output_tokens=4)
    assert last is Mark.FINAL


def test_a_count_is_answered_in_the_apis_shape():
    assert json.loads(DIALECT.count(7, "id").chunks[0]) == {"input_tokens": 7}


def test_an_oversized_event_is_output_and_no_end():
    reader = DIALECT.reader(ASKED)

    assert reader.oversized(b'data: {"type":"content_block_delta"', b"x" * 100, 2_000_000) is Mark.NONE
    assert reader.reading.truncated
    assert reader.reading.output_chars == 2_000_000
