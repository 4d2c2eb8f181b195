"""An Anthropic upstream: its credential, its address, what it speaks."""

from __future__ import annotations

import pytest

from lumeproxy.upstreams import KINDS, anthropic
from lumeproxy.upstreams.base import Access
from tests.support.upstream import ScriptedUpstream


async def test_the_key_goes_in_its_own_header_and_the_clients_version_is_passed_on(
    session, upstream: ScriptedUpstream, request_of
):
    upstream.script = lambda c: c.reply(b"{}")
    made = KINDS["anthropic"].make("main", Access(upstream.url, ("sk-ant-operator",)), frozenset(), session)

    reply = await made.send(request_of(b"{}", ("anthropic-version", "2099-01-01")))

    assert (reply.status, await reply.read()) == (200, b"{}")
    (seen,) = upstream.received
    assert [(name, value) for name, value in seen.headers if name != "Host"] == [
        ("anthropic-version", "2099-01-01"),
        ("x-api-key", "sk-ant-operator"),
        ("Accept-Encoding", "identity"),
        ("Content-Length", "2"),
    ]


@pytest.mark.parametrize(
    ("given", "spoken"),
    [((), {"anthropic_messages"}), (("openai_chat", "anthropic_messages"), {"openai_chat", "anthropic_messages"})],
)
async def test_it_speaks_messages_unless_the_operator_says_otherwise(session, given, spoken):
    made = anthropic.make("main", Access(credentials=("k",)), frozenset(given), session)

    assert (made.name, made.kind, made.provider, made.takes_encoded) == ("main", "anthropic", "anthropic", True)
    assert made.dialects == spoken
    assert made._base == "https://api.anthropic.com/v1"
