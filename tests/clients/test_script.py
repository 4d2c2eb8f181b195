"""The scripts for machines without Python: sound to the shells' own checkers, and the same files in the end."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path

import pytest

from lumeproxy.clients import ask
from lumeproxy.clients.base import Target
from lumeproxy.clients.registry import TOOLS, tool
from lumeproxy.clients.script import NAMES, PARTS, by_hand, render
from lumeproxy.errors import Refused
from tests.clients import support
from tests.clients.support import CLIENTS, KEY, URL, fill, machine, need
from tests.support.proxy import Proxy, proxy

SHELL_S = 30


def script(name: str, url: str = URL) -> str:
    text = render(name, url)
    assert text is not None
    return text


@pytest.mark.parametrize("name", NAMES)
def test_a_script_names_the_address_and_has_no_hole_left_in_it(name):
    text = script(name)

    assert URL in text
    assert "@URL@" not in text and "@PROGRAM@" not in text and "@BY_HAND@" not in text and "@TOOL@" not in text
    assert not re.search("lume_[0-9A-Za-z]{8}_", text)
    # A pipe of Windows PowerShell lets nothing else through; a here-string ends where a line begins with its mark.
    assert text.isascii()
    assert text.count("\n'@\n") == (2 if name.endswith(".ps1") else 0)
    assert text.count("END_OF_PROGRAM") == (0 if name.endswith(".ps1") else 2)


@pytest.mark.parametrize("url", ["https://a'b", "https://a.test/$(id)", 'https://a"', "a.test", "https://a.test\nid"])
def test_what_is_no_address_gets_into_no_script(url):
    with pytest.raises(Refused):
        render("codex.sh", url)


def test_there_are_no_other_scripts():
    assert render("gemini.sh", URL) is render("codex", URL) is render("../setup.sh", URL) is None
    assert len(NAMES) == 6


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".sh")])
@pytest.mark.parametrize(
    "checker", [["shellcheck", "-s", "sh"], ["dash", "-n"], ["sh", "-n"]], ids=lambda found: found[0]
)
def test_the_shells_checkers_find_nothing(tmp_path: Path, name, checker):
    (tmp_path / name).write_text(script(name))
    done = subprocess.run(
        [need(checker[0]), *checker[1:], name], cwd=tmp_path, capture_output=True, text=True, timeout=SHELL_S
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".ps1")])
def test_powershell_can_parse_it(tmp_path: Path, name):
    (tmp_path / name).write_text(script(name))
    parse = (
        "$errors = $null; [void][Management.Automation.Language.Parser]::ParseFile("
        f"'{tmp_path / name}', [ref]$null, [ref]$errors); $errors; exit $errors.Count"
    )
    done = subprocess.run(
        [need("pwsh"), "-NoProfile", "-Command", parse], capture_output=True, text=True, timeout=SHELL_S
    )
    assert done.returncode == 0, done.stdout


def bare_path(folder: Path, *, node: bool = True) -> str:
    """A PATH with what every system has, and no Python."""
    (folder / "bin").mkdir(exist_ok=True)
    for name in ("cat", "stty", "dash", *(["node"] if node else [])):
        if not (folder / "bin" / name).exists():
            (folder / "bin" / name).symlink_to(need(name))
    return str(folder / "bin")


async def dash(
    folder: Path,
    name: str,
    url: str,
    *options: str,
    key: str = "",
    node: bool = True,
    more: dict[str, str] | None = None,
    work: str = "",
) -> tuple[int, str, str]:
    """Run a script by dash in a home; status, output and errors."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    (folder / name).write_text(script(name, url))
    environ = {
        "PATH": bare_path(folder, node=node),
        "HOME": str(home),
        **({"LUME_KEY": key} if key else {}),
        **(more or {}),
    }
    process = await asyncio.create_subprocess_exec(
        need("dash"), str(folder / name), *options, env=environ, cwd=home / work, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), SHELL_S)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("known", TOOLS, ids=lambda known: known.name)
