"""Estimates: bounded, linear, and better with every finished call."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st

from lumeproxy.core import estimate
from lumeproxy.core.estimate import Calibration


def test_text_is_counted_by_words_digits_marks_lines_and_foreign_letters():
    assert estimate.text_tokens("") == 0
    assert estimate.text_tokens("a") == 1
    assert 8 <= estimate.text_tokens("The quick brown fox jumps over the lazy dog.") <= 12
    assert estimate.text_tokens("12345678") == 4
    assert 3 <= estimate.text_tokens("日本語の文") <= 5


@given(st.text(max_size=400))
def test_any_text_has_a_bounded_count(text):
    tokens = estimate.text_tokens(text)

    assert 0 <= tokens <= 2 * len(text) + 1


def test_an_attachment_counts_by_its_content_not_by_its_bytes():
    image = base64.b64encode(b"\x00" * 300_000)
    body = b'{"type":"base64","data":"' + image + b'"}'

    assert estimate.body_tokens(body, has_attachments=True) < len(body) // 10
    assert estimate.body_tokens(body, has_attachments=True) >= estimate.ATTACHMENT_LEAST_TOKENS
    assert estimate.body_tokens(b"", has_attachments=True) == 1
    assert estimate.body_tokens(body, has_attachments=False) > len(body) // 10


def test_claude_counts_more_than_o200k_and_newer_ones_more_than_older():
    factors = [estimate.model_factor_permille(m) for m in ("gpt-5", "claude-sonnet-4-5", "claude-opus-5-5")]

    assert factors == sorted(factors)
    assert factors[0] == 1000 < factors[1] < factors[2]


def test_the_factor_is_learned_and_stays_within_bounds():
    learned = Calibration()
    for _ in range(60):
        learned.observe("m", 1000, 2000)
    assert 1900 <= learned.factor("m") <= 2000

    for _ in range(200):
        learned.observe("m", 1000, 10**9)
    assert 3900 < learned.factor("m") <= estimate.FACTOR_MOST
    for _ in range(200):
        learned.observe("m", 1000, 0)
    assert learned.factor("m") >= estimate.FACTOR_LEAST


def test_short_calls_teach_nothing_and_memory_is_bounded():
    learned = Calibration()
    learned.observe("m", 10, 10_000)
    assert learned.factor("m") == 1000
    for number in range(estimate.LEARNED_MODELS + 20):
        learned.observe(f"m{number}", 1000, 3000)
    assert len(learned._factors) == estimate.LEARNED_MODELS


def test_delivered_characters_round_up():
    assert [estimate.chars_tokens(n) for n in (0, 1, 38, 39)] == [0, 1, 10, 11]
