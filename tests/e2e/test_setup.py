"""Real tools on homes that `lumeproxy setup`, or the script that the server hands out, has connected: a turn with a tool
round trip, no login screen, and after the undo the files as they were."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.product import CLIENTS, ROOT, Stack
from tests.e2e.terminal import shown

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
ASK = "Use your bash tool to run exactly: echo fake-tool-ok . Then answer with the single word TOOL-OK. [[fake:tool]]"
BIN = CLIENTS / "node_modules" / ".bin"
TOOLS = ("claude-code", "codex", "opencode")

# A home full of its owner's settings: comments, other providers that do not answer, hooks, servers, odd indentation.
FULL = {
    ".claude/settings.json": """{
     "model": "opus", "permissions": {"allow": ["Bash(ls:*)"]},
     "env": {
          "MY_OWN": "1",
          "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
          "ANTHROPIC_AUTH_TOKEN": "somebody-elses"
     },
     "hooks": {"Stop": [{"hooks": [{"type": "command", "command": "true"}]}]}
}""",
    ".claude.json": '{"numStartups":7,"mcpServers":{"nothing":{"command":"true","args":[]}},"tipsHistory":{"x":1}}',
    ".codex/config.toml": """# my settings
model = "gpt-5.5"   # the one I like
check_for_update_on_startup = false

[model_providers.local]  # does not answer
name = "local"
base_url = "http://127.0.0.1:9/v1"
wire_api = "responses"

[mcp_servers.nothing]
command = "true"
""",
    ".config/opencode/opencode.jsonc": """{
  // my settings
  "$schema": "https://opencode.ai/config.json",
  "autoupdate": false,
  "provider": {
    "local": { "npm": "@ai-sdk/openai-compatible", "options": { "baseURL": "http://127.0.0.1:9/v1" }, "models": {"m": {}} },
  },
  "mcp": {},
}
""",
}
# What each tool itself writes meanwhile; there, only what is ours may be gone.
OWN = {".claude.json"}


@dataclass
class Home:
    """A developer's home, and how it was filled."""

    path: Path
    full: bool

    def environ(self, **more: str) -> dict[str, str]:
        """What a shell there has; no Python but the one that runs the command, no way to the outside."""
        node = str(Path(shutil.which("node") or "").parent)
        return {"PATH": f"{node}:/usr/bin:/bin", "HOME": str(self.path), "TERM": "xterm-256color", "LANG": "C.UTF-8",
                "NO_PROXY": "127.0.0.1,localhost", "HTTPS_PROXY": "http://127.0.0.1:9", **more}  # fmt: skip

    def settings(self) -> dict[str, bytes]:
        """The settings files of all tools that are there."""
        names = [*FULL, ".codex/lume.config.toml", ".codex/auth.json", ".config/opencode/opencode.json"]
        return {name: (self.path / name).read_bytes() for name in names if (self.path / name).exists()}


