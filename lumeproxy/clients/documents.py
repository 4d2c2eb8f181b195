"""A settings file's text as a tree of values, whatever its format; edits that are checked against what they were to do.

Must not know where the text comes from.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

from lumeproxy.clients import jsontext, tomltext
from lumeproxy.clients.jsontext import KeyPath, Tree, Unreadable


class Format(StrEnum):
    """How a settings file is written."""

    JSON = "json"
    JSONC = "jsonc"
    TOML = "toml"


def parsed(text: str, format: Format) -> Tree:
    """The text's values. Raises Unreadable, which says where it breaks."""
    return tomltext.tree(text) if format is Format.TOML else jsontext.tree(text, comments=format is Format.JSONC)


def fresh(values: Tree, format: Format) -> str:
    """The text of a new file."""
    return tomltext.fresh(values) if format is Format.TOML else jsontext.fresh(values)


def assigned(text: str, values: Tree, format: Format) -> str:
    """The text with these values, all else as it was. Raises Unreadable."""
    made = (
        tomltext.assign(text, values)
        if format is Format.TOML
        else jsontext.assign(text, values, comments=format is Format.JSONC)
    )
    return _checked(made, merged(parsed(text, format), values), format)


def removed(text: str, paths: Sequence[KeyPath], format: Format) -> str:
    """The text without these members, all else as it was. Raises Unreadable."""
    expected = removed_all(parsed(text, format), paths)
    for path in paths:
        text = (
            tomltext.remove(text, path)
            if format is Format.TOML
            else jsontext.remove(text, path, comments=format is Format.JSONC)
        )
    return _checked(text, expected, format)


def merged(tree: Tree, values: Tree) -> Tree:
    """A copy of the tree with these values in it."""
    made = dict(tree)
    for key, value in values.items():
        inner = made.get(key)
        made[key] = (
            merged(inner, value) if isinstance(value, dict) and isinstance(inner, dict) else copy.deepcopy(value)
        )
    return made


def pruned(tree: Tree, path: KeyPath) -> Tree:
    """A copy of the tree without the member of that path."""
    if path[0] not in tree:
        return tree
    if len(path) == 1:
        return {key: value for key, value in tree.items() if key != path[0]}
    inner = tree[path[0]]
    return {**tree, path[0]: pruned(inner, path[1:])} if isinstance(inner, dict) else tree


def removed_all(tree: Tree, paths: Iterable[KeyPath]) -> Tree:
    """A copy of the tree without these members."""
    for path in paths:
        tree = pruned(tree, path)
    return tree


def leaves(tree: Tree, above: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    """Every value that is no object, and every empty object, with its path."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key), value


def nested(path: KeyPath, value: object) -> Tree:
    """The tree that holds this value only."""
    made: Tree = {path[-1]: value}
    for key in reversed(path[:-1]):
        made = {key: made}
    return made


def at(tree: Tree, path: KeyPath) -> object:
    """The value at a path. Raises KeyError where there is none."""
    value: object = tree
    for key in path:
        if not isinstance(value, dict):
            raise KeyError(key)
        value = value[key]
    return value


def has(tree: Tree, path: KeyPath) -> bool:
    """Whether there is a value at a path."""
    try:
        at(tree, path)
    except KeyError:
        return False
    return True


def _checked(text: str, expected: Tree, format: Format) -> str:
    """The text, if it says what it should: a fault of an editor must never reach a person's file."""
    if parsed(text, format) != expected:
        raise Unreadable("an edit would have changed more of it than it should; nothing was written")
    return text
