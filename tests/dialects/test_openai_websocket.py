"""The messages of the Responses API over a WebSocket: what is asked for, what is refused, and our own events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lumeproxy import errors
from lumeproxy.dialects.base import Mark
from lumeproxy.dialects.openai_chat import OpenAIChat
from lumeproxy.dialects.openai_websocket import LANE_CHARS, OpenAIWebSocket
from lumeproxy.errors import InvalidRequest
from tests.support.websocket import create, messages

WIRE = OpenAIWebSocket()


def reader(*events: bytes) -> Any:
    made = WIRE.dialect.reader(WIRE.dialect.ask(create()))
    for event in events:
        made.event(event)
    return made


def test_a_request_is_read_as_over_http_and_always_streams() -> None:
    asking = WIRE.read(create(max_output_tokens=9, service_tier="flex"))

    assert asking is not None
    assert (asking.asked.model, asking.asked.stream, asking.asked.max_output_tokens) == ("gpt-test-1", True, 9)
    assert asking.asked.terms.service_tier == "flex"
    assert (asking.generates, asking.follows, asking.lane) == (True, "", "")
    assert not asking.asked.refers_elsewhere


def test_what_it_goes_on_from_and_its_lane_are_known() -> None:
    asking = WIRE.read(create(generate=False, previous_response_id="resp_7", stream_id="a\nb" + "c" * 200))

    assert asking is not None
    assert (asking.generates, asking.follows) == (False, "resp_7")
    assert asking.lane == ("ab" + "c" * 200)[: LANE_CHARS - 1]
    assert asking.asked.refers_elsewhere


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ('{"turn_id":"t","model":"gpt-5"}', "gpt-5"),
        ('{"model":7}', ""),
        ("{}", ""),
        ("", ""),
        ("[", ""),
        ("\udcff", ""),
    ],
)
def test_a_model_that_is_announced_with_the_handshake_is_known(text: str, model: str) -> None:
    assert WIRE.model_announced({"x-codex-turn-metadata": text}) == model
    assert WIRE.model_announced({}) == ""


@pytest.mark.parametrize(("given", "generates"), [(True, True), (None, True), (False, False), (0, True), ("no", True)])
def test_only_false_is_a_warm_up(given: Any, generates: bool) -> None:
    asking = WIRE.read(create(generate=given))

    assert asking is not None
    assert asking.generates is generates


def test_an_envelope_of_odd_types_is_read_as_far_as_it_can_be() -> None:
    asking = WIRE.read(create(generate=False, stream_id=7, previous_response_id="r"))

    assert asking is not None
    assert (asking.generates, asking.lane, asking.follows) == (False, "", "r")


def test_half_a_surrogate_pair_is_no_reason_to_refuse() -> None:
    asking = WIRE.read(b'{"type":"response.create","model":"gpt-5","input":"\\ud83d","stream_id":"\\ud83d"}')

    assert asking is not None
    assert asking.asked.model == "gpt-5"


@pytest.mark.parametrize(
    "message",
    [
        b"", b"x", b"\xff", b"[]", b"null", b'"response.create"', b"{}", b'{"type":null}', b'{"type":7}',
        b'{"type":"response.create"}', b'{"type":"response.create","model":7}', b"[" * 100_000,
        b'{"type":"response.create","model":"m","background":true}',
        b'{"type":"response.create","model":"m","model":"n"}',
        b'{"type":"response.steer","model":"m","input":"go"}', b'{"type":"response.cancel"}', b'{"type":"","model":"m"}',
        b'{"model":"m","type":"response.create","type":"response.steer"}',
        b'{"type":"response.processed"}',
        b'{"type":"response.create","model":"m","type":"response.processed","response_id":"r"}',
        b'{"type":"response.processed","response_id":"r","type":"response.processed"}',
        b'{"type":"response.processed","response_id":"r","input":"go"}',
    ],
)  # fmt: skip
def test_what_could_not_be_metered_is_refused(message: bytes) -> None:
    with pytest.raises(InvalidRequest):
        WIRE.read(message)


def test_an_acknowledgement_asks_for_nothing() -> None:
    assert WIRE.read(b' {"response_id" : "r", "type":"response.processed"}') is None


@pytest.mark.parametrize(
    ("message", "starts"),
    [
        (messages()[0], True), (messages()[1], True), (b'{"type":"response.made.up","status":"x"}', True),
        (b'{"type":"error"}', False), (b'{"type":"codex.rate_limits"}', False), (b'{"type":"responsesapi.timing"}', False),
        (b'{"type":7}', False), (b"{}", False), (b"x", False), (b"", False), (b"[" * 100_000, False),
    ],
)  # fmt: skip
def test_events_of_an_answer_are_told_from_those_of_the_connection(message: bytes, starts: bool) -> None:
    assert WIRE.starts_answer(message) is starts


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (b'{"type":"error","status":429,"error":{"code":"c","message":"m"}}', (429, "c", "m")),
        (b'{"type":"error","error":{"type":"t","message":"m"}}', (0, "t", "m")),
        (b'{"type":"error","status":"429"}', (0, "", "")),
        (b'{"type":"error","status":true}', (0, "", "")),
        (b'{"type":"error"}', (0, "", "")),
        (b'{"type":"response.failed","status":429}', None),
        (b"x", None),
    ],
)
def test_an_error_event_tells_status_code_and_text(message: bytes, told: Any) -> None:
    assert WIRE.refusal(message) == told


def test_an_error_event_ends_an_answer_and_its_nested_code_is_kept() -> None:
    made = WIRE.dialect.reader(WIRE.dialect.ask(create()))

    assert made.event(b'{"type":"error","status":400,"error":{"code":"previous_response_not_found"}}') is Mark.FAILED
    assert made.reading.error_code == "previous_response_not_found"
    for odd in (
        b'{"type":"error","error":"text"}',
        b'{"type":"error","error":{"code":7}}',
        b'{"type":"error","error":{"code":""}}',
    ):
        assert made.event(odd) is Mark.FAILED
        assert made.reading.error_code == "error"


def test_the_id_to_go_on_from_is_the_answers() -> None:
    assert WIRE.answer_id(reader(*messages())) == "resp_1"
    assert WIRE.answer_id(reader()) == ""
    assert WIRE.answer_id(OpenAIChat().reader(WIRE.dialect.ask(create()))) == ""


@pytest.mark.parametrize(
    ("error", "codex", "status", "code", "headers"),
    [
        (
            errors.OutOfCredit("Out: $0."),
            False,
            429,
            "usage_limit_reached",
            {"x-codex-promo-message", "x-should-retry"},
        ),
        (errors.RateLimited("slow", retry_after_s=7), False, 429, "rate_limit_exceeded", {"retry-after"}),
        (errors.AccountSuspended("no"), True, 400, "invalid_prompt", {"x-should-retry"}),
        (errors.AccountSuspended("no"), False, 403, "account_suspended", {"x-should-retry"}),
        (errors.ModelNotFound("no"), False, 404, "model_not_found", {"x-should-retry"}),
        (errors.Unreachable("no", retry_after_s=5), False, 503, "server_is_overloaded", {"retry-after"}),
    ],
)
def test_an_error_says_in_one_event_what_http_says_with_status_and_headers(
    error: Any, codex: bool, status: int, code: str, headers: set[str]
) -> None:
    event = json.loads(WIRE.error(error, "call_1", codex=codex, lane="l"))

    assert (event["type"], event["status"], event["stream_id"]) == ("error", status, "l")
    assert (event["error"]["code"], event["error"]["message"]) == (code, error.message)
    assert set(event["headers"]) == headers | {"x-request-id"}
    assert event["headers"]["x-request-id"] == "call_1"
    assert "stream_id" not in json.loads(WIRE.error(error, "call_1", codex=codex))


def test_an_ending_is_the_event_that_http_frames() -> None:
    made, error = reader(*messages()[:2]), errors.OutOfCredit("gone")
    event = json.loads(WIRE.ending(error, made, lane="l"))

    framed = WIRE.dialect.ending(error, made)
    assert {**json.loads(framed.partition(b"data: ")[2]), "stream_id": "l"} == event
    assert (event["response"]["id"], event["sequence_number"]) == ("resp_1", 2)
    assert "stream_id" not in json.loads(WIRE.ending(error, made))
