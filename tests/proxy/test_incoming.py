"""What of a request goes upstream: the same bytes, an open list of headers, and nothing that is not the provider's."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from lumeproxy.proxy.incoming import TEXT_CHARS, printable
from tests.proxy.conftest import Speak
from tests.support import streams
from tests.support.proxy import Proxy, proxy
from tests.support.upstream import ScriptedUpstream

BODY = b'{ "model":"claude-test-1",\t"max_tokens" : 5, "messages":[], "new\\u0065r": [1.50, 1e3], "a":"\xf0\x9f\x98\x80"}\n'
ALIAS = """
[[routes]]
model = "claude-alias"
upstreams = ["anthropic"]
upstream_model = "claude-test-1"
[[routes]]
model = "gpt-test-*"
upstreams = ["openai"]
"""

HOP_BY_HOP = {
    "Connection": "x-named, close",
    "Keep-Alive": "timeout=5",
    "Proxy-Authenticate": "Basic",
    "Proxy-Authorization": "Basic abc",
    "Proxy-Connection": "keep-alive",
    "TE": "trailers",
    "Trailer": "x-t",
    "Upgrade": "h2c",
    "X-Named": "by connection",
}
CREDENTIALS = {
    "Cookie": "session=1",
    "Api-Key": "azure",
    "X-Goog-Api-Key": "google",
    "OpenAI-Organization": "org-1",
    "OpenAI-Project": "proj_1",
}
ADDRESSES = {
    "Via": "1.1 proxy",
    "Forwarded": "for=1.1.1.1",
    "X-Forwarded-For": "1.1.1.1",
    "X-Forwarded-Host": "evil.test",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Port": "1",
    "X-Forwarded-Server": "evil.test",
    "X-Real-IP": "1.1.1.1",
}
KEPT = {
    "anthropic-version": "2099-01-01",
    "anthropic-beta": "a-2025,b-2026",
    "x-app": "cli",
    "User-Agent": "claude-cli/2.1.330 (external, cli)",
    "Accept": "application/json",
    "Content-Type": "application/json; charset=utf-8",
    "x-stainless-retry-count": "0",
    "x-claude-code-session-id": "5f0c",
    "X-Something-New": "some day",
    "x-codex-turn-state": "sticky",
    "Accept-Language": "*",
    "Range": "bytes=0-",
    "x-utf8": "caf\u00e9",
}


def head(lume: Proxy, size: int = len(BODY)) -> bytes:
    """A request's head, but for its last line."""
    lines = ["POST /v1/messages HTTP/1.1", "Host: 127.0.0.1", f"x-api-key: {lume.key}", f"Content-Length: {size}", ""]
    return "\r\n".join(lines).encode()


async def test_headers_are_an_open_list(lume: Proxy, upstream: ScriptedUpstream, speak: Speak):
    upstream.script = lambda c: c.reply(streams.anthropic_whole())
    ours = {"Authorization": f"Bearer {lume.key}", "x-api-key": lume.key, "Accept-Encoding": "gzip, br"}
    first = ["POST /v1/messages?beta=true&a=%7e+b HTTP/1.1", "Host: localhost:1", f"Content-Length: {len(BODY)}"]
    sent = [
        *first,
        *(f"{name}: {value}" for name, value in {**HOP_BY_HOP, **CREDENTIALS, **ADDRESSES, **KEPT, **ours}.items()),
    ]

    answer = await speak("\r\n".join([*sent, "X-Twice: 1", "x-twice: 2", "", ""]).encode() + BODY)

    assert answer.status == 200
    (seen,) = upstream.received
    assert (seen.method, seen.target, seen.body) == ("POST", "/v1/messages?beta=true&a=%7e+b", BODY)
    expected = [
        *((name, value.encode().decode("latin-1")) for name, value in KEPT.items()),
        ("X-Twice", "1"),
        ("X-Twice", "2"),
        ("x-api-key", "provider-secret"),
        ("Accept-Encoding", "identity"),
        ("Content-Length", str(len(BODY))),
        ("Host", upstream.url.removeprefix("http://")),
    ]
    assert sorted((name.lower(), value) for name, value in seen.headers) == sorted(
        (name.lower(), value) for name, value in expected
    )


@pytest.mark.parametrize("spelling", [str.lower, str.upper])
async def test_none_of_them_goes_upstream_in_any_spelling(
    lume: Proxy, upstream: ScriptedUpstream, speak: Speak, spelling
):
    upstream.script = lambda c: c.reply(streams.anthropic_whole())
    names = [*HOP_BY_HOP, *CREDENTIALS, *ADDRESSES, "Expect"]
    for name in names:
        more = "Connection: x-named\r\n" if name == "X-Named" else ""
        line = f"{more}{spelling(name)}: smuggled\r\n\r\n"
        assert (await speak(head(lume) + line.encode() + BODY)).status == 200, name

    assert len(upstream.received) == len(names) > 14
    assert "smuggled" not in str([received.headers for received in upstream.received])
    assert {received.header("connection") for received in upstream.received} == {None}


