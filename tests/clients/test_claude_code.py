"""Claude Code: what it is told, and what would defeat that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lumeproxy.clients.claude_code import ClaudeCode
from tests.clients.support import KEY, URL, machine, target

CODE = ClaudeCode()


def test_the_settings_are_the_ones_measured(tmp_path: Path):
    settings, own = CODE.wishes(machine(tmp_path), target())

    assert settings.values == {
        "env": {
            "ANTHROPIC_BASE_URL": URL,
            "ANTHROPIC_AUTH_TOKEN": KEY,
            "CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1",
            "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",
        }
    }
    assert (own.values, own.gentle) == ({"hasCompletedOnboarding": True}, (("hasCompletedOnboarding",),))


def test_it_is_started_with_a_model_only_where_its_own_is_not_served(tmp_path: Path):
    on = machine(tmp_path)

    assert CODE.next_steps(on, target())[0] == "claude"
    assert CODE.next_steps(on, target(models=("gpt-echo", "claude-echo")))[0] == "claude --model claude-echo"
    assert CODE.trial(on, target()).body["model"] == "claude-haiku-4-5"
    assert CODE.trial(on, target(models=("mine",))).body["model"] == "mine"


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"ANTHROPIC_API_KEY": "sk-ant-secret"}, "ANTHROPIC_API_KEY is set in this shell"),
        ({"CLAUDE_CODE_USE_BEDROCK": "1"}, "CLAUDE_CODE_USE_BEDROCK is set in this shell"),
        ({"CLAUDE_CODE_USE_VERTEX": "true"}, "CLAUDE_CODE_USE_VERTEX is set in this shell"),
        ({"CLAUDE_CODE_USE_FOUNDRY": "1"}, "CLAUDE_CODE_USE_FOUNDRY is set in this shell"),
    ],
)
def test_variables_that_defeat_it_are_told_without_their_value(tmp_path: Path, environ, told):
    (warning,) = CODE.warnings(machine(tmp_path, **environ), target())

    assert warning.startswith(told)
    assert "secret" not in warning


@pytest.mark.parametrize(
    "file", [".claude/settings.json", "work/.claude/settings.json", "work/.claude/settings.local.json"]
)
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"apiKeyHelper": "cat key"}, "has an apiKeyHelper"),
        ({"env": {"ANTHROPIC_API_KEY": "sk-ant-secret"}}, "sets ANTHROPIC_API_KEY"),
        ({"env": {"CLAUDE_CODE_USE_BEDROCK": "1"}}, "sets CLAUDE_CODE_USE_BEDROCK"),
    ],
)
def test_settings_that_defeat_it_are_told_by_their_file(tmp_path: Path, file, settings, told):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(json.dumps(settings))

    (warning,) = CODE.warnings(machine(tmp_path), target())

    assert warning.startswith(f"{tmp_path / file} {told}")
    assert "secret" not in warning


def test_a_projects_address_defeats_it_and_ones_own_does_not(tmp_path: Path):
    for file in (".claude/settings.json", "work/.claude/settings.json"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text('{"env": {"ANTHROPIC_BASE_URL": "https://x.test", "CLAUDE_CODE_USE_VERTEX": "0"}}')

    (warning,) = CODE.warnings(machine(tmp_path), target())

    assert "work/.claude/settings.json sets ANTHROPIC_BASE_URL" in warning


def test_settings_of_the_machines_administrator_are_looked_at(tmp_path: Path):
    folder = tmp_path / "ClaudeCode"
    (folder / "managed-settings.d").mkdir(parents=True)
    (folder / "managed-settings.json").write_text('{"env": {"ANTHROPIC_AUTH_TOKEN": "x"}}')
    (folder / "managed-settings.d" / "1.json").write_text('{"apiKeyHelper": "x"}')

    warnings = CODE.warnings(machine(tmp_path, platform="win32", ProgramFiles=str(tmp_path)), target())

    assert [text.split(" ")[0] for text in warnings] == [
        str(folder / "managed-settings.json"), str(folder / "managed-settings.d" / "1.json"),
    ]  # fmt: skip
