"""opencode: one provider with every model in its maker's API, and what would hide it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lumeproxy.clients.opencode import Opencode
from tests.clients.support import KEY, URL, machine, target

CODE = Opencode()
FOLDER = ".config/opencode"


def test_the_provider_has_every_model_in_its_makers_api(tmp_path: Path):
    (wish,) = CODE.wishes(
        machine(tmp_path), target(models=("claude-opus-5-5", "gpt-5.5", "gpt-5-image", "qwen3-coder"))
    )

    assert wish.values == {"$schema": "https://opencode.ai/config.json", "provider": {"lumeproxy": {
        "npm": "@ai-sdk/anthropic",
        "name": "lumeproxy",
        "options": {"baseURL": f"{URL}/v1", "apiKey": KEY},
        "models": {
            "claude-opus-5-5": {"name": "claude-opus-5-5"},
            "gpt-5.5": {"name": "gpt-5.5", "provider": {"npm": "@ai-sdk/openai"}},
            "qwen3-coder": {"name": "qwen3-coder", "provider": {"npm": "@ai-sdk/openai-compatible"}},
        },
    }}}  # fmt: skip


def test_the_file_with_comments_is_the_one_where_there_is_one(tmp_path: Path):
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / FOLDER / "opencode.json").write_text("{}")
    assert CODE.wishes(machine(tmp_path), target())[0].file.name == "opencode.json"

    (tmp_path / FOLDER / "opencode.jsonc").write_text("{}")
    assert CODE.wishes(machine(tmp_path), target())[0].file.name == "opencode.jsonc"


@pytest.mark.parametrize(
    ("models", "path", "model", "start"),
    [
        (("claude-echo", "gpt-echo"), "/v1/messages", "claude-echo", "claude-echo"),
        (("gpt-echo", "gpt-5.5"), "/v1/responses", "gpt-5.5", "gpt-5.5"),
        (("claude-echo", "claude-haiku-5-5", "gpt-5.5"), "/v1/messages", "claude-haiku-5-5", "gpt-5.5"),
        (("qwen",), "/v1/chat/completions", "qwen", "qwen"),
    ],
)
def test_it_is_tried_with_a_cheap_model_and_started_with_a_good_one(tmp_path: Path, models, path, model, start):
    trial = CODE.trial(machine(tmp_path), target(models=models))

    assert (trial.path, trial.body["model"]) == (path, model)
    assert CODE.next_steps(machine(tmp_path), target(models=models))[0] == f"opencode --model lumeproxy/{start}"


@pytest.mark.parametrize(
    ("file", "settings", "told"),
    [
        (f"{FOLDER}/opencode.json", {"enabled_providers": ["openai"]}, "has a list of enabled_providers"),
        (f"{FOLDER}/opencode.json", {"disabled_providers": ["lumeproxy"]}, 'has "lumeproxy" in disabled_providers'),
        ("work/opencode.json", {"provider": {"lumeproxy": {}}}, "has a provider of the same name"),
        ("work/.opencode/opencode.json", {"provider": {"lumeproxy": {}}}, "has a provider of the same name"),
        ("named.json", {"provider": {"lumeproxy": {}}}, "has a provider of the same name"),
    ],
)
def test_what_hides_it_is_told_by_its_file(tmp_path: Path, file, settings, told):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("// c\n" + json.dumps(settings))

    (warning,) = CODE.warnings(machine(tmp_path, OPENCODE_CONFIG=str(tmp_path / "named.json")), target())

    assert warning.startswith(f"{tmp_path / file} {told}")
