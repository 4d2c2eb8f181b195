"""Chat Completions: facts, the usage chunk that is asked for and taken out again, errors, the echo."""

from __future__ import annotations

import json

import pytest

from lumeproxy import errors
from lumeproxy.core.sse import SseScanner
from lumeproxy.core.types import Terms, Usage
from lumeproxy.dialects.base import Mark
from lumeproxy.dialects.openai_chat import STRIPPED_EVENT_BYTES, OpenAIChat
from tests.support import streams
from tests.support.streams import event

DIALECT = OpenAIChat()
ASKED = DIALECT.ask(b'{"model":"gpt-test-1","stream":true}')
FULL = Usage(60, 40, 0, 0, 20, 5)


def read(chunks: list[bytes]):
    reader, scanner, last = DIALECT.reader(ASKED), SseScanner(131_072), Mark.NONE
    for chunk in chunks:
        for found in scanner.feed(chunk):
            mark = reader.event(found.data)
            last = mark if mark is not Mark.NONE else last
    return reader, last


@pytest.mark.parametrize(
    ("part", "elsewhere", "attached"),
    [
        ({"type": "text", "text": "https://x"}, False, False),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}, False, True),
        ({"type": "image_url", "image_url": {"url": "https://x/a.png"}}, True, True),
        ({"type": "file", "file": {"file_data": "data:a;base64,aGk="}}, False, True),
        ({"type": "file", "file": {"file_id": "f"}}, True, True),
        ({"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}, False, True),
    ],
    ids=str,
)
def test_what_a_request_names_beyond_its_bytes_is_found(part, elsewhere, attached):
    asked = DIALECT.ask(json.dumps({"model": "m", "messages": [{"role": "user", "content": [part]}]}).encode())

    assert (asked.refers_elsewhere, asked.has_attachments) == (elsewhere, attached)


def test_a_search_of_the_web_and_an_odd_shape_count_as_content_from_elsewhere():
    assert DIALECT.ask(b'{"model":"m","web_search_options":{}}').refers_elsewhere
    assert not DIALECT.ask(b'{"model":"m","web_search_options":null}').refers_elsewhere
    assert DIALECT.ask(b'{"model":"m","messages":7}').refers_elsewhere


def test_facts_of_a_request():
    asked = DIALECT.ask(b'{"model":"m","max_tokens":5,"max_completion_tokens":9,"n":3,"service_tier":"default"}')

    assert (asked.max_output_tokens, asked.terms) == (27, Terms())
    assert DIALECT.ask(b'{"model":"m","max_tokens":5}').max_output_tokens == 5
    assert DIALECT.ask(b'{"model":"m","stream_options":{"include_usage":true}}').wants_usage_chunk


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"stream":true}', b'{"stream_options":{"include_usage":true},"stream":true}'),
        (b'{ "stream_options" : null }', b'{ "stream_options" : {"include_usage":true} }'),
        (b'{"stream_options":{}}', b'{"stream_options":{"include_usage":true}}'),
        (b'{"stream_options":{ "a":1}}', b'{"stream_options":{"include_usage":true, "a":1}}'),
        (b'{"stream_options":{"include_usage": false}}', b'{"stream_options":{"include_usage": true}}'),
        (b"{}", b'{"stream_options":{"include_usage":true}}'),
    ],
)
def test_usage_is_asked_for_in_place(body, expected):
    assert DIALECT.to_upstream(body, ASKED, None) == expected
    json.loads(expected)


def test_a_client_that_asks_itself_or_does_not_stream_is_left_alone():
    for body in (b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}', b'{"model":"m"}'):
        asked = DIALECT.ask(body)
        assert DIALECT.to_upstream(body, asked, None) is body
        assert DIALECT.stripper(asked) is None


def test_usage_and_end_are_read_at_every_split_point():
    whole = b"".join(streams.chat(["a", "b c"]))
    expected, mark = read([whole])
    assert expected.reading.usage == FULL
    assert mark is Mark.FINAL
    for at in range(len(whole)):
        assert read([whole[:at], whole[at:]])[0].reading == expected.reading


def test_a_stream_without_usage_is_counted_by_its_deltas():
    reader, mark = read(streams.chat(usage=None))

    assert mark is Mark.FINAL
    assert not reader.reading.input_reported
    assert reader.reading.output_chars == len("Hello there")


def test_reasoning_refusals_and_tool_arguments_are_output():
    delta = {"reasoning_content": "ab", "refusal": "c", "tool_calls": [{"function": {"arguments": "{}"}}, {}]}

    reader, _ = read([event({"choices": [{"delta": delta}]})])

    assert reader.reading.output_chars == 5


def test_an_error_chunk_ends_the_stream_as_failed():
    reader, mark = read([event({"error": {"message": "m", "type": "server_error", "code": None}})])

    assert mark is Mark.FAILED
    assert reader.reading.error_code == "server_error"
    assert read([event({"error": "odd"})])[1] is Mark.FAILED


def test_a_field_of_an_unforeseen_type_does_not_lose_the_chunk():
    odd = {"model": 7, "choices": [{"delta": {"content": [{"text": "four"}]}}, 3], "usage": streams.CHAT_USAGE}

    reader, _ = read([event(odd)])

    assert reader.reading.usage == FULL
    assert reader.reading.output_chars == 4


