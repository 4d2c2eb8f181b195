"""JSON text edited in place: what is not meant stays, byte for byte, and what can't be read is said with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumeproxy.clients.jsontext import Unreadable, assign, fresh, remove, tree

FULL = """{
  // what I like
  "theme": "dark", /* not light */
  "env": {
    "A": "1" // of mine
  },
  "hooks": [1, 2], "flat": {"q":1},
  "empty": {},
}
"""


def test_new_members_go_behind_the_last_one_and_comments_stay_with_their_lines():
    made = assign(
        FULL, {"env": {"B": "2", "C": {"d": True}}, "flat": {"r": "x"}, "empty": {"k": {"l": 1}}}, comments=True
    )

    assert made == FULL.replace(
        '"1" // of mine', '"1", // of mine\n    "B": "2",\n    "C": {\n      "d": true\n    }'
    ).replace('{"q":1}', '{"q":1,"r":"x"}').replace('"empty": {}', '"empty": {\n    "k": {\n      "l": 1\n    }\n  }')


def test_a_value_is_replaced_where_it_stands():
    assert assign('{"a":  1 ,"b":2}', {"a": "x"}) == '{"a":  "x" ,"b":2}'
    assert assign('{\n\t"a": {"deep": [1]}\n}', {"a": ""}) == '{\n\t"a": ""\n}'


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("{}", '{\n  "k": {\n    "b": "x"\n  }\n}'),
        ('{"a":1}', '{"a":1,"k":{"b":"x"}}'),
        ('{"a": 1}', '{"a": 1, "k": {"b": "x"}}'),
        ('{\n\t"a": 1\n}\n', '{\n\t"a": 1,\n\t"k": {\n\t\t"b": "x"\n\t}\n}\n'),
        ('{\r\n    "a": 1\r\n}', '{\r\n    "a": 1,\r\n    "k": {\r\n        "b": "x"\r\n    }\r\n}'),
        ('{ /* c */ }', '{ /* c */\n  "k": {\n    "b": "x"\n  } }'),
        ('{"a": 1,}', '{"a": 1, "k": {"b": "x"},}'),
        ('{\n  "a": 1, // last\n}', '{\n  "a": 1, // last\n  "k": {\n    "b": "x"\n  },\n}'),
    ],
)  # fmt: skip
def test_a_file_keeps_its_own_way_of_writing_and_taking_out_undoes_putting_in(text, made):
    assert assign(text, {"k": {"b": "x"}}, comments=True) == made
    assert remove(made, ("k",), comments=True) == text


def test_a_member_in_the_middle_goes_with_its_line():
    text = '{\n  "a": 1,\n  "b": 2, // of b\n  "c": 3\n}'

    assert remove(text, ("b",), comments=True) == '{\n  "a": 1, // of b\n  "c": 3\n}'
    assert remove('{"a": 1, "b": 2, "c": 3}', ("a",)) == '{"b": 2, "c": 3}'
    assert remove('{"a": 1, "b": {"c": 3}}', ("b", "c")) == '{"a": 1, "b": {}}'
    assert remove(text, ("x", "y"), comments=True) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it is empty; delete it, or put {} into it"),
        (" \n", "it is empty; delete it, or put {} into it"),
        ("\ufeff{}", "it begins with a byte order mark; save it as UTF-8 without one"),
        ("[1]", "it is no JSON object"),
        ('{"a": 1', "line 1, column 8: a comma or } is missing"),
        ('{"a":', "line 1, column 6: the text breaks off"),
        ('{"a": 1,}', "line 1, column 9: a name in quotes is missing"),
        ('{"a": 1,\n "a": 2}', 'line 2, column 2: "a" is there twice'),
        ('{"a" 1}', "line 1, column 6: a colon is missing"),
        ('{"a": tru}', "line 1, column 7: no value begins like this"),
        ('{"a": 01}', "line 1, column 7: no value begins like this"),
        ('{"a": NaN}', "line 1, column 7: no value begins like this"),
        ('{"a": [1,]}', "line 1, column 10: no value begins like this"),
        ('{"a": [1 2]}', "line 1, column 10: a comma or ] is missing"),
        ('{"a": "x\n"}', "line 1, column 7: a text in quotes does not end, or holds what it must not"),
        ('{"a": "\\x"}', "line 1, column 7: a text in quotes does not end, or holds what it must not"),
        ("{}\n{}", "line 2, column 1: there is more behind the end"),
        ("// c\n{}", "line 1, column 1: no value begins like this"),
        ('{"a": ' * 102 + "1" + "}" * 102, "line 1, column 607: nested deeper than 100 levels"),
    ],
)
def test_what_can_not_be_read_is_said_with_its_place(text, told):
    with pytest.raises(Unreadable) as error:
        tree(text)
    assert str(error.value) == told


def test_an_object_is_not_put_in_the_place_of_something_else():
    with pytest.raises(Unreadable, match='"env" in it is no object'):
        assign('{"env": []}', {"env": {"A": "1"}})


def test_a_new_file_is_indented_and_ends_its_last_line():
    assert fresh({"a": {"b": "ü"}}) == '{\n  "a": {\n    "b": "ü"\n  }\n}\n'


SCALARS = st.one_of(st.text(max_size=5), st.integers(), st.booleans(), st.none())
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=3), VALUES, max_size=4)


@given(OBJECTS, st.sampled_from([None, 0, 2, "\t"]), st.text(max_size=3), VALUES.filter(lambda value: value != {}))
def test_whatever_a_file_holds_a_new_member_is_added_and_nothing_else(values, indent, key, value):
    text = json.dumps(values, indent=indent)
    assert tree(text) == values
    if key not in values:
        made = assign(text, {key: value})

        assert json.loads(made) == {**values, key: value}
        assert remove(made, (key,)) == text
