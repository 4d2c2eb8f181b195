"""Real Claude Code, Codex, opencode and SDKs through the product; then the books against the provider's own.

The tests of this module share one server and run in this order: the last ones add up what the others did.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import subprocess
from typing import Any

import pytest

from tests.e2e.product import CLIENTS, PRICES, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
CLASSES = {
    "in": "input_tokens",
    "out": "output_tokens",
    "cr": "cache_read_tokens",
    "cw5": "cache_write_5m_tokens",
    "cw1": "cache_write_1h_tokens",
    "rs": "reasoning_tokens",
}
ASK = "Use your bash tool to run exactly: echo fake-tool-ok . Then answer with the single word TOOL-OK. [[fake:tool]]"


@pytest.mark.parametrize("mode", ["token", "apikey", "both", "helper", "settings"])
def test_claude_code_does_a_tool_round_trip(stack: Stack, mode: str) -> None:
    stack.script("run_claude_code.sh", CLAUDE_AUTH=mode)


@pytest.mark.parametrize("mode", ["env", "bearer", "command", "builtin"])
def test_codex_does_a_tool_round_trip(stack: Stack, mode: str) -> None:
    assert "retries=0" in stack.script("run_codex.sh", CODEX_AUTH=mode)


def test_the_sdks_do_all_they_can(stack: Stack) -> None:
    stack.script("run_sdks.py")


@pytest.mark.parametrize(
    ("package", "model"),
    [
        ("@ai-sdk/anthropic", "claude-opus-5-5"),
        ("@ai-sdk/openai", "gpt-5.5"),
        ("@ai-sdk/openai-compatible", "gpt-5"),
    ],
)
def test_opencode_does_a_tool_round_trip(stack: Stack, package: str, model: str) -> None:
    home = stack.folder / ("opencode-" + package.rpartition("/")[2])
    (home / ".config" / "opencode").mkdir(parents=True)
    provider = {"npm": package, "name": "px", "options": {"baseURL": stack.base + "/v1", "apiKey": stack.key},
                "models": {model: {"name": "model"}}}  # fmt: skip
    settings = {"autoupdate": False, "provider": {"px": provider}}
    (home / ".config" / "opencode" / "opencode.json").write_text(json.dumps(settings))
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "xterm", "NO_PROXY": "127.0.0.1",
               "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}  # fmt: skip
    command = [str(CLIENTS / "node_modules" / ".bin" / "opencode"), "run", "--model", "px/" + model, ASK]
    done = subprocess.run(command, env=environ, cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=200)  # fmt: skip
    print(f"opencode: {package} rc={done.returncode} said={done.stdout.strip()[-20:]!r}")  # noqa: T201
    assert "TOOL-OK" in done.stdout
    assert "fake-tool-ok" in done.stdout + done.stderr


ANSWERS = [
    "thinking,rs-77,out-130", "gzip", "slimdelta,cw1-900", "long-300", "pings-9,in-1,cr-0,cw5-0,cw1-0", "in-7,out-1",
    "out-123456,rs-1000",
]  # fmt: skip
PATHS = {"/v1/messages": "claude-opus-5-5", "/v1/responses": "gpt-5.5", "/v1/chat/completions": "gpt-5"}


@pytest.mark.parametrize(("path", "stream", "fake"), list(itertools.product(PATHS, [True, False], ANSWERS)))
def test_every_kind_of_answer_arrives(stack: Stack, path: str, stream: bool, fake: str) -> None:
    text = [{"role": "user", "content": f"say hi [[fake:{fake}]]"}]
    body: dict[str, Any] = {"model": PATHS[path], "stream": stream, "max_tokens": 50}
    body["input" if path == "/v1/responses" else "messages"] = text
    connection = http.client.HTTPConnection(stack.base.removeprefix("http://"), timeout=30)
    connection.request("POST", path, json.dumps(body), {"Authorization": "Bearer " + stack.key})
    response = connection.getresponse()
    assert response.status == 200
    assert response.read()
    connection.close()


def test_the_books_equal_the_providers_to_the_token(stack: Stack) -> None:
    totals = stack.ledger()["totals"]
    records = stack.cli("usage")

    assert len(records) == totals["requests"]
    assert not any(record["estimated"] for record in records)
    for short, name in CLASSES.items():
        print(f"{name}: charged {sum(r[name] for r in records)}, claimed {totals[short]}")  # noqa: T201
        assert sum(r[name] for r in records) == totals[short]


def test_every_charge_is_the_price_of_its_tokens(stack: Stack) -> None:
    records = stack.cli("usage")
    for record in records:
        rates = PRICES[record["model"].partition("-")[0]]
        by_hand = sum(record[CLASSES[short]] * rate for short, rate in rates.items())
        assert record["cost_nanousd"] == by_hand, record
        assert record["ending"] == "complete"
    spent = sum(r["cost_nanousd"] for r in records)
    balance = stack.cli("credit", "balance", "me")
    assert balance["balance_nanousd"] == balance["available_nanousd"] == 10 * 10**9 - spent
    print(f"{len(records)} calls, {spent} nano-USD, each as by hand")  # noqa: T201


def test_sessions_are_recorded(stack: Stack) -> None:
    sessions = {r["session_id"] for r in stack.cli("usage") if r["user_agent"].startswith(("claude-cli", "codex"))}

    assert "" not in sessions
    assert len(sessions) >= 9


def test_the_audit_finds_nothing_wrong(stack: Stack) -> None:
    assert stack.cli("audit") == {"ok": True, "problems": []}


def test_no_credential_is_in_any_file_or_log(stack: Stack) -> None:
    for file in [*(stack.folder / "data").iterdir(), stack.log]:
        if file.is_file():
            content = file.read_bytes()
            for secret in (stack.key, "sk-ant-not-the-proxys-own", "provider-key", "fake-tool-ok", "TOOL-OK"):
                assert secret.encode() not in content, (file, secret)
