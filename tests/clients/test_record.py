"""The side file: what was, and what was set, in a form that another version can refuse."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from lumeproxy.clients.documents import Format
from lumeproxy.clients.record import FileRecord, Leaf, Record, decode, digest, encode, sha256
from lumeproxy.errors import Refused

LEAVES = (
    Leaf(("env", "A"), True, {"x": ["ü", None]}, digest("v"), paired=True),
    Leaf(("b",), False, None, digest(True), False),
)
FILE = FileRecord("/h/s.json", Format.JSON, None, sha256("x"), "tool.s.json.before", (("env",),), LEAVES, exact=True)
RECORD = Record("tool", "https://a.test", (FILE,), ("/h/made",))


def test_a_record_comes_back_as_it_was():
    assert decode(encode(RECORD), Path("f")) == RECORD
    assert RECORD.of(Path("/h/s.json")) == FILE
    assert RECORD.of(Path("/h/t.json")) is None


def test_what_we_set_is_kept_as_a_digest_only():
    assert digest("secret") in encode(Record("t", "u", (FileRecord("f", Format.JSON, None, "", None, (), (
        Leaf(("k",), False, None, digest("secret"), True),), True),)))  # fmt: skip
    assert digest("lume_é") == sha256('"lume_é"')
    assert digest(True) == sha256("true")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", encode(RECORD).replace('"version": 1', '"version": 2'), encode(RECORD).replace('"had"', '"x"'),
     json.dumps({"version": 1, "tool": "t", "url": "u", "files": [3], "folders": []})],
)  # fmt: skip
def test_a_damaged_or_later_one_is_refused_by_its_name(text):
    with pytest.raises(Refused, match=r"side\.json is not a set-up's record"):
        decode(text, Path("side.json"))


def test_a_value_that_json_has_no_form_for_is_refused_before_anything_is_written():
    dated = Leaf(("k",), True, datetime.date(2026, 11, 24), digest("x"), False)
    with pytest.raises(Refused, match="date or time"):
        encode(Record("t", "u", (FileRecord("f", Format.TOML, None, "", None, (), (dated,), True),)))
