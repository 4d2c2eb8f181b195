"""What the tests of the set-up share: a home to set up in, and the node program's merging half asked many things."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lumeproxy.clients import apply
from lumeproxy.clients.base import Machine, Target, Tool
from lumeproxy.clients.script import PARTS
from lumeproxy.core import apikey

CLIENTS = Path(apply.__file__).parent
KEY = apikey.make(lambda count: bytes(range(count))).text
OTHER_KEY = apikey.make(lambda count: bytes(range(100, 100 + count))).text
URL = "https://proxy.test"
MODELS = ("claude-echo", "gpt-echo", "claude-haiku-4-5", "claude-opus-5-5", "gpt-5.5", "gpt-6.1-sol", "qwen3-coder")

# A user's own settings: comments, other providers, hooks, servers, odd indentation, keys of ours with other values.
FULL = {
    ".claude/settings.json": """{
    "model": "opus",
    "env": {
        "HTTP_PROXY": "",
        "ANTHROPIC_BASE_URL": "https://gateway.test",
        "ANTHROPIC_AUTH_TOKEN": "theirs"
    },
    "hooks": {"Stop": [{"hooks": []}]}
}""",
    ".claude.json": '{"numStartups":12,"mcpServers":{"db":{"command":"x","args":["-y"]}},"projects":{"/w":{"a":[]}}}',
    ".codex/config.toml": '# mine\nmodel = "gpt-5.5" # the good one\n\n[model_providers.local]\nname = "x"\n'
    'base_url = "http://127.0.0.1:1"\n\n[mcp_servers.db]\ncommand = "x"\n',
    ".config/opencode/opencode.jsonc": '{\n  // mine\n  "model": "local/x",\n  "provider": {\n'
    '    "local": { "npm": "y" }, // kept\n  },\n  "mcp": {},\n}\n',
}


def fill(home: Path) -> None:
    for name, text in FULL.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(text.encode())
    (home / ".claude" / "settings.json").chmod(0o640)


DRIVER = """
const lines = [];
for await (const piece of process.stdin) lines.push(piece);
const told = [];
for (const { act, wish, now, earlier, backup, record } of JSON.parse(Buffer.concat(lines).toString())) {
  try {
    const made = act === "undo" ? undone(record, now, backup) : change(wish, now, earlier, backup);
    told.push({ after: made.after, record: made.record, kept: made.kept ?? [], along: made.along ?? [] });
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    told.push({ refused: error.message });
  }
}
process.stdout.write(JSON.stringify(told));
"""


def need(program: str) -> str:
    """Where a program lies; without it, the test is skipped and says so."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed: this stays untested here")
    return found


def told_by_node(folder: Path, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the merging parts of the node program make of each case, in one process."""
    program = folder / "driver.mjs"
    parts = [(CLIENTS / name).read_text("utf-8") for name in PARTS[:2]]
    program.write_text("".join(parts) + DRIVER, "utf-8")
    done = subprocess.run(
        [need("node"), str(program)],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=50,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    told: list[dict[str, Any]] = json.loads(done.stdout)
    return told


def machine(home: Path, *, platform: str = "linux", **environ: str) -> Machine:
    """A machine whose home is this folder, and whose current folder is one in it."""
    (home / "work").mkdir(exist_ok=True)
    return Machine(platform, environ, home, home / "work")


def target(key: str = KEY, *, default: bool = False, models: tuple[str, ...] = MODELS, url: str = URL) -> Target:
    return Target(url, key, models, default)


def connect(tool: Tool, on: Machine, to: Target) -> apply.Plan:
    """Set a tool up; the plan that was carried out."""
    made = apply.plan(tool.name, to.url, tool.wishes(on, to), on.state)
    apply.apply(made)
    return made


def disconnect(tool: Tool, on: Machine) -> apply.Plan:
    """Take a set-up back; the plan that was carried out."""
    made = apply.plan_undo(tool.name, on.state)
    apply.apply_undo(made)
    return made


def files(home: Path) -> dict[str, tuple[bytes | str, int]]:
    """Every file below a folder: its bytes, or where a link points, and its mode; folders with nothing in them too."""
    found: dict[str, tuple[bytes | str, int]] = {}
    for path in sorted(home.rglob("*")):
        name, mode = str(path.relative_to(home)), path.lstat().st_mode & 0o7777
        if path.is_symlink():
            found[name] = (str(path.readlink()), 0)
        elif path.is_dir():
            found[name] = ("folder", mode)
        else:
            found[name] = (path.read_bytes(), mode)
    return found
