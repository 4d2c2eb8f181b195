"""What real clients show when a call is refused or its credit runs out, and how often they ask."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.product import CLIENTS, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("script", "credit", "models", "told"),
    [
        ("run_claude_code.sh", "0.000001", "*", "402 Out of credit: this call needs $"),
        ("run_codex.sh", "0.000001", "*", "Out of credit: this call needs $"),
        ("run_claude_code.sh", "1", "nothing", "issue with the selected model"),
        ("run_codex.sh", "1", "nothing", "The model gpt-5.5 is not available with this key"),
    ],
)
def test_a_refusal_is_shown_and_reaches_no_provider(
    stack: Stack, script: str, credit: str, models: str, told: str
) -> None:
    key = stack.account(f"{script[4:-3]}-{credit}", credit, "--model", models)
    before = len(stack.requests())

    assert "retries=0" in stack.script(script, key=key, EXPECT_ERROR=told)

    assert len(stack.requests()) == before


LONG = "Tell me a long story. [[fake:long-20000]]"


def said_by_claude_code(stack: Stack, key: str, home: Path) -> str:
    """What Claude Code prints in the end."""
    command = [str(CLIENTS / "node_modules" / ".bin" / "claude"), "-p", LONG]
    environ = {"ANTHROPIC_BASE_URL": stack.base, "ANTHROPIC_AUTH_TOKEN": key, "DISABLE_AUTOUPDATER": "1",
               "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}  # fmt: skip
    return _client(command, environ, home)


def said_by_codex(stack: Stack, key: str, home: Path) -> str:
    """What Codex prints in the end."""
    (home / ".codex").mkdir()
    (home / ".codex" / "config.toml").write_text(
        'model = "gpt-5.5"\nmodel_provider = "px"\ncheck_for_update_on_startup = false\n[model_providers.px]\n'
        f'name = "PX"\nbase_url = "{stack.base}/v1"\nwire_api = "responses"\nenv_key = "PX_KEY"\n'
    )
    command = [str(CLIENTS / "node_modules" / ".bin" / "codex"), "exec", "--skip-git-repo-check", LONG]
    return _client(command, {"PX_KEY": key}, home)


def _client(command: list[str], environ: dict[str, str], home: Path) -> str:
    base = {"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "xterm", "LANG": "C.UTF-8", "NO_PROXY": "127.0.0.1",
            "HTTPS_PROXY": "http://127.0.0.1:9"}  # fmt: skip
    done = subprocess.run(command, env={**base, **environ}, cwd=home, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=120)  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.parametrize(("client", "credit"), [(said_by_claude_code, "0.1"), (said_by_codex, "0.03")])
def test_credit_that_runs_out_in_mid_stream_is_said_after_one_request(
    stack: Stack, tmp_path: Path, client: Callable[[Stack, str, Path], str], credit: str
) -> None:
    name = client.__name__.replace("_", "-")
    key = stack.account(name, credit)
    before = len(stack.requests())

    said = client(stack, key, tmp_path)

    assert "Your credit ran out while this answer was being written; it was charged up to here." in said
    assert len(stack.requests()) == before + 1
    (record,) = stack.cli("usage", name)
    assert record["ending"] == record["error_code"] == "out_of_credit"
    left = stack.cli("credit", "balance", name)
    spent = int(float(credit) * 10**9) - left["balance_nanousd"]
    assert (left["held_nanousd"], spent) == (0, record["cost_nanousd"])
    assert left["balance_nanousd"] >= 0
    shown = [line for line in said.splitlines() if "Your credit ran out" in line][-1]
    print(f"{name}: 1 request, {spent} of {credit} dollars spent, shown: {shown}")  # noqa: T201


def test_the_books_are_in_order_afterwards(stack: Stack) -> None:
    assert stack.cli("audit") == {"ok": True, "problems": []}
