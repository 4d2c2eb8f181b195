"""What clients are told: each refusal in each dialect, off a real socket, and which of an upstream's headers pass."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lumeproxy.core import apikey
from lumeproxy.dialects.base import Answer
from lumeproxy.errors import BodyTimeout, LumeError, RateLimited, StoreUnavailable
from lumeproxy.proxy.answers import render
from tests.proxy.conftest import spoken
from tests.support import streams
from tests.support.proxy import Proxy, proxy
from tests.support.upstream import Connection, ScriptedUpstream

ROUTES = """
[[routes]]
model = "claude-test-*"
upstreams = ["anthropic"]
[[routes]]
model = "gpt-test-*"
upstreams = ["openai"]
[[routes]]
model = "*-unpriced"
upstreams = ["anthropic", "openai"]
"""
PATHS = ("/v1/messages", "/v1/responses", "/v1/chat/completions")
FOREIGN = "sk-ant-oat01-someone-elses"


def ask(path: str, **more: Any) -> dict[str, Any]:
    model = "claude-test-1" if path == "/v1/messages" else "gpt-test-1"
    return {"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}], "input": "hi", **more}


@dataclass
class Scene:
    """One refusal in the making: what is sent may be changed before it is sent."""

    lume: Proxy
    upstream: ScriptedUpstream
    path: str
    monkeypatch: pytest.MonkeyPatch
    headers: dict[str, str]
    body: bytes

    def wire(self) -> bytes:
        named = {**self.headers, "Host": "127.0.0.1", "Content-Length": str(len(self.body))}
        lines = [f"POST {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items()), "", ""]
        return "\r\n".join(lines).encode() + self.body

    def fail(self, error: LumeError) -> None:
        """Let the call's reading fail so, for what cannot be brought about from outside."""

        async def failing(*_: Any, **__: Any) -> None:
            raise error

        self.monkeypatch.setattr("lumeproxy.proxy.exchange.read_body", failing)

    def reply(self, status: int, body: bytes = b'{"error":{"message":"m","type":"t"}}', **headers: str) -> None:
        self.upstream.script = lambda c: c.reply(body, status, headers)


Stage = Callable[[Scene], Awaitable[None]]


async def no_key(scene: Scene) -> None:
    scene.headers = {}


async def unknown_key(scene: Scene) -> None:
    scene.headers = {"x-api-key": apikey.make(os.urandom).text}


async def revoked_key(scene: Scene) -> None:
    await scene.lume.run("key.revoke", id=apikey.parse(scene.lume.key))


async def foreign_key(scene: Scene) -> None:
    scene.headers = {"Authorization": f"Bearer {FOREIGN}"}


async def suspended(scene: Scene) -> None:
    await scene.lume.run("account.suspend", name="tester", reason="x")


async def no_credit(scene: Scene) -> None:
    poor = await scene.lume.run("account.create", name="poor" + scene.path.replace("/", "-"))
    scene.headers = {"x-api-key": (await scene.lume.run("key.create", account=poor["account"]))["key"]}


async def unknown_model(scene: Scene) -> None:
    scene.body = json.dumps(ask(scene.path, model="nobody-knows-it")).encode()


async def unpriced_model(scene: Scene) -> None:
    scene.body = json.dumps(ask(scene.path, model="x-unpriced")).encode()


async def other_dialects_model(scene: Scene) -> None:
    model = "gpt-test-1" if scene.path == "/v1/messages" else "claude-test-1"
    scene.body = json.dumps(ask(scene.path, model=model)).encode()


async def forbidden_model(scene: Scene) -> None:
    made = await scene.lume.run("key.create", account="tester", models=["claude-test-2", "gpt-test-2"])
    scene.headers = {"x-api-key": made["key"]}


async def rate_limit(scene: Scene) -> None:
    scene.fail(RateLimited("Slowly.", retry_after_s=61))


async def too_large(scene: Scene) -> None:
    scene.body = b" " * (1 << 20) + b"x"


async def bad_json(scene: Scene) -> None:
    scene.body = b'{"model":'


async def no_model(scene: Scene) -> None:
    scene.body = b'{"messages":[]}'


async def late_body(scene: Scene) -> None:
    scene.fail(BodyTimeout("Late."))


async def odd_coding(scene: Scene) -> None:
    scene.headers = {**scene.headers, "Content-Encoding": "br"}


async def no_upstream(scene: Scene) -> None:
    async def cut(connection: Connection) -> None:
        connection.abort()

    scene.upstream.script = cut


async def full_disk(scene: Scene) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("The disk is full.", retry_after_s=5)

    scene.monkeypatch.setattr(scene.lume.server.database, "submit", full)


