"""An open list: everything passes but what is named."""

from __future__ import annotations

import pytest

from lumeproxy.core.headers import HOP_BY_HOP, for_client, for_upstream

HANDSHAKE = ("Sec-WebSocket-Key", "Sec-WebSocket-Accept", "Sec-WebSocket-Version", "Sec-WebSocket-Extensions",
             "Sec-WebSocket-Protocol")  # fmt: skip


def test_unknown_headers_pass_in_order_with_their_repeats():
    pairs = [("X-New", "1"), ("anthropic-beta", "a"), ("Anthropic-Beta", "b"), ("User-Agent", "me")]

    assert for_upstream(pairs) == pairs
    assert for_client(pairs) == pairs


@pytest.mark.parametrize(
    "name",
    [
        *sorted(HOP_BY_HOP),
        *HANDSHAKE,
        *("Authorization", "X-API-Key", "api-key", "x-goog-api-key", "Cookie", "Host", "Content-Length"),
        *("Accept-Encoding", "X-Forwarded-For", "Forwarded", "OpenAI-Organization", "OpenAI-Project"),
    ],
)
def test_these_never_go_upstream(name):
    assert for_upstream([(name, "x"), ("kept", "y")]) == [("kept", "y")]


@pytest.mark.parametrize(
    "name",
    [
        *sorted(HOP_BY_HOP),
        *HANDSHAKE,
        *("Set-Cookie", "Server", "Content-Length", "anthropic-ratelimit-tokens-remaining", "X-Lume-Balance"),
        *("Alt-Svc", "Strict-Transport-Security"),
    ],
)
def test_these_never_reach_the_client(name):
    assert for_client([(name, "x"), ("kept", "y")]) == [("kept", "y")]


def test_what_connection_names_is_dropped_too():
    pairs = [("Connection", "close, X-Private"), ("x-private", "1"), ("kept", "y")]

    assert for_upstream(pairs) == [("kept", "y")]
    assert for_client(pairs) == [("kept", "y")]


def test_request_ids_retry_after_and_should_retry_pass():
    pairs = [("request-id", "r"), ("retry-after", "7"), ("x-should-retry", "true"), ("x-ratelimit-limit-tokens", "9")]

    assert for_client(pairs) == pairs
