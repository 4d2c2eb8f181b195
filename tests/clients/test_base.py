"""Places on the three platforms, and how a file is looked into."""

from __future__ import annotations

import sys
from pathlib import Path

import platformdirs
import pytest

from lumeproxy.clients.base import Machine
from lumeproxy.clients.documents import Format
from lumeproxy.clients.registry import tool
from tests.clients.support import machine, target

HOME = Path("/home/kim")


@pytest.mark.parametrize(
    ("platform", "environ", "state"),
    [
        ("linux", {}, "/home/kim/.local/state/lumeproxy/setup"),
        ("linux", {"XDG_STATE_HOME": "/x"}, "/x/lumeproxy/setup"),
        ("darwin", {}, "/home/kim/Library/Application Support/lumeproxy/setup"),
        ("win32", {"LOCALAPPDATA": "/home/kim/AppData/Local"}, "/home/kim/AppData/Local/lumeproxy/setup"),
        ("win32", {}, "/home/kim/AppData/Local/lumeproxy/setup"),
    ],
)
def test_the_side_files_lie_where_the_platform_keeps_state(platform, environ, state):
    assert Machine(platform, environ, HOME, HOME).state == Path(state)


def test_that_is_where_platformdirs_has_it_here(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)

    here = Machine(sys.platform, {}, tmp_path, tmp_path)
    assert here.state.parent == platformdirs.user_state_path("lumeproxy", appauthor=False)


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
@pytest.mark.parametrize(
    ("name", "environ", "files"),
    [
        ("claude-code", {}, [".claude/settings.json", ".claude.json"]),
        ("claude-code", {"CLAUDE_CONFIG_DIR": "~/c"}, ["c/settings.json", "c/.claude.json"]),
        ("codex", {}, [".codex/lume.config.toml"]),
        ("codex", {"CODEX_HOME": "~/x"}, ["x/lume.config.toml"]),
        ("opencode", {}, [".config/opencode/opencode.json"]),
        ("opencode", {"XDG_CONFIG_HOME": "~/y"}, ["y/opencode/opencode.json"]),
    ],
)
def test_each_tool_keeps_its_settings_in_the_same_place_below_home(
    tmp_path, monkeypatch, platform, name, environ, files
):
    monkeypatch.setenv("HOME", str(tmp_path))
    on = machine(tmp_path, platform=platform, **environ)

    assert [wish.file for wish in tool(name).wishes(on, target())] == [tmp_path / file for file in files]


def test_what_can_not_be_read_says_nothing(tmp_path: Path):
    on = machine(tmp_path)
    (tmp_path / "good").write_text('{"a": 1}')
    (tmp_path / "cut").write_text('{"a": 1')
    (tmp_path / "self").symlink_to("self")

    assert on.values(tmp_path / "good", Format.JSON) == {"a": 1}
    assert [on.values(tmp_path / name, Format.JSON) for name in ("cut", "self", "none", ".")] == [{}, {}, {}, {}]
