"""The usage object and the errors of both OpenAI APIs."""

from __future__ import annotations

import json

import pytest

from lumeproxy import errors
from lumeproxy.core.types import Terms, Usage
from lumeproxy.dialects import openai_usage
from lumeproxy.dialects.base import Reading


def taken(*stated: object) -> Reading:
    reading = Reading()
    for one in stated:
        openai_usage.take(one, reading)
    return reading


def test_cached_and_written_tokens_are_inside_the_input():
    reading = taken(
        {
            "input_tokens": 1000,
            "input_tokens_details": {
                "cached_tokens": 600,
                "cache_write_tokens": 300,
                "cache_write_tokens_details": {"ttl_30m_tokens": 100, "ttl_12h_tokens": 200},
            },
            "output_tokens": 50,
            "output_tokens_details": {"reasoning_tokens": 20},
        }
    )

    assert reading.usage == Usage(100, 600, 100, 200, 50, 20)
    assert reading.input_reported
    assert reading.output_final
    assert not reading.absurd


def test_written_tokens_without_lifetimes_count_as_short():
    reading = taken({"prompt_tokens": 10, "prompt_tokens_details": {"cache_write_tokens": 4}, "completion_tokens": 1})

    assert reading.usage == Usage(input_tokens=6, cache_write_5m_tokens=4, output_tokens=1)


def test_nothing_stated_is_nothing_learned():
    for nothing in (None, {}, [], "x", {"input_tokens": None}):
        reading = taken(nothing)
        assert not reading.input_reported
        assert not reading.absurd


@pytest.mark.parametrize("lie", [-1, 1.5, "9", True, -(10**18), [], {}], ids=str)
@pytest.mark.parametrize("field", ["input_tokens", "output_tokens"])
def test_a_lie_is_ignored_and_marked(lie, field):
    reading = taken({"input_tokens": 10, "output_tokens": 5} | {field: lie})

    assert reading.absurd
    assert 0 <= reading.usage.input_tokens <= 10
    assert 0 <= reading.usage.output_tokens <= 5


@pytest.mark.parametrize(
    "details",
    [
        {"cached_tokens": 11},
        {"cached_tokens": 6, "cache_write_tokens": 6},
        {"cache_write_tokens": 1, "cache_write_tokens_details": {"ttl_12h_tokens": 5}},
        {"cached_tokens": -1},
        {"cached_tokens": "all"},
    ],
    ids=str,
)
def test_parts_that_exceed_the_whole_are_clamped_and_marked(details):
    reading = taken({"input_tokens": 10, "input_tokens_details": details, "output_tokens": 1})

    assert reading.absurd
    assert reading.usage.total_input_tokens == 10
    assert min(getattr(reading.usage, name) for name in Usage.__slots__) >= 0


def test_a_later_smaller_statement_does_not_shrink_the_bill():
    reading = taken({"input_tokens": 10, "output_tokens": 5}, {"input_tokens": 3, "output_tokens": 2})

    assert reading.usage == Usage(input_tokens=10, output_tokens=5)
    assert reading.absurd


def test_tiers_are_the_replys_own_and_default_is_plain():
    reading = Reading()
    openai_usage.take_tier("default", reading)
    assert reading.terms == Terms()
    openai_usage.take_tier("priority", reading)
    assert reading.terms == Terms("priority")
    openai_usage.take_tier(None, reading)
    assert reading.terms == Terms("priority")
    assert openai_usage.tier("auto") == "standard"


TABLE = [
    (errors.Unauthorized, 401, "invalid_request_error", "invalid_api_key"),
    (errors.ForeignCredential, 401, "invalid_request_error", "invalid_api_key"),
    (errors.AccountSuspended, 403, "permission_error", "account_suspended"),
    (errors.OutOfCredit, 429, "usage_limit_reached", "usage_limit_reached"),
    (errors.ModelNotFound, 404, "invalid_request_error", "model_not_found"),
    (errors.NotFound, 404, "invalid_request_error", "not_found"),
    (errors.RateLimited, 429, "rate_limit_exceeded", "rate_limit_exceeded"),
    (errors.BodyTooLarge, 413, "invalid_request_error", "request_too_large"),
    (errors.BodyTimeout, 408, "invalid_request_error", "body_timeout"),
    (errors.UnsupportedEncoding, 415, "invalid_request_error", "unsupported_encoding"),
    (errors.UpgradeRequired, 426, "invalid_request_error", "upgrade_required"),
    (errors.InvalidRequest, 400, "invalid_request_error", "invalid_request"),
    (errors.Unreachable, 503, "server_error", "server_is_overloaded"),
    (errors.CredentialRejected, 502, "server_error", "upstream_credential_rejected"),
    (errors.StoreUnavailable, 503, "server_error", "server_is_overloaded"),
    (errors.LumeError, 500, "server_error", "internal_error"),
]


@pytest.mark.parametrize(("kind", "status", "type_", "code"), TABLE, ids=lambda v: getattr(v, "__name__", str(v)))
def test_each_error_has_the_status_and_code_that_clients_understand(kind, status, type_, code):
    answer = openai_usage.error_answer(kind("what happened"), "req_1", codex=False)
    error = json.loads(answer.chunks[0])["error"]

    assert answer.status == status
    assert error == {"message": "what happened", "type": type_, "param": None, "code": code}


def test_out_of_credit_is_said_in_the_header_that_codex_shows():
    answer = openai_usage.error_answer(errors.OutOfCredit("Out:\nneeds $1 – ask. " + "x" * 500), "id", codex=True)

    assert answer.headers["x-codex-promo-message"].startswith("Out: needs $1   ask. xxx")
    assert len(answer.headers["x-codex-promo-message"]) <= openai_usage.PROMO_CHARS
    assert "retry-after" not in answer.headers


def test_a_suspended_codex_is_told_once():
    answer = openai_usage.error_answer(errors.AccountSuspended("why"), "id", codex=True)

    assert (answer.status, json.loads(answer.chunks[0])["error"]["code"]) == (400, "invalid_prompt")


def test_session_ids_of_codex_and_opencode():
    assert openai_usage.session({"session-id": "a"}) == ("a", "")
    assert openai_usage.session({"session_id": "b"}) == ("b", "")
    assert openai_usage.session({"x-session-id": "c"}) == ("c", "")
