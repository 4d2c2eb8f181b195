"""`python -m lumeproxy` as a process: the first run, the second, signals, and the script of the same name."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import io
import json
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import aiohttp
import pytest

from lumeproxy import __main__, __version__
from tests.cli.support import Outcome, Started, clean_environment, started
from tests.support import streams
from tests.support.upstream import Connection, ScriptedUpstream

ASK = {"model": "claude-echo", "max_tokens": 20, "messages": [{"role": "user", "content": "one two"}]}


EVENTS = streams.anthropic()
CONFIG = """
[upstreams.a]
kind = "anthropic"
base_url = "{url}"
api_key_env = "HOME"
[prices."claude-test-1"]
input = 1
output = 10
"""


def logged(server: Started, event: str) -> None:
    """Wait until the server has logged an event."""
    with server.log.open() as log:
        while f'"event":"{event}"' not in log.readline():
            assert server.process.poll() is None


def command(home: Path, *arguments: str) -> Outcome:
    """A command as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "lumeproxy", *arguments],
        cwd=home,
        env=clean_environment(home),
        capture_output=True,
        text=True,
        timeout=30,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def ask(server: Started, key: str) -> dict[str, int]:
    headers = {"x-api-key": key, "content-type": "application/json"}
    request = urllib.request.Request(server.url + "/v1/messages", json.dumps(ASK).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        usage: dict[str, int] = json.load(response)["usage"]
        return usage


def test_from_nothing_to_a_billed_call_and_again_without_a_change(tmp_path: Path):
    with started(tmp_path, until="to try it out") as server:
        key = server.key
        usage = ask(server, key)
        listed = command(tmp_path, "usage", "--data", str(server.data), "--json").json
        assert server.stop() == 0

    assert f"    ANTHROPIC_BASE_URL={server.url} ANTHROPIC_AUTH_TOKEN={key} claude --model claude-echo\n" in server.text
    assert f"    export LUME_KEY={key}\n" in server.text
    assert server.text.count(key) == 3
    assert [stat.S_IMODE(path.stat().st_mode) for path in (server.data, server.data / "lumeproxy.db")] == [0o700, 0o600]
    cost = usage["input_tokens"] * 1000 + usage["output_tokens"] * 5000
    assert [(r["account"], r["key_id"], r["cost_nanousd"]) for r in listed] == [("me", key[5:13], cost)]
    assert key[14:] not in server.log.read_text()

    with started(tmp_path) as server:
        assert ask(server, key) == usage
        assert server.stop(signal.SIGINT) == 0
    assert server.text.splitlines() == [
        f"lumeproxy {__version__} serves on {server.url}",
        f"  data folder: {server.data}",
        "  upstreams: echo (2 models)",
        "  1 account, 1 key in force",
    ]
    told = command(tmp_path, "account", "list", "--data", str(server.data), "--json").json
    assert [(a["account"], a["balance_nanousd"], a["held_nanousd"]) for a in told] == [("me", 10**10 - 2 * cost, 0)]
    assert sorted(path.name for path in server.data.iterdir()) == ["lumeproxy.db", "lumeproxy.lock"]


@pytest.mark.parametrize("signals", [1, 2])
async def test_a_signal_lets_streams_finish_a_second_one_cuts_them_and_both_exit_with_0(
    tmp_path: Path, upstream: ScriptedUpstream, signals
):
    half, go_on = asyncio.Event(), asyncio.Event()

    async def answer(connection: Connection) -> None:
        await connection.stream_head()
        for event in EVENTS[:4]:
            await connection.chunk(event)
        half.set()
        await go_on.wait()
        for event in EVENTS[4:]:
            await connection.chunk(event)
        await connection.end()

    upstream.script = answer
    config = tmp_path / "config.toml"
    config.write_text(CONFIG.format(url=upstream.url))
    with contextlib.ExitStack() as stack:
        server = await asyncio.to_thread(
            stack.enter_context, started(tmp_path, "--config", str(config), until="to try it")
        )
        asked = {**ASK, "model": "claude-test-1", "stream": True}
        async with (
            aiohttp.ClientSession(headers={"x-api-key": server.key}) as session,
            session.post(server.url + "/v1/messages", json=asked) as response,
        ):
            await half.wait()
            for _ in range(signals):
                server.process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(logged, server, "stopping")
            if signals == 1:
                go_on.set()
            body = b""
            with contextlib.suppress(aiohttp.ClientPayloadError):
                body = await response.read()
        assert await asyncio.to_thread(server.process.wait, 10) == 0
        go_on.set()

    listed = await asyncio.to_thread(command, tmp_path, "usage", "--data", str(server.data), "--json")
    (record,) = listed.json
    assert (body == b"".join(EVENTS), record["ending"]) == (
        (True, "complete") if signals == 1 else (False, "interrupted")
    )
    assert record["cost_nanousd"] >= 100 * 1000 + 10_000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_first_key_that_cannot_be_shown_is_not_lost_in_silence(tmp_path: Path):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lumeproxy", "--data", "data", "--port", "0"],
            cwd=tmp_path,
            env=clean_environment(tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
        )

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith(
        "lumeproxy: The greeting with the key of the account 'me' can't be written to standard output (No space left on "
        f"device). Make another key: {sys.executable} -m lumeproxy key create me --data data\n"
    )


def test_a_port_in_use_is_one_sentence_and_exit_2(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        outcome = command(tmp_path, "--data", str(tmp_path / "data"), "--port", str(taken.getsockname()[1]))

    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith("lumeproxy: server.port ")
    assert outcome.err.count("\n") == 1


def test_the_script_and_the_module_are_one_and_the_same():
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="lumeproxy")

    assert script.load() is __main__.main


def test_arguments_come_from_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lumeproxy", "--version"])

    assert __main__.main() == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_a_terminal_that_lacks_a_character_gets_the_rest(monkeypatch, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    monkeypatch.setattr("lumeproxy.cli.main.run", lambda _: sys.stdout.write("cut…\n"))

    __main__.main()

    sys.stdout.flush()
    assert raw.getvalue() == {"latin-1": b"cut?\n", "utf-8": "cut…\n".encode()}[encoding]