def test_whole_answers_are_read():
    reader = DIALECT.reader(ASKED)
    reader.whole(json.dumps({"choices": [{"message": {"content": "four"}}], "usage": streams.CHAT_USAGE,
                             "service_tier": "flex"}).encode())  # fmt: skip

    assert reader.reading.usage == FULL
    assert (reader.reading.output_chars, reader.reading.terms) == (4, Terms("flex"))


def unasked(events: list[bytes]) -> bytes:
    """The same stream as a provider sends it when usage was not asked for."""
    kept = [one for one in events if b'"choices": []' not in one]
    return b"".join(one.replace(b', "usage": null', b"") for one in kept)


def test_what_was_asked_for_is_taken_out_again_at_every_split_point():
    events = streams.chat(["a", 'say "usage": null', "c"])
    whole = b"".join(events)
    for at in range(len(whole)):
        stripper = DIALECT.stripper(ASKED)
        out = stripper.feed(whole[:at]) + stripper.feed(whole[at:]) + stripper.flush()
        assert out == unasked(events), at


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b'data: {"usage":null,"a":1}\n\n', b'data: {"a":1}\n\n'),
        (b'data: {"usage" : null}\n\n', b"data: {}\n\n"),
        (b'data: {"a":1 , "usage":null , "b":2}\r\n\r\n', b'data: {"a":1 , "b":2}\r\n\r\n'),
        (b'data: {"choices":[ ],"usage":{"x":1}}\n\n', b""),
        (b'data: {"a":{"b":1,"usage":null}}\n\n', None),
        (b'data: {"a":[{"b":1,"usage":null}],"c":"}"}\n\n', None),
        (b'data: {"a":{"b":1,"usage":null},"usage":null}\n\n', b'data: {"a":{"b":1,"usage":null}}\n\n'),
        (b'data: {"a":1 ,\t"usage" : null,"obfuscation":"x"}\n\n', b'data: {"a":1 ,"obfuscation":"x"}\n\n'),
        (b'data: {"a":1,"usage":null,"b":"}{"}\n\n', b'data: {"a":1,"b":"}{"}\n\n'),
        (b'data: {"a":"\\",\\"usage\\":null","b":1}\n\n', None),
        (b'data: {"a":1,"usage":nullify}\n\n', None),
        (b'data: {"choices":[{"usage":null}],"usage":{"x":1}}\n\n', None),
        (b'data: {"choices":[{"usage":null}]}\n\n', None),
        (b': "usage" comment\n\n', None),
        (b'data: "usage" {{\n\n', None),
        (b'data: {"usage":{"x":1}}\n\n', None),
    ],
)
def test_only_the_usage_members_of_chunks_are_touched(given, expected):
    stripper = DIALECT.stripper(ASKED)

    assert stripper.feed(given) == (given if expected is None else expected)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_events_with_any_line_ends_are_stripped_at_every_split_point(end):
    whole = b"".join(streams.chat(["a", "b"])).replace(b"\n", end)
    expected = unasked(streams.chat(["a", "b"])).replace(b"\n", end)
    for at in range(len(whole)):
        stripper = DIALECT.stripper(ASKED)
        out = stripper.feed(whole[:at]) + stripper.feed(whole[at:]) + stripper.flush()
        # Where the blank line behind what is taken out was cut in its middle, the rest of it may be left.
        assert out in (expected, expected.replace(b"data: [DONE]", b"\ndata: [DONE]")), at


def test_an_endless_event_is_passed_on_rather_than_kept():
    stripper = DIALECT.stripper(ASKED)
    part = b"x" * (1 << 19)

    out = b"".join(stripper.feed(part) for _ in range(5)) + stripper.flush()

    assert out == part * 5
    assert len(out) > STRIPPED_EVENT_BYTES


def test_an_early_ending_is_an_error_chunk_without_done():
    ending = DIALECT.ending(errors.OutOfCredit("no more"), DIALECT.reader(ASKED))

    assert json.loads(ending.removeprefix(b"data: "))["error"]["message"] == "no more"
    assert b"DONE" not in ending


def test_oversized_deltas_count_as_output_and_end_nothing():
    reader = DIALECT.reader(ASKED)

    assert reader.oversized(b"data: {", b"y" * 50, 900) is Mark.NONE
    assert reader.reading.output_chars == 900


@pytest.mark.parametrize("asks", [True, False])
def test_the_echo_answers_with_true_usage_and_states_it_only_when_asked(asks):
    ask = {"model": "gpt-echo", "stream": True, "messages": [{"role": "user", "content": "one two"}]}
    if asks:
        ask["stream_options"] = {"include_usage": True}
    body = json.dumps(ask).encode()
    reader, mark = read(list(DIALECT.echo(body, DIALECT.ask(body), "id", 1, "/chat/completions").chunks))
    plain = json.dumps(ask | {"stream": False}).encode()
    whole = json.loads(DIALECT.echo(plain, DIALECT.ask(plain), "id", 1, "/chat/completions").chunks[0])

    assert mark is Mark.FINAL
    assert reader.reading.usage == (Usage(input_tokens=2, output_tokens=4) if asks else Usage())
    assert whole["usage"]["total_tokens"] == 6
    assert whole["choices"][0]["message"]["content"] == "You said: one two"


def test_this_api_counts_no_tokens():
    assert DIALECT.count(1, "id") is None
    assert DIALECT.session({"x-session-id": "s"}) == ("s", "")
    assert DIALECT.error(errors.InvalidRequest("x"), "id").status == 400
