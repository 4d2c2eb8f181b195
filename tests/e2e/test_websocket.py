"""The real Codex over WebSockets: a tool round trip, what it shows when the credit is out, what it does when there is none.

The tests of this module share one server and run in this order: the last ones compare the books with the provider's own.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.product import CLIENTS, PRICES, Stack, running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
ON = {"LUMEPROXY_UPSTREAMS__OPENAI__WEBSOCKET": "true"}


@pytest.fixture(scope="module")
def socketed(clients: Path) -> Iterator[Stack]:
    """A server that offers WebSockets, before a provider that does."""
    with running(clients, **ON) as made:
        yield made


def said(stack: Stack, key: str, home: Path, prompt: str, model: str = "gpt-5.5") -> str:
    """What Codex prints, with WebSockets switched on."""
    (home / ".codex").mkdir()
    (home / ".codex" / "config.toml").write_text(
        f'model = "{model}"\n'
        'model_provider = "px"\ncheck_for_update_on_startup = false\n[model_providers.px]\n'
        f'name = "PX"\nbase_url = "{stack.base}/v1"\nwire_api = "responses"\nenv_key = "PX_KEY"\n'
        "supports_websockets = true\n"
    )
    command = [str(CLIENTS / "node_modules" / ".bin" / "codex"), "exec", "--skip-git-repo-check", prompt]
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "xterm", "LANG": "C.UTF-8", "PX_KEY": key,
               "NO_PROXY": "127.0.0.1", "HTTPS_PROXY": "http://127.0.0.1:9"}  # fmt: skip
    done = subprocess.run(command, env=environ, cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=120)  # fmt: skip
    return done.stdout + done.stderr


def asked(stack: Stack) -> list[str]:
    """How the provider was asked, one word a request: warm-up, message, POST; the handshakes are left out."""
    words = []
    for request in stack.requests():
        if request.get("ws_message"):
            words.append("warm-up" if request["body"].get("generate") is False else "message")
        elif request["method"] == "POST":
            words.append("POST")
    return words


def refusals(stack: Stack) -> list[str]:
    """The codes of what the server refused, oldest first."""
    lines = [json.loads(line) for line in stack.log.read_text().splitlines()]
    return [line["error"] for line in lines if line["event"] == "refused"]


@pytest.mark.parametrize("mode", ["env", "builtin"])
def test_codex_does_a_tool_round_trip_without_http(socketed: Stack, mode: str) -> None:
    before = len(asked(socketed))

    assert "retries=0" in socketed.script("run_codex.sh", CODEX_AUTH=mode, CODEX_WEBSOCKETS=str(int(mode == "env")))

    assert asked(socketed)[before:] == ["warm-up", "message", "message"]


def test_a_long_answer_arrives(socketed: Stack, tmp_path: Path) -> None:
    shown = said(socketed, socketed.key, tmp_path, "say hi [[fake:long-3000,thinking,rs-77,out-6000]]")

    assert "w2997 w2998 w2999" in shown


def test_a_broken_answer_is_asked_for_again(socketed: Stack, tmp_path: Path) -> None:
    before = len(asked(socketed))

    assert "Hello from fake" in said(socketed, socketed.key, tmp_path, "say hi [[fake:fault-midstream-dropx1]]")

    assert asked(socketed)[before:] == ["warm-up", "message", "message"]


def test_a_call_that_the_credit_does_not_cover_is_told_after_one_request(socketed: Stack, tmp_path: Path) -> None:
    key = socketed.account("poor", "0.000001")
    before, refused = len(asked(socketed)), len(refusals(socketed))

    shown = said(socketed, key, tmp_path, "say hi")

    assert "You’ve hit your usage limit. Out of credit: this call needs $" in shown
    assert "Ask your operator to top up the account" in shown
    assert "Reconnecting" not in shown
    assert refusals(socketed)[refused:] == [
        "out_of_credit",
        "out_of_credit",
    ]  # its warm-up, of which it says nothing, and it
    assert len(asked(socketed)) == before
    assert socketed.cli("usage", "poor") == []


def test_credit_that_runs_out_in_mid_answer_is_said_after_one_request(socketed: Stack, tmp_path: Path) -> None:
    key = socketed.account("mid", "0.1")
    before = len(asked(socketed))

    shown = said(socketed, key, tmp_path, "Tell me a long story. [[fake:long-20000]]")

    assert "Your credit ran out while this answer was being written; it was charged up to here." in shown
    assert "Reconnecting" not in shown
    assert asked(socketed)[before:] == ["warm-up", "message"]
    record, warm_up = socketed.cli("usage", "mid")
    assert record["ending"] == record["error_code"] == "out_of_credit"
    assert warm_up["cost_nanousd"] == 0
    left = socketed.cli("credit", "balance", "mid")
    assert (left["held_nanousd"], left["balance_nanousd"]) == (0, 10**8 - record["cost_nanousd"])


def test_a_suspended_account_and_a_wrong_key_are_told_over_http(socketed: Stack, tmp_path: Path) -> None:
    key = socketed.account("sus", "1")
    socketed.cli("account", "suspend", "sus", "--reason", "test")
    before, refused = len(asked(socketed)), len(refusals(socketed))

    shown = said(socketed, key, tmp_path, "say hi")

    assert "This account is suspended. Ask your operator about it." in shown
    assert "Reconnecting" not in shown
    assert refusals(socketed)[refused:] == ["upgrade_required", "account_suspended"]
    assert len(asked(socketed)) == before


def test_a_model_that_only_http_serves_is_asked_for_there_at_once(socketed: Stack, tmp_path: Path) -> None:
    key, refused = socketed.account("echo", "1"), len(refusals(socketed))

    shown = said(socketed, key, tmp_path, "say parrot", "gpt-echo")

    assert shown.count("say parrot") > 1
    assert "Reconnecting" not in shown
    assert refusals(socketed)[refused:] == ["upgrade_required"]


def test_the_books_equal_the_providers_to_the_token(socketed: Stack) -> None:
    entries: list[Any] = [entry for entry in socketed.ledger()["entries"] if entry["outcome"] == "ok"]
    entries = [entry for entry in entries if "long-20000" not in entry["directives"]]  # cut off, and another account's
    records = [r for r in socketed.cli("usage", "me") if r["settled_by"] == "reported"]

    assert len(records) == len(entries) > 0
    for short, name in {
        "in": "input_tokens",
        "out": "output_tokens",
        "cr": "cache_read_tokens",
        "rs": "reasoning_tokens",
    }.items():
        print(f"{name}: charged {sum(r[name] for r in records)}, claimed {sum(e['usage'][short] for e in entries)}")  # noqa: T201
        assert sum(r[name] for r in records) == sum(e["usage"][short] for e in entries)
    rates = PRICES["gpt"]
    for record in records:
        by_hand = (record["input_tokens"] * rates["in"] + record["cache_read_tokens"] * rates["cr"]
                   + record["output_tokens"] * rates["out"])  # fmt: skip
        assert record["cost_nanousd"] == by_hand
    assert {(r["ending"], r["settled_by"]) for r in socketed.cli("usage", "me")} == {
        ("complete", "reported"), ("complete", "none"), ("cut_by_upstream", "estimate"),
    }  # fmt: skip
    assert "" not in {r["session_id"] for r in socketed.cli("usage", "me")}


def test_the_books_are_in_order_and_hold_nothing_secret(socketed: Stack) -> None:
    assert socketed.cli("audit") == {"ok": True, "problems": []}
    for file in [*(socketed.folder / "data").iterdir(), socketed.log]:
        if file.is_file():
            content = file.read_bytes()
            for secret in (socketed.key, "provider-key", "fake-tool-ok", "TOOL-OK"):
                assert secret.encode() not in content, (file, secret)


def test_codex_falls_back_at_once_where_the_provider_takes_none(clients: Path, tmp_path: Path) -> None:
    with running(clients, "--websocket", "off", **ON) as stack:
        shown = said(stack, stack.key, tmp_path, "say hi")

        assert "Hello from fake" in shown
        assert "Reconnecting" not in shown
        assert asked(stack) == ["POST"]
        assert refusals(stack) == ["upgrade_required"]
