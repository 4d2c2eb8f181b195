"""The map of the API: every path is there, guarded, and errs in the caller's own shape."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from lumeproxy.compose import make_hosts
from lumeproxy.core import apikey
from lumeproxy.dashboard.sitemap import ROUTES
from lumeproxy.dialects import DIALECTS
from lumeproxy.errors import StoreUnavailable
from lumeproxy.proxy.body import read_body
from lumeproxy.proxy.door import DIRECT, Runner
from tests.proxy.conftest import Speak, spoken
from tests.support.proxy import Proxy, proxy
from tests.support.upstream import ScriptedUpstream

# All that answers without a key, and what of it a web page could read under a foreign name: nothing of a customer.
SCRIPT = ("GET", "/setup/{script}")
PUBLIC = {("HEAD", "/"), ("HEAD", "/api/hello"), ("GET", "/"), ("GET", "/healthz"), ("GET", "/readyz")}
PLACE = re.compile(r"\{[a-z]+\}")
ENDPOINTS = [endpoint.path for dialect in DIALECTS for endpoint in dialect.endpoints]
ANTHROPIC = {"anthropic-version": "2023-06-01"}
ASK = {"model": "claude-echo", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}], "input": "hi"}


@pytest.fixture
def seen_app(monkeypatch) -> list[web.Application]:
    """The application that a running server was made of, to walk its router."""
    apps: list[web.Application] = []
    made = Runner.__init__

    def remember(self: Runner, app: web.Application, *args: Any, **named: Any) -> None:
        apps.append(app)
        made(self, app, *args, **named)

    monkeypatch.setattr(Runner, "__init__", remember)
    return apps


def routes(app: web.Application) -> list[tuple[str, str]]:
    """Method and path of every route, with something in the place of its variables."""
    found = []
    for route in app.router.routes():
        assert route.resource is not None
        path = route.resource.canonical.replace("{model}", "claude-echo").replace("{path}", "some/path")
        path = PLACE.sub("x", path) if path != SCRIPT[1] else path
        assert "{" not in path or path == SCRIPT[1]
        found.append((route.method, path))
    return found


# --- nothing without a key ---------------------------------------------------------------------------------------------


async def test_every_route_but_the_public_ones_refuses_whoever_has_no_valid_key(tmp_path: Path, seen_app):
    async with proxy(tmp_path, {}) as lume:
        (app,) = seen_app
        walked = routes(app)
        assert {f"/v1{path}" for path in ENDPOINTS} < {path for _, path in walked}
        # The pages have doors of their own: tests/dashboard/test_pages.py walks their table.
        of_pages = {(route.method, PLACE.sub("x", route.path)) for route in ROUTES} | {("GET", "/static/x")}
        walked = [each for each in walked if each not in of_pages or each == ("GET", "/")]
        passed = []
        for method, path in walked:
            if (method, path) in {*PUBLIC, SCRIPT}:
                continue
            verb = "POST" if method == "*" else method
            wrong: list[dict[str, str]] = [{}, {"x-api-key": apikey.make(os.urandom).text}, {"x-api-key": "sk-ant-1"}]
            for headers in wrong:
                async with lume.session.request(verb, lume.url + path, json=ASK, headers=headers) as response:
                    text = await response.text()
                    if response.status not in (401, 404, 405) or "claude-echo" in text:
                        passed.append((method, path, response.status))

        assert passed == []
        assert sorted(set(walked) & PUBLIC) == sorted(PUBLIC)
        assert await lume.records() == []


async def test_what_is_served_past_the_router_is_what_the_router_serves(tmp_path: Path, seen_app):
    async with proxy(tmp_path, {}):
        (app,) = seen_app
        routed = {
            route.resource.canonical: route.handler
            for route in app.router.routes()
            if route.method == "POST" and route.resource is not None and route.resource.canonical.startswith("/v1")
        }

        assert app[DIRECT] == routed
        assert set(app[DIRECT]) == {prefix + path for prefix in ("/v1", "/v1/v1") for path in ENDPOINTS}


@pytest.mark.parametrize("target", ["/v1/messages", "/v1/messages?beta=true", "/v1/%6Dessages", "http://x/v1/messages"])
async def test_every_spelling_of_a_path_is_served(lume: Proxy, speak: Speak, target: str):
    body = json.dumps(ASK)
    head = f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nx-api-key: {lume.key}\r\nContent-Length: {len(body)}\r\n\r\n"

    answer = await speak((head + body).encode())

    assert (answer.status, json.loads(answer.body)["type"]) == (200, "message")


async def test_the_public_routes_say_nothing_of_a_customer_and_take_any_host(lume: Proxy):
    for method, path in sorted(PUBLIC):
        async with lume.session.request(method, lume.url + path, headers={"Host": "load-balancer.test"}) as response:
            text = await response.text()
            assert response.status == 200
            assert response.headers["request-id"] == response.headers["x-request-id"] != ""
            assert "tester" not in text and "lume_" not in text


# "+" stands for a space.
BEARERS = """
    lume_ null undefined '' '+OR+'1'='1 ';+DROP+TABLE+keys;+-- * % lume_% ../../etc/passwd {id} lume_{id} lume_{id}_
    lume_{id}_{zeros} {key}x x{key} {key}+{key} {key}, "{key}" <{key}> {KEY} {backwards} sk-ant-api03-x sk-proj-x sk-1234
    Bearer+{key}