async def operators_401(scene: Scene) -> None:
    scene.reply(401, retry_after="3")


async def operators_402(scene: Scene) -> None:
    scene.reply(402)


async def operators_403(scene: Scene) -> None:
    scene.reply(403)


NO_KEY = ((401, "authentication_error"), (401, "invalid_request_error", "invalid_api_key"), "false", None)
NO_MODEL = ((404, "not_found_error"), (404, "invalid_request_error", "model_not_found"), "false", None)
BAD = ((400, "invalid_request_error"), (400, "invalid_request_error", "invalid_request"), "false", None)
DOWN = ((503, "overloaded_error"), (503, "server_error", "server_is_overloaded"), None, "5")
OPERATORS = ((502, "api_error"), (502, "server_error", "upstream_credential_rejected"), "false", None)
# What is staged, words of the answer; Anthropic's status and type; OpenAI's status, type and code; x-should-retry;
# retry-after.
TABLE: list[tuple[Any, ...]] = [
    (no_key, "No API key", *NO_KEY),
    (unknown_key, "unknown, expired or revoked", *NO_KEY),
    (revoked_key, "unknown, expired or revoked", *NO_KEY),
    (foreign_key, "the key that starts with lume_", *NO_KEY),
    (suspended, "suspended", (403, "permission_error"), (403, "permission_error", "account_suspended"), "false", None),
    (no_credit, "top up", (402, "billing_error"), (429, "usage_limit_reached", "usage_limit_reached"), "false", None),
    (unknown_model, "nobody-knows-it is not available", *NO_MODEL),
    (unpriced_model, "has no price here", *NO_MODEL),
    (other_dialects_model, "use the API of its provider", *NO_MODEL),
    (forbidden_model, "not available with this key", *NO_MODEL),
    (rate_limit, "Slowly.", (429, "rate_limit_error"), (429, "rate_limit_exceeded", "rate_limit_exceeded"), None, "61"),
    (
        too_large,
        "1 MiB",
        (413, "request_too_large"),
        (413, "invalid_request_error", "request_too_large"),
        "false",
        None,
    ),
    (bad_json, "not valid JSON", *BAD),
    (no_model, "names no model", *BAD),
    (late_body, "Late.", (408, "timeout_error"), (408, "invalid_request_error", "body_timeout"), None, None),
    (odd_coding, "gzip", (415, BAD[0][1]), (415, "invalid_request_error", "unsupported_encoding"), "false", None),
    (no_upstream, "upstream", *DOWN),
    (full_disk, "The disk is full.", *DOWN),
    *((stage, "operator", *OPERATORS) for stage in (operators_401, operators_402, operators_403)),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0].__name__)
async def test_each_refusal_reads_well_in_each_dialect(tmp_path: Path, upstream: ScriptedUpstream, row):
    stage, words, for_anthropic, for_openai, should_retry, retry_after = row
    more = f"[limits]\nbody_bytes = {1 << 20}"
    async with proxy(tmp_path, {"anthropic": upstream, "openai": upstream}, more=more, routes=ROUTES) as lume:
        for path in PATHS:
            with pytest.MonkeyPatch.context() as monkeypatch:
                scene = Scene(lume, upstream, path, monkeypatch, lume.headers, json.dumps(ask(path)).encode())
                await stage(scene)
                answer = await spoken(lume.server.port, scene.wire())

            error = json.loads(answer.body)["error"]
            if path == "/v1/messages":
                assert (answer.status, error["type"]) == for_anthropic
                assert json.loads(answer.body)["type"] == "error"
                assert json.loads(answer.body)["request_id"] == answer.header("request-id")[0]
            else:
                assert (answer.status, error["type"], error["code"]) == for_openai
                assert error["param"] is None
            assert words in error["message"]
            assert answer.header("x-should-retry") == ([] if should_retry is None else [should_retry])
            assert answer.header("retry-after") == ([] if retry_after is None else [retry_after])
            assert answer.header("request-id") == answer.header("x-request-id") == answer.header("x-lume-call-id") != []
            assert answer.header("content-type") == ["application/json"]
            assert FOREIGN not in answer.wire.decode() and "provider-secret" not in answer.wire.decode()
        records = await lume.records()

    assert [record["cost_nanousd"] for record in records] == [0] * len(upstream.received)
    sent_on = stage in (no_upstream, operators_401, operators_402, operators_403)
    assert len(records) == (len(PATHS) if sent_on else 0)


