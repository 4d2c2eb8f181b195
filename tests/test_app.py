"""The composition root: what is made in which order, who ends it, and what a person is told."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import http_parser, web

from lumeproxy import app, logs
from lumeproxy.app import Server, running
from lumeproxy.clock import Clock
from lumeproxy.core import callid
from lumeproxy.core.types import UsageRecord
from lumeproxy.dashboard.control import call
from lumeproxy.errors import ConfigError, Missing, StoreUnavailable
from lumeproxy.settings import Settings, load
from lumeproxy.store import accounts, keys, ledger
from lumeproxy.store.database import Database
from lumeproxy.store.lock import Locked
from tests.support import streams
from tests.support.clock import START_MS, FakeClock
from tests.support.proxy import Proxy, proxy
from tests.support.upstream import Connection, ScriptedUpstream

ASK = {"model": "claude-test-1", "max_tokens": 50, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
ROUTE = '[[routes]]\nmodel = "claude-test-*"\nupstreams = ["anthropic"]\n'
HALF = streams.anthropic()[:5]
REST = streams.anthropic()[5:]


def settings_of(folder: Path, text: str = "", **environ: str) -> Settings:
    file = folder / "config.toml"
    file.write_text(text)
    file.chmod(0o600)
    return load(config=file, data=folder / "data", port=0, environ=environ)


def quiet(stream: io.StringIO | None = None) -> Any:
    return logs.make(level="info", style="json", clock=Clock(), stream=stream or io.StringIO())


@contextlib.asynccontextmanager
async def serving(settings: Settings, stream: io.StringIO | None = None, **environ: str) -> AsyncIterator[Server]:
    async with running(settings, environ, Clock(), quiet(stream)) as server:
        yield server


class Slow:
    """A provider's script that stops in the middle of a stream until it is told to go on."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, connection: Connection) -> None:
        await connection.stream_head()
        for event in HALF:
            await connection.chunk(event)
        self.begun.set()
        await self.go_on.wait()
        for event in REST:
            await connection.chunk(event)
        await connection.end()


async def read_rest(response: aiohttp.ClientResponse) -> bytes:
    """The rest of an answer, within the second that a suspension may take; what a cut left is enough."""
    pieces = []
    with contextlib.suppress(aiohttp.ClientPayloadError):
        async with asyncio.timeout(1):
            async for piece in response.content.iter_any():
                pieces.append(piece)
    return b"".join(pieces)


@pytest.fixture
def slow(upstream: ScriptedUpstream) -> Iterator[Slow]:
    script = Slow()
    upstream.script = script
    yield script
    script.go_on.set()


# --- in force within a second -------------------------------------------------------------------------------------------


async def test_a_revoked_keys_stream_ends_within_a_second_and_another_keys_goes_on(
    lume: Proxy, slow: Slow, monkeypatch
):
    monkeypatch.setattr(app, "ENFORCE_S", 3600)
    assert (await call(lume.settings.server.data, "server.show", {}))["base_url"] == lume.url
    other = await lume.run("key.create", account="tester")
    others = {"Authorization": f"Bearer {other['key']}"}
    async with lume.post("/v1/messages", ASK) as first, lume.post("/v1/messages", ASK, headers=others) as second:
        await lume.run("key.revoke", id=lume.key[5:13])
        ended = await read_rest(first)
        slow.go_on.set()
        whole = await second.read()

    assert b"message_stop" not in ended
    assert b'"error"' in ended
    assert whole == b"".join(streams.anthropic())
    records = {record["key_id"]: record for record in await lume.records()}
    cut, complete = records[lume.key[5:13]], records[other["id"]]
    assert (cut["ending"], cut["error_code"], complete["ending"]) == ("interrupted", "revoked", "complete")
    assert cut["cost_nanousd"] >= 100 * 1000 + 1 * 10_000
    assert complete["cost_nanousd"] == 100 * 1000 + 20 * 10_000
    async with lume.post("/v1/messages", ASK) as refused:
        assert refused.status == 401


