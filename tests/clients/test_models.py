"""Which model suits which tool, from names alone."""

from __future__ import annotations

import pytest

from lumeproxy.clients import models
from lumeproxy.clients.models import Speech


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-opus-5-5", Speech.MESSAGES), ("gpt-5.5", Speech.RESPONSES), ("o4-mini", Speech.RESPONSES),
        ("codex-mini", Speech.RESPONSES), ("chatgpt-4o-latest", Speech.RESPONSES), ("gpt-oss-120b", Speech.CHAT),
        ("qwen3-coder", Speech.CHAT), ("ollama-x", Speech.CHAT),
    ],
)  # fmt: skip
def test_a_model_is_spoken_to_in_its_makers_api(model, expected):
    assert models.speech(model) is expected


def test_what_hears_draws_or_searches_is_no_talker():
    names = ["gpt-5", "gpt-5-image", "gpt-4o-audio-preview", "gpt-4o-mini-tts", "gpt-5-search-api", "gpt-4o:extended"]

    assert models.talkers(names) == ["gpt-5"]


@pytest.mark.parametrize(
    ("served", "told", "cheapest"),
    [
        (["claude-echo", "gpt-echo"], "claude-echo", "claude-echo"),
        (["claude-echo", "claude-haiku-4-5", "claude-haiku-5-5", "claude-haiku-5-1"], None, "claude-haiku-5-5"),
        (["claude-opus-5-5"], None, "claude-opus-5-5"),
        (["my-model"], "my-model", None),
        ([], None, None),
    ],
)
def test_claude_code_is_told_a_model_only_where_its_own_choice_is_not_served(served, told, cheapest):
    assert models.claude(served) == told
    assert models.cheapest_claude(served) == cheapest


@pytest.mark.parametrize(
    ("served", "expected"),
    [
        (["gpt-5.5", "gpt-5", "gpt-5.10", "gpt-5.4-mini"], "gpt-5.10"),
        (["gpt-6", "gpt-6-sol", "gpt-6-luna", "gpt-5.6-sol"], "gpt-6-sol"),
        (["gpt-6-luna", "gpt-6-sol", "gpt-6.1-sol", "gpt-6.1-terra"], "gpt-6.1-sol"),
        (["gpt-echo", "o3", "claude-echo"], "gpt-echo"),
        (["gpt-5-image", "o3"], "o3"),
        (["claude-echo", "qwen"], None),
    ],
)
def test_codex_is_told_the_newest_of_the_main_line(served, expected):
    assert models.newest_gpt(served) == expected
