"""The desk for upstreams: what it shows of their health, and that a switch works at once and is remembered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lumeproxy.errors import Missing
from tests.support.calls import ANTHROPIC, ask, settled, whole
from tests.support.client import take
from tests.support.clock import START_MS, FakeClock
from tests.support.proxy import Proxy, proxy
from tests.support.upstream import Connection, ScriptedUpstream

CONFIG = """
[upstreams.main]
kind = "anthropic"
base_url = "{url}"
api_key = ["secret-one", "secret-two"]
[upstreams.spare]
kind = "anthropic"
base_url = "{url}/spare"
api_key = "secret-three"
concurrent_calls = 3
"""
REFUSAL = b'{"error":{"message":"no"}}'


@pytest.fixture
async def lume(tmp_path: Path, upstream: ScriptedUpstream, clock: FakeClock) -> AsyncIterator[Proxy]:
    upstream.script = lambda c: c.reply(whole(ANTHROPIC))
    async with proxy(tmp_path, {}, more=CONFIG.format(url=upstream.url), clock=clock) as made:
        yield made


async def called(lume: Proxy, session: str = "s") -> str:
    headers = {"x-claude-code-session-id": session}
    taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC, stream=False), headers=headers))
    assert taken.status == 200, taken.body
    return str((await settled(lume))["upstream"])


async def shown(lume: Proxy) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in await lume.run("upstream.list")}


async def test_what_is_shown_of_a_healthy_one_holds_no_secret(lume: Proxy, upstream: ScriptedUpstream) -> None:
    await called(lume)
    found = await shown(lume)

    assert list(found) == ["main", "spare", "echo"]
    up = {"state": "up", "status": None, "rest_ms": 0, "ttfb_ms": None}
    assert found["main"] == {
        "name": "main", "kind": "anthropic", "address": upstream.url, "state": "up", "disabled_since_ms": None,
        "rest_ms": 0, "failures": 0, "ttfb_ms": None, "running_calls": 0, "waiting_calls": 0,
        "credentials": [{"credential": 1, **up}, {"credential": 2, **up}],
    }  # fmt: skip
    assert found["echo"]["address"] == "built in"
    assert "secret" not in str(found)


async def test_a_refused_credential_is_shown_with_its_status_and_the_end_of_its_rest(
    lume: Proxy, upstream: ScriptedUpstream, clock: FakeClock
) -> None:
    async def play(c: Connection) -> None:
        refused = c.received.header("x-api-key") == "secret-two"
        await (c.reply(REFUSAL, 403) if refused else c.reply(whole(ANTHROPIC)))

    upstream.script = play
    for number in range(10):
        await called(lume, f"s{number}")
    clock.advance(100_000)
    found = (await shown(lume))["main"]

    assert [one["state"] for one in found["credentials"]] == ["up", "refused"]
    assert (found["state"], found["credentials"][1]["status"], found["credentials"][1]["rest_ms"]) == (
        "up",
        403,
        500_000,
    )
    mended = await lume.run("upstream.enable", name="main")
    assert [one["state"] for one in mended["credentials"]] == ["up", "up"]


async def test_a_resting_upstream_is_shown_with_its_failures(
    lume: Proxy, upstream: ScriptedUpstream, clock: FakeClock
) -> None:
    async def play(c: Connection) -> None:
        await (c.reply(whole(ANTHROPIC)) if c.received.target.startswith("/spare") else c.reply(REFUSAL, 500))

    upstream.script = play
    for number in range(6):
        await called(lume, f"s{number}")
    clock.advance(10_000)
    found = (await shown(lume))["main"]
    assert (found["state"], found["rest_ms"], found["failures"]) == ("resting", 20_000, 5)
    clock.advance(20_000)
    assert (await shown(lume))["main"]["state"] == "on trial"


async def test_a_switch_works_at_once_and_is_remembered(
    tmp_path: Path, lume: Proxy, upstream: ScriptedUpstream, clock: FakeClock
) -> None:
    assert await called(lume) == "main"
    off = await lume.run("upstream.disable", name="main")
    assert (off["state"], off["disabled_since_ms"]) == ("disabled", START_MS)
    assert await called(lume) == "spare"
    clock.advance(5)
    assert (await lume.run("upstream.disable", name="main"))["disabled_since_ms"] == START_MS
    await lume.reload()
    assert await called(lume, "new") == "spare"

    on = await lume.run("upstream.enable", name="main")
    assert (on["state"], on["disabled_since_ms"]) == ("up", None)
    assert await called(lume, "newer") == "main"


async def test_where_all_are_off_the_client_is_told_so(lume: Proxy, upstream: ScriptedUpstream) -> None:
    for name in ("main", "spare"):
        await lume.run("upstream.disable", name=name)
    taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC)))

    assert (taken.status, taken.headers["retry-after"]) == (503, "60")
    assert "switched off" in taken.json()["error"]["message"]
    (record,) = await lume.records()
    assert (record["ending"], record["cost_nanousd"], record["attempts"]) == ("unreachable", 0, [])
    assert upstream.received == []


async def test_a_server_starts_with_what_was_switched_off_before(
    tmp_path: Path, upstream: ScriptedUpstream, clock: FakeClock
) -> None:
    upstream.script = lambda c: c.reply(whole(ANTHROPIC))
    text = CONFIG.format(url=upstream.url)
    async with proxy(tmp_path, {}, more=text, clock=clock) as lume:
        await lume.run("upstream.disable", name="main")
        await lume.run("account.close", name="tester")
        again = await lume.server.operations.run("upstream.list", {})
    assert again[0]["state"] == "disabled"
    config = tmp_path / "config.toml"
    from lumeproxy import logs
    from lumeproxy.app import running
    from lumeproxy.settings import load

    settings = load(config=config, data=tmp_path / "data", port=0, environ={})
    async with running(settings, {}, clock, logs.make(level="error", style="json", clock=clock)) as server:
        found = await server.operations.run("upstream.list", {})
    assert [one["state"] for one in found] == ["disabled", "up", "up"]


async def test_asking_one_tells_each_credential_and_counts_its_models(lume: Proxy, upstream: ScriptedUpstream) -> None:
    async def play(c: Connection) -> None:
        known = c.received.header("x-api-key") == "secret-one"
        await (c.reply(b'{"data": [{"id": "a"}, {"id": "b"}]}') if known else c.reply(REFUSAL, 401))

    upstream.script = play
    found = await lume.run("upstream.test", name="main")

    assert (found["name"], found["address"], found["ok"]) == ("main", upstream.url, False)
    told = [
        (one["credential"], one["reachable"], one["status"], one["accepted"], one["models"])
        for one in found["credentials"]
    ]
    assert told == [(1, True, 200, True, 2), (2, True, 401, False, None)]
    assert (await lume.run("upstream.test", name="echo"))["ok"]
    assert "secret" not in str(found)


@pytest.mark.parametrize(("status", "good"), [(404, True), (405, True), (500, False), (307, False), (400, False)])
async def test_one_without_a_list_works_if_it_answers(
    lume: Proxy, upstream: ScriptedUpstream, status: int, good: bool
) -> None:
    upstream.script = lambda c: c.reply(REFUSAL, status)

    assert (await lume.run("upstream.test", name="spare"))["ok"] is good


@pytest.mark.parametrize("operation", ["upstream.test", "upstream.disable", "upstream.enable"])
async def test_an_unknown_name_is_answered_with_those_that_there_are(lume: Proxy, operation: str) -> None:
    with pytest.raises(Missing, match=r"^There is no upstream other; there are main, spare, echo\.$"):
        await lume.run(operation, name="other")
