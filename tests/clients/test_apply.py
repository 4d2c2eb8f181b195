"""A set-up on real files: all or nothing, and back again; and fifty files that are not as they should be."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lumeproxy.clients import apply, files
from lumeproxy.clients.base import Tool
from lumeproxy.clients.registry import TOOLS, tool
from lumeproxy.errors import Refused
from tests.clients import support
from tests.clients.support import FULL, KEY, OTHER_KEY, connect, disconnect, fill, machine, target


@pytest.mark.parametrize("full", [False, True], ids=["fresh", "full"])
@pytest.mark.parametrize("default", [False, True], ids=["own-file", "default"])
@pytest.mark.parametrize("known", TOOLS, ids=lambda known: known.name)
def test_an_undo_leaves_a_home_byte_for_byte_as_it_was(tmp_path: Path, known: Tool, full, default):
    if full:
        fill(tmp_path)
    on = machine(tmp_path)
    before = support.files(tmp_path)

    made = connect(known, on, target(default=default))

    after = support.files(tmp_path)
    assert {name for name in before if before[name] != after[name]} | set(after) - set(before)
    holding = [name for name, (content, _) in after.items() if isinstance(content, bytes) and KEY.encode() in content]
    assert len(holding) == 1
    assert all(after[name][1] == before.get(name, (b"", 0o600))[1] for name in holding)
    assert not any(KEY in text for text in (_text(path) for path in (on.state).iterdir()))
    assert {path.stat().st_mode & 0o777 for path in on.state.iterdir()} == {0o600}
    assert made.record is not None

    connect(known, on, target(OTHER_KEY, default=default))
    assert any(
        OTHER_KEY.encode() in content for content, _ in support.files(tmp_path).values() if isinstance(content, bytes)
    )
    disconnect(known, on)

    assert support.files(tmp_path) == before


def _text(path: Path) -> str:
    return path.read_text("utf-8")


def test_what_the_tool_wrote_meanwhile_stays_and_only_ours_goes(tmp_path: Path):
    on = machine(tmp_path)
    connect(tool("claude-code"), on, target())
    own = json.loads((tmp_path / ".claude.json").read_text())
    (tmp_path / ".claude.json").write_text(json.dumps({**own, "numStartups": 1}, indent=2))

    made = disconnect(tool("claude-code"), on)

    assert (tmp_path / ".claude.json").read_text() == '{\n  "numStartups": 1\n}'
    assert not (tmp_path / ".claude").exists() and not (tmp_path / ".local").exists()
    assert [change.kept for change in made.changes] == [(), ()]


def test_codex_can_be_set_up_both_ways_and_one_undo_takes_both_back(tmp_path: Path):
    fill(tmp_path)
    on, before = machine(tmp_path), support.files(tmp_path)
    connect(tool("codex"), on, target())
    connect(tool("codex"), on, target(default=True))
    assert (tmp_path / ".codex" / "lume.config.toml").is_file()
    assert 'model = "gpt-5.5" # the good one\n' in (tmp_path / ".codex" / "config.toml").read_text()

    disconnect(tool("codex"), on)

    assert support.files(tmp_path) == {**before, "work": ("folder", before["work"][1])}


@pytest.mark.parametrize("order", [TOOLS, TOOLS[::-1]], ids=["in-order", "backwards"])
def test_all_tools_can_be_taken_back_in_any_order_and_leave_no_folder(tmp_path: Path, order):
    on, before = machine(tmp_path), support.files(tmp_path)
    for known in TOOLS:
        connect(known, on, target())
    for known in order:
        disconnect(known, on)

    assert support.files(tmp_path) == before


def test_without_a_record_there_is_nothing_to_take_back(tmp_path: Path):
    with pytest.raises(Refused, match="no record of a set-up of codex"):
        apply.plan_undo("codex", machine(tmp_path).state)


def test_a_link_is_followed_and_stays_one(tmp_path: Path):
    (tmp_path / "dotfiles").mkdir()
    (tmp_path / "dotfiles" / "claude.json").write_text("{}")
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude" / "settings.json").symlink_to("../dotfiles/claude.json")
    on, before = machine(tmp_path), support.files(tmp_path)

    connect(tool("claude-code"), on, target())

    assert (tmp_path / ".claude" / "settings.json").is_symlink()
    assert KEY in (tmp_path / "dotfiles" / "claude.json").read_text()
    disconnect(tool("claude-code"), on)
    assert support.files(tmp_path) == before


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
@pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
def test_a_write_that_fails_puts_every_file_back(tmp_path: Path, monkeypatch, failing, again):
    """Of the writes of a set-up: a copy, the side file, and two settings files."""
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude" / "settings.json").write_text("{}")
    on, known = machine(tmp_path), tool("claude-code")
    if again:
        connect(known, on, target())
        (tmp_path / ".claude.json").unlink()
    before = support.files(tmp_path)
    write, count = files.write, 0

    def failing_write(file: Path, text: str, mode: int) -> None:
        nonlocal count
        count += 1
        if count == failing:
            raise OSError(28, "No space left on device", str(file))
        write(file, text, mode)

    monkeypatch.setattr(files, "write", failing_write)
    with pytest.raises(Refused, match="No space left on device"):
        connect(known, on, target(OTHER_KEY))

    assert support.files(tmp_path) == before


def test_a_file_that_somebody_else_writes_meanwhile_is_left_to_them(tmp_path: Path):
    on, known = machine(tmp_path), tool("claude-code")
    made = apply.plan(known.name, support.URL, known.wishes(on, target()), on.state)
    (tmp_path / ".claude.json").write_text('{"theirs": 1}')

    with pytest.raises(Refused, match=r"\.claude\.json was changed by somebody else meanwhile"):
        apply.apply(made)

    assert {name for name, (content, _) in support.files(tmp_path).items() if content != "folder"} == {".claude.json"}
    assert (tmp_path / ".claude.json").read_text() == '{"theirs": 1}'


def test_a_copy_that_is_not_needed_any_more_goes_too(tmp_path: Path):
    fill(tmp_path)
    on = machine(tmp_path)
    connect(tool("claude-code"), on, target())
    (tmp_path / ".claude.json").unlink()
    connect(tool("claude-code"), on, target())

    disconnect(tool("claude-code"), on)

    assert not (tmp_path / ".local").exists() and not (tmp_path / ".claude.json").exists()


def test_a_lost_copy_is_made_good_key_by_key(tmp_path: Path):
    fill(tmp_path)
    on = machine(tmp_path)
    connect(tool("claude-code"), on, target())
    for copy in on.state.glob("*.before"):
        copy.write_text("not what it was")

    disconnect(tool("claude-code"), on)

    assert (tmp_path / ".claude" / "settings.json").read_text() == FULL[".claude/settings.json"]


# --- fifty files that are not as they should be ------------------------------------------------------------------------

CLAUDE, OWN = ".claude/settings.json", ".claude.json"
CODEX, OPENCODE = ".codex/config.toml", ".config/opencode/opencode.json"
GOOD = FULL[CLAUDE].encode()

Spoil = Callable[[Path], object]


def holding(content: bytes) -> Spoil:
    return lambda file: file.write_bytes(content)


def linked(to: str) -> Spoil:
    return lambda file: file.symlink_to(to)


def read_only(file: Path) -> None:
    file.write_bytes(b"{}")
    file.chmod(0o444)


def hard_linked(file: Path) -> None:
    file.write_bytes(b"{}")
    file.with_name("other").hardlink_to(file)


def loop(file: Path) -> None:
    file.with_name("a").symlink_to("b")
    file.with_name("b").symlink_to("a")
    file.symlink_to("a")


JSON_SPOILT = {
    "empty": b"",
    "blank": b" \n\n",
    "bom": b"\xef\xbb\xbf{}",
    "utf16": "{}".encode("utf-16"),
    "latin1": b'{"a": "\xfc"}',
    "nul": b"\x00\x00\x00\x00",
    "cut": GOOD[:-1],
    "cut-in-key": GOOD[:20],
    "cut-in-text": GOOD[:70],
    "half": GOOD[: len(GOOD) // 2],
    "twice": b'{"env": {}, "env": {"A": "1"}}',
    "twice-inside": b'{"env": {"A": "1", "A": "2"}}',
    "list": b"[]",
    "text": b'"x"',
    "number": b"5",
    "null": b"null",
    "env-list": b'{"env": []}',
    "env-null": b'{"env": null}',
    "env-text": b'{"env": "x"}',
    "two": b"{}{}",
    "toml": b"[env]\nA = 1\n",
    "yaml": b"env:\n  A: 1\n",
    "quotes": b"{'env': {}}",
    "bare": b"{env: {}}",
    "comma": b'{"a": 1,}',
    "comment": b'// c\n{"a": 1}',
    "no-comma": b'{"a": 1 "b": 2}',
    "nan": b'{"a": NaN}',
    "control": b'{"a": "x\ny"}',
    "escape": b'{"a": "\\x"}',
    "deep": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "2mb-cut": b'{"a": "' + b"x" * 2_000_000,
    "2mb-list": b"[" + b"1" * 2_000_000,
    "merge": b"<<<<<<< HEAD\n{}\n=======\n{}\n",
}
ODD: dict[str, Spoil] = {
    "read-only": read_only,
    "hard-link": hard_linked,
    "loop": loop,
    "self": linked("settings.json"),
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "link-to-folder": linked("."),
    "link-below-a-file": linked("/dev/null/x"),
    "device": linked("/dev/null"),
    "huge": lambda file: os.truncate(os.open(file, os.O_CREAT | os.O_WRONLY), files.MAX_BYTES + 1),
}
TOML_SPOILT = {
    "cut": b"[model_providers",
    "twice": b"a = 1\na = 2\n",
    "bom": b"\xef\xbb\xbfa = 1\n",
    "json": b'{"a": 1}',
    "inline": b'model_providers = {x = {name = "y"}}\n',
    "no-table": b"model_providers = 1\n",
    "latin1": b"a = '\xfc'\n",
    "cut-text": b'a = """x',
}
CASES: list[tuple[str, str, str, Spoil]] = [
    *(("claude-code", CLAUDE, name, holding(content)) for name, content in JSON_SPOILT.items()),
    *(("claude-code", CLAUDE, name, spoil) for name, spoil in ODD.items()),
    *(("claude-code", OWN, name, holding(JSON_SPOILT[name])) for name in ("empty", "cut", "twice", "2mb-cut")),
    *(("codex", CODEX, name, holding(content)) for name, content in TOML_SPOILT.items()),
    *(
        ("opencode", OPENCODE, name, holding(b'{"provider": ' + content))
        for name, content in (("cut", b"{"), ("list", b"[]}"))
    ),
]


