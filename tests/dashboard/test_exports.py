"""Files: nothing in a spreadsheet is taken for a formula. That they equal the records, test_pages_usage tells."""

from __future__ import annotations

import pytest

from lumeproxy.dashboard.exports import _cell, _csv


@pytest.mark.parametrize(
    ("value", "cell"),
    [("=1+1", "'=1+1"), ("+x", "'+x"), ("-x", "'-x"), ("@x", "'@x"), ("\tx", "'\tx"), ("a=b", "a=b"), (-5, -5), (None, ""),
     (False, False), ("", "")],
)  # fmt: skip
def test_a_text_that_begins_like_a_formula_is_marked(value, cell):
    assert _cell(value) == cell


def test_rows_are_csv_whatever_stands_in_them():
    assert _csv([["a,b", 'c"d', "e\nf", 1]]) == b'"a,b","c""d","e\nf",1\r\n'
