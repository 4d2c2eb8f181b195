"""TOML text edited with its comments and order kept; what tomlkit can't do leaves the file alone."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from lumeproxy.clients.jsontext import Unreadable
from lumeproxy.clients.tomltext import assign, fresh, remove, tree

VALUES: dict[str, Any] = {"model_provider": "p", "model_providers": {"p": {"name": "n", "base_url": "u", "on": False}}}
TEXTS = [
    "",
    "# mine\nmodel = \"x\" # c\n\n[tui]\ntheme = 'dark' # eyes\n",
    '[profiles.x]\nmodel = "q"\n',
    '[model_providers.other]\nname = "o"\n\n[z]\nq = 1\n',
    'a.b = 1\n\n[model_providers]\nfoo.name = "x"\n',
    'x = """\n[not.a.table]\n"""\nlist = [\n  1, # one\n  2,\n]\n',
    "x = 1\r\n\r\n[y]\r\nz = 2\r\n",
    "[[mcp]]\nname = 'a'\n[[mcp]]\nname = 'b'\n",
]


@pytest.mark.parametrize("text", TEXTS)
def test_keys_are_added_and_every_other_line_stays(text):
    made = assign(text, VALUES)

    before, after = tomllib.loads(text), tomllib.loads(made)
    providers = {**before.get("model_providers", {}), **VALUES["model_providers"]}
    assert after == {**before, "model_provider": "p", "model_providers": providers}
    kept = [line for line in text.splitlines() if line]
    assert [line for line in made.splitlines() if line in kept] == kept


@pytest.mark.parametrize("text", TEXTS)
def test_what_was_added_can_be_taken_out(text):
    made = assign(text, VALUES)
    for path in (("model_provider",), ("model_providers", "p")):
        made = remove(made, path)
    made = made if "model_providers" in tree(text) else remove(made, ("model_providers",))

    assert tree(made) == tree(text)
    assert [line for line in made.splitlines() if line] == [line for line in text.splitlines() if line]


def test_a_value_is_replaced_and_its_comment_stays():
    assert assign('model = "x" # mine\n', {"model": "y"}) == 'model = "y" # mine\n'
    assert remove("a = 1\n", ("b", "c")) == remove("a = 1\n", ("a", "c")) == "a = 1\n"


def test_a_new_file_has_its_tables_behind_its_keys():
    made = fresh(VALUES)

    assert made == 'model_provider = "p"\n\n[model_providers.p]\nname = "n"\nbase_url = "u"\non = false\n'
    assert tomllib.loads(made) == VALUES


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = ", r"invalid value \(at end of document\)"),
        ("x = 1\nx = 2\n", r"cannot overwrite a value \(at line 2, column 6\)"),
        ("model_providers = 5\n", '"model_providers" in it is no table'),
        ('model_providers = {o = {name = "x"}}\n', "it can't be edited: "),
        ("\ufeffx = 1\n", "byte order mark"),
    ],
)
def test_what_can_not_be_read_or_edited_is_said(text, told):
    with pytest.raises(Unreadable, match=told):
        assign(text, VALUES)