@pytest.fixture(params=["fresh", "full"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    path = tmp_path / "home"
    path.mkdir()
    if request.param == "full":
        for name, text in FULL.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(text)
    yield Home(path, request.param == "full")


@pytest.fixture(scope="module")
def key(stack: Stack) -> str:
    """A key for models that the fake provider can lead through a tool round trip: for gpt-6 and newer, Codex tells of its
    tools inside the input, where the fake does not look."""
    return stack.account("developer", "5", "--model", "claude-*", "--model", "gpt-5.5")


def command(home: Home, stack: Stack, key: str, tool: str, *options: str) -> None:
    """Run `lumeproxy setup` there."""
    line = [sys.executable, "-m", "lumeproxy", "setup", tool, *options]
    environ = home.environ(LUME_KEY=key, PYTHONPATH=str(ROOT))
    done = subprocess.run(
        line, env=environ, cwd=home.path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def script(home: Home, stack: Stack, key: str, tool: str, *options: str) -> None:
    """Run the server's script there, by dash, with nothing but node and a few commands to be found."""
    found = home.path.parent / "bin"
    found.mkdir(exist_ok=True)
    for name in ("node", "cat", "stty"):
        (found / name).unlink(missing_ok=True)
        (found / name).symlink_to(shutil.which(name) or "")
    with urllib.request.urlopen(f"{stack.base}/setup/{tool}.sh", timeout=10) as answer:
        text = answer.read()
    environ = {**home.environ(LUME_KEY=key), "PATH": str(found)}
    done = subprocess.run(["/usr/bin/dash", "-s", "--", *options], input=text, env=environ, cwd=home.path,
                          capture_output=True, timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def turn(home: Home, stack: Stack, tool: str) -> None:
    """One turn of the real tool with a tool round trip, through the proxy."""
    before = len(stack.requests())
    if tool == "claude-code":
        stack.script("run_claude_code.sh", CLIENT_HOME=str(home.path))
    elif tool == "codex":
        assert "retries=0" in stack.script("run_codex.sh", CLIENT_HOME=str(home.path), CODEX_ARGS="-p lume")
    else:
        for model in ("claude-opus-5-5", "gpt-5.5"):
            line = [str(BIN / "opencode"), "run", "--model", f"lumeproxy/{model}", ASK]
            done = subprocess.run(line, env=home.environ(), cwd=home.path, stdin=subprocess.DEVNULL, capture_output=True,
                                  text=True, timeout=200)  # fmt: skip
            print(f"opencode: {model} rc={done.returncode} said={done.stdout.strip()[-20:]!r}")  # noqa: T201
            assert "TOOL-OK" in done.stdout and "fake-tool-ok" in done.stdout + done.stderr
    assert len(stack.requests()) >= before + 2


@pytest.mark.parametrize("way", [command, script], ids=lambda way: way.__name__)
@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_works_when_connected_and_has_its_files_back_afterwards(
    stack: Stack, key: str, home: Home, tool: str, way
) -> None:
    before = home.settings()
    options = ("--url", stack.base, "--yes") if way is command else ("--yes",)
    way(home, stack, key, tool, *options)
    changed = {name for name, content in home.settings().items() if before.get(name) != content}
    assert any(key.encode() in content for content in home.settings().values())

    turn(home, stack, tool)
    way(home, stack, key, tool, "--undo")

    after = home.settings()
    for name in set(before) | set(after):
        if name in OWN and name in changed:
            now, was = json.loads(after[name]), json.loads(before.get(name, b"{}"))
            assert "hasCompletedOnboarding" not in now
            assert {key: now.get(key) for key in was if key != "numStartups"} == {
                k: v for k, v in was.items() if k != "numStartups"
            }
        else:
            assert after.get(name) == before.get(name), name
    print(f"{tool} {way.__name__}: {sorted(changed)} changed and given back")  # noqa: T201
    assert not any(key.encode() in content for content in after.values())
    assert not (home.path / ".local" / "state" / "lumeproxy").exists()


# How each is started, what its screen shows when it can be used, and what else where it can't be without logging in.
STARTS = {
    "claude-code": (
        ["claude"],
        "Yes, I trust this folder",
        "Select login method|Choose the text style|Unable to connect to Anthropic",
    ),
    "codex": (
        ["codex", "-p", "lume"],
        "trust the contents|Use existing model",
        "Sign in with ChatGPT|Provide your own API key",
    ),
    "opencode": (["opencode", "--model", "lumeproxy/gpt-5.5"], "gpt-5.5 ?lumeproxy", "Connect a provider"),
}


def start(home: Home, line: list[str], until: str) -> str:
    """What a tool shows at its start, without blanks."""
    (home.path / "work").mkdir()
    screen = shown([str(BIN / line[0]), *line[1:]], home.environ(), home.path / "work", until, 60)
    print(f"{line[0]}: …{screen[-160:]!r}")  # noqa: T201
    return screen


@pytest.mark.parametrize("tool", TOOLS)
def test_no_login_screen_is_shown_at_the_start(stack: Stack, key: str, home: Home, tool: str) -> None:
    command(home, stack, key, tool, "--url", stack.base, "--yes")
    line, ready, login = STARTS[tool]

    screen = start(home, line, ready)

    assert found(ready, screen), screen[-2000:]
    assert not found(login, screen)


@pytest.mark.parametrize("tool", ["claude-code", "codex"])
def test_without_a_set_up_there_is_one(tool: str, tmp_path: Path, clients: Path) -> None:
    line, ready, login = STARTS[tool]

    screen = start(Home(tmp_path, full=False), line[:1], login)

    assert found(login, screen), screen[-2000:]
    assert not found(ready, screen)


def found(pattern: str, screen: str) -> bool:
    return re.search(pattern.replace(" ", ""), screen) is not None


def test_codex_uses_the_proxy_by_default_where_that_was_asked_for(stack: Stack, key: str, home: Home) -> None:
    before = home.settings()
    command(home, stack, key, "codex", "--url", stack.base, "--yes", "--default")
    stack.script("run_codex.sh", CLIENT_HOME=str(home.path))
    command(home, stack, key, "codex", "--undo")

    assert home.settings() == before


def test_the_books_are_right_after_all_that(stack: Stack) -> None:
    assert stack.cli("audit") == {"ok": True, "problems": []}
