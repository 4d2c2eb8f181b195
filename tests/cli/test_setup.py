"""`lumeproxy setup`: shown, asked, done, proved, taken back; and quick to its first question."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lumeproxy.cli.main import run
from lumeproxy.core import apikey
from tests.cli.support import ROOT, Cli, Outcome, Started, clean_environment, started
from tests.clients import support
from tests.clients.support import KEY

TOOLS = ["claude-code", "codex", "opencode"]
# What a server needs, and a set-up must not wait for.
HEAVY = {"aiohttp", "aiosqlite", "pydantic", "pydantic_settings", "sqlite3", "pysqlite3", "genai_prices",
         "msgspec", "structlog"}  # fmt: skip


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "home" / "work").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "home" / "work")
    for name in tuple(os.environ):
        if name.startswith(("LUME_", "XDG_", "CLAUDE_", "CODEX_", "OPENCODE_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """A server of these tests' own: they make calls of the first account."""
    with started(tmp_path_factory.mktemp("set-up"), until="to try it out") as made:
        yield made


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def away(capsys: pytest.CaptureFixture[str], *arguments: str) -> Outcome:
    """A command on a machine where no server runs."""
    capsys.readouterr()
    status = run(["setup", *arguments])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return Outcome(status, captured.out, captured.err)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_is_connected_and_taken_back(server: Started, home: Path, capsys, tool):
    before = support.files(home)

    done = away(capsys, tool, "--url", server.url, "--key", server.key, "--yes")

    assert (done.status, done.err) == (0, "")
    text, _, link = done.out.partition("ccswitch://")
    assert re.search(
        r"is set up: a call of (claude|gpt)-echo through http://127\.0\.0\.1:\d+ was answered, for \$0\.0000", text
    )
    assert re.search(
        r"Start it:\n\n    (claude --model claude-echo|codex -p lume|opencode --model lumeproxy/claude-echo)\n", text
    )
    assert server.key not in text and server.key in link
    assert server.key in str(support.files(home))
    assert away(capsys, tool, "--undo").out.endswith("is as it was before.\n")
    assert support.files(home) == before


def test_a_dry_run_shows_the_diff_and_changes_nothing(server: Started, home: Path, capsys):
    before = support.files(home)

    done = away(capsys, "claude-code", "--url", server.url + "/v1/", "--key", server.key, "--dry-run")

    assert done.out.startswith("--- (no file)\n+++ ~/.claude/settings.json\n@@ -0,0 +1,8 @@\n+{\n")
    assert f'+    "ANTHROPIC_BASE_URL": "{server.url}",\n' in done.out
    assert done.err.startswith("Warning: The address was given with /v1 at its end")
    assert server.key not in done.out + done.err
    assert (done.status, support.files(home)) == (0, before)


@pytest.mark.parametrize(("reply", "status"), [("y\n", 0), ("\n", 0), ("n\n", 1), ("", 1)])
def test_it_asks_before_it_changes_anything(server: Started, home: Path, capsys, monkeypatch, reply, status):
    before = support.files(home)
    answer(monkeypatch, reply)

    done = away(capsys, "codex", "--url", server.url, "--key", server.key)

    assert done.status == status
    assert "Set up Codex so? [Y/n]" in done.out
    assert (support.files(home) == before) == (status == 1)


def test_the_key_may_come_from_the_environment_or_the_keyboard(server: Started, home: Path, capsys, monkeypatch):
    monkeypatch.setenv("LUME_KEY", server.key)
    assert away(capsys, "codex", "--url", server.url, "--yes").status == 0
    assert away(capsys, "codex", "--undo").status == 0

    monkeypatch.delenv("LUME_KEY")
    monkeypatch.setattr("click.termui.hidden_prompt_func", lambda _prompt: server.key)
    assert away(capsys, "codex", "--url", server.url, "--yes").status == 0
    assert server.key in (home / ".codex" / "lume.config.toml").read_text()


