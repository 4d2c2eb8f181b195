"""What runs beside the calls: a notice goes out, records are cleared, a wrong webhook stops the start."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest

from lumeproxy.administration import make_webhook
from lumeproxy.dashboard import notifier
from lumeproxy.errors import ConfigError
from lumeproxy.settings import load
from lumeproxy.store import notices, usage
from lumeproxy.store.database import Database
from tests.store.books import call, customer, remember
from tests.support import streams
from tests.support.proxy import proxy
from tests.support.upstream import Connection, ScriptedUpstream

ROUTES = '[[routes]]\nmodel = "claude-test-*"\nupstreams = ["anthropic"]\n'
SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()


async def test_a_call_that_takes_a_balance_below_the_usual_threshold_is_told(
    tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(notifier, "LOOK_S", 0.01)
    arrived = asyncio.Event()

    async def answer(connection: Connection) -> None:
        if connection.received.target == "/hook":
            await connection.reply(b"", 204)
            arrived.set()
        else:
            await connection.stream(streams.anthropic())

    upstream.script = answer
    more = f'[notices]\nlow_balance = 1\nwebhook_url = "{upstream.url}/hook"\nwebhook_secret = "{SECRET}"\n'
    async with proxy(tmp_path, {"anthropic": upstream}, more=more, routes=ROUTES) as lume:
        ask = {"model": "claude-test-1", "stream": True, "messages": []}
        async with lume.post("/v1/messages", ask) as response:
            assert "x-lume-balance" in response.headers
            await response.read()
        await asyncio.wait_for(arrived.wait(), 20)
        (told,) = [received for received in upstream.received if received.target == "/hook"]
        assert json.loads(told.body)["data"]["account"] == "tester"
        assert SECRET not in lume.log.getvalue()


async def test_a_start_clears_what_is_too_old(tmp_path: Path, upstream: ScriptedUpstream):
    def book(tx):
        ann = customer(tx)
        remember(tx)
        call(tx, "old", ann.id, output_tokens=1, time_ms=0, client_address="10.0.0.1")

    database = await Database.open(tmp_path / "data")
    await database.write(book)
    await database.close()
    async with proxy(tmp_path, {"anthropic": upstream}) as lume:
        async with asyncio.timeout(10):
            while '"deleted_records":1' not in lume.log.getvalue():  # noqa: ASYNC110 - a line of the log is no event
                await asyncio.sleep(0.01)
        assert await lume.server.database.read(usage.find) == []
        assert await lume.server.database.read(notices.usual) == 0


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("", "needs exactly one of webhook_secret"),
        ('webhook_secret = "plain"', "is not whsec_ and 24 to 64 bytes"),
        ('webhook_secret_env = "NOT_SET"', "names NOT_SET, which is not set"),
    ],
)
def test_a_webhook_without_a_usable_secret_stops_the_start(tmp_path: Path, lines, told):
    file = tmp_path / "config.toml"
    file.write_text(f'[notices]\nwebhook_url = "https://hooks.test/x"\n{lines}\n')
    with pytest.raises(ConfigError, match=told):
        make_webhook(load(config=file, data=tmp_path, environ={}), {})


def test_without_an_address_nobody_is_told(tmp_path: Path):
    assert make_webhook(load(data=tmp_path, environ={}), {}) is None
