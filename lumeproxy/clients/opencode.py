"""opencode: one provider in its own settings, with the models that the key may use.

Facts measured with 1.18.33 (2026-11-24); https://opencode.ai/docs/config and /docs/providers (read 2026-11-24). Files are
merged, the .jsonc last; the folder is ~/.config/opencode on every platform. Each model is spoken to in its maker's own API.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lumeproxy.clients import models
from lumeproxy.clients.base import NAME, Machine, Target, Trial
from lumeproxy.clients.claude_code import message
from lumeproxy.clients.codex import question
from lumeproxy.clients.documents import Format
from lumeproxy.clients.models import Speech
from lumeproxy.clients.plan import Wish
from lumeproxy.errors import Refused

PACKAGES = {
    Speech.MESSAGES: "@ai-sdk/anthropic",
    Speech.RESPONSES: "@ai-sdk/openai",
    Speech.CHAT: "@ai-sdk/openai-compatible",
}
# Without it, opencode puts it in by itself, and the file would no longer be as the set-up left it.
SCHEMA = "https://opencode.ai/config.json"
OPTIONS = ("provider", NAME, "options")


class Opencode:
    """The `opencode` command."""

    name = "opencode"
    title = "opencode"
    link_app = "opencode"

    def wishes(self, machine: Machine, target: Target) -> Sequence[Wish]:
        """One provider with all models."""
        usable = models.talkers(target.models)
        if not usable:
            raise Refused("This key may use no model here. Nothing was changed.")
        package = PACKAGES[models.speech(usable[0])]
        provider = {
            "npm": package,
            "name": "lumeproxy",
            "options": {"baseURL": f"{target.url}/v1", "apiKey": target.key},
            "models": {model: _entry(model, package) for model in usable},
        }
        return (
            Wish(
                _settings(machine),
                Format.JSONC,
                {"$schema": SCHEMA, "provider": {NAME: provider}},
                paired=((*OPTIONS, "baseURL"), (*OPTIONS, "apiKey")),
                gentle=(("$schema",),),
            ),
        )

    def warnings(self, machine: Machine, target: Target | None) -> Sequence[str]:
        """Lists that leave the provider out, and settings that come after the user's own."""
        return list(_warnings(machine))

    def trial(self, machine: Machine, target: Target) -> Trial:
        """A call of one word to a cheap model, in the API of its maker."""
        claude = models.cheapest_claude(target.models)
        if claude is not None:
            return message(claude)
        model = models.newest_gpt(target.models)
        if model is not None:
            return question(model)
        asked = {"role": "user", "content": "Say OK."}
        model = models.talkers(target.models)[0]
        return Trial("/v1/chat/completions", {"model": model, "max_tokens": 16, "messages": [asked]})

    def next_steps(self, machine: Machine, target: Target) -> Sequence[str]:
        """The command with a model, and where the others are."""
        real = [model for model in target.models if model not in (models.ECHO_CLAUDE, models.ECHO_GPT)]
        shown = models.newest_gpt(real) or models.cheapest_claude(real) or models.talkers(target.models)[0]
        return (
            f"opencode --model {NAME}/{shown}",
            "In it, /models shows all that the key may use, under lumeproxy.",
        )


def _entry(model: str, package: str) -> dict[str, Any]:
    own = PACKAGES[models.speech(model)]
    return {"name": model} if own == package else {"name": model, "provider": {"npm": own}}


def _folder(machine: Machine) -> Path:
    return machine.folder("XDG_CONFIG_HOME", ".config") / "opencode"


def _settings(machine: Machine) -> Path:
    with_comments = _folder(machine) / "opencode.jsonc"
    return with_comments if with_comments.exists() or with_comments.is_symlink() else _folder(machine) / "opencode.json"


def _warnings(machine: Machine) -> Iterator[str]:
    file = _settings(machine)
    values = machine.values(file, Format.JSONC)
    enabled, disabled = values.get("enabled_providers"), values.get("disabled_providers")
    if isinstance(enabled, list) and NAME not in enabled:
        yield f'{file} has a list of enabled_providers without "{NAME}", so it stays hidden. Add it there.'
    if isinstance(disabled, list) and NAME in disabled:
        yield f'{file} has "{NAME}" in disabled_providers, so it stays hidden. Take it out of there.'
    named = machine.environ.get("OPENCODE_CONFIG")
    others = [Path(named)] if named else []
    others += [
        machine.cwd / "opencode.json",
        machine.cwd / "opencode.jsonc",
        machine.cwd / ".opencode" / "opencode.json",
    ]
    for other in others:
        providers = machine.values(other, Format.JSONC).get("provider") if other != file else None
        if isinstance(providers, dict) and NAME in providers:
            yield f"{other} has a provider of the same name, which defeats this set-up. Take it out of there."