def test_where_nobody_can_type_the_key_it_says_where_else_it_may_come_from(home: Path):
    command = [sys.executable, "-m", "lumeproxy", "setup", "codex", "--url", "http://127.0.0.1:9"]

    # A session of its own has no terminal that getpass could open.
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(home), stdin=subprocess.DEVNULL,
                          start_new_session=True, capture_output=True, text=True, timeout=30)  # fmt: skip

    told = "lumeproxy: There is nobody to ask for the key: give it with --key, or put it into LUME_KEY.\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", told)


def test_beside_the_server_it_needs_nothing_and_makes_a_key(remote: Cli, server: Started, home: Path):
    done = remote("setup", "claude-code", "--yes")

    made = re.match(r"The key (\w{8}) of me was made for it\.\n", done.out)
    assert done.status == 0 and made is not None, done.err
    env = json.loads((home / ".claude" / "settings.json").read_text())["env"]
    assert env["ANTHROPIC_BASE_URL"] == server.url
    assert apikey.parse(env["ANTHROPIC_AUTH_TOKEN"]) == made[1]
    (listed,) = [known for known in remote.json("key", "list", "me") if known["id"] == made[1]]
    assert listed["name"].startswith("claude-code on ")
    undone = remote("setup", "claude-code", "--undo")
    assert (
        f"The key {made[1]} stays in force. To end it, where the server runs: lumeproxy key revoke {made[1]}\n"
        in undone.out
    )


@pytest.mark.parametrize(("tool", "arguments", "told"), [
    ("claude-code", [], "stopped"),
    ("claude-code", ["--yes"], "can't be merged: line 1, column 2"),
])  # fmt: skip
def test_a_key_that_was_made_for_nothing_is_revoked(remote: Cli, home: Path, monkeypatch, tool, arguments, told):
    before = {known["id"] for known in remote.json("key", "list", "me") if known["revoked_ms"] is None}
    answer(monkeypatch, "n\n")
    if arguments:
        (home / ".claude").mkdir()
        (home / ".claude" / "settings.json").write_text("{")

    done = remote("setup", tool, *arguments)

    assert (done.status, told in done.err) == (1, True)
    assert re.search(r"The key \w{8} was not used, and is revoked again\.\n", done.err)
    assert {known["id"] for known in remote.json("key", "list", "me") if known["revoked_ms"] is None} == before


def test_for_machines_it_prints_one_document(server: Started, home: Path, capsys):
    arguments = ("claude-code", "--url", server.url, "--key", server.key, "--json")
    planned = away(capsys, *arguments, "--dry-run").json
    done = away(capsys, *arguments, "--yes").json
    undone = away(capsys, "claude-code", "--undo", "--json").json

    keys = ["env." + name for name in ("ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN",
            "CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY", "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK")]  # fmt: skip
    files = [str(home / ".claude" / "settings.json"), str(home / ".claude.json")]
    assert planned == {
        "tool": "claude-code", "url": server.url, "warnings": [], "applied": False,
        "files": [{"file": files[0], "keys": keys}, {"file": files[1], "keys": ["hasCompletedOnboarding"]}],
    }  # fmt: skip
    call = done.pop("call")
    assert done.pop("ccswitch_link").startswith("ccswitch://v1/import?")
    assert done == {**planned, "applied": True, "next": "claude --model claude-echo"}
    assert set(call) == {"model", "call_id", "cost_usd"} and call["call_id"].startswith("call_")
    assert undone == {"tool": "claude-code", "files": files, "kept": [], "applied": True}