async def test_a_script_leaves_the_same_files_and_either_takes_back_what_the_other_did(tmp_path: Path, known):
    home = tmp_path / "home"
    async with proxy(tmp_path, {}) as lume:
        if known.name != "codex":
            home.mkdir()
            fill(home)
        before = support.files(home) if home.exists() else {}
        name = f"{known.name}.sh"

        status, out, err = await dash(tmp_path, name, lume.url, "--yes", key=lume.key)
        assert (status, err) == (0, "")
        assert f"{known.title} is set up: a call of " in out and lume.key not in out
        by_script = support.files(home)
        support.disconnect(known, machine(home))
        (home / "work").rmdir()
        assert support.files(home) == before

        names = await asyncio.to_thread(ask.models, lume.url, lume.key)
        support.connect(known, machine(home), Target(lume.url, lume.key, names))
        (home / "work").rmdir()
        assert support.files(home) == by_script

        if known.name == "claude-code":
            status, out, _ = await dash(tmp_path, name, lume.url, "--yes", key=lume.key)
            assert (status, "Nothing has to change." in out) == (0, True)
        assert (await dash(tmp_path, name, lume.url, "--undo"))[0] == 0
        assert support.files(home) == before
        assert {record["ending"] for record in await lume.records()} == {"complete"}


async def test_all_tools_can_be_taken_back_and_leave_no_folder(tmp_path: Path, lume: Proxy):
    (tmp_path / "home").mkdir()
    on = machine(tmp_path / "home")
    before = support.files(tmp_path / "home")
    for known in TOOLS:
        support.connect(known, on, support.target())
    assert (await dash(tmp_path, "claude-code.sh", lume.url, "--undo"))[0] == 0
    for known in TOOLS[1:]:
        support.disconnect(known, on)

    assert support.files(tmp_path / "home") == before


