"""The facts of a request, whatever else stands in it."""

from __future__ import annotations

import pytest

from lumeproxy.dialects import DIALECTS, request
from lumeproxy.errors import InvalidRequest


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
        b'{"model": "a\\ud800"}',
        b'{"model":"a","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"model":"a", "model":"b"}',
        b'{"model":"a", "mod\\u0065l":"b"}',
        b'{"model":"a", "x": NaN}',
    ],
    ids=range(15),
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
def test_two_models_are_seen_in_odd_json_too(dialect):
    with pytest.raises(InvalidRequest, match="two different models"):
        dialect.ask(b'{"model":"a","x":"\\ud800","model":"b"}')
    assert dialect.ask(b'{"model":"a","x":"\\ud800","mod\\u0065l":"a"}').model == "a"


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_one_request_is_not_mistaken_for_the_next(dialect):
    for model in ("a", "b", "c"):
        assert dialect.ask(b'{"model":"%s"}' % model.encode()).model == model
        with pytest.raises(InvalidRequest):
            dialect.ask(b'{"model":"x","model":"y"}')


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        (rb"\ud83d", rb"\ufffd"),
        (rb"\uDE00 x", rb"\ufffd x"),
        (rb"\ud83d\ude00", None),
        (rb"\ud83d\ud83d\ude00", rb"\ufffd\ud83d\ude00"),
        (rb"\ud83d\ude00\ude00", rb"\ud83d\ude00\ufffd"),
        (rb"\\ud83d", None),
        (rb"\\\ud83d", rb"\\\ufffd"),
        (rb"\u0041\n", None),
        (b"\\" * 64 + rb"\ud83d", b"\\" * 64 + rb"\ufffd"),
        (b"\\" * 2001 + rb"\ud83d", None),
    ],
)
def test_half_a_surrogate_pair_is_mended_and_a_whole_one_left(text, mended):
    assert request._mended(b'"' + text + b'"') == (None if mended is None else b'"' + mended + b'"')


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_a_mended_request_is_read_with_its_outline(dialect):
    body = rb'{"model":"a","messages":[{"content":"\ud83d"}],"input":[{"content":"\ud83d"}]}'

    assert not dialect.ask(body).refers_elsewhere
    assert dialect.ask(body.replace(rb"\ud83d", rb"\ud83d" * 20_000)).model == "a"


@pytest.mark.parametrize(
    "begin", [b"{}", b'{"type":"input_text","text":"a"}', b'{ "type":"text"}', b'{\n"type":"text"}']
)
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_of_more_objects_than_anybody_sends_the_outline_is_not_read(dialect, begin):
    def body(count):
        content = b"[" + begin + (b"," + begin) * (count - 1) + b"]"
        return b'{"model":"a","messages":[{"content":%b}],"input":[{"content":%b}]}' % (content, content)

    few, many = dialect.ask(body(4_000)), dialect.ask(body(request.MOST_OBJECTS))

    assert not few.refers_elsewhere
    assert many.refers_elsewhere
    assert many.has_attachments
    assert many.model == "a"


def test_braces_in_a_text_are_no_objects():
    text = b'{"a":"' + b"{;}{[" * 50_000 + b'"}'

    assert not request._dense(text)
    assert not request._dense(b"[" + b"{}," * request.MOST_OBJECTS + b"1]")
    assert request._dense(b"[" + b"{}," * (request.MOST_OBJECTS + 1) + b"1]")


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_bytes_that_are_no_utf_8_are_read_with_the_outline(dialect):
    body = b'{"model":"a","messages":[{"content":"\xff"}],"input":[{"content":"\xff"}]}'

    assert not dialect.ask(body).refers_elsewhere


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_what_only_the_slow_reader_could_read_is_refused_when_it_is_large(dialect):
    def body(halves):
        return b'{"model":"a","user":"' + rb"\ud800" * halves + b'"}'

    assert dialect.ask(body(request.MOST_MENDED + 1)).model == "a"
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        dialect.ask(body(request.PLAIN_BYTES // 6 + 1))
