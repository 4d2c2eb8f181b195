"""What the dialects share."""

from __future__ import annotations

import json

import pytest

from lumeproxy.dialects import DIALECTS, base
from lumeproxy.dialects.base import Reading
from lumeproxy.errors import RateLimited


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
    reader.oversized(data, data, len(data))
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


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_half_a_surrogate_pair_in_an_answer_does_not_lose_its_usage(dialect):
    usage = {"input_tokens": 7, "prompt_tokens": 7, "output_tokens": 3, "completion_tokens": 3}
    body = json.dumps({"model": "m", "usage": usage, "content": [{"text": "\ud83d"}]}).encode()
    reader = dialect.reader(dialect.ask(b'{"model":"a"}'))

    reader.whole(body)

    assert (reader.reading.usage.input_tokens, reader.reading.usage.output_tokens) == (7, 3)
    assert not reader.reading.truncated
