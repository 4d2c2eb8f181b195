"""Which of the models that a key may use suits a tool. Guesses from names, for `GET /v1/models` says no more than those.

`tools.mjs` chooses alike; tests compare the two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

ECHO_CLAUDE, ECHO_GPT = "claude-echo", "gpt-echo"

_OPENAI = re.compile(r"(?:gpt(?!-oss)|chatgpt|codex|o[0-9])")
_FLAGSHIP = re.compile(r"gpt-([0-9]+)(?:\.([0-9]+))?(-sol)?")
_HAIKU = re.compile(r"claude-haiku-([0-9]+)-([0-9]+)")
_NO_TALKER = re.compile(r"audio|tts|image|realtime|transcribe|embedding|moderation|instruct|search|vision|:")


class Speech(StrEnum):
    """Through which API a model is best spoken to."""

    MESSAGES = "messages"
    RESPONSES = "responses"
    CHAT = "chat"


def speech(model: str) -> Speech:
    """The API of a model's own maker; Chat Completions for what nobody knows."""
    if model.startswith("claude"):
        return Speech.MESSAGES
    return Speech.RESPONSES if _OPENAI.match(model) else Speech.CHAT


def talkers(models: Sequence[str]) -> list[str]:
    """The models that an agent can talk to: without those that hear, draw or search."""
    return [model for model in models if not _NO_TALKER.search(model)]


def claude(models: Sequence[str]) -> str | None:
    """The model that Claude Code must be told to use, None where its own choice will do.

    Its default is one of the real ones, so these must not be only the echo.
    """
    names = [model for model in models if model.startswith("claude")]
    if any(name != ECHO_CLAUDE for name in names):
        return None
    return names[0] if names else next(iter(models), None)


def cheapest_claude(models: Sequence[str]) -> str | None:
    """A model for a trial call: the newest Haiku, else the echo, else any Claude."""
    haikus = [(int(found[1]), int(found[2]), model) for model in models if (found := _HAIKU.fullmatch(model))]
    if haikus:
        return max(haikus)[2]
    names = [model for model in models if model.startswith("claude")]
    return ECHO_CLAUDE if ECHO_CLAUDE in names else next(iter(names), None)


def newest_gpt(models: Sequence[str]) -> str | None:
    """The model that Codex is told to use: the highest version of OpenAI's main line, else the echo, else any of theirs."""
    best = [
        (int(found[1]), int(found[2] or 0), bool(found[3]), model)
        for model in models
        if (found := _FLAGSHIP.fullmatch(model))
    ]
    if best:
        return max(best)[3]
    names = [model for model in talkers(models) if speech(model) is Speech.RESPONSES]
    return ECHO_GPT if ECHO_GPT in names else next(iter(names), None)