async def test_a_connection_header_cannot_take_the_operators_credential_away(
    lume: Proxy, upstream: ScriptedUpstream, speak: Speak
):
    upstream.script = lambda c: c.reply(streams.anthropic_whole())
    named = b"Connection: x-api-key, host, content-length, accept-encoding, authorization\r\n\r\n"

    assert (await speak(head(lume) + named + BODY)).status == 200
    (seen,) = upstream.received
    assert (seen.header("x-api-key"), seen.header("authorization")) == ("provider-secret", None)
    assert (seen.header("content-length"), seen.body) == (str(len(BODY)), BODY)
    assert seen.header("host") == upstream.url.removeprefix("http://")


async def test_each_byte_of_a_header_arrives_as_it_was_sent_or_not_at_all(
    lume: Proxy, upstream: ScriptedUpstream, speak: Speak
):
    """Control characters are refused at the door; of bytes above 0x7f, only UTF-8 survives aiohttp's writer."""
    upstream.script = lambda c: c.reply(streams.anthropic_whole())
    found = {}
    for value in (*range(0x21), *range(0x7E, 0x82), 0xFF):
        before = len(upstream.received)
        answer = await speak(head(lume) + b"x-byte: a" + bytes([value]) + b"b\r\n\r\n" + BODY)
        found[value] = upstream.received[before].header("x-byte") if answer.status == 200 else answer.status

    expected = {**dict.fromkeys([*range(0x20), 0x7F], 400), 9: "a\tb", 0x20: "a b", 0x7E: "a~b"}
    assert found == {**expected, **dict.fromkeys((0x80, 0x81, 0xFF), "ab")}


async def test_a_routed_name_is_spliced_into_the_body_and_every_other_byte_stays(
    tmp_path: Path, upstream: ScriptedUpstream
):
    upstream.script = lambda c: c.reply(streams.anthropic_whole())
    body = BODY.replace(b"claude-test-1", b"claude-alias")
    async with proxy(tmp_path, {"anthropic": upstream, "openai": upstream}, routes=ALIAS) as lume:
        for encoded, headers in ((body, {}), (gzip.compress(body), {"Content-Encoding": "gzip"})):
            async with lume.post("/v1/messages", encoded, headers=headers) as response:
                assert response.status == 200
        records = await lume.records()

    for seen in upstream.received:
        assert seen.body == BODY
        assert seen.header("content-encoding") is None
        assert seen.header("content-length") == str(len(BODY))
    assert [(record["model"], record["model_served"]) for record in records] == [("claude-alias", "claude-test-1")] * 2


async def test_the_echo_gets_a_coded_body_decoded(tmp_path: Path):
    async with proxy(
        tmp_path, {}, routes=ALIAS.split('[[routes]]\nmodel = "gpt')[0].replace("anthropic", "echo")
    ) as lume:
        body = json.dumps(
            {"model": "claude-echo", "max_tokens": 9, "messages": [{"role": "user", "content": "one two"}]}
        )
        headers = {"Content-Encoding": "gzip"}
        async with lume.post("/v1/messages", gzip.compress(body.encode()), headers=headers) as response:
            assert (await response.json())["content"][0]["text"] == "You said: one two"
        (record,) = await lume.records()

    assert (record["input_tokens"], record["output_tokens"]) == (2, 4)
    assert record["cost_nanousd"] == 2 * 1000 + 4 * 5000


async def test_a_large_body_goes_upstream_whole_and_unchanged(lume: Proxy, upstream: ScriptedUpstream, speak: Speak):
    upstream.script = lambda c: c.reply(streams.anthropic_whole())
    await lume.run("credit.grant", account="tester", amount_nanousd=10**11)
    body = BODY[:-2] + b',"pad":"' + bytes(range(0x30, 0x5B)) * 200_000 + b'"}'

    assert (await speak(head(lume, len(body)) + b"\r\n" + body)).status == 200
    (seen,) = upstream.received
    assert seen.body == body
    assert [name.lower() for name, _ in seen.headers] == ["host", "x-api-key", "accept-encoding", "content-length"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("claude-cli/2.1 (x)", "claude-cli/2.1 (x)"),
        ("a\tb\x1b[2J\x00\u202e\udcffc", "ab[2Jc"),
        ("caf\u00e9", "caf\u00e9"),
        ("x" * 5000, "x" * TEXT_CHARS),
        ("", ""),
    ],
)
def test_a_headers_text_is_printable_and_short_in_a_record(text, kept):
    assert printable(text) == kept


async def test_a_record_keeps_who_asked_with_what(lume: Proxy, upstream: ScriptedUpstream, speak: Speak):
    upstream.script = lambda c: c.reply(streams.anthropic_whole(), headers={"request-id": "req_" + "1" * 300})
    more = "User-Agent: " + "cli\xff" * 200 + "\r\nx-claude-code-session-id: s-1\r\nx-claude-code-agent-id: a-1\r\n\r\n"

    await speak(head(lume) + more.encode("latin-1") + BODY)

    (record,) = await lume.records()
    assert record["user_agent"] == "cli" * (TEXT_CHARS // 4)
    assert (record["session_id"], record["agent_id"]) == ("s-1", "a-1")
    assert record["upstream_request_id"] == "req_" + "1" * (TEXT_CHARS - 4)
    assert (record["endpoint"], record["dialect"]) == ("/v1/messages", "anthropic_messages")
