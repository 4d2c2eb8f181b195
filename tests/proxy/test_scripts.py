"""GET /setup/NAME: the script for the address that was asked, to whoever asks, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lumeproxy.clients.script import NAMES, render
from tests.proxy.conftest import Speak, spoken
from tests.support.proxy import Proxy, proxy


async def ask(lume: Proxy, path: str, *headers: str) -> tuple[int, str]:
    head = "\r\n".join([f"GET {path} HTTP/1.1", *headers, "", ""])
    answer = await spoken(lume.server.port, head.encode())
    return answer.status, answer.body.decode()


@pytest.mark.parametrize("name", NAMES)
async def test_a_script_needs_no_key_and_names_the_address_that_was_asked(lume: Proxy, name):
    async with lume.session.get(f"{lume.url}/setup/{name}") as response:
        text = await response.text()

    assert response.status == 200
    assert text == render(name, lume.url)
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert lume.key not in text and not re.search("lume_[0-9A-Za-z]{8}_", text)
    assert await lume.records() == []


@pytest.mark.parametrize(
    "name", ["", "x.sh", "claude-code", "claude-code.sh/x", "..%2fsetup.sh", "plan.mjs", "CODEX.sh"]
)
async def test_there_is_nothing_else(lume: Proxy, name):
    status, body = await ask(lume, f"/setup/{name}", "Host: 127.0.0.1")

    assert status == 404
    assert json.loads(body)["error"]["code"] == "not_found"


async def test_only_known_host_names_get_into_a_script(lume: Proxy, speak: Speak):
    assert (await ask(lume, "/setup/codex.sh", "Host: evil.test"))[0] == 403
    status, text = await ask(lume, "/setup/codex.sh", "Host: localhost:8787", "X-Forwarded-Host: evil.test",
                             "X-Forwarded-Proto: https")  # fmt: skip
    assert status == 200
    assert "url=http://localhost:8787\n" in text and "evil" not in text


HOSTS = [
    "a'b",
    "a.test/$(id)",
    "a.test`id`",
    'a"b',
    "a.test#x",
    "a b",
    "u@a.test",
    "a.test:x",
    "",
    "[::1",
    "a.test\\x",
    "ü",
]


@pytest.mark.parametrize("host", HOSTS)
async def test_a_host_that_is_no_address_gets_into_no_script_even_behind_a_proxy(tmp_path: Path, host):
    async with proxy(tmp_path, {}, more='[server]\ntrusted_proxies = ["127.0.0.1"]') as lume:
        for headers in ([f"Host: {host}"], ["Host: a.test", f"X-Forwarded-Host: {host}"],
                        ["Host: a.test", "X-Forwarded-Proto: javascript"]):  # fmt: skip
            status, body = await ask(lume, "/setup/codex.sh", *headers)
            assert (status, "#!/bin/sh" in body) == (400, False), headers


async def test_a_trusted_proxy_says_what_it_was_asked(tmp_path: Path):
    async with proxy(tmp_path, {}, more='[server]\ntrusted_proxies = ["127.0.0.1"]') as lume:
        for headers, url in (
            (["Host: ai.example.test", "X-Forwarded-Proto: https"], "https://ai.example.test"),
            (
                ["Host: 127.0.0.1:8787", "X-Forwarded-Proto: https", "X-Forwarded-Host: ai.test:8443"],
                "https://ai.test:8443",
            ),
            (["Host: ai.example.test"], "http://ai.example.test"),
        ):
            status, text = await ask(lume, "/setup/claude-code.sh", *headers)
            assert (status, text) == (200, render("claude-code.sh", url))