@pytest.mark.parametrize(
    "change", [("account.suspend", {"reason": "unpaid"}), ("account.close", {})], ids=lambda c: c[0]
)
@pytest.mark.parametrize("price", ["", "[billing]\nmultiplier = 0"], ids=["priced", "free"])
async def test_a_suspended_accounts_stream_ends_within_a_second(tmp_path, upstream, slow: Slow, change, price):
    operation, more = change
    async with proxy(tmp_path, {"anthropic": upstream}, routes=ROUTE, more=price) as lume:
        async with lume.post("/v1/messages", ASK) as response:
            await slow.begun.wait()
            await lume.run(operation, name="tester", **more)
            ended = await read_rest(response)

        assert b"message_stop" not in ended
        (record,) = await lume.records()
        assert (record["ending"], record["error_code"]) == ("interrupted", "suspended")
        assert record["cost_nanousd"] == 0 if price else record["cost_nanousd"] > 100 * 1000


async def test_a_stream_ends_when_its_key_expires(tmp_path, upstream, slow: Slow):
    clock = FakeClock()
    async with proxy(tmp_path, {"anthropic": upstream}, routes=ROUTE, clock=clock) as lume:
        brief = await lume.run("key.create", account="tester", expires_ms=START_MS + 5_000)
        async with lume.post("/v1/messages", ASK, headers={"Authorization": f"Bearer {brief['key']}"}) as response:
            await slow.begun.wait()
            clock.wall_ms += 5_000
            ended = await read_rest(response)

        assert b"message_stop" not in ended
        (record,) = await lume.records()
        assert (record["ending"], record["error_code"]) == ("interrupted", "revoked")


async def test_a_failing_database_only_delays_what_must_end(lume: Proxy, slow: Slow, monkeypatch):
    real, asked = keys.not_in_force, []

    def fails_once(*arguments: Any) -> list[str]:
        asked.append(arguments)
        if "enforcing" not in lume.log.getvalue():  # a job that fails among others is tried once more by itself
            raise StoreUnavailable("not now")
        return real(*arguments)

    monkeypatch.setattr(keys, "not_in_force", fails_once)
    monkeypatch.setattr(app, "ENFORCE_S", 0.01)
    async with lume.post("/v1/messages", ASK) as response:
        await lume.run("key.revoke", id=lume.key[5:13])
        ended = await read_rest(response)

    assert b"message_stop" not in ended
    assert len(asked) >= 2
    assert '"event":"enforcing","error":"store_unavailable"' in lume.log.getvalue()


# --- start ---------------------------------------------------------------------------------------------------------------


async def test_the_first_run_makes_an_account_with_credit_and_a_key_the_second_changes_nothing(tmp_path):
    settings = settings_of(tmp_path)
    async with serving(settings) as server:
        assert server.first_key is not None
        first = await server.operations.run("account.show", {"name": "me"})
        before = await server.operations.run("credit.entries", {"account": "me"})
    async with serving(settings) as server:
        assert server.first_key is None
        assert await server.operations.run("account.show", {"name": "me"}) == first
        assert await server.operations.run("credit.entries", {"account": "me"}) == before

    assert first["balance_nanousd"] == 10 * 10**9
    assert [key["name"] for key in first["keys"]] == ["first"]
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "data" / "lumeproxy.db").stat().st_mode) == 0o600


async def test_the_first_credit_is_what_the_settings_say(tmp_path):
    async with serving(settings_of(tmp_path, "[billing]\nfirst_credit = 0.25")) as server:
        assert (await server.operations.run("credit.balance", {"account": "me"}))["balance_nanousd"] == 250_000_000


async def test_the_printed_key_works_with_the_echo_in_every_dialect(tmp_path):
    async with serving(settings_of(tmp_path)) as server, aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {server.first_key}"}
        for path, model in (("messages", "claude-echo"), ("responses", "gpt-echo"), ("chat/completions", "gpt-echo")):
            ask = {"model": model, "max_tokens": 9, "input": "hi", "messages": [{"role": "user", "content": "hi"}]}
            async with session.post(f"{server.base_url}/v1/{path}", json=ask, headers=headers) as response:
                assert response.status == 200
        records = await server.operations.run("usage.list", {})
        assert [r["upstream"] for r in records] == ["echo"] * 3
        assert all(r["cost_nanousd"] == r["input_tokens"] * 1000 + r["output_tokens"] * 5000 > 0 for r in records)


