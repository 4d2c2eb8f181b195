"""Upstreams that are asked for their models: what GET /v1/models lists then, when they are asked again, what is kept."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lumeproxy import discovery
from lumeproxy.compose import Names
from tests.support.calls import until
from tests.support.clock import FakeClock
from tests.support.proxy import Proxy, proxy
from tests.support.upstream import Connection, ScriptedUpstream

CONFIG = """
[upstreams.local]
kind = "openai"
base_url = "{url}"
api_key = "secret"
models = "discover"
[[routes]]
model = "gpt-test-*"
upstreams = ["local"]
[aliases]
nick = "gpt-test-b"
"""


def listing(*names: str) -> bytes:
    return json.dumps({"object": "list", "data": [{"id": name} for name in names]}).encode()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "LOOK_S", 0.01)


@pytest.fixture
async def lume(tmp_path: Path, upstream: ScriptedUpstream, clock: FakeClock) -> AsyncIterator[Proxy]:
    upstream.script = lambda c: c.reply(listing("gpt-test-b", "gpt-test-a", "other"))
    async with proxy(tmp_path, {}, more=CONFIG.format(url=upstream.url), clock=clock) as made:
        yield made


async def listed(lume: Proxy) -> list[str]:
    async with lume.session.get(lume.url + "/v1/models", headers=lume.headers) as response:
        names = [entry["id"] for entry in (await response.json())["data"]]
    return [name for name in names if "echo" not in name]


async def lists(lume: Proxy, *names: str) -> None:
    """Wait until these are listed."""
    for _ in range(500):
        if (found := await listed(lume)) == list(names):
            return
    raise AssertionError(found)


async def test_what_an_upstream_has_is_listed_where_a_route_leads_to_it(
    lume: Proxy, upstream: ScriptedUpstream
) -> None:
    await lists(lume, "nick", "gpt-test-a", "gpt-test-b")

    first = upstream.received[0]
    assert (first.method, first.target, first.header("authorization")) == ("GET", "/v1/models", "Bearer secret")


async def test_it_is_asked_again_after_an_hour_and_its_list_is_kept_meanwhile(
    lume: Proxy, upstream: ScriptedUpstream, clock: FakeClock
) -> None:
    await lists(lume, "nick", "gpt-test-a", "gpt-test-b")
    asked = len(upstream.received)
    upstream.script = lambda c: c.reply(listing("gpt-test-c"))
    clock.advance(3_599_999)
    for _ in range(20):
        await listed(lume)
    assert len(upstream.received) == asked
    clock.advance(1)

    await lists(lume, "nick", "gpt-test-c")


async def test_one_that_does_not_answer_keeps_its_list_and_is_asked_again_in_a_minute(
    lume: Proxy, upstream: ScriptedUpstream, clock: FakeClock
) -> None:
    await lists(lume, "nick", "gpt-test-a", "gpt-test-b")

    async def broken(c: Connection) -> None:
        await c.reply(b"no", 500)

    upstream.script = broken
    before = len(upstream.received)
    clock.advance(3_600_000)
    await until(lambda: len(upstream.received) > before)
    await until(lambda: '"discovery"' in lume.log.getvalue() and '"warning"' in lume.log.getvalue())
    assert await listed(lume) == ["nick", "gpt-test-a", "gpt-test-b"]
    upstream.script = lambda c: c.reply(listing("gpt-test-d"))
    clock.advance(60_000)

    await lists(lume, "nick", "gpt-test-d")


async def test_a_key_sees_an_alias_of_what_it_may_use(lume: Proxy) -> None:
    await lists(lume, "nick", "gpt-test-a", "gpt-test-b")
    for patterns, seen in (
        (["gpt-test-b"], ["nick", "gpt-test-b"]),
        (["nick"], ["nick"]),
        (["gpt-test-a"], ["gpt-test-a"]),
    ):
        key = (await lume.run("key.create", account="tester", models=patterns))["key"]
        async with lume.session.get(lume.url + "/v1/models", headers={"x-api-key": key}) as response:
            assert [entry["id"] for entry in (await response.json())["data"]] == seen


async def test_new_settings_keep_the_list_and_a_new_upstream_is_asked_at_once(
    lume: Proxy, upstream: ScriptedUpstream
) -> None:
    await lists(lume, "nick", "gpt-test-a", "gpt-test-b")
    asked = len(upstream.received)
    text = lume.config.read_text()
    lume.config.write_text(text + '[prices."never"]\ninput = 1\noutput = 1\n')
    assert (await lume.reload())["event"] == "reloaded"
    assert await listed(lume) == ["nick", "gpt-test-a", "gpt-test-b"]
    assert len(upstream.received) == asked
    upstream.script = lambda c: c.reply(listing("gpt-test-e"))
    lume.config.write_text(text.replace(upstream.url, upstream.url + "/elsewhere"))
    await lume.reload()

    await lists(lume, "nick", "gpt-test-e")
    assert upstream.received[-1].target.startswith("/elsewhere/v1/models")


def test_of_a_route_whose_upstreams_all_told_their_lists_only_those_are_known() -> None:
    names = Names(["gpt-1", "gpt-2"], ["gpt-3"], ["a", "b"])
    names.discovered["a"] = ("gpt-2", "gpt-4")

    assert names.models("gpt-*") == ["gpt-1", "gpt-2", "gpt-3"]
    assert names.models("gpt-*", ("a",)) == ["gpt-2", "gpt-4"]
    assert names.models("gpt-*", ("a", "b")) == ["gpt-1", "gpt-2", "gpt-3", "gpt-4"]
    names.discovered["b"] = ("gpt-3",)
    assert names.models("gpt-*", ("a", "b")) == ["gpt-2", "gpt-3", "gpt-4"]