"""
SCHEMES = "{key} Basic+{key} Token+{key} Bearer{key} Bearer:{key} Bearer\t{key} ApiKey+{key} Digest+{key}"
API_KEYS = "Bearer+{key} {key};{key} {key}= lume_{id} + sk-ant-x"
OTHER_HEADERS = "x-goog-api-key api-key Proxy-Authorization X-Authorization key token X-Forwarded-User X-Api_Key"
CREDENTIALS: list[dict[str, str]] = [
    {},
    *({"Authorization": "Bearer " + text} for text in BEARERS.split()),
    *({"Authorization": text} for text in SCHEMES.split(" ")),
    *({"x-api-key": text} for text in API_KEYS.split()),
    *({name: "{key}"} for name in OTHER_HEADERS.split()),
    {"Cookie": "x-api-key={key};+Authorization={key};+session={key}"},
    {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1"},
    {"X-Original-URL": "/healthz", "X-Rewrite-URL": "/healthz", "X-HTTP-Method-Override": "GET"},
    {"originator": "codex_cli", "anthropic-version": "x"},
    {"Upgrade": "websocket", "Connection": "Upgrade,+Authorization"},
]
PATHS = r"""
    /v1/models?key={key} /v1/models?api_key={key} /v1/models?access_token={key} /v1/models/{key} /{key}/v1/models
    //v1/models /v1//models /v1/./models /v1/../v1/models /healthz/../v1/models /v1/models/ /v1/models/. /v1/models;x=1
    /v1/models.json /v1/models%00 /v1/models%20 /v1%2fmodels /%2fv1/models /v1/models%2f /v1/models%3f /v1/models#
    /%76%31/%6dodels /V1/MODELS /v1/v1/v1/models /v2/models /v1beta/models /models /api/v1/models
    /v1/models/../../healthz /v1/%2e%2e/models /v1\models /.env /lumeproxy.db /../lumeproxy.db /%2e%2e/%2e%2e/etc/passwd
    /static/../../lumeproxy.db /admin /metrics/all /debug /server-status /key.create /run /v1/chat/completions
    /v1/responses/resp_1 /v1/messages/batches /v1/files /v1/engines /v1/organizations
"""


async def test_no_trick_with_credentials_gets_through(lume: Proxy, upstream: ScriptedUpstream, speak: Speak):
    key, key_id = lume.key, apikey.parse(lume.key) or ""
    filled = {"key": key, "id": key_id, "KEY": key.upper(), "backwards": key[::-1], "zeros": "0" * 38}
    passed = {}
    for target in ("GET /v1/models", "POST /v1/messages"):
        for headers in CREDENTIALS:
            lines = [f"{name}: {value.replace('+', ' ').format(**filled)}" for name, value in headers.items()]
            head = "\r\n".join([f"{target} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""])
            answer = await speak(head.encode())
            if answer.status != 401 or key in lume.log.getvalue():
                passed[head] = answer.wire

    assert passed == {}
    assert upstream.received == []


async def test_no_trick_with_paths_gets_through(lume: Proxy, upstream: ScriptedUpstream, speak: Speak):
    key = lume.key
    passed = {}
    for path in PATHS.split():
        for host in ("127.0.0.1", "127.0.0.1/#@127.0.0.1", "evil.test"):
            for method in ("GET", "POST"):
                head = f"{method} {path.format(key=key)} HTTP/1.1\r\nHost: {host}\r\n\r\n"
                answer = await speak(head.encode())
                right = (401, 403, 404) if host == "127.0.0.1" else (403,)
                if answer.status not in right or key in answer.wire.decode("latin-1") + lume.log.getvalue():
                    passed[head] = answer.wire

    assert passed == {}
    assert len(PATHS.split()) + len(CREDENTIALS) >= 100
    assert upstream.received == []


async def test_what_is_escaped_in_a_path_reaches_no_terminal(lume: Proxy, speak: Speak):
    answer = await speak(b"GET /%1b%5b2J%0d%0ax-evil:%201/%e2%80%ae HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")

    assert answer.status == 404
    assert json.loads(answer.body)["error"]["message"] == "There is nothing at GET /[2Jx-evil: 1/ here."
    assert answer.header("x-evil") == []
    (line,) = [line for line in lume.log.getvalue().splitlines() if "refused" in line]
    assert json.loads(line)["path"] == "/[2Jx-evil: 1/"


# --- Host names (DNS rebinding) ----------------------------------------------------------------------------------------


OURS = "127.0.0.1 127.0.0.1:8787 localhost LOCALHOST:1 [::1] [::1]:80"
NOT_OURS = """
    evil.test evil.test:8787 127.0.0.1.evil.test localhost.evil.test evil.test:127.0.0.1 127.0.0.1@evil.test
    evil.test#127.0.0.1 127.0.0.1/#@evil 127.0.0.1,evil.test 127.0.0.1:1:2 [::1]evil:80 127.0.0.2 0.0.0.0
