"""Codex: a profile of its own or the default provider, and what would defeat either."""

from __future__ import annotations

from pathlib import Path

import pytest

from lumeproxy.clients.codex import Codex
from lumeproxy.errors import Refused
from tests.clients.support import KEY, URL, machine, target

CODEX = Codex()
PROVIDER = {"name": "lumeproxy", "base_url": f"{URL}/v1", "wire_api": "responses", "experimental_bearer_token": KEY,
            "supports_websockets": False}  # fmt: skip


def write(home: Path, text: str, file: str = ".codex/config.toml") -> None:
    (home / file).parent.mkdir(parents=True, exist_ok=True)
    (home / file).write_text(text)


def test_a_profile_is_a_file_of_its_own_without_a_websocket(tmp_path: Path):
    (wish,) = CODEX.wishes(machine(tmp_path), target())

    assert wish.file == tmp_path / ".codex" / "lume.config.toml"
    assert wish.values == {
        "model_provider": "lumeproxy",
        "model": "gpt-6.1-sol",
        "model_providers": {"lumeproxy": PROVIDER},
    }
    assert CODEX.next_steps(machine(tmp_path), target())[0] == "codex -p lume"


def test_as_the_default_it_goes_into_the_users_own_file(tmp_path: Path):
    (wish,) = CODEX.wishes(machine(tmp_path), target(default=True))

    assert wish.file == tmp_path / ".codex" / "config.toml"
    assert CODEX.next_steps(machine(tmp_path), target(default=True))[0] == "codex"


def test_the_users_own_choice_of_model_counts_where_the_key_may_use_it(tmp_path: Path):
    write(tmp_path, 'model = "gpt-5.5"\n')
    (own,) = CODEX.wishes(machine(tmp_path), target())
    (default,) = CODEX.wishes(machine(tmp_path), target(default=True))
    assert (own.values["model"], "model" in default.values) == ("gpt-5.5", False)
    assert CODEX.trial(machine(tmp_path), target()).body["model"] == "gpt-5.5"

    write(tmp_path, 'model = "gpt-7"\n')
    (default,) = CODEX.wishes(machine(tmp_path), target(default=True))
    assert default.values["model"] == "gpt-6.1-sol"


def test_a_key_without_a_model_of_openai_is_refused(tmp_path: Path):
    with pytest.raises(Refused, match="no OpenAI model"):
        CODEX.wishes(machine(tmp_path), target(models=("claude-echo",)))


@pytest.mark.parametrize("default", [False, True])
@pytest.mark.parametrize(
    ("file", "text", "told", "only_default"),
    [
        (".codex/config.toml", '[profiles.lume]\nmodel = "x"\n', "has a [profiles.lume] of the old kind", False),
        (".codex/config.toml", 'profile = "x"\n', 'sets profile = "x"', True),
        (".codex/config.toml", '[model_providers.lumeproxy]\nenv_key = "X"\n', "sets env_key", False),
        ("work/.codex/config.toml", '[model_providers.x]\nname = "x"\n', "sets a model provider", False),
        ("work/.codex/config.toml", 'model_provider = "x"\n', "sets a model provider", True),
    ],
)
def test_what_defeats_it_is_told_by_its_file(tmp_path: Path, default, file, text, told, only_default):
    write(tmp_path, text, file)
    warnings = CODEX.warnings(machine(tmp_path), target(default=default))

    if only_default and not default:
        assert warnings == []
    else:
        (warning,) = warnings
        assert warning.startswith(f"{tmp_path / file} {told}")
