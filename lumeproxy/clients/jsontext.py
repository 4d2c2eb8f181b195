"""Edits of JSON text that leave every byte alone that they are not about: order, indentation, comments.

Works on the text by the places of its members, since to parse and print a file anew loses what a person put there. Reads
RFC 8259 (2017-12); with `comments` also what editors call JSONC: comments, and a comma after the last member. Two members
of one name are refused: which of them counts is a matter of opinion. `jsontext.mjs` does the same without Python;
tests compare the two. Must not know what the members mean.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DEPTH = 100  # nested deeper, it is no settings file
NUMBER_CHARS = 1000  # Python's own reader gives up a little later

_BLANKS = " \t\r\n"
_SPACE = re.compile(r"[ \t\r\n]*")
_SPACE_AND_COMMENTS = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*[^*]*\*+(?:[^/*][^*]*\*+)*/)*")
_REST_OF_LINE = re.compile(r"(?:[ \t]+|//[^\r\n]*|/\*[^*\r\n]*\*+(?:[^/*\r\n][^*\r\n]*\*+)*/)*(?=\r?\n)")
_STRING = re.compile(r'"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"')
_SCALAR = re.compile(r"(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null)(?![A-Za-z0-9_.+-])")

Tree = dict[str, Any]
KeyPath = tuple[str, ...]


class Unreadable(ValueError):
    """The text is not what it should be; the message says where and what."""


@dataclass(slots=True)
class Member:
    """A member of an object: where its key, colon, value and the comma behind it stand."""

    key: str
    start: int
    colon: int
    value: Node
    comma: int | None = None


@dataclass(slots=True)
class Node:
    """A value: where it stands in the text, and its members where it is an object."""

    start: int
    end: int
    value: Any
    members: list[Member] | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """Put `text` in the place of what stands from `start` to `end`."""

    start: int
    end: int
    text: str


def tree(text: str, *, comments: bool = False) -> Tree:
    """The object that the text is. Raises Unreadable, also for what is no object."""
    value: Tree = _object(text, comments).value
    return value


def assign(text: str, values: Tree, *, comments: bool = False) -> str:
    """The text with these values: an object is gone into member by member, anything else is put in a member's place.

    Raises Unreadable, also where something else stands in the place of an object.
    """
    root = _object(text, comments)
    edits: list[Edit] = []
    _assign(text, root, values, _Style.of(text, root), edits)
    return _edited(text, edits)


def remove(text: str, path: KeyPath, *, comments: bool = False) -> str:
    """The text without the member of that path; the same text where there is none. Raises Unreadable."""
    node = _object(text, comments)
    for name in path[:-1]:
        found = next((member for member in node.members or () if member.key == name), None)
        if found is None:
            return text
        node = found.value
    members = node.members or []
    index = next((i for i, member in enumerate(members) if member.key == path[-1]), None)
    return text if index is None else _edited(text, list(_removal(text, node, members, index)))


def fresh(values: Tree) -> str:
    """The text of a new file."""
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


# --- reading -----------------------------------------------------------------------------------------------------------


def _object(text: str, comments: bool) -> Node:
    if text.startswith("\ufeff"):
        raise Unreadable("it begins with a byte order mark; save it as UTF-8 without one")
    if not text.strip(_BLANKS):
        raise Unreadable("it is empty; delete it, or put {} into it")
    node = _Reader(text, comments).document()
    if node.members is None:
        raise Unreadable("it is no JSON object")
    return node


class _Reader:
    """One pass over the text."""

    def __init__(self, text: str, comments: bool) -> None:
        self._text = text
        self._comments = comments
        self._space = _SPACE_AND_COMMENTS if comments else _SPACE

    def document(self) -> Node:
        """The one value that the text is."""
        node = self._value(self._skip(0), 0)
        end = self._skip(node.end)
        if end < len(self._text):
            raise self._error(end, "there is more behind the end")
        return node

    def _skip(self, at: int) -> int:
        found = self._space.match(self._text, at)
        assert found is not None  # it matches nothing, too
        return found.end()

    def _error(self, at: int, what: str) -> Unreadable:
        line = self._text.count("\n", 0, at) + 1
        column = at - (self._text.rfind("\n", 0, at) + 1) + 1
        return Unreadable(f"line {line}, column {column}: {what}")

    def _value(self, at: int, depth: int) -> Node:
        first = self._text[at : at + 1]
        if depth > DEPTH:
            raise self._error(at, f"nested deeper than {DEPTH} levels")
        if first == "{":
            return self._members(at, depth)
        if first == "[":
            return self._elements(at, depth)
        if first == '"':
            return self._string(at)
        found = _SCALAR.match(self._text, at)
        if found is None:
            raise self._error(at, "the text breaks off" if not first else "no value begins like this")
        if len(found[0]) > NUMBER_CHARS:
            raise self._error(at, f"a number of more than {NUMBER_CHARS} characters")
        return Node(at, found.end(), json.loads(found[0]))

    def _string(self, at: int) -> Node:
        found = _STRING.match(self._text, at)
        try:
            if found is not None:
                return Node(at, found.end(), json.loads(found[0]))
        except ValueError:  # a backslash before what it must not stand before
            pass
        raise self._error(at, "a text in quotes does not end, or holds what it must not")

    def _members(self, start: int, depth: int) -> Node:
        members: list[Member] = []
        value: Tree = {}
        at = self._skip(start + 1)
        while self._text[at : at + 1] != "}":
            if members and members[-1].comma is None:
                raise self._error(at, "a comma or } is missing")
            if self._text[at : at + 1] != '"':
                raise self._error(at, "a name in quotes is missing")
            key = self._string(at)
            if key.value in value:
                raise self._error(at, f"{json.dumps(key.value)} is there twice")
            colon = self._skip(key.end)
            if self._text[colon : colon + 1] != ":":
                raise self._error(colon, "a colon is missing")
            inner = self._value(self._skip(colon + 1), depth + 1)
            members.append(Member(key.value, at, colon, inner))
            value[key.value] = inner.value
            at = self._skip(inner.end)
            if self._text[at : at + 1] == ",":
                members[-1].comma = at
                at = self._skip(at + 1)
                if self._text[at : at + 1] == "}" and not self._comments:
                    raise self._error(at, "a name in quotes is missing")
        return Node(start, at + 1, value, members)

    def _elements(self, start: int, depth: int) -> Node:
        values: list[Any] = []
        at, due = self._skip(start + 1), True
        while self._text[at : at + 1] != "]" or (due and values and not self._comments):
            if not due:
                raise self._error(at, "a comma or ] is missing")
            inner = self._value(at, depth + 1)
            values.append(inner.value)
            at = self._skip(inner.end)
            due = self._text[at : at + 1] == ","
            if due:
                at = self._skip(at + 1)
        return Node(start, at + 1, values)


# --- writing -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Style:
    """How this file breaks and indents its lines."""

    newline: str
    unit: str

    @classmethod
    def of(cls, text: str, root: Node) -> _Style:
        newline = "\r\n" if text.find("\r\n") >= 0 and text.find("\r\n") == text.find("\n") - 1 else "\n"
        first = root.members[0] if root.members else None
        return cls(newline, (_own_line(text, first.start) or "  ") if first else "  ")

    def printed(self, value: Any, indent: str) -> str:
        """A value over as many lines as it takes."""
        text = json.dumps(value, indent=self.unit, ensure_ascii=False)
        return text.replace("\n", self.newline + indent)


def _own_line(text: str, at: int) -> str | None:
    """The blanks before what begins a line, None for what does not begin one."""
    before = text[text.rfind("\n", 0, at) + 1 : at]
    return before if "\n" in text[:at] and not before.strip(" \t") else None


def _assign(text: str, node: Node, values: Tree, style: _Style, edits: list[Edit]) -> None:
    known = {member.key: member for member in node.members or ()}
    new: Tree = {}
    for key, value in values.items():
        member = known.get(key)
        if member is None:
            new[key] = value
        elif not isinstance(value, dict):
            indent = _line_indent(text, member.start)
            edits.append(Edit(member.value.start, member.value.end, style.printed(value, indent)))
        elif member.value.members is None:
            raise Unreadable(f"{json.dumps(key)} in it is no object")
        else:
            _assign(text, member.value, value, style, edits)
    if new:
        edits += _addition(text, node, new, style)


def _line_indent(text: str, at: int) -> str:
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _addition(text: str, node: Node, new: Tree, style: _Style) -> Iterator[Edit]:
    """New members behind the last one, as that one is written."""
    last = node.members[-1] if node.members else None
    if last is None:
        indent = _line_indent(text, node.start)
        inner = text[node.start + 1 : node.end - 1]
        kept = node.start + 1 + len(inner.rstrip(_BLANKS))
        lead = style.newline + indent + style.unit
        members = (f"{lead}{_key(key)}: {style.printed(value, indent + style.unit)}" for key, value in new.items())
        end = style.newline + indent if kept == node.start + 1 else text[kept : node.end - 1]
        yield Edit(kept, node.end - 1, ",".join(members) + end)
        return
    own = _own_line(text, last.start)
    behind = last.value.end if last.comma is None else last.comma + 1
    if own is None:  # all on one line
        gap = text[last.colon + 1 : last.value.start]
        gap = "" if gap == "" else " "
        members = (f"{_key(key)}:{gap}{_compact(value, gap)}" for key, value in new.items())
        added = ("," + gap).join(members)
        yield Edit(behind, behind, f",{gap}{added}" if last.comma is None else f"{gap}{added},")
        return
    lead = style.newline + own
    added = ",".join(f"{lead}{_key(key)}: {style.printed(value, own)}" for key, value in new.items())
    rest = _REST_OF_LINE.match(text, behind)
    at = rest.end() if rest is not None else behind
    if last.comma is None:
        yield Edit(behind, behind, ",")
        yield Edit(at, at, added)
    else:
        yield Edit(at, at, added + ",")


def _key(key: str) -> str:
    return json.dumps(key, ensure_ascii=False)


def _compact(value: Any, gap: str) -> str:
    return json.dumps(value, ensure_ascii=False, separators=("," + gap, ":" + gap))


def _removal(text: str, node: Node, members: list[Member], index: int) -> Iterator[Edit]:
    """Take one member out, with the comma and the line break that came with it."""
    member = members[index]
    own = _own_line(text, member.start)
    start, end = member.start, member.value.end
    if member.comma is not None:
        end = member.comma + 1
    elif index:
        before = members[index - 1].comma
        assert before is not None
        yield Edit(before, before + 1, "")
    if own is not None:
        start -= len(own)
        start -= 2 if text[start - 2 : start] == "\r\n" else 1
    elif index + 1 < len(members):
        end += len(text[end : members[index + 1].start]) - len(text[end : members[index + 1].start].lstrip(" "))
    elif index:
        before = members[index - 1].comma
        assert before is not None
        start = before + 1 if not text[before + 1 : start].strip(_BLANKS) else start
    inside = text[node.start + 1 : start] + text[end : node.end - 1]
    if len(members) == 1 and not inside.strip(_BLANKS):
        yield Edit(node.start + 1, node.end - 1, "")
    else:
        yield Edit(start, end, "")


def _edited(text: str, edits: list[Edit]) -> str:
    pieces, at = [], 0
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        pieces += [text[at : edit.start], edit.text]
        at = edit.end
    return "".join([*pieces, text[at:]])
