"""Where members stand: odd spacing, repeats, escapes, nesting."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumeproxy.core import spans
from lumeproxy.core.spans import splice, top_level
from lumeproxy.errors import InvalidRequest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=5), st.sampled_from([None, 1, "\t"]), st.booleans())
def test_each_member_is_found_with_its_value(document, indent, ascii_only):
    body = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")

    spans = top_level(body)

    assert [json.loads(body[s.value_start : s.value_end]) for s in spans] == list(document.values())
    if all(key.isprintable() for key in document):
        assert [span.key for span in spans] == list(document)


def test_odd_spacing_repeats_and_escaped_keys_are_seen():
    body = b' \r\n{ "model"\t:\n"a" ,"x":[{"model":"no"}], "mod\\u0065l" : "b" }\n'

    found = [(s.key, body[s.value_start : s.value_end]) for s in top_level(body)]

    assert found == [("model", b'"a"'), ("x", b'[{"model":"no"}]'), ("model", b'"b"')]


def test_strings_may_hold_anything():
    body = b'{"a":"\\"}{,:[","b":"\xff\xfe","c":"\\ud800"}'

    assert [s.key for s in top_level(body)] == ["a", "b", "c"]


@pytest.mark.parametrize("body", [b"", b"[]", b'"x"', b"{", b'{"a":1', b'{"a":1}x', b"{,}", b'{"a" 1,"b":2}'])
def test_what_is_no_object_is_refused(body):
    with pytest.raises(ValueError, match=r"object|member"):
        top_level(body)


def test_deep_nesting_needs_no_recursion():
    depth = 70_000
    body = b'{"a":' + b"[" * depth + b"]" * depth + b"}"

    assert len(top_level(body)) == 1


@given(st.dictionaries(st.text(max_size=6), JSON, max_size=6), st.sampled_from([None, 1]), st.booleans())
def test_both_ways_of_finding_members_agree(value, indent, ascii_only):
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "replace")

    fast = spans._by_values(body)
    assert fast == list(spans._by_tokens(body))


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":1,"b":2,"a":1}',
        b'{"a":1,"\\u0061":2}',
        b'{"a":1',
        b"[1]",
        b'{"a":"\\ud800"}',
    ],
)
def test_what_the_fast_way_cannot_tell_is_left_to_the_other(body):
    assert spans._by_values(body) is None


def test_no_more_is_looked_through_than_anybody_should_wait_for():
    body = b'{"model":1,"a":[' + b"1," * spans.MOST_TOKENS + b'1],"model":1}'

    assert next(spans.members(body)).key == "model"
    with pytest.raises(InvalidRequest, match="too many small values"):
        top_level(body)
    assert len(top_level(body.replace(b'"a"', b'"b"').replace(b',"model":1}', b"}"))) == 2


def test_a_splice_leaves_every_other_byte_alone():
    assert splice(b"0123456789", [(5, 6, b"five"), (0, 0, b"<"), (9, 10, b"")]) == b"<01234five678"