@pytest.mark.parametrize(
    ("family", "told"),
    [
        (socket.AF_INET, "is in use by another program; stop that one or choose another with --port."),
        (socket.AF_UNIX, "can't hold a Unix socket (Address already in use); choose one on a local disk with --data."),
    ],
)
async def test_what_fails_late_in_the_start_is_one_sentence_and_leaves_no_unseen_key(
    tmp_path, monkeypatch, family, told
):
    real = web.SockSite.start

    async def start(site: Any) -> None:
        if site._sock.family == family:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        await real(site)

    monkeypatch.setattr(web.SockSite, "start", start)
    with pytest.raises(ConfigError) as raised:
        async with serving(settings_of(tmp_path)):
            pass

    assert raised.value.message.endswith(told)
    database = await Database.open(tmp_path / "data")
    assert await database.read(accounts.count) == 0
    await database.close()


async def test_a_bug_beside_the_calls_ends_the_server_as_itself(tmp_path, monkeypatch):
    async def broken(_self: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("lumeproxy.proxy.live.LiveCalls.watch", broken)

    with pytest.raises(ZeroDivisionError):
        async with serving(settings_of(tmp_path)):
            await asyncio.wait_for(asyncio.Event().wait(), 10)


async def test_what_ends_the_block_comes_out_as_itself(tmp_path):
    with pytest.raises(ZeroDivisionError):
        async with serving(settings_of(tmp_path)):
            raise ZeroDivisionError


async def test_a_second_server_on_the_same_data_is_refused_at_once(tmp_path):
    settings = settings_of(tmp_path)
    async with serving(settings):
        with pytest.raises(Locked, match=f"process {os.getpid()}.*stop that one"):
            async with asyncio.timeout(2), serving(settings):
                pass


async def test_a_port_that_the_same_datas_server_has_is_told_as_that(tmp_path):
    async with serving(settings_of(tmp_path)) as server:
        again = load(data=tmp_path / "data", port=server.port, environ={})
        with pytest.raises(Locked) as raised:
            async with asyncio.timeout(2), serving(again):
                pass
        elsewhere = load(data=tmp_path / "other", port=server.port, environ={})
        with pytest.raises(ConfigError, match="in use by another program"):
            async with serving(elsewhere):
                pass

    assert raised.value.message == (
        f"Another lumeproxy (process {os.getpid()}, {server.base_url}) serves the data folder {tmp_path / 'data'}; stop "
        "that one or choose another folder with --data."
    )
    assert not (tmp_path / "other").exists()


async def test_the_start_log_tells_of_the_sqlite_bug_and_of_the_mend(tmp_path, monkeypatch):
    for bug, told in ((True, 1), (False, 0)):
        monkeypatch.setattr(Database, "has_wal_reset_bug", bug)
        stream = io.StringIO()
        log = logs.make(level="info", style="json", clock=Clock(), stream=stream)
        async with running(settings_of(tmp_path), {}, Clock(), log):
            pass
        assert stream.getvalue().count("WAL-reset bug") == stream.getvalue().count("lumeproxy[sqlite]") == told


async def test_a_start_on_what_is_there_counts_it(tmp_path):
    settings = settings_of(tmp_path)
    async with serving(settings) as server:
        assert server.start.first_key == server.first_key is not None
        await server.operations.run("key.create", {"account": "me"})
        await server.operations.run("account.create", {"name": "ann"})
    async with serving(settings) as server:
        start = server.start

    assert (start.first_key, start.accounts, start.keys) == (None, 2, 2)
    assert (start.base_url, start.data) == (server.base_url, tmp_path / "data")
    assert start.offer.upstreams == ("echo (2 models)",)


async def test_a_server_of_another_version_is_a_server_too(tmp_path, monkeypatch):
    asked: list[str] = []

    async def older(_folder: Path, name: str, _arguments: object) -> None:
        asked.append(name)
        raise Missing("There is no operation server.show.")

    settings = settings_of(tmp_path)
    held = await Database.open(settings.server.data)
    monkeypatch.setattr("lumeproxy.app.call", older)

    with pytest.raises(Locked):
        async with serving(settings):
            pass

    assert asked == ["server.show"]
    await held.close()


async def test_a_command_that_has_the_data_for_a_moment_is_waited_for(tmp_path, monkeypatch):
    settings = settings_of(tmp_path)
    held = await Database.open(settings.server.data)
    real, tries = Database.open, []

    async def open_and_let_go(*arguments: Any, **options: Any) -> Database:
        tries.append(arguments)
        if len(tries) == 2:
            await held.close()
        return await real(*arguments, **options)

    monkeypatch.setattr(Database, "open", open_and_let_go)
    monkeypatch.setattr(app, "COMMAND_PAUSE_S", 0)
    async with serving(settings) as server:
        assert server.first_key is not None

    assert len(tries) == 2


async def test_who_holds_the_data_without_an_answer_is_named_in_the_end(tmp_path, monkeypatch):
    settings = settings_of(tmp_path)
    held = await Database.open(settings.server.data)
    monkeypatch.setattr(app, "COMMAND_PAUSE_S", 0)

    with pytest.raises(Locked, match=f"process {os.getpid()}"):
        async with serving(settings):
            pass
    await held.close()


async def test_a_call_that_a_crash_left_open_is_settled_before_the_first_request(tmp_path):
    settings = settings_of(tmp_path)
    async with serving(settings):
        pass
    database = await Database.open(settings.server.data)
    account = await database.read(accounts.get, "me")
    call_id = callid.make(START_MS, bytes(10))
    draft = UsageRecord(call_id=call_id, time_ms=START_MS, account_id=account.id, key_id="k", endpoint="/v1/messages",
                        dialect="anthropic_messages", model="claude-echo", price_version="")  # fmt: skip
    # Also where the clock was set back in between.
    opened_ms = START_MS + 10**12
    await database.write(ledger.hold, call_id, account.id, 10**9, 0, draft, opened_ms)
    await database.close()

    written = io.StringIO()
    async with serving(settings, written) as server:
        (record,) = await server.operations.run("usage.list", {})
        balance = await server.operations.run("credit.balance", {"account": "me"})

    assert (record["ending"], record["error_code"], record["cost_nanousd"]) == ("interrupted", "process_died", 0)
    assert (balance["held_nanousd"], balance["balance_nanousd"]) == (0, 10**10)
    told = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [(e["interrupted_calls"], e["charged_nanousd"]) for e in told if e["event"] == "recovered"] == [(1, 0)]


# --- stop ----------------------------------------------------------------------------------------------------------------


async def test_a_running_stream_may_finish_and_commands_are_answered_meanwhile(tmp_path, upstream, slow: Slow):
    begun, stopped = asyncio.Event(), asyncio.Event()
    stack = contextlib.AsyncExitStack()
    lume = await stack.enter_async_context(proxy(tmp_path, {"anthropic": upstream}, routes=ROUTE))
    folder = lume.settings.server.data

    async def stop() -> None:
        begun.set()
        await stack.aclose()
        stopped.set()

    async with (
        aiohttp.ClientSession() as session,
        session.post(lume.url + "/v1/messages", json=ASK, headers=lume.headers) as response,
        asyncio.TaskGroup() as group,
    ):
        await slow.begun.wait()
        group.create_task(stop())
        await begun.wait()
        held = await call(folder, "credit.balance", {"account": "tester"})
        assert not stopped.is_set()
        slow.go_on.set()
        body = await response.read()
        await asyncio.wait_for(stopped.wait(), 5)

    assert held["held_nanousd"] > 0
    assert body == b"".join(streams.anthropic())
    assert not (folder / "lumeproxy.sock").exists()


@pytest.mark.parametrize("how", ["hurry", "drain_s"])
async def test_a_stream_that_takes_too_long_is_cut_and_settled(tmp_path, upstream, slow: Slow, how):
    hurry = asyncio.Event()
    signals = app.Signals(hurry, asyncio.Event(), lambda: settings)
    text = f'[server]\ndrain_s = {0 if how == "drain_s" else 25}\n[upstreams.anthropic]\nkind = "anthropic"\n'
    text += f'base_url = "{upstream.url}"\napi_key = "x"\n[prices."claude-test-1"]\ninput = 1\noutput = 10\n'
    settings = settings_of(tmp_path, text)
    written = io.StringIO()
    async with aiohttp.ClientSession() as session:
        async with running(settings, {}, Clock(), quiet(written), signals=signals) as server:
            headers = {"Authorization": f"Bearer {server.first_key}"}
            response = await session.post(server.base_url + "/v1/messages", json=ASK, headers=headers)
            await slow.begun.wait()
            if how == "hurry":
                hurry.set()
        ended = await read_rest(response)

    assert b"message_stop" not in ended
    assert '"event":"cutting","running_calls":1' in written.getvalue()
    database = await Database.open(settings.server.data)
    (record,) = await database.read(
        lambda tx: tx.execute("SELECT ending, error_code, cost_nanousd FROM usage").fetchall()
    )
    assert record[:2] == ("interrupted", "stopping")
    assert record[2] >= 100 * 1000 + 10_000
    assert (await database.read(ledger.balance, "me")).held_nanousd == 0
    await database.close()


# --- a process -----------------------------------------------------------------------------------------------------------


def serve_once(folder: Path, config: Path | None, say: Any = None) -> list[str]:
    """Serve in this process until a signal, which comes as soon as the greeting is said."""
    said: list[str] = []

    def heard(text: str) -> None:
        said.append(text)
        os.kill(os.getpid(), signal.SIGTERM)

    settings = load(config=config, data=folder / "data", port=0, environ={})
    assert app.serve(lambda: settings, {}, config=config, say=say or heard, hint=str) == 0
    return said


@pytest.mark.parametrize(
    ("text", "mode", "warns"),
    [
        ('[upstreams.a]\nkind = "anthropic"\napi_key = "sk-ant-secret-secret"', 0o644, True),
        ('[upstreams.a]\nkind = "anthropic"\napi_key = "sk-ant-secret-secret"', 0o604, True),
        ('[upstreams.a]\nkind = "anthropic"\napi_key = "sk-ant-secret-secret"', 0o600, False),
        ('[upstreams.e]\nkind = "echo"', 0o644, False),
        (None, 0, False),
    ],
)
def test_a_configuration_with_a_key_that_others_can_read_is_warned_of_once(tmp_path, text, mode, warns, capsys):
    file = None
    if text is not None:
        file = tmp_path / "config.toml"
        file.write_text(text)
        file.chmod(mode)

    said = serve_once(tmp_path, file)

    assert len(said) == 1
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    warned = [e for e in events if e["level"] == "warning"]
    assert [(e["event"], e["file"]) for e in warned] == ([("open_config", str(file))] if warns else [])
    assert all(f"chmod 600 {file}" in e["note"] for e in warned)
    assert "secret" not in json.dumps(events)
    assert [e["event"] for e in events[-2:]] == ["stopping", "stopped"]


def test_signals_are_the_servers_only_while_it_serves(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    serve_once(tmp_path, None)

    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


async def test_a_second_signal_asks_for_hurry_and_a_third_is_not_ours():
    before = signal.getsignal(signal.SIGTERM)
    with app._signals() as (stop, hurry, _):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(stop.wait(), 5)
        assert not hurry.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(hurry.wait(), 5)
        assert signal.getsignal(signal.SIGTERM) == before


def test_aiohttps_pure_python_parser_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(http_parser, "HttpRequestParser", http_parser.HttpRequestParserPy)

    with pytest.raises(ConfigError, match="AIOHTTP_NO_EXTENSIONS"):
        serve_once(tmp_path, None)

    assert list(tmp_path.iterdir()) == []