@pytest.mark.parametrize(("name", "file", "case", "spoil"), CASES, ids=[f"{case[1]}:{case[2]}" for case in CASES])
def test_a_file_that_is_not_as_it_should_be_is_neither_lost_nor_changed(tmp_path: Path, name, file, case, spoil: Spoil):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    spoil(tmp_path / file)
    on = machine(tmp_path)
    before = _seen(tmp_path)

    with pytest.raises(Refused, match="Nothing was changed") as error:
        connect(tool(name), on, target(default=name == "codex"))

    assert str(tmp_path) in error.value.message
    assert _seen(tmp_path) == before


def test_fifty_such_files_are_tried():
    assert len(CASES) >= 50


def _seen(home: Path) -> dict[str, object]:
    """Everything below a folder, without reading what is no file or more than a settings file."""
    found: dict[str, object] = {}
    for path in home.rglob("*"):
        about = path.lstat()
        is_text = path.is_file() and not path.is_symlink() and about.st_size <= files.MAX_BYTES
        found[str(path)] = (about.st_mode, about.st_ino, about.st_mtime_ns if not path.is_dir() else 0,
                            path.read_bytes() if is_text else about.st_size)  # fmt: skip
    return found


def test_two_megabytes_of_good_settings_are_merged_and_given_back(tmp_path: Path):
    history = {"history": [{"text": "x" * 990, "n": n} for n in range(2_000)]}
    (tmp_path / OWN).write_text(json.dumps(history, indent=2))
    assert (tmp_path / OWN).stat().st_size > 2_000_000
    on, before, start = machine(tmp_path), support.files(tmp_path), time.perf_counter()

    connect(tool("claude-code"), on, target())
    assert json.loads((tmp_path / OWN).read_text()) == {**history, "hasCompletedOnboarding": True}
    disconnect(tool("claude-code"), on)

    assert support.files(tmp_path) == before
    assert time.perf_counter() - start < 20
