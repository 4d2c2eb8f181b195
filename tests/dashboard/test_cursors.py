"""Cursors belong to one list and can't be made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumeproxy.dashboard import cursors
from lumeproxy.errors import InvalidArguments

PLACE = tuple[int, str]


def test_a_place_comes_back_for_its_list_and_filters_only():
    cursor = cursors.sealed((5, "call_1"), "usage", "ann", None)

    assert cursors.opened(cursor, PLACE, "usage", "ann", None) == (5, "call_1")
    for of in (("usage", "bob", None), ("usage", "ann", 0), ("entries", "ann", None), ("usage", "ann")):
        with pytest.raises(InvalidArguments, match="does not belong to this list"):
            cursors.opened(cursor, PLACE, *of)
    with pytest.raises(InvalidArguments):
        cursors.opened(cursor, str, "usage", "ann", None)
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(st.text(max_size=60))
def test_whatever_else_is_given_is_refused(text: str):
    with pytest.raises(InvalidArguments):
        cursors.opened(text, PLACE, "usage")