"""


async def test_only_known_host_names_are_answered(lume: Proxy, speak: Speak):
    for host in (*OURS.split(), *NOT_OURS.split(), ""):
        answer = await speak(f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\nx-api-key: {lume.key}\r\n\r\n".encode())

        if host in OURS.split():
            assert answer.status == 200, host
        else:
            assert answer.status == 403, host
            assert json.loads(answer.body)["error"]["code"] == "unknown_host"
            assert answer.header("x-should-retry") == ["false"]
            assert b"echo" not in answer.body


async def test_the_operators_own_names_replace_the_usual_ones(tmp_path: Path):
    more = '[server]\nallowed_hosts = ["AI.Example.Test"]'
    async with proxy(tmp_path, {}, more=more) as lume:
        for host, status in (("ai.example.test", 200), ("ai.example.test:443", 200), ("127.0.0.1", 403)):
            head = f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\nx-api-key: {lume.key}\r\n\r\n"
            assert (await spoken(lume.server.port, head.encode())).status == status


async def test_behind_a_trusted_proxy_any_name_is_answered(tmp_path: Path):
    async with proxy(tmp_path, {}, more='[server]\ntrusted_proxies = ["127.0.0.1"]') as lume:
        assert make_hosts(lume.settings) is None
        head = f"GET /v1/models HTTP/1.1\r\nHost: any.test\r\nx-api-key: {lume.key}\r\n\r\n"
        assert (await spoken(lume.server.port, head.encode())).status == 200


# --- what is where -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["/v1", "/v1/v1"])
async def test_each_path_is_served_under_the_version_and_under_the_version_twice(lume: Proxy, prefix):
    for path in ENDPOINTS:
        model = "claude-echo" if path.startswith("/messages") else "gpt-echo"
        async with lume.post(prefix + path, {**ASK, "model": model}) as response:
            assert (response.status, path) == (200, path)
    for path in ("/models", "/models/gpt-echo"):
        async with lume.session.get(lume.url + prefix + path, headers=lume.headers) as response:
            assert response.status == 200


@pytest.mark.parametrize("path", ["/", "/api/hello"])
async def test_claude_codes_probe_is_answered_without_a_body(lume: Proxy, path):
    async with lume.session.head(lume.url + path) as response:
        assert response.status == 200
        assert await response.read() == b""


async def test_the_first_page_and_the_probes_of_an_orchestrator(lume: Proxy):
    said = {}
    for path in ("/", "/healthz", "/readyz"):
        async with lume.session.get(lume.url + path) as response:
            said[path] = (response.status, await response.text())

    assert said["/healthz"] == (200, "ok\n")
    assert said["/readyz"] == (200, "ready\n")
    assert said["/"][0] == 200 and "/v1/chat/completions" in said["/"][1]


async def test_a_database_that_takes_no_writes_is_not_ready_but_alive(lume: Proxy, monkeypatch):
    async def full(*_: Any) -> None:
        raise StoreUnavailable("The disk is full.")

    monkeypatch.setattr(lume.server.database, "write", full)
    async with lume.session.get(lume.url + "/readyz") as response:
        assert (response.status, response.headers["retry-after"]) == (503, "5")
        assert await response.text() == "The disk is full.\n"
    async with lume.session.get(lume.url + "/healthz") as response:
        assert response.status == 200


@pytest.mark.parametrize("prefix", ["/v1", "/v1/v1"])
async def test_a_websocket_is_told_to_come_over_http(lume: Proxy, speak: Speak, prefix):
    head = (
        f"GET {prefix}/responses HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nx-api-key: {lume.key}\r\n\r\n"
    )
    answer = await speak(head.encode())

    assert answer.status == 426
    assert json.loads(answer.body)["error"]["code"] == "upgrade_required"
    assert (await speak(head.replace("Upgrade: WebSocket\r\n", "").encode())).status == 404


NOWHERE = """
    GET:/v1/messages DELETE:/v1/messages GET:/v1/responses POST:/v1/models PUT:/v1/chat/completions TRACE:/
    OPTIONS:/v1/messages POST:/ GET:/v1 GET:/favicon.ico POST:/healthz POST:/v1/responses/input_tokens
    POST:/v1/embeddings PROPFIND:/v1/models
