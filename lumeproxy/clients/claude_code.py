"""Claude Code: the `env` of its settings.json, which beats the shell's variables, and one flag that skips its login screen.

Facts measured with 2.1.330 (2026-11-23); https://code.claude.com/docs/en/settings and /llm-gateway (read 2026-11-24). The
token variable, not ANTHROPIC_API_KEY: for that one it asks, and looks for its maker's own server first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lumeproxy.clients import models
from lumeproxy.clients.base import Machine, Target, Trial
from lumeproxy.clients.documents import Format
from lumeproxy.clients.plan import Wish
from lumeproxy.errors import Refused

BASE_URL, TOKEN, API_KEY = "ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY"
ONBOARDED = "hasCompletedOnboarding"
# Each of these sends it to another provider, whatever the address says.
SWITCHES = (
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_MANTLE",
    "CLAUDE_CODE_USE_ANTHROPIC_AWS",
    "CLAUDE_CODE_USE_ANTHROPIC_GOOGLE_CLOUD",
    "CLAUDE_CODE_USE_GATEWAY",
)
_OVERRIDES = (BASE_URL, TOKEN, API_KEY, *SWITCHES)


def is_on(value: str) -> bool:
    """Whether Claude Code takes a switch of this value for set."""
    return value.lower() not in {"", "0", "false", "no", "off"}


class ClaudeCode:
    """The `claude` command."""

    name = "claude-code"
    title = "Claude Code"
    link_app = "claude"

    def wishes(self, machine: Machine, target: Target) -> Sequence[Wish]:
        """Its settings, and the flag in the file that it keeps for itself, where that is not set."""
        if not target.models:
            raise Refused("This key may use no model here. Nothing was changed.")
        env = {
            BASE_URL: target.url,
            TOKEN: target.key,
            "CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1",
            # A stream that broke is asked for again as a whole, and so paid for twice, unless it is told not to.
            "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",
        }
        return (
            Wish(_settings(machine), Format.JSON, {"env": env}, paired=(("env", BASE_URL), ("env", TOKEN))),
            Wish(_own_file(machine), Format.JSON, {ONBOARDED: True}, gentle=((ONBOARDED,),)),
        )

    def warnings(self, machine: Machine, target: Target | None) -> Sequence[str]:
        """Other credentials, other providers, and settings that come after the user's own."""
        return list(_warnings(machine))

    def trial(self, machine: Machine, target: Target) -> Trial:
        """A message of one word to the cheapest model."""
        return message(models.cheapest_claude(target.models) or target.models[0])

    def next_steps(self, machine: Machine, target: Target) -> Sequence[str]:
        """The command, how to see that it is connected, and what the VS Code extension needs."""
        model = models.claude(target.models)
        return (
            f"claude --model {model}" if model else "claude",
            f"In it, /status shows the base URL {target.url} and the token {TOKEN}; /model shows what the key may use.",
            'VS Code: the extension reads the same settings; add "claudeCode.disableLoginPrompt": true to its own.',
        )


def message(model: str) -> Trial:
    """A message of one word."""
    return Trial(
        "/v1/messages", {"model": model, "max_tokens": 16, "messages": [{"role": "user", "content": "Say OK."}]}
    )


def _settings(machine: Machine) -> Path:
    return machine.folder("CLAUDE_CONFIG_DIR", ".claude") / "settings.json"


def _own_file(machine: Machine) -> Path:
    return machine.folder("CLAUDE_CONFIG_DIR") / ".claude.json"


def _managed(machine: Machine) -> Iterator[Path]:
    """The settings of whoever administers the machine, which beat all others."""
    folder = {
        "win32": Path(machine.environ.get("ProgramFiles", "C:\\Program Files"), "ClaudeCode"),
        "darwin": Path("/Library/Application Support/ClaudeCode"),
    }.get(machine.platform, Path("/etc/claude-code"))
    yield folder / "managed-settings.json"
    yield from sorted((folder / "managed-settings.d").glob("*.json"))


def _warnings(machine: Machine) -> Iterator[str]:
    if machine.environ.get(API_KEY):
        yield f"{API_KEY} is set in this shell: Claude Code asks about it and sends it along. Unset it."
    for name in SWITCHES:
        if is_on(machine.environ.get(name, "")):
            yield f"{name} is set in this shell: Claude Code then goes to that provider, not to the proxy. Unset it."
    settings = machine.values(_settings(machine), Format.JSON)
    yield from _overriding(settings, _settings(machine), (API_KEY, *SWITCHES))
    for file in (machine.cwd / ".claude" / "settings.json", machine.cwd / ".claude" / "settings.local.json"):
        if file.parent != _settings(machine).parent:
            yield from _overriding(machine.values(file, Format.JSON), file, _OVERRIDES)
    for file in _managed(machine):
        yield from _overriding(machine.values(file, Format.JSON), file, _OVERRIDES)


def _overriding(settings: dict[str, Any], file: Path, names: Sequence[str]) -> Iterator[str]:
    env = settings.get("env")
    for name in names:
        value = env.get(name) if isinstance(env, dict) else None
        if value is not None and (name not in SWITCHES or is_on(str(value))):
            what = "Claude Code asks about it and sends it along" if name == API_KEY else "it defeats this set-up"
            yield f"{file} sets {name}: {what}. Take it out of there."
    if settings.get("apiKeyHelper"):
        yield f"{file} has an apiKeyHelper: Claude Code runs it and sends its key along. Take it out of there."