async def test_codex_is_told_of_money_and_suspension_in_the_way_that_it_shows(lume: Proxy):
    codex = {"originator": "codex_cli_rs"}
    poor = await lume.run("account.create", name="poor")
    key = (await lume.run("key.create", account=poor["account"]))["key"]
    async with lume.post(
        "/v1/responses", ask("/v1/responses"), headers={**codex, "Authorization": f"Bearer {key}"}
    ) as answer:
        error = (await answer.json())["error"]
        assert (answer.status, error["type"]) == (429, "usage_limit_reached")
        assert answer.headers["x-codex-promo-message"] == error["message"].rstrip(".")
        assert re.search(r"needs \$0\.\d+ .* \$0(\.0+)? is left", error["message"])
        assert "plan_type" not in error

    await lume.run("account.suspend", name="tester", reason="x")
    async with lume.post("/v1/responses", ask("/v1/responses"), headers=codex) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (400, "invalid_prompt")
    async with lume.post("/v1/messages", ask("/v1/messages"), headers=codex) as answer:
        assert answer.status == 403


async def test_a_refused_body_that_was_not_read_ends_the_connection_and_one_that_was_read_does_not(lume: Proxy):
    unread = b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\n"
    assert (await spoken(lume.server.port, unread)).header("connection") == ["close"]
    read = f"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nx-api-key: {lume.key}\r\nContent-Length: 2\r\n\r\n[]".encode()
    assert (await spoken(lume.server.port, read)).header("connection") == []


# --- what passes of an upstream's answer -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
async def test_any_other_error_of_an_upstream_passes_unchanged(lume: Proxy, upstream: ScriptedUpstream, path):
    statuses = (400, 404, 407, 408, 409, 413, 418, 422, 426, 429, 451, 500, 501, 502, 503, 504, 529, 599)
    body = b'{"error": {"message":"prompt is too long: 3 > 2", "type":"t"}}  \xff\n'
    kept = {"retry-after": "17", "request-id": "req_up", "x-should-retry": "true", "x-ratelimit-reset": "1s"}
    for status in statuses:
        upstream.script = partial(Connection.reply, body=body, status=status, headers={**kept, "content-type": "a/b"})
        async with lume.post(path, ask(path)) as response:
            assert (response.status, await response.read()) == (status, body)
            assert {name: response.headers.getall(name) for name in kept} == {name: [kept[name]] for name in kept}
            assert (response.headers["content-type"], response.headers["x-request-id"]) == ("a/b", "req_up")
            assert response.headers["x-lume-call-id"].startswith("call_")

    records = await lume.records()
    assert [(record["status"], record["ending"], record["cost_nanousd"]) for record in records] == [
        (status, "refused", 0) for status in statuses
    ]
    assert (await lume.balance()).held_nanousd == 0


async def test_a_redirect_is_neither_followed_nor_passed_on(lume: Proxy, upstream: ScriptedUpstream):
    statuses = (101, 300, 301, 302, 303, 304, 305, 307, 308)
    headers = {"location": upstream.url + "/elsewhere", "content-length": "0", "upgrade": "x"}
    for status in statuses:
        upstream.script = partial(Connection.head, status=status, headers=headers)
        for path in PATHS:
            async with lume.post(path, ask(path), allow_redirects=False) as response:
                assert response.status == 502
                assert "location" not in response.headers and "upgrade" not in response.headers
                assert "/elsewhere" not in await response.text()
    assert [received.target for received in upstream.received] == list(PATHS) * len(statuses)


DROPPED = {
    "Connection": "x-named, keep-alive",
    "Keep-Alive": "timeout=5",
    "Proxy-Authenticate": "Basic",
    "Proxy-Authorization": "Basic abc",
    "Proxy-Connection": "keep-alive",
    "TE": "trailers",
    "Trailer": "x-t",
    "X-Named": "by connection",
    "Expect": "x",
    "Set-Cookie": "session=1",
    "Server": "cloudflare",
    "Alt-Svc": 'h3=":443"',
    "Strict-Transport-Security": "max-age=1",
    "anthropic-ratelimit-requests-remaining": "7",
    "Anthropic-RateLimit-Unified-Status": "allowed",
    "x-lume-balance": "99",
    "X-Lume-Call-Id": "faked",
    "X-LUME-anything": "faked",
    # The operator's own credential, sent back by whoever got it.
    "x-api-key": "provider-secret",
    "Authorization": "Bearer provider-secret",
    "x-debug": "key=provider-secret;",
}
PASSED = {
    "request-id": "req_up",
    "x-ratelimit-remaining-tokens": "5",
    "openai-processing-ms": "12",
    "cf-ray": "abc",
    "x-codex-turn-state": "sticky",
    "Cache-Control": "no-store",
    "X-Something-New": "some day",
    "x-tab": "a\tb",
}