"""


@pytest.mark.parametrize("headers", [ANTHROPIC, {}], ids=["anthropic", "openai"])
async def test_an_unknown_path_is_a_404_in_the_callers_shape(lume: Proxy, headers):
    for target in NOWHERE.split():
        method, _, path = target.partition(":")
        async with lume.session.request(method, lume.url + path, headers={**headers, **lume.headers}) as response:
            body = await response.json()
            assert response.status == 404
            assert response.headers["x-should-retry"] == "false"
            assert response.headers["request-id"] == response.headers["x-request-id"]
            if headers:
                assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")
                assert body["request_id"] == response.headers["request-id"]
            else:
                assert (body["error"]["type"], body["error"]["code"]) == ("invalid_request_error", "not_found")
            assert f"{method} {path}" in body["error"]["message"]


@pytest.mark.parametrize("target", ["CONNECT 127.0.0.1:443", "CONNECT evil.test:443", "OPTIONS *"])
async def test_what_no_route_can_match_is_answered_in_our_words_too(lume: Proxy, speak: Speak, target):
    answer = await speak(f"{target} HTTP/1.1\r\nHost: 127.0.0.1\r\nanthropic-version: x\r\n\r\n".encode())

    assert answer.status == 404
    assert json.loads(answer.body)["error"]["type"] == "not_found_error"
    assert answer.header("request-id") == [json.loads(answer.body)["request_id"]]


async def test_two_content_encodings_are_refused_since_one_of_them_might_be_overlooked(
    lume: Proxy, upstream: ScriptedUpstream, speak: Speak
):
    head = f"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nx-api-key: {lume.key}\r\nContent-Length: 2\r\n"
    answer = await speak(f"{head}Content-Encoding: identity\r\nContent-Encoding: gzip\r\n\r\n{{}}".encode())

    assert answer.status == 415
    assert upstream.received == []


async def test_a_bug_is_answered_with_an_id_to_tell_the_operator_and_nothing_else(lume: Proxy, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a secret text")

    monkeypatch.setattr("lumeproxy.proxy.exchange.read_body", broken)
    async with lume.post("/v1/messages", ASK) as response:
        error = (await response.json())["error"]

    assert (response.status, error["type"]) == (500, "api_error")
    assert response.headers["request-id"] in error["message"]
    assert '"error":"ZeroDivisionError"' in lume.log.getvalue()
    assert "secret" not in error["message"] + lume.log.getvalue()


async def test_a_client_that_leaves_while_sending_is_not_a_fault(lume: Proxy, upstream: ScriptedUpstream, monkeypatch):
    ended = asyncio.Event()

    async def watched(*args: Any, **named: Any) -> bytes:
        try:
            return await read_body(*args, **named)
        finally:
            ended.set()

    monkeypatch.setattr("lumeproxy.proxy.exchange.read_body", watched)
    reader, writer = await asyncio.open_connection("127.0.0.1", lume.server.port)
    head = f"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nx-api-key: {lume.key}\r\nExpect: 100-continue\r\n"
    writer.write(f"{head}Content-Length: 100\r\n\r\n".encode())
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"{")
    await writer.drain()
    writer.transport.abort()
    await asyncio.wait_for(ended.wait(), 5)

    async with lume.session.get(lume.url + "/healthz") as response:
        assert response.status == 200
    assert upstream.received == []
    assert await lume.records() == []
    assert '"level":"error"' not in lume.log.getvalue()


async def test_the_home_page_lists_each_path_that_is_billed(lume: Proxy):
    async with lume.session.get(lume.url + "/") as response:
        page = await response.text()

    billed = [endpoint.path for dialect in DIALECTS for endpoint in dialect.endpoints if endpoint.billed]
    assert [path for path in billed if f"/v1{path} " not in page] == []
