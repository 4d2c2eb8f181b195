"""JSON with comments and trailing commas becomes plain JSON, and nothing inside a string is touched."""

from __future__ import annotations

import json

import pytest

from lumeproxy.clients.jsonc import plain


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('{"a": 1, // one\n "b": [1, 2,],\n}', {"a": 1, "b": [1, 2]}),
        ('/* all\n of it */ {"a": /* here */ 1}', {"a": 1}),
        ('{"u": "http://x//y", "c": "/* no */", "t": ",}"}', {"u": "http://x//y", "c": "/* no */", "t": ",}"}),
        ('{"q": "say \\"// hi\\"", "b": "\\\\"} // end', {"q": 'say "// hi"', "b": "\\"}),
        ("[1, // last\n /* really */ ]", [1]),
    ],
)
def test_comments_and_trailing_commas_go(text, value):
    assert json.loads(plain(text)) == value


def test_lines_keep_their_number():
    assert plain("/* a\nb */\n{ // c\n}").splitlines() == ["", "", "{ ", "}"]


@pytest.mark.parametrize("text", ['{"a": "open', "/* open", "{1}", ""])
def test_what_is_no_json_stays_none(text):
    with pytest.raises(ValueError):
        json.loads(plain(text))
