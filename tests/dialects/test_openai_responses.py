"""Responses: facts, usage at the very end, failures, early endings, the echo."""

from __future__ import annotations

import json

import pytest

from lumeproxy import errors
from lumeproxy.core.sse import SseScanner
from lumeproxy.core.types import Terms, Usage
from lumeproxy.dialects.base import Mark
from lumeproxy.dialects.openai_responses import OpenAIResponses
from tests.support import streams
from tests.support.streams import event

DIALECT = OpenAIResponses()
ASKED = DIALECT.ask(b'{"model":"gpt-test-1","stream":true}')
FULL = Usage(60, 40, 0, 0, 20, 5)


def read(chunks: list[bytes], limit: int = 131_072):
    reader, scanner, last = DIALECT.reader(ASKED), SseScanner(limit), Mark.NONE
    for chunk in chunks:
        for found in scanner.feed(chunk):
            mark = reader.oversized(found.head, found.tail, found.size) if found.oversized else reader.event(found.data)
            last = mark if mark is not Mark.NONE else last
    return reader, last


def item(**fields: object) -> dict[str, object]:
    return {"input": [{"role": "user", **fields}]}


@pytest.mark.parametrize(
    ("more", "elsewhere", "attached"),
    [
        ({"input": "see https://example.com"}, False, False),
        (item(content="x"), False, False),
        (item(content=[{"type": "input_text", "text": '"file_id"'}, {"type": "output_text"}]), False, False),
        (item(content=[{"type": "input_image", "image_url": "data:image/png;base64,aGk="}]), False, True),
        (item(content=[{"type": "input_image", "image_url": "https://x/a.png"}]), True, True),
        (item(content=[{"type": "input_file", "file_id": "f"}]), True, True),
        (item(type="function_call_output", output="x"), False, False),
        (item(type="function_call_output", output=[{"type": "input_file", "file_url": "https://x"}]), True, True),
        (item(type="computer_call_output", output={"type": "computer_screenshot", "image_url": "data:"}), False, True),
        (item(type="item_reference", id="i"), True, False),
        ({"tools": [{"type": "function", "name": "f"}, {"type": "custom"}, {"type": "namespace"}]}, False, False),
        ({"tools": [{"type": "web_search"}]}, True, False),
        ({"conversation": "c"}, True, False),
        ({"prompt": {"id": "p"}}, True, False),
        ({"prompt": None, "conversation": None, "previous_response_id": None, "tools": None}, False, False),
        ({"input": 7}, True, True),
    ],
    ids=str,
)
def test_what_a_request_names_beyond_its_bytes_is_found(more, elsewhere, attached):
    asked = DIALECT.ask(json.dumps({"model": "m", **more}).encode())

    assert (asked.refers_elsewhere, asked.has_attachments) == (elsewhere, attached)


def test_facts_of_a_request():
    asked = DIALECT.ask(b'{"model":"m","max_output_tokens":9,"service_tier":"flex","previous_response_id":"r"}')

    assert (asked.max_output_tokens, asked.terms, asked.refers_elsewhere) == (9, Terms("flex"), True)
    assert not ASKED.refers_elsewhere
    with pytest.raises(errors.InvalidRequest, match=r"[Bb]ackground"):
        DIALECT.ask(b'{"model":"m","background":true}')


@pytest.mark.parametrize("last", ["completed", "incomplete"])
def test_usage_is_taken_from_the_last_event(last):
    reader, mark = read(streams.responses(last=last))

    assert reader.reading.usage == FULL
    assert mark is Mark.FINAL
    assert reader.reading.model_served == "gpt-test-1"
    assert reader.reading.output_chars == len("Hello there")


def test_every_split_point_of_a_stream_gives_the_same_reading():
    whole = b"".join(streams.responses(["a", "b c"]))
    expected = read([whole])[0].reading
    for at in range(len(whole)):
        assert read([whole[:at], whole[at:]])[0].reading == expected
    assert read([whole[i : i + 1] for i in range(len(whole))])[0].reading == expected


def test_a_missing_usage_is_no_usage():
    reader, mark = read(streams.responses(usage=None))

    assert mark is Mark.FINAL
    assert not reader.reading.input_reported


