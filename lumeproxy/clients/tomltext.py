"""Edits of TOML text (toml.io v1.0.0) that keep its comments and order. Must not know what the keys mean.

tomlkit edits, but has open faults with dotted keys; so what it has made is read anew by the standard library's parser, and
whoever calls this compares. It is imported when first used: most set-ups meet no TOML.
"""

from __future__ import annotations

import contextlib
import json
import tomllib
from collections.abc import Iterator
from typing import Any

from lumeproxy.clients.jsontext import KeyPath, Tree, Unreadable


def tree(text: str) -> Tree:
    """The table that the text is. Raises Unreadable."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Unreadable(str(error)[:1].lower() + str(error)[1:]) from None


def assign(text: str, values: Tree) -> str:
    """The text with these values: a table is gone into key by key, anything else is put in a key's place.

    Raises Unreadable, also where something else stands in the place of a table.
    """
    document = _document(text)
    with _editing():
        _assign(document, values)
    return _printed(document)


def remove(text: str, path: KeyPath) -> str:
    """The text without the key of that path; the same text where there is none. Raises Unreadable."""
    document = table = _document(text)
    for name in path[:-1]:
        table = table.get(name)
        if not isinstance(table, dict):
            return text
    if path[-1] not in table:
        return text
    with _editing():
        del table[path[-1]]
    return _printed(document)


def fresh(values: Tree) -> str:
    """The text of a new file: texts and booleans first, then one table for each object that holds some."""
    blocks = [_lines(values)]
    blocks += [f"[{'.'.join(path)}]\n{_lines(table)}" for path, table in _tables((), values) if _lines(table)]
    return "\n".join(block for block in blocks if block)


def _tables(path: KeyPath, values: Tree) -> list[tuple[KeyPath, Tree]]:
    inner = [((*path, key), value) for key, value in values.items() if isinstance(value, dict)]
    return [found for name, table in inner for found in ((name, table), *_tables(name, table))]


def _lines(table: Tree) -> str:
    # The names that we write are bare keys, and JSON's quoting of a printable text is TOML's.
    return "".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n"
        for key, value in table.items()
        if not isinstance(value, dict)
    )


def _document(text: str) -> Any:
    import tomlkit

    if text.startswith("\ufeff"):
        raise Unreadable("it begins with a byte order mark; save it as UTF-8 without one")
    tree(text)
    with _editing():
        return tomlkit.parse(text)


@contextlib.contextmanager
def _editing() -> Iterator[None]:
    """What tomlkit can't do, such as a table inside an inline one, is the file's fault to us: it stays as it is."""
    from tomlkit.exceptions import TOMLKitError

    try:
        yield
    except Unreadable:
        raise
    except (TOMLKitError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise Unreadable(f"it can't be edited: {error}") from None


def _printed(document: Any) -> str:
    import tomlkit

    text: str = tomlkit.dumps(document)
    return text


def _assign(table: Any, values: Tree) -> None:
    import tomlkit

    for key, value in values.items():
        if not isinstance(value, dict):
            table[key] = value
        elif key not in table:
            # A table that only holds tables gets no line of its own.
            table[key] = tomlkit.table(is_super_table=all(isinstance(inner, dict) for inner in value.values()))
            _assign(table[key], value)
        elif isinstance(table[key], dict):
            _assign(table[key], value)
        else:
            raise Unreadable(f"{json.dumps(key)} in it is no table")
