"""Model patterns."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumeproxy.core.patterns import first_match, is_pattern, matches


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("claude-*", "claude-opus", True),
        ("claude-*", "Claude-opus", False),
        ("*", "", True),
        ("gpt-5", "gpt-5", True),
        ("gpt-5", "gpt-5.5", False),
        ("a*a", "a", False),
        ("a*b*c", "aXbYc", True),
        ("a*b*c", "acb", False),
        ("o1*", "o1-mini", True),
        ("a.c", "abc", False),
    ],
)
def test_a_star_stands_for_any_run_and_all_else_for_itself(pattern, name, expected):
    assert matches(pattern, name) is expected


@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
def test_patterns_agree_with_a_regular_expression(pattern, name):
    expression = ".*".join(re.escape(part) for part in pattern.split("*"))
    assert matches(pattern, name) is bool(re.fullmatch(expression, name, re.DOTALL))


def test_the_first_match_wins():
    assert first_match(("b*", "a*", "*"), "abc") == "a*"
    assert first_match(("b*",), "abc") is None
    assert (is_pattern("a*"), is_pattern("a")) == (True, False)
