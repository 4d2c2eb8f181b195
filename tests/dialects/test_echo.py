"""The built-in stand-in; what it answers in each dialect is read by the dialect's own tests."""

from __future__ import annotations

import pytest

from lumeproxy.dialects import DIALECTS, echo


def test_the_echo_says_something_even_to_silence():
    assert "".join(echo.said("a  b")) == "You said: a  b"
    assert echo.tokens("".join(echo.said(" "))) > 3


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_the_echo_takes_any_understood_request(dialect):
    for extra in (b"", b',"messages":5,"input":5', b',"messages":[7],"input":[7]', b',"messages":"\\ud800"'):
        body = b'{"model":"a"' + extra + b"}"
        for path in (endpoint.path for endpoint in dialect.endpoints):
            assert dialect.echo(body, dialect.ask(body), "id", 1, path).status == 200


def test_what_was_typed_last_is_said_back_and_not_an_agents_reminders():
    content = [{"type": "text", "text": "<reminder>"}, {"type": "text", "text": "hello"}]

    assert (
        echo.newest_user_text([{"role": "user", "content": content}, {"role": "assistant", "content": "x"}]) == "hello"
    )
    assert echo.newest_user_text([{"role": "user", "content": []}]) == ""
    assert echo.newest_user_text("plain") == "plain"
    assert echo.newest_user_text(None) == ""
