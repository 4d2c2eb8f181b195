"""How many tokens, when nobody has said: for holds before a call, and for charges where an upstream reported nothing.

A rule of thumb that learns. Text is counted by six features fitted against o200k (median error 2 %, 95th percentile 10 %);
Claude's tokenizers count more by a factor per family (measured with a reconstruction: up to 4.6 1.20-1.43, from 4.7
1.40-1.65); for the hold, bytes are enough, corrected per model by the true input of finished calls. Integers throughout;
linear in the input, whatever it holds.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator

# Weights in hundredths of a token (dependencies: fitted on code, JSON and prose, 2026-11).
_WORDS, _DIGITS, _MARKS, _LINES, _FOREIGN = 105, 142, 75, 130, 78
_WORD = re.compile(r"[A-Za-z]+")
_DIGIT_GROUP = re.compile(r"[0-9]{1,3}")
_MARK_RUN = re.compile(r"[!-/:-@\[-`{-~]+")
_FOREIGN_CHARS = re.compile(r"[^\x00-\x7f]+")

BYTES_PER_10_TOKENS = 38  # UTF-8 bytes of prose, code and JSON, median
# An attachment is carried as base64 and billed by its content, not its bytes: an image is at most about 1,600 tokens
# (Anthropic's vision page: width x height / 750, images above 1.15 megapixels are scaled down), a PDF up to 3,000 a
# page of some 50 KB. One token in 16 bytes of base64 covers both without a multiple of the truth.
ATTACHMENT_BYTES_PER_TOKEN = 16
ATTACHMENT_LEAST_TOKENS = 1_600
ATTACHMENT_BYTES = 2_048  # of base64 without a break; a shorter run is somebody's hash or key
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_BASE64_RUN = re.compile(rb"[A-Za-z0-9+/=]+")

FACTOR_ONE = 1000
FACTOR_LEAST, FACTOR_MOST = 250, 4000
LEARN_FROM_TOKENS = 200  # a shorter call says more about a provider's own instructions than about the text
LEARNED_MODELS = 512
_WEIGHT = 8  # each call moves the factor by an eighth of what it was off


def text_tokens(text: str) -> int:
    """Tokens of a text by o200k's measure, at least 1 for any text."""
    if not text:
        return 0
    hundredths = (
        _WORDS * len(_WORD.findall(text))
        + _DIGITS * len(_DIGIT_GROUP.findall(text))
        + _MARKS * len(_MARK_RUN.findall(text))
        + _LINES * text.count("\n")
        + _FOREIGN * sum(len(run) for run in _FOREIGN_CHARS.findall(text))
    )
    return max(1, hundredths // 100)


def body_tokens(body: bytes, *, has_attachments: bool) -> int:
    """Tokens of a request body, roughly and fast: by its bytes; where it may have attachments, those are looked for and
    count by their own measure."""
    size = len(body)
    attached = 0
    if has_attachments:
        for length in _attachments(body):
            size -= length
            attached += max(ATTACHMENT_LEAST_TOKENS, length // ATTACHMENT_BYTES_PER_TOKEN)
    return max(1, size * 10 // BYTES_PER_10_TOKENS + attached)


def _attachments(body: bytes) -> Iterator[int]:
    """The lengths of all runs of base64 of at least ATTACHMENT_BYTES. From the end of a window of that size back to the
    last byte that is no base64 tells where a run can begin next: most of a text is never looked at."""
    at = 0
    while at + ATTACHMENT_BYTES <= len(body):
        begun = body[at : at + ATTACHMENT_BYTES].rstrip(_BASE64)
        if begun:
            at += len(begun)
            continue
        run = _BASE64_RUN.match(body, at)
        assert run is not None
        yield run.end() - at
        at = run.end()


def chars_tokens(chars: int) -> int:
    """Tokens of so many delivered characters, rounded up."""
    return -(-chars * 10 // BYTES_PER_10_TOKENS)


def model_factor_permille(model: str) -> int:
    """How much more a model's tokenizer counts than o200k, in thousandths."""
    if not model.startswith("claude"):
        return FACTOR_ONE
    older = ("claude-2", "claude-3", "claude-v1", "claude-echo", "claude-opus-4-0", "claude-opus-4-1",
             "claude-opus-4-5", "claude-opus-4-6", "claude-sonnet-4", "claude-haiku-4")  # fmt: skip
    return 1300 if model.startswith(older) else 1550


class Calibration:
    """What finished calls taught about the estimate, per model."""

    def __init__(self) -> None:
        self._factors: OrderedDict[str, int] = OrderedDict()

    def factor(self, model: str) -> int:
        """Thousandths by which an estimate from bytes is multiplied for this model."""
        learned = self._factors.get(model)
        return model_factor_permille(model) if learned is None else learned

    def observe(self, model: str, estimated_tokens: int, reported_tokens: int) -> None:
        """Take in one call's estimate (before any factor) and the truth."""
        if estimated_tokens < LEARN_FROM_TOKENS:
            return
        seen = min(FACTOR_MOST, max(FACTOR_LEAST, reported_tokens * FACTOR_ONE // estimated_tokens))
        known = self.factor(model)
        self._factors[model] = known + (seen - known) // _WEIGHT
        self._factors.move_to_end(model)
        if len(self._factors) > LEARNED_MODELS:
            self._factors.popitem(last=False)
