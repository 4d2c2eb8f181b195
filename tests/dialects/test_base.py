"""What the dialects share."""

from __future__ import annotations

import json

import pytest

from lumeproxy.dialects import DIALECTS, base
from lumeproxy.dialects.base import Reading
from lumeproxy.errors import InvalidRequest, RateLimited


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"x"',
        b"{",
        b"{}",
        b'{"model": 5}',
        b'{"model": ""}',
        b'{"model": "' + b"x" * 300 + b'"}',
        b'{"model": "a", "stream": "yes"}',
        b'{"model": "a\\u0000"}',
        b'{"model":"a","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"model":"a", "model":"b"}',
        b'{"model":"a", "mod\\u0065l":"b"}',
        b'{"model":"a", "x": NaN}',
    ],
    ids=range(14),
)
def test_a_request_that_cannot_be_understood_is_refused_without_quoting_it(dialect, body):
    with pytest.raises(InvalidRequest) as caught:
        dialect.ask(body)

    assert "xxxx" not in caught.value.message


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_odd_but_valid_requests_are_understood(dialect):
    body = (
        b' {"stream" : null, "x": "\\ud800", "y": [{"model":"no"}], "n": 123456789012345678901234567890,'
        b' "model": "a", "model" : "a"}'
    )

    asked = dialect.ask(body)

    assert (asked.model, asked.stream) == ("a", False)
    assert dialect.to_upstream(body, asked, None) is body


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_another_models_name_is_spliced_in_place(dialect):
    body = b'{ "x": {"model": "a"},\n "model" :  "a" , "big": 1.0e5, "big": 2 }'

    spliced = dialect.to_upstream(body, dialect.ask(body), 'b"é')

    assert spliced == b'{ "x": {"model": "a"},\n "model" :  "b\\"\xc3\xa9" , "big": 1.0e5, "big": 2 }'


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"{", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"type": 7}', b'{"usage": []}']
)
def test_a_reader_takes_anything_and_never_raises(dialect, data):
    reader = dialect.reader(dialect.ask(b'{"model":"a","stream":true}'))

    reader.event(data)
    reader.oversized(data, data)
    reader.whole(data)

    assert not reader.reading.input_reported


def test_an_upstreams_error_is_read_in_both_shapes_and_cut_short():
    assert base.error_facts(b'{"type":"error","error":{"type":"overloaded_error","message":"busy"}}') == (
        "overloaded_error",
        "busy",
    )
    assert base.error_facts(b'{"error":{"code":"rate","type":"t","message":7}}') == ("rate", "")
    assert base.error_facts(b'{"error":"plain"}') == ("", "plain")
    assert base.error_facts(b"<html>") == ("", "")
    assert base.error_facts(b'{"error":3}') == ("", "")
    long = json.dumps({"error": {"code": "c" * 500, "message": "m\n" * 500}}).encode()
    code, text = base.error_facts(long)
    assert len(code) <= base.SESSION_CHARS
    assert len(text) <= base.ERROR_TEXT_CHARS
    assert "\n" not in text


@pytest.mark.parametrize("stated", [-1, 1.5, "7", True, [], {}])
def test_what_is_no_count_is_ignored_and_marked(stated):
    reading = Reading()

    assert base.number(stated, reading) is None
    assert reading.absurd


def test_counts_grow_by_maximum_and_shrinking_ones_are_marked():
    reading = Reading()

    assert base.larger(5, None, reading) == 5
    assert base.larger(5, 7, reading) == 7
    assert not reading.absurd
    assert base.larger(5, 3, reading) == 5
    assert reading.absurd


@pytest.mark.parametrize(
    ("tail", "found"),
    [
        (b'x,"usage": {"a":{"b":1}},"z":2}}', b'{"a":{"b":1}}'),
        (b'"usage":{"a":1},"usage":{"a":2}}', b'{"a":2}'),
        (b'"usage":null}', None),
        (b"nothing", None),
        (b'"usage":{"cut', None),
    ],
)
def test_the_last_usage_is_found_in_the_end_of_a_huge_event(tail, found):
    assert base.last_usage(tail) == found


def test_answers_tell_a_client_whether_to_come_again():
    answer = base.json_answer(429, {}, "id", RateLimited("slow down", retry_after_s=7))

    assert answer.headers["retry-after"] == "7"
    assert "x-should-retry" not in answer.headers
    assert answer.headers["request-id"] == answer.headers["x-request-id"] == "id"


def test_the_echo_says_something_even_to_silence():
    assert "".join(base.echoed("a  b")) == "You said: a  b"
    assert base.echo_tokens("".join(base.echoed(" "))) > 3


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_half_a_surrogate_pair_in_an_answer_does_not_lose_its_usage(dialect):
    usage = {"input_tokens": 7, "prompt_tokens": 7, "output_tokens": 3, "completion_tokens": 3}
    body = json.dumps({"model": "m", "usage": usage, "content": [{"text": "\ud83d"}]}).encode()
    reader = dialect.reader(dialect.ask(b'{"model":"a"}'))

    reader.whole(body)

    assert (reader.reading.usage.input_tokens, reader.reading.usage.output_tokens) == (7, 3)
    assert not reader.reading.truncated


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_the_echo_takes_any_understood_request(dialect):
    for extra in (b"", b',"messages":5,"input":5', b',"messages":[7],"input":[7]', b',"messages":"\\ud800"'):
        body = b'{"model":"a"' + extra + b"}"
        for path in (endpoint.path for endpoint in dialect.endpoints):
            assert dialect.echo(body, dialect.ask(body), "id", 1, path).status == 200