def test_what_was_changed_since_is_said_when_it_is_taken_back(server: Started, home: Path, capsys):
    away(capsys, "claude-code", "--url", server.url, "--key", server.key, "--yes")
    file = home / ".claude" / "settings.json"
    file.write_text(file.read_text().replace('DISCOVERY": "1"', 'DISCOVERY": "0"'))

    file.write_text(file.read_text().replace(server.key, KEY))

    done = away(capsys, "claude-code", "--undo")

    assert "Warning: env.ANTHROPIC_AUTH_TOKEN in" in done.err and "and goes all the same" in done.err
    assert "DISCOVERY in" in done.err and "was changed since, and stays as it is." in done.err
    assert json.loads(file.read_text()) == {"env": {"CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "0"}}


def test_others_that_can_read_the_key_are_said(server: Started, home: Path, capsys):
    (home / ".claude").mkdir()
    (home / ".claude" / "settings.json").write_text("{}")
    (home / ".claude" / "settings.json").chmod(0o644)

    done = away(capsys, "claude-code", "--url", server.url, "--key", server.key, "--yes")

    assert f"Warning: Others can read {home}/.claude/settings.json" in done.err
    assert (home / ".claude" / "settings.json").stat().st_mode & 0o777 == 0o644


def test_a_call_that_fails_is_said_with_the_way_back(server: Started, remote: Cli, home: Path, capsys):
    remote("account", "create", "poor")
    key = remote.json("key", "create", "poor")["key"]

    done = away(capsys, "claude-code", "--url", server.url, "--key", key, "--yes")

    assert done.status == 1
    assert re.search(
        r"Claude Code is set up, but a call .* answered 402: Out of credit.* setup claude-code --undo\n", done.err
    )
    assert key in (home / ".claude" / "settings.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["claude-code"], 2, "No server runs here: give the address of the proxy with --url."),
        (["claude-code", "--url", "proxy.test", "--key", KEY], 1, "That is no address of a proxy"),
        (["claude-code", "--url", "http://127.0.0.1:9", "--key", KEY], 1, "can't be reached: Connection refused"),
        (["claude-code", "--url", "http://127.0.0.1:9", "--key", "sk-ant-api03-x"], 1, "That is no key of a lumeproxy"),
        (["gemini", "--url", "http://127.0.0.1:9"], 2, "'gemini' is not one of"),
        (["opencode", "--url", "http://127.0.0.1:9", "--default"], 2, "--default is for codex only"),
        (["codex", "--undo", "--key", KEY], 2, "--undo takes no --url"),
        (["codex", "--undo"], 1, "There is no record of a set-up of codex"),
    ],
)
def test_what_can_not_be_done_is_one_sentence_and_changes_nothing(home: Path, capsys, arguments, status, told):
    before = support.files(home)

    done = away(capsys, *arguments)

    assert (done.status, told in done.err) == (status, True), done.err
    assert KEY not in done.err and "sk-ant-api03-x" not in done.err
    assert support.files(home) == before


def loaded(home: Path, *arguments: str, environ: dict[str, str]) -> tuple[int, set[str], str]:
    """The status of a command in a process of its own, the packages that it loaded, and what it printed."""
    code = (
        "import sys\nfrom lumeproxy.cli.main import run\nstatus = run(sys.argv[1:])\n"
        "print(status, *sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "setup", *arguments]
    done = subprocess.run(command, cwd=home, env=environ, stdin=subprocess.DEVNULL,
                          start_new_session=True, capture_output=True, text=True, timeout=30)  # fmt: skip
    status, *names = done.stderr.splitlines()[-1].split()
    return int(status), set(names), done.stdout + done.stderr


def test_a_set_up_loads_nothing_of_a_server(server: Started, home: Path):
    environ = {**clean_environment(home), "PYTHONPATH": str(ROOT)}
    for arguments, status, told in (
        (("claude-code", "--url", "https://proxy.test"), 1, "nobody to ask for the key"),
        (("claude-code", "--url", server.url, "--key", server.key, "--yes"), 0, "Start it:"),
        (("claude-code", "--undo"), 0, "as it was before"),
    ):
        ended, names, text = loaded(home, *arguments, environ=environ)
        assert (ended, told in text) == (status, True), text
        # What makes a sentence of an error comes after the question.
        assert names & HEAVY <= ({"msgspec", "structlog"} if status else set())
        assert "tomlkit" not in names