WARNED: list[tuple[str, str, str, dict[str, str]]] = [
    ("claude-code", "work/.claude/settings.local.json", '{"env": {"ANTHROPIC_BASE_URL": "x"}, "apiKeyHelper": "y"}', {}),
    ("claude-code", ".claude/settings.json", '{"env": {"CLAUDE_CODE_USE_VERTEX": "1", "ANTHROPIC_API_KEY": "k"}}',
     {"ANTHROPIC_API_KEY": "k", "CLAUDE_CODE_USE_BEDROCK": "1", "CLAUDE_CODE_USE_FOUNDRY": "0"}),
    ("codex", ".codex/config.toml", '[profiles.lume]\nmodel = "x"\n', {}),
    ("opencode", ".config/opencode/opencode.json", '{"enabled_providers": [], "disabled_providers": ["lumeproxy"]}', {}),
    ("opencode", "work/opencode.json", '{"provider": {"lumeproxy": {}}}', {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "text", "environ"), WARNED, ids=[f"{case[0]}:{case[1]}" for case in WARNED])
async def test_the_same_is_warned_of(tmp_path: Path, lume: Proxy, name, file, text, environ):
    home = tmp_path / "home"
    (home / file).parent.mkdir(parents=True)
    (home / file).write_text(text)
    on = machine(home, **environ)
    expected = tool(name).warnings(on, support.target())

    status, _, err = await dash(tmp_path, f"{name}.sh", lume.url, "--dry-run", key=lume.key, more=environ, work="work")

    assert status == 0
    assert err.splitlines() == [f"Warning: {warning}" for warning in expected]
    assert 1 <= len(expected) <= 4


async def test_a_dry_run_shows_the_change_and_changes_nothing(tmp_path: Path, lume: Proxy):
    (tmp_path / "home").mkdir()
    fill(tmp_path / "home")
    before = support.files(tmp_path / "home")

    status, out, err = await dash(tmp_path, "claude-code.sh", lume.url, "--dry-run", key=lume.key)

    assert (status, err) == (0, "")
    assert out.startswith("--- ~/.claude/settings.json\n+++ ~/.claude/settings.json\n")
    assert f'+        "ANTHROPIC_BASE_URL": "{lume.url}",' in out
    assert lume.key not in out and "theirs" not in out
    assert support.files(tmp_path / "home") == before


@pytest.mark.parametrize(
    ("options", "key", "told"),
    [
        (["--yes"], KEY, "answered 401"),
        (["--yes"], "sk-ant-api03-of-somebody", "That is no key of a lumeproxy"),
        (["--yes"], "", "There is nobody to ask for the key"),
        (["--undo"], "", "There is no record of a set-up of claude-code"),
        (["--what"], KEY, "The options are"),
    ],
)
async def test_what_can_not_be_done_is_said_and_changes_nothing(tmp_path: Path, lume: Proxy, options, key, told):
    status, out, err = await dash(tmp_path, "claude-code.sh", lume.url, *options, key=key)

    assert status in (1, 2)
    assert told in err
    assert support.files(tmp_path / "home") == {}
    assert "at " not in err or "node:" not in err


async def test_without_anybody_to_ask_nothing_is_changed(tmp_path: Path, lume: Proxy):
    status, _, err = await dash(tmp_path, "codex.sh", lume.url, key=lume.key)

    assert status == 1
    assert "say --yes" in err
    assert support.files(tmp_path / "home") == {}


@pytest.mark.parametrize(("reply", "status"), [("y", 0), ("n", 1)])
async def test_the_key_is_asked_for_without_showing_it(tmp_path: Path, reply, status):
    async with proxy(tmp_path, {}) as lume:
        (tmp_path / "home").mkdir()
        (tmp_path / "codex.sh").write_text(script("codex.sh", lume.url))
        process = await asyncio.create_subprocess_exec(
            need("script"), "-qec", f"dash {tmp_path / 'codex.sh'}", "/dev/null", cwd=tmp_path / "home",
            env={"PATH": bare_path(tmp_path), "HOME": str(tmp_path / "home"), "SHELL": "/bin/sh"},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        seen = b""
        for prompt, answer in ((b"API key: ", lume.key), (b"[Y/n] ", reply)):
            seen += await asyncio.wait_for(process.stdout.readuntil(prompt), SHELL_S)
            process.stdin.write(answer.encode() + b"\n")
        seen += await asyncio.wait_for(process.stdout.read(), SHELL_S)
        process.stdin.close()

        assert await process.wait() == status, seen
        assert lume.key.encode() not in seen
        assert (lume.key in str(support.files(tmp_path / "home"))) == (status == 0)
        assert (b"Start it:" in seen, b"Nothing was changed" in seen) == (status == 0, status == 1)


@pytest.mark.parametrize("known", TOOLS, ids=lambda known: known.name)
async def test_without_node_it_says_what_to_write_by_hand(tmp_path: Path, known):
    status, out, err = await dash(tmp_path, f"{known.name}.sh", URL, "--yes", key=KEY, node=False)

    assert status == 1
    assert out == by_hand(known.name, URL) + "\n"
    assert URL in out and "YOUR KEY" in out
    assert "node (18 or newer) is not there" in err


async def test_a_profile_that_is_somebodys_own_is_left_to_them(tmp_path: Path, lume: Proxy):
    own = tmp_path / "home" / ".codex" / "lume.config.toml"
    own.parent.mkdir(parents=True)
    own.write_text('model = "mine"\n')

    status, _, err = await dash(tmp_path, "codex.sh", lume.url, "--yes", key=lume.key)

    assert status == 1
    assert own.read_text() == 'model = "mine"\n'
    assert "merges no TOML" in err and f'base_url = "{lume.url}/v1"' in err and lume.key not in err


async def test_spoilt_files_are_neither_lost_nor_changed(tmp_path: Path, lume: Proxy):
    home = tmp_path / "home"
    for content in (b"{", b"\xef\xbb\xbf{}", b"\xff"):
        (home / ".claude").mkdir(parents=True, exist_ok=True)
        (home / ".claude" / "settings.json").write_bytes(content)
        before = support.files(home)
        status, _, err = await dash(tmp_path, "claude-code.sh", lume.url, "--yes", key=lume.key)
        assert (status, "Nothing was changed" in err) == (1, True), err
        assert support.files(home) == before
    (home / ".claude" / "settings.json").unlink()
    (home / ".claude" / "settings.json").symlink_to("settings.json")
    status, _, err = await dash(tmp_path, "claude-code.sh", lume.url, "--yes", key=lume.key)
    assert (status, "too many levels of symbolic links" in err) == (1, True)
    assert (home / ".claude" / "settings.json").readlink() == Path("settings.json")


async def test_a_call_that_fails_is_said_and_can_be_taken_back(tmp_path: Path):
    async with proxy(tmp_path, {}, credit_nanousd=0) as lume:
        status, _, err = await dash(tmp_path, "claude-code.sh", lume.url, "--yes", key=lume.key)
        assert status == 1
        assert (
            "Claude Code is set up, but a call through the proxy failed" in err and "answered 402: Out of credit" in err
        )
        assert (await dash(tmp_path, "claude-code.sh", lume.url, "--undo"))[0] == 0
        assert support.files(tmp_path / "home") == {}


def test_every_part_of_the_program_is_in_it_and_none_is_longer_than_a_module():
    parts = {path.name: path.read_text("utf-8") for path in CLIENTS.glob("*.mjs")}

    assert set(parts) == set(PARTS)
    assert all(text in script("codex.sh") + "\n" for text in parts.values())
    assert max(len(text.splitlines()) for text in parts.values()) <= 400
