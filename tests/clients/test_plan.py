"""What a set-up changes and what an undo does, from texts alone; and that the node program decides the same."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from lumeproxy.clients.documents import Format
from lumeproxy.clients.plan import Change, Wish, change, changed_keys, masked, shown, undone
from lumeproxy.clients.record import FileRecord
from lumeproxy.errors import Refused
from tests.clients.support import KEY, told_by_node

FILE = Path("/home/kim/.tool/settings.json")
URL_KEY, TOKEN_KEY = ("env", "URL"), ("env", "TOKEN")


def wish(token: str = "t1", url: str = "https://a.test", *, gentle: bool = False, **more: Any) -> Wish:
    values = {"env": {"URL": url, "TOKEN": token, **more}}
    return Wish(FILE, Format.JSONC, values, paired=(URL_KEY, TOKEN_KEY), gentle=(URL_KEY, TOKEN_KEY) if gentle else ())


def set_up(
    now: str | None, wanted: Wish | None = None, earlier: FileRecord | None = None, backup: str | None = None
) -> Change:
    return change(wanted or wish(), now, earlier, backup)


def taken_back(made: Change, now: str | None = None, backup: str | None = None) -> Change:
    assert made.record is not None
    return undone(made.record, made.after if now is None else now, made.before if backup is None else backup)


MINE = '{\n  // mine\n  "env": {"A": "1"},\n  "x": [1, 2]\n}\n'


@pytest.mark.parametrize("before", [None, "{}", MINE, '{"env":{"URL":"https://old.test","TOKEN":"old"}}'])
def test_an_undo_with_nothing_changed_since_gives_the_same_bytes(before):
    made = set_up(before)
    assert json.loads(_plain(made.after))["env"] | {"A": "1"} == {"URL": "https://a.test", "TOKEN": "t1", "A": "1"}

    back = taken_back(made)

    assert back.after == before
    assert back.kept == ()


def _plain(text: str | None) -> str:
    return "\n".join(line for line in (text or "").splitlines() if not line.strip().startswith("//"))


def test_a_change_since_is_kept_and_only_what_is_ours_goes():
    made = set_up(MINE)
    later = (made.after or "").replace("[1, 2]", "[3]")

    assert taken_back(made, later).after == MINE.replace("[1, 2]", "[3]")


def test_a_key_that_was_changed_since_stays_and_is_named():
    made = set_up("{}", wish(OTHER="o"))
    later = (made.after or "").replace('"o"', '"mine now"')

    back = taken_back(made, later)

    assert json.loads(back.after or "") == {"env": {"OTHER": "mine now"}}
    assert back.kept == (("env", "OTHER"),)


@pytest.mark.parametrize(
    ("old", "new"), [("https://a.test", "https://new.test"), ('"t1"', '"t2"'), (', "TOKEN": "t1"', "")]
)
@pytest.mark.parametrize("before", ["{}", '{"env": {"URL": "https://gateway.test", "TOKEN": "theirs"}}', '{"env": {}}'])
def test_the_address_and_its_token_go_together_while_one_of_them_is_ours(before, old, new):
    made = set_up(before)
    later = " ".join((made.after or "").split()).replace(old, new)
    assert later != made.after

    back = taken_back(made, later)

    assert json.loads(back.after or "{}") == json.loads(before)
    assert back.kept == ()
    assert back.along == ((URL_KEY,) if "new" in new else (TOKEN_KEY,) if "t2" in new else ())


def test_an_address_and_token_that_are_both_somebody_elses_now_stay():
    made = set_up("{}")
    later = (made.after or "").replace("https://a.test", "https://b.test").replace("t1", "t9")

    back = taken_back(made, later)

    assert back.after == later
    assert back.kept == (URL_KEY, TOKEN_KEY)


def test_our_own_address_that_stood_there_alone_does_not_come_back_without_a_token():
    before = '{"env": {"URL": "https://a.test"}, "x": 1}'

    assert json.loads(taken_back(set_up(before)).after or "") == {"env": {}, "x": 1}


def test_a_file_that_was_made_goes_when_nothing_else_is_in_it():
    made = set_up(None)

    assert taken_back(made).after is None
    assert taken_back(made, '{"env": {"URL": "https://a.test", "TOKEN": "t1"} }').after is None
    assert json.loads(taken_back(made, (made.after or "").replace("{\n", '{"own": 1,\n', 1)).after or "") == {"own": 1}
    assert taken_back(made, '{ "own": 1 }').after == '{ "own": 1 }'


def test_a_missing_file_is_left_missing():
    record = set_up(MINE).record
    assert record is not None
    assert undone(record, None, MINE).is_none


def test_a_set_up_that_is_repeated_changes_nothing_and_is_still_undone_in_one():
    first = set_up(MINE)
    again = set_up(first.after, earlier=first.record, backup=MINE)

    assert again.is_none
    assert again.record == first.record


def test_a_new_key_after_a_change_by_somebody_else_keeps_the_past_of_the_first():
    first = set_up(MINE, wish("t1", OLD="gone later"))
    later = (first.after or "").replace("[1, 2]", "[3]")
    again = set_up(later, wish("t2"), first.record, MINE)

    assert json.loads(_plain(again.after)) == {"env": {"A": "1", "URL": "https://a.test", "TOKEN": "t2"}, "x": [3]}
    assert taken_back(again, backup=MINE).after == MINE.replace("[1, 2]", "[3]")


def test_a_gentle_key_is_set_only_where_it_is_not_there_and_can_be_repeated():
    there = set_up('{"env": {"URL": "u", "TOKEN": "t", "more": 1}}', wish(gentle=True))
    assert there.is_none and there.record is None

    first = set_up('{"env": {"URL": "u"}}', wish(gentle=True))
    assert json.loads(first.after or "") == {"env": {"URL": "u", "TOKEN": "t1"}}
    later = (first.after or "").replace("{", '{"z": 1, ', 1)
    assert set_up(later, wish(gentle=True), first.record, first.before).is_none


def test_an_unreadable_text_is_refused_by_file_and_place():
    with pytest.raises(
        Refused, match=r"/settings\.json can't be merged: line 1, column 9: a comma or } is missing\. Nothing"
    ):
        set_up('{"a": 1 "b"}')
    record = set_up("{}").record
    assert record is not None
    with pytest.raises(Refused, match="the text breaks off"):
        undone(record, '{"a":', "{}")


# --- what is shown -----------------------------------------------------------------------------------------------------


def test_the_diff_names_files_from_home_and_hides_what_is_secret():
    before = '{\n  "API_KEY": "sk-ant-0123456789",\n  "env": {\n    "GITHUB_TOKEN": "ghp_0123456789"\n  }\n}\n'
    text = shown([set_up(before, wish(KEY))], Path("/home/kim"))

    assert text.splitlines()[:2] == ["--- ~/.tool/settings.json", "+++ ~/.tool/settings.json"]
    assert f'+    "TOKEN": "{KEY[:13]}_…"' in text
    assert '+    "URL": "https://a.test",' in text
    assert all(secret not in text for secret in (KEY, "0123456789"))


def test_a_new_file_and_one_that_goes_are_shown_as_that():
    made = set_up(None)

    assert shown([made], Path("/elsewhere")).startswith(f"--- (no file)\n+++ {FILE}\n")
    assert shown([taken_back(made)], Path("/home/kim")).startswith("--- ~/.tool/settings.json\n+++ (no file)\n")
    assert shown([set_up('{"env": {"URL": "https://a.test", "TOKEN": "t1"}}')], Path("/")) == ""
    assert changed_keys(made) == ["env.URL", "env.TOKEN"]


def test_a_file_on_one_line_is_not_shown_whole():
    text = shown([set_up(json.dumps({"x": "y" * 5000}))], Path("/"))

    assert max(map(len, text.splitlines())) == 160


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f'"K": "{KEY}"', f'"K": "{KEY[:13]}_…"'),
        ('"Authorization": "Bearer abcdefghi"', '"Authorization": "Bearer …"'),
        ("api_key = 'abcdefghi' # c", "api_key = '…' # c"),
        ('"theme": "dark"', '"theme": "dark"'),
        ('"tokens": 5', '"tokens": 5'),
    ],
)
def test_a_line_is_shown_without_its_secret(line, expected):
    assert masked(line) == expected


# --- the node program --------------------------------------------------------------------------------------------------

TEXTS = [
    None, "{}", MINE, "", " ", "[]", "{", '{"a": 1,}', '{"a":1}', '{"a": 1}', '{"a": 1, "a": 2}', '\ufeff{}', '{"env": 5}',

    '{"env":{"URL":"https://old.test","TOKEN":"old"},"z":[{"b":{}}]}',
    '{\r\n\t"env": {\r\n\t\t"A": "ü\\u00e9\\ud83d"\r\n\t}\r\n}',
    '{\n  "env": { // c\n    "A": "1", /* d */ // e\n  }, // f\n  /* g */ "x": 1 // h\n}\n// i', '{ /* only */ }',
    '{"__proto__": {"constructor": 1}, "env": {"__proto__": "x"}, "1": 2, "0": 3}', '{"a": "\x01"}', '{"a": "\\q"}',
    '{"env": {"URL": "https://a.test"}}', '{"env": {"TOKEN": "t1"}, "hasOwnProperty": null}',
    '{"n": 1.0, "m": 1e400, "o": -0}',
    '{"😀": "😀", "b": tru}', '{"a": [1, 2,]}', '{"a": [,]}', '{"env": null}', '{"env": {"URL": {"deep": [1]}}}',
    '{"n": ' + "1" * 1001 + "}",
    "{}x", "nul",
    '{"deep": ' * 101 + "{}" + "}" * 101, '{"env": {},\n"b": {"env": {}}}', "// c\n{}",
    '{"env": {"URL": 1, "TOKEN": true}}',
]  # fmt: skip
LATER = [
    lambda text: text,
    lambda text: text.replace("{", '{"later": 1, ', 1) if text != "{}" else '{"later": 1}',
    lambda text: text.replace("https://a.test", "https://b.test"),
    lambda text: text.replace("t1", "t7").replace("https://a.test", "https://b.test"),
    lambda text: text.replace('"more"', '"mine"'),
    lambda text: text[:-3],
]


def _json(value: FileRecord | None) -> Any:
    return None if value is None else json.loads(json.dumps(asdict(value)))


def _told(act: Any) -> dict[str, Any]:
    try:
        made = act()
    except Refused as error:
        return {"refused": error.message}
    return {
        "after": made.after,
        "record": _json(made.record),
        "kept": [list(path) for path in made.kept],
        "along": [list(path) for path in made.along],
    }


def test_the_node_program_decides_the_same_in_every_case(tmp_path: Path):
    cases: list[dict[str, Any]] = []
    expected: list[dict[str, Any]] = []

    def ask(act: str, told: dict[str, Any], **case: Any) -> None:
        cases.append({"act": act, **case})
        expected.append(told)

    for text, format, gentle in itertools.product(TEXTS, (Format.JSON, Format.JSONC), ((), (URL_KEY, ("flag",)))):
        wanted = Wish(FILE, format, {"env": {"URL": "https://a.test", "TOKEN": "t1", "OTHER": "more"}, "flag": True},
                      (URL_KEY, TOKEN_KEY), gentle)  # fmt: skip
        given = {
            "file": str(FILE),
            "format": format,
            "values": wanted.values,
            "paired": wanted.paired,
            "gentle": gentle,
        }
        ask(
            "change",
            _told(lambda w=wanted, t=text: change(w, t, None, None)),
            wish=given,
            now=text,
            earlier=None,
            backup=None,
        )
        try:
            made = change(wanted, text, None, None)
        except Refused:
            continue
        if made.record is None:
            continue
        for later in LATER:
            now = later(made.after or "")
            told = _told(lambda r=made.record, n=now, b=made.before: undone(r, n, b))
            ask("undo", told, record=_json(made.record), now=now, backup=made.before)
            second = Wish(FILE, format, {"env": {"URL": "https://a.test", "TOKEN": "t2"}}, (URL_KEY, TOKEN_KEY), gentle)
            told = _told(lambda w=second, n=now, r=made.record, b=made.before: change(w, n, r, b))
            given = {
                "file": str(FILE),
                "format": format,
                "values": second.values,
                "paired": second.paired,
                "gentle": gentle,
            }
            ask("change", told, wish=given, now=now, earlier=_json(made.record), backup=made.before)
    told_by_it = told_by_node(tmp_path, cases)

    differing = [(case, ours, its) for case, ours, its in zip(cases, expected, told_by_it, strict=True) if ours != its]
    assert differing == []
    assert len(cases) > 500
