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
from lumeproxy.core import apikey

CLIENTS = Path(apply.__file__).parent
KEY = apikey.make(lambda count: bytes(range(count))).text
OTHER_KEY = apikey.make(lambda count: bytes(range(100, 100 + count))).text
URL = "https://proxy.test"
MODELS = ("claude-echo", "gpt-echo", "claude-haiku-4-5", "claude-opus-5-5", "gpt-5.5", "gpt-6.1-sol", "qwen3-coder")

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
    """What merge.mjs makes of each case, in one process."""
    program = folder / "driver.mjs"
    program.write_text((CLIENTS / "merge.mjs").read_text("utf-8") + DRIVER, "utf-8")
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
