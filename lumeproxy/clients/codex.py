"""Codex: a profile of its own, `codex -p lume`, or with `default` the provider of every call, in config.toml.

Facts measured with 0.169.0 (2026-11-23); https://developers.openai.com/codex/config-reference (read 2026-11-24). auth.json,
which holds the user's own login, is never touched. WebSockets are off: the proxy has none, and to try costs a call.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lumeproxy.clients import models
from lumeproxy.clients.base import NAME, Machine, Target, Trial
from lumeproxy.clients.documents import Format
from lumeproxy.clients.plan import Wish
from lumeproxy.errors import Refused

PROFILE = "lume"
BASE_URL, TOKEN = ("model_providers", NAME, "base_url"), ("model_providers", NAME, "experimental_bearer_token")


class Codex:
    """The `codex` command."""

    name = "codex"
    title = "Codex"
    link_app = "codex"

    def wishes(self, machine: Machine, target: Target) -> Sequence[Wish]:
        """One provider, in a file of its own or in the user's."""
        values: dict[str, Any] = {"model_provider": NAME, "model": self._model(machine, target)}
        provider = {
            "name": "lumeproxy",
            "base_url": f"{target.url}/v1",
            "wire_api": "responses",
            "experimental_bearer_token": target.key,
            "supports_websockets": False,
        }
        file = _config(machine) if target.default else _home(machine) / f"{PROFILE}.config.toml"
        if target.default and values["model"] == machine.values(file, Format.TOML).get("model"):
            del values["model"]
        return (Wish(file, Format.TOML, {**values, "model_providers": {NAME: provider}}, paired=(BASE_URL, TOKEN)),)

    def warnings(self, machine: Machine, target: Target | None) -> Sequence[str]:
        """A profile of the old kind, and settings that come after the user's own."""
        return list(_warnings(machine, default=target is not None and target.default))

    def trial(self, machine: Machine, target: Target) -> Trial:
        """A question of one word to the model that is set."""
        return question(self._model(machine, target))

    def next_steps(self, machine: Machine, target: Target) -> Sequence[str]:
        """The command, and what of Codex else is affected."""
        more = (
            "The VS Code extension reads the same file."
            if target.default
            else "The VS Code extension knows no profiles: for it, set up with --default."
        )
        return (
            "codex" if target.default else f"codex -p {PROFILE}",
            more,
            "A Codex that runs in the background keeps the old settings: after a change of the key, end it.",
        )

    def _model(self, machine: Machine, target: Target) -> str:
        """The user's own choice where the key may use it, else the newest."""
        own = machine.values(_config(machine), Format.TOML).get("model")
        if isinstance(own, str) and own in target.models:
            return own
        model = models.newest_gpt(target.models)
        if model is None:
            raise Refused("This key may use no OpenAI model here, and Codex speaks to no other. Nothing was changed.")
        return model


def question(model: str) -> Trial:
    """A question of one word."""
    return Trial("/v1/responses", {"model": model, "max_output_tokens": 16, "input": "Say OK."})


def _home(machine: Machine) -> Path:
    return machine.folder("CODEX_HOME", ".codex")


def _config(machine: Machine) -> Path:
    return _home(machine) / "config.toml"


def _warnings(machine: Machine, *, default: bool) -> Iterator[str]:
    file = _config(machine)
    config = machine.values(file, Format.TOML)
    profiles = config.get("profiles")
    if isinstance(profiles, dict) and PROFILE in profiles:
        yield f"{file} has a [profiles.{PROFILE}] of the old kind; codex -p {PROFILE} then ends in an error. Remove it."
    if default and "profile" in config:
        yield f"{file} sets profile = {json.dumps(config['profile'])}, which may name another provider. Remove it."
    provider = config.get("model_providers")
    for key in ("env_key", "auth", "requires_openai_auth"):
        if isinstance(provider, dict) and isinstance(provider.get(NAME), dict) and provider[NAME].get(key):
            yield f"{file} sets {key} in [model_providers.{NAME}], which comes before the key that is set here. Remove it."
    named = ("model_provider", "model_providers") if default else ("model_providers",)
    for other in (machine.cwd / ".codex" / "config.toml", Path("/etc/codex/managed_config.toml")):
        values = {} if other == file else machine.values(other, Format.TOML)
        if any(key in values for key in named):
            yield f"{other} sets a model provider, which may defeat this set-up. Take it out of there."
