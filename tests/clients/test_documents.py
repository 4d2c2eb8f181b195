"""Trees of values, and edits that are held against what they were to do."""

from __future__ import annotations

import pytest

from lumeproxy.clients import documents, jsontext
from lumeproxy.clients.documents import Format
from lumeproxy.clients.jsontext import Unreadable

TREE = {"a": {"b": 1, "c": {}}, "d": "x"}


def test_leaves_are_what_is_no_object_or_holds_nothing():
    assert list(documents.leaves(TREE)) == [(("a", "b"), 1), (("a", "c"), {}), (("d",), "x")]
    assert documents.nested(("a", "b"), 1) == {"a": {"b": 1}}


def test_values_are_found_merged_and_taken_out_without_touching_the_tree():
    assert documents.at(TREE, ("a", "b")) == 1
    assert not documents.has(TREE, ("a", "x")) and not documents.has(TREE, ("d", "x"))
    assert documents.merged(TREE, {"a": {"b": 2}, "e": {"f": 3}}) == {"a": {"b": 2, "c": {}}, "d": "x", "e": {"f": 3}}
    assert documents.removed_all(TREE, [("a", "b"), ("d", "x"), ("q",)]) == {"a": {"c": {}}, "d": "x"}
    assert TREE == {"a": {"b": 1, "c": {}}, "d": "x"}


@pytest.mark.parametrize("format", list(Format))
def test_each_format_takes_values_in_and_out(format):
    text = documents.fresh({"x": "1"}, format)
    made = documents.assigned(text, {"p": {"q": "2"}}, format)

    assert documents.parsed(made, format) == {"x": "1", "p": {"q": "2"}}
    assert documents.parsed(documents.removed(made, [("p",)], format), format) == {"x": "1"}


@pytest.mark.parametrize("act", ["assign", "remove"])
def test_an_editor_that_does_more_than_it_should_is_caught(act, monkeypatch):
    monkeypatch.setattr(jsontext, act, lambda *_, **__: "{}")

    with pytest.raises(Unreadable, match="more of it than it should"):
        if act == "assign":
            documents.assigned('{"a": 1}', {"b": 2}, Format.JSON)
        else:
            documents.removed('{"a": 1, "b": 2}', [("b",)], Format.JSON)
