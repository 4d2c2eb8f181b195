"""The facts of a request, whatever else stands in it."""

from __future__ import annotations

import pytest

from lumeproxy.dialects import DIALECTS
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
