"""/metrics: for this machine or an admin key, with what was served and nothing of whom."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support import streams
from tests.support.api import api_of
from tests.support.proxy import Proxy, proxy
from tests.support.upstream import ScriptedUpstream


async def text(lume: Proxy, **headers: str) -> tuple[int, str]:
    async with lume.session.get(lume.url + "/metrics", headers=headers) as response:
        return response.status, await response.text()


async def test_what_was_served_is_counted_without_names_of_accounts_models_or_keys(lume: Proxy, upstream):
    upstream.script = lambda c: c.stream(streams.anthropic())
    ask = {"model": "claude-test-1", "stream": True, "messages": []}
    async with lume.post("/v1/messages", ask) as response:
        await response.read()
    async with lume.post("/v1/messages", ask, headers={"Authorization": "Bearer lume_x"}) as response:
        assert response.status == 401
    await lume.records()
    status, shown = await text(lume)

    assert status == 200
    for line in (
        'lumeproxy_calls_total{dialect="anthropic_messages",status="200",ending="complete"} 1',
        'lumeproxy_refusals_total{code="invalid_key"} 1',
        'lumeproxy_tokens_total{dialect="anthropic_messages",class="input"} 100',
        'lumeproxy_tokens_total{dialect="anthropic_messages",class="output"} 20',
        'lumeproxy_cost_nanousd_total{dialect="anthropic_messages"} 300000',
        "lumeproxy_open_calls 0",
        "lumeproxy_write_queue 0",
    ):
        assert line in shown.splitlines()
    commits = re.search(r"^lumeproxy_commit_seconds_count (\d+)$", shown, re.MULTILINE)
    assert commits is not None
    assert int(commits[1]) >= 5
    assert not any(word in shown for word in ("tester", "claude-test", lume.key[5:13]))
    names = {line.split("{")[0].split(" ")[0] for line in shown.splitlines() if line[0] != "#"}
    assert all(re.fullmatch(r"lumeproxy_[a-z_]+", name) for name in names)


async def test_whoever_came_through_a_proxy_is_not_on_this_machine(lume: Proxy):
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"):
        assert (await text(lume, **{header: "127.0.0.1"}))[0] == 401
    api, reader = await api_of(lume), await api_of(lume, may_change=False)
    for key in (api.key, reader.key):
        assert (await text(lume, Authorization=f"Bearer {key}", **{"X-Forwarded-For": "10.0.0.1"}))[0] == 200
    assert (await text(lume, Authorization=f"Bearer {lume.key}"))[0] == 403
    assert (await text(lume, Authorization="Bearer lume_admin_x"))[0] == 401
    async with lume.session.post(lume.url + "/metrics") as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")
    async with lume.session.get(lume.url + "/metrics", headers={"Host": "evil.test"}) as response:
        assert response.status == 403


async def test_behind_a_trusted_proxy_the_clients_address_counts(tmp_path: Path, upstream: ScriptedUpstream):
    more = '[server]\ntrusted_proxies = ["127.0.0.1"]\n'
    async with proxy(tmp_path, {"anthropic": upstream}, more=more) as lume:
        assert (await text(lume, **{"X-Forwarded-For": "203.0.113.9"}))[0] == 401
        assert (await text(lume))[0] == 200


async def test_upstreams_that_get_no_calls_and_credentials_that_are_refused_are_told(
    lume: Proxy, upstream: ScriptedUpstream
):
    def told(shown: str) -> list[str]:
        return [line for line in shown.splitlines() if line.startswith("lumeproxy_upstream_") and "_total" not in line]

    before = [
        'lumeproxy_upstream_up{upstream="anthropic"} 1',
        'lumeproxy_upstream_up{upstream="echo"} 1',
        'lumeproxy_upstream_up{upstream="openai"} 1',
        'lumeproxy_upstream_refused_credentials{upstream="anthropic"} 0',
        'lumeproxy_upstream_refused_credentials{upstream="echo"} 0',
        'lumeproxy_upstream_refused_credentials{upstream="openai"} 0',
    ]
    assert told((await text(lume))[1]) == before

    upstream.script = lambda c: c.reply(b"{}", 401)
    async with lume.post("/v1/messages", {"model": "claude-test-1", "max_tokens": 9, "messages": []}) as response:
        assert response.status == 502
    await lume.run("upstream.disable", name="openai")
    changed = {0: 'lumeproxy_upstream_up{upstream="anthropic"} 1', 2: before[2][:-1] + "0", 3: before[3][:-1] + "1"}
    assert told((await text(lume))[1]) == [changed.get(at, line) for at, line in enumerate(before)]