def test_a_failed_response_may_still_tell_its_usage():
    events = streams.responses(last="failed")
    failed = json.loads(events[-1].split(b"data: ")[1])
    failed["response"]["error"] = {"code": "server_error", "message": "m"}

    reader, mark = read([*events[:-1], event(failed)])

    assert mark is Mark.FAILED
    assert reader.reading.usage == FULL
    assert reader.reading.error_code == "server_error"


def test_a_bare_error_event_ends_the_stream_as_failed():
    reader, mark = read([event({"type": "error", "code": "boom", "message": "m", "sequence_number": 3})])

    assert mark is Mark.FAILED
    assert reader.reading.error_code == "boom"


@pytest.mark.parametrize("size", [200_000, 2_000_000])
def test_usage_at_the_end_of_a_huge_last_event_is_found(size):
    events = streams.responses()
    last = json.loads(events[-1].split(b"data: ")[1])
    last["response"] = {"output": [{"text": "x" * size, "usage": "a decoy"}], **last["response"], "metadata": {}}

    reader, mark = read([*events[:-1], event(last, "response.completed")])

    assert mark is Mark.FINAL
    assert reader.reading.usage == FULL
    assert not reader.reading.truncated


def test_a_huge_last_event_without_usage_still_ends_the_stream():
    reader, mark = read([event({"type": "response.completed", "response": {"output": "x" * 200_000}})])

    assert mark is Mark.FINAL
    assert reader.reading.truncated


def test_web_searches_are_counted_once_each():
    item = {"type": "response.output_item.done", "item": {"type": "web_search_call"}}
    events = streams.responses()

    reader, _ = read([*events[:-1], event(item), event(item), events[-1]])
    assert reader.reading.usage.web_search_requests == 2

    reader = DIALECT.reader(ASKED)
    reader.whole(json.dumps({"usage": streams.RESPONSES_USAGE, "output": [{"type": "web_search_call"}]}).encode())
    assert reader.reading.usage.web_search_requests == 1


def test_whole_answers_are_read():
    reader = DIALECT.reader(ASKED)
    output = [{"type": "message", "content": [{"type": "output_text", "text": "four"}]}]
    reader.whole(json.dumps({"id": "r", "model": "m", "service_tier": "priority", "usage": streams.RESPONSES_USAGE,
                             "output": output}).encode())  # fmt: skip

    assert reader.reading.usage == FULL
    assert (reader.reading.output_chars, reader.reading.terms) == (4, Terms("priority"))


def test_a_field_of_an_unforeseen_type_does_not_lose_the_event():
    odd = {"type": "response.completed", "sequence_number": "x",
           "response": {"id": 7, "usage": streams.RESPONSES_USAGE}}  # fmt: skip

    reader, mark = read([event(odd)])

    assert mark is Mark.FINAL
    assert reader.reading.usage == FULL


def test_an_early_ending_continues_the_stream_and_says_why_in_the_code_that_codex_shows():
    reader, _ = read(streams.responses()[:2])

    ending = DIALECT.ending(errors.OutOfCredit("no more"), reader)

    assert ending.startswith(b"event: response.failed\n")
    said = json.loads(ending.split(b"data: ")[1])
    assert said["sequence_number"] == 2
    assert said["response"]["id"] == "resp_1"
    assert said["response"]["error"] == {"code": "invalid_prompt", "message": "no more"}


@pytest.mark.parametrize(
    "given", ["one two", [{"role": "user", "content": [{"type": "input_text", "text": "one two"}]}]]
)
def test_the_echo_answers_with_true_usage_streamed_or_not(given):
    body = json.dumps({"model": "gpt-echo", "instructions": "be kind", "input": given}).encode()
    whole = json.loads(DIALECT.echo(body, DIALECT.ask(body), "id", 1, "/responses").chunks[0])
    streaming = DIALECT.ask(body[:-1] + b',"stream":true}')
    reader, mark = read(list(DIALECT.echo(body, streaming, "id", 1, "/responses").chunks))

    assert whole["output"][0]["content"][0]["text"] == "You said: one two"
    assert (whole["usage"]["input_tokens"], whole["usage"]["output_tokens"]) == (4, 4)
    assert reader.reading.usage == Usage(input_tokens=4, output_tokens=4)
    assert mark is Mark.FINAL


def test_this_api_counts_no_tokens():
    assert DIALECT.count(1, "id") is None
