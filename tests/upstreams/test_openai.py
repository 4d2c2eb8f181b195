"""An OpenAI upstream: its credential, its address, what it speaks."""

from __future__ import annotations

import pytest

from lumeproxy.upstreams import KINDS, openai
from lumeproxy.upstreams.base import Access
from tests.support.upstream import ScriptedUpstream


@pytest.mark.parametrize("path", ["/responses", "/chat/completions"])
async def test_the_key_goes_as_a_bearer_token(session, upstream: ScriptedUpstream, request_of, path):
    upstream.script = lambda c: c.reply(b"{}")
    made = KINDS["openai"].make("main", Access(upstream.url + "/v1", ("sk-operator",)), frozenset(), session)

    reply = await made.send(request_of(b"{}", ("originator", "codex"), path=path, dialect="openai_chat"))

    assert (reply.status, await reply.read()) == (200, b"{}")
    (seen,) = upstream.received
    assert seen.target == "/v1" + path
    assert [(name, value) for name, value in seen.headers if name != "Host"] == [
        ("originator", "codex"),
        ("Authorization", "Bearer sk-operator"),
        ("Accept-Encoding", "identity"),
        ("Content-Length", "2"),
    ]


@pytest.mark.parametrize(
    ("given", "spoken"), [((), {"openai_responses", "openai_chat"}), (("openai_chat",), {"openai_chat"})]
)
async def test_it_speaks_both_of_its_apis_unless_the_operator_says_otherwise(session, given, spoken):
    made = openai.make("main", Access(credentials=("k",)), frozenset(given), session)

    assert (made.name, made.kind, made.provider, made.takes_encoded) == ("main", "openai", "openai", True)
    assert made.dialects == spoken
    assert made._base == "https://api.openai.com/v1"