@pytest.mark.parametrize("kind", ["whole", "stream", "error", "count"])
async def test_the_upstreams_headers_are_an_open_list(lume: Proxy, upstream: ScriptedUpstream, kind):
    streamed = kind == "stream"
    content = b"".join(streams.anthropic()) if streamed else streams.anthropic_whole()

    async def answer(connection: Connection) -> None:
        plain = {
            "content-type": "text/event-stream" if streamed else "application/json",
            "content-length": str(len(content)),
        }
        pairs = [*DROPPED.items(), *PASSED.items(), ("x-twice", "1"), ("x-twice", "2"), *plain.items()]
        await connection.head(429 if kind == "error" else 200, pairs)
        await connection.send(content)

    upstream.script = answer
    path = "/v1/messages/count_tokens" if kind == "count" else "/v1/messages"
    async with lume.post(path, ask("/v1/messages", stream=streamed)) as response:
        assert await response.read() == content
        headers = response.headers

    assert [headers.getall(name) for name in PASSED] == [[value] for value in PASSED.values()]
    assert headers.getall("x-twice") == ["1", "2"]
    assert headers["x-request-id"] == "req_up"
    assert [name for name, value in DROPPED.items() if value in headers.getall(name, [])] == []
    assert "provider-secret" not in str(headers)
    assert [name for name in headers if name.lower().startswith("x-lume-") and "faked" in headers[name]] == []
    assert headers["x-lume-call-id"].startswith("call_")


ODD = [
    *(b"x-odd: a" + bytes([value]) + b"b" for value in (1, 8, 0x0B, 0x0C, 0x1B, 0x1F, 0x7F)),
    b"request-id: a\x01b",
    b"x-odd: caf\xe9",
    b"x-odd: folded\r\n\tx-evil: 1",
]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "stream"])
async def test_an_odd_header_of_an_upstream_does_not_cost_the_client_its_answer(
    lume: Proxy, upstream: ScriptedUpstream, path
):
    streamed = path == "stream"
    content = b"".join(streams.anthropic()) if streamed else streams.anthropic_whole()
    kind = b"content-type: text/event-stream" if streamed else b"content-type: application/json"
    size = b"content-length: %d" % len(content)
    target = "/v1/messages" if streamed else path
    for line in ODD:
        wire = b"\r\n".join([b"HTTP/1.1 200 OK", kind, line, size, b"", content])
        upstream.script = partial(Connection.send, data=wire)
        async with lume.post(target, ask("/v1/messages", stream=streamed)) as response:
            assert (response.status, await response.read()) == (200, content), line
            assert "x-evil" not in response.headers
            assert response.headers["request-id"] and response.headers["x-request-id"]

    expected = [] if "count" in path else ["complete"] * len(ODD)
    assert [record["ending"] for record in await lume.records()] == expected


async def test_a_head_that_is_not_http_is_no_answer(lume: Proxy, upstream: ScriptedUpstream):
    lines = (b"x-odd: a\rx-evil: 1", b"x-odd: a\0b", b"x odd: b", b": b", b"no colon", b"x-odd: " + b"a" * 40_000)
    for line in lines:
        wire = b"\r\n".join([b"HTTP/1.1 200 OK", line, b"content-length: 2", b"", b"{}"])
        upstream.script = partial(Connection.send, data=wire)
        async with lume.post("/v1/messages", ask("/v1/messages")) as response:
            assert response.status == 503
            assert "x-evil" not in response.headers
    assert [record["cost_nanousd"] for record in await lume.records()] == [0] * len(lines)


async def test_a_model_name_splits_no_header_and_no_log_line(lume: Proxy, upstream: ScriptedUpstream):
    for name in (
        "claude-test-1\r\nx-evil: 1",
        "claude-test-\n",
        "claude-test-\x1b[2J",
        "claude-test-\u2028",
        "claude-test-\ud800",
    ):
        for path in (*PATHS, "/v1/messages/count_tokens"):
            async with lume.post(path, {**ask(path), "model": name}) as response:
                text = await response.text()
                assert response.status == 400
                assert "x-evil" not in str(response.headers) + text
    assert upstream.received == []
    assert "evil" not in lume.log.getvalue() and "\x1b" not in lume.log.getvalue()


def test_an_answer_is_rendered_with_its_own_and_more_headers():
    response = render(Answer(201, {"content-type": "a/b", "x": "1"}, (b"one", b"two")), x_lume_call_id="call_1")

    assert (response.status, response.body) == (201, b"onetwo")
    assert dict(response.headers) == {"content-type": "a/b", "x": "1", "x-lume-call-id": "call_1"}
