"""Settings read anew: in force for new calls, not for running ones, and all or nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.support import streams
from tests.support.proxy import Proxy
from tests.support.upstream import Connection, ScriptedUpstream

ASK = {"model": "claude-test-1", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
COST = 100 * 1000 + 20 * 10_000


async def call(lume: Proxy, **more: Any) -> tuple[int, bytes]:
    async with lume.post("/v1/messages", ASK | more) as response:
        return response.status, await response.read()


async def test_new_calls_get_the_new_prices_and_a_running_one_keeps_its_own(
    lume: Proxy, upstream: ScriptedUpstream
) -> None:
    begun, reloaded = asyncio.Event(), asyncio.Event()
    events = streams.anthropic()

    async def script(connection: Connection) -> None:
        if b'"stream"' not in connection.received.body:
            await connection.reply(streams.anthropic_whole())
            return
        await connection.stream_head()
        await connection.chunk(events[0])
        begun.set()
        await reloaded.wait()
        await connection.chunk(b"".join(events[1:]))
        await connection.end()

    upstream.script = script
    running = asyncio.ensure_future(call(lume, stream=True))
    await begun.wait()
    lume.config.write_text(lume.config.read_text().replace("output = 10", "output = 100") + "[billing]\nmultiplier = 2")
    told = await lume.reload()
    reloaded.set()

    assert (await running)[1] == b"".join(events)
    assert (await call(lume))[0] == 200
    assert told["event"] == "reloaded"
    old, new = await lume.records()
    assert old["cost_nanousd"] == COST
    assert new["cost_nanousd"] == 2 * (100 * 1000 + 20 * 100_000)
    assert (old["multiplier_ppm"], new["multiplier_ppm"]) == (1_000_000, 2_000_000)


async def test_routes_and_credentials_change_with_the_list_of_models(lume: Proxy, upstream: ScriptedUpstream) -> None:
    upstream.script = lambda c: c.reply(streams.anthropic_whole())
    text = lume.config.read_text().replace("provider-secret", "another-secret")
    lume.config.write_text(text.replace("[[routes]]", '[[routes]]\nmodel = "claude-new"\nupstreams = ["anthropic"]\n'
                                        'upstream_model = "claude-test-7"\n[[routes]]', 1))  # fmt: skip
    lume.config.write_text(lume.config.read_text() + "[prices.claude-new]\ninput = 1\noutput = 1\n")
    assert (await call(lume, model="claude-new"))[0] == 404

    await lume.reload()

    assert (await call(lume, model="claude-new"))[0] == 200
    (seen,) = upstream.received
    assert seen.header("x-api-key") == "another-secret"
    assert json.loads(seen.body)["model"] == "claude-test-7"
    async with lume.session.get(lume.url + "/v1/models", headers=lume.headers) as response:
        assert "claude-new" in await response.text()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("x =", "is not valid TOML"),
        ("[billing]\nmultiplier = -1", "billing.multiplier"),
        ("[upstreams.new]\nkind = 'openai'", "upstreams.new needs exactly one of api_key"),
        ("[[routes]]\nmodel = 'm'\nupstreams = ['nobody']", "names the upstream 'nobody'"),
    ],
)
async def test_what_is_wrong_leaves_all_as_it_was(
    lume: Proxy, upstream: ScriptedUpstream, wrong: str, said: str
) -> None:
    upstream.script = lambda c: c.reply(streams.anthropic_whole())
    good = lume.config.read_text()
    lume.config.write_text(good.replace("output = 10", "output = 100") + wrong)

    told = await lume.reload()

    assert (told["event"], told["level"]) == ("reload_refused", "error")
    assert said in told["reason"]
    assert (await call(lume))[0] == 200
    (record,) = await lume.records()
    assert record["cost_nanousd"] == COST
    lume.config.write_text(good)
    assert (await lume.reload())["event"] == "reloaded"


async def test_what_needs_a_restart_is_said(lume: Proxy) -> None:
    lume.config.write_text("[limits]\nbody_bytes = 1\n" + lume.config.read_text())

    told = await lume.reload()

    assert told["note"] == "changes in limits need a restart"
