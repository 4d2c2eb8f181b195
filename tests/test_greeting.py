"""What a person is told at the start, and what is warned of."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lumeproxy import __version__, logs
from lumeproxy.clock import Clock
from lumeproxy.compose import Names, make_admission, make_names, make_upstreams, unpriced
from lumeproxy.dashboard.operations import Operations
from lumeproxy.errors import LumeError
from lumeproxy.greeting import (
    Offer,
    Start,
    first_account,
    greet,
    greeting,
    make_offer,
    make_start,
    tell_stop,
    warn,
)
from lumeproxy.proxy.admission import Admission
from lumeproxy.settings import Settings, load
from lumeproxy.store.database import Database
from lumeproxy.upstreams.base import Upstream
from tests.support.clock import START_MS, FakeClock

KEY = "lume_01234567_ABCDEFGHIJKLMNOPQRSTUVWXYZ012345abcdef"
START = Start("http://127.0.0.1:8787", Path("/data"), None, Offer(("echo (2 models)",), False), 1, 1, None, 10**10)
LOCAL = '[upstreams.local]\nkind = "openai"\nbase_url = "http://127.0.0.1:9/v1"\napi_key = "none"\n'
PROVIDER = '[upstreams.prod]\nkind = "anthropic"\napi_key = "sk-ant-secret"\n'


def hint(command: str) -> str:
    return f"./lume {command}"


def started(**changes: Any) -> list[str]:
    return greeting(dataclasses.replace(START, **changes), hint).splitlines()


def route(model: str, *upstreams: str, more: str = "") -> str:
    return f'[[routes]]\nmodel = "{model}"\nupstreams = {json.dumps(upstreams)}\n{more}\n'


def price(model: str) -> str:
    return f'[prices."{model}"]\ninput = 1\noutput = 5\n'


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


@pytest.fixture
def log_text() -> io.StringIO:
    return io.StringIO()


def log_to(stream: io.StringIO) -> Any:
    return logs.make(level="info", style="json", clock=FakeClock(), stream=stream)


def warned(stream: io.StringIO) -> list[tuple[str, str]]:
    return [(line["event"], line["note"]) for line in map(json.loads, stream.getvalue().splitlines())]


def settings_of(folder: Path, text: str) -> Settings:
    file = folder / "config.toml"
    file.write_text(text)
    return load(config=file, data=folder / "data", environ={})


def parts(
    folder: Path, text: str, session: aiohttp.ClientSession, **environ: str
) -> tuple[Settings, Admission, Names, dict[str, Upstream]]:
    settings = settings_of(folder, text)
    upstreams = make_upstreams(settings, environ, session)
    return settings, make_admission(settings, upstreams), make_names(settings, upstreams), upstreams


# --- the text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("echo_only", "model"), [(True, " --model claude-echo"), (False, "")])
def test_the_first_run_shows_the_key_and_how_to_use_it(echo_only, model):
    lines = started(first_key=KEY, offer=Offer(("echo (2 models)",), not echo_only))

    assert lines[:4] == [
        f"lumeproxy {__version__} serves on http://127.0.0.1:8787",
        "  data folder: /data",
        "  upstreams: echo (2 models)",
        "  account 'me' was made with $10 of credit. Its key, shown only now:",
    ]
    assert lines[5] == f"    {KEY}"
    assert f"    ANTHROPIC_BASE_URL=http://127.0.0.1:8787 ANTHROPIC_AUTH_TOKEN={KEY} claude{model}" in lines
    assert f"    export LUME_KEY={KEY}" in lines
    assert [line for line in lines if "setup claude-code" in line] == [
        "  Or for good, with a way back: ./lume setup claude-code (or codex, opencode)."
    ]
    assert max(len(line) for line in lines if KEY not in line) <= 100
    assert lines[-1].startswith("  The models claude-echo and gpt-echo answer without a provider")


@pytest.mark.parametrize(
    ("nanousd", "shown"), [(10**10, "$10"), (250_000_000, "$0.25"), (1_500_000_000, "$1.50"), (10**12, "$1,000")]
)
def test_the_first_credit_is_told_in_dollars(nanousd, shown):
    assert f"  account 'me' was made with {shown} of credit. Its key, shown only now:" in started(
        first_key=KEY, first_credit_nanousd=nanousd
    )


def test_later_starts_say_what_is_in_force_in_three_lines_more():
    lines = started(config=Path("/etc/lume.toml"), accounts=1200, keys=3, offer=Offer(("a (1 model)", "b (x-*)"), True))

    assert lines[2:] == [
        "  configuration: /etc/lume.toml",
        "  upstreams: a (1 model), b (x-*)",
        "  1,200 accounts, 3 keys in force",
    ]
    assert started()[2:] == ["  upstreams: echo (2 models)", "  1 account, 1 key in force"]


@pytest.mark.parametrize(("accounts", "name"), [(1, "me"), (2, "ACCOUNT")])
def test_without_a_key_it_says_how_to_make_one(accounts, name):
    assert started(accounts=accounts, keys=0)[-1].endswith(f", no key in force; make one: ./lume key create {name}")


def test_many_upstreams_are_cut():
    assert started(offer=Offer(tuple("abcdefg"), True))[2] == "  upstreams: a, b, c, d, e and 2 more"


async def test_a_key_that_nobody_saw_is_an_error_with_the_mend(log_text):
    def full(_: str) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(LumeError) as raised:
        await greet(dataclasses.replace(START, first_key=KEY), full, hint, log_to(log_text))

    assert raised.value.message == (
        "The greeting with the key of the account 'me' can't be written to standard output (No space left on device). "
        "Make another key: ./lume key create me"
    )
    assert log_text.getvalue() == ""


@pytest.mark.parametrize(
    ("error", "why"), [(OSError(5, "Input/output error"), "Input/output error"), (OSError(), "it is closed")]
)
async def test_a_later_greeting_that_fails_stops_no_server(log_text, error, why):
    def fails(_: str) -> None:
        raise error

    await greet(START, fails, hint, log_to(log_text))

    assert warned(log_text) == [("greeting", f"can't be written to standard output: {why}")]


@pytest.mark.parametrize(
    ("calls", "note"),
    [
        (0, None),
        (1, "waiting up to 25 s for 1 call; again to cut it"),
        (1200, "waiting up to 25 s for 1,200 calls; again to cut them"),
    ],
)
def test_a_stop_says_what_it_waits_for(log_text, calls, note):
    tell_stop(log_to(log_text), calls, 25)

    line = json.loads(log_text.getvalue())
    assert (line["event"], line["running_calls"], line.get("note")) == ("stopping", calls, note)


async def test_a_start_counts_what_the_database_holds(tmp_path):
    settings = load(data=tmp_path / "data", environ={})
    database = await Database.open(tmp_path / "data")
    clock = FakeClock()
    operations = Operations(database, clock, on_change=lambda: None)
    key = await first_account(settings, database, operations)
    again = await first_account(settings, database, operations)
    await operations.run("account.create", {"name": "ann"})
    made = await operations.run("key.create", {"account": "ann"})
    await operations.run("key.revoke", {"id": made["id"]})

    start = await make_start(settings, "http://x", None, START.offer, database, key, clock.now_ms())
    await database.close()

    assert (start.accounts, start.keys, start.first_key, start.first_credit_nanousd) == (2, 1, key, 10**10)
    assert (again, start.data) == (None, tmp_path / "data")


# --- what is offered -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ["echo (2 models)"]),
        (LOCAL + route("qwen-*", "local"), ["local (qwen-*)", "echo (2 models)"]),
        (LOCAL + route("qwen-*", "local") + price("qwen-3"), ["local (1 model)", "echo (2 models)"]),
        (LOCAL + route("q", "local") + route("r", "local") + price("q"), ["local (1 model)", "echo (2 models)"]),
        (LOCAL + PROVIDER + route("x", "prod") + price("x"), ["local (0 models)", "prod (1 model)", "echo (2 models)"]),
        (LOCAL + route("x", "local", "echo") + price("x"), ["local (1 model)", "echo (3 models)"]),
        (LOCAL + route("q", "local") + route("q-*", "local") + price("q"), ["local (1 model, q-*)", "echo (2 models)"]),
    ],
)
async def test_upstreams_are_told_with_how_many_models_they_serve(tmp_path, session, text, told):
    _, admission, names, upstreams = parts(tmp_path, text, session)

    assert list(make_offer(admission, names, upstreams, START_MS).upstreams) == told


async def test_a_providers_models_are_those_of_its_price_list(tmp_path, session):
    _, admission, names, upstreams = parts(tmp_path, "", session, ANTHROPIC_API_KEY="sk-ant-x")

    offer = make_offer(admission, names, upstreams, START_MS)

    known = [name for name in names.models("claude-*") if admission.is_priced(name, START_MS)]
    assert offer.upstreams == (f"anthropic ({len(known)} models)", "echo (2 models)")
    assert len(known) > 5
    assert offer.to_claude_code


# --- warnings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        (LOCAL + route("q", "local"), ["q"]),
        (LOCAL + route("q", "local") + route("r-*", "local") + price("q"), ["r-*"]),
        (LOCAL + route("q", "local") + price("q"), []),
        (LOCAL + route("q", "local") + price("*"), []),
        (LOCAL + route("q-*", "local") + price("q-3"), []),
        (LOCAL + route("q-*", "local") + price("q-3*"), []),
        (LOCAL + route("q-*", "local") + price("other"), ["q-*"]),
        (LOCAL + route("q", "local", more='upstream_model = "gpt-4o"'), []),
        (LOCAL + route("q-*", "local", more='upstream_model = "no-such"'), ["q-*"]),
        (LOCAL + route("e", "echo"), ["e"]),
        (PROVIDER + route("claude-*", "prod"), []),
        (PROVIDER + route("claude-nobody-knows", "prod"), ["claude-nobody-knows"]),
    ],
)
async def test_a_route_none_of_whose_models_has_a_price_is_found(tmp_path, session, text, found):
    settings, admission, names, _ = parts(tmp_path, text, session)

    assert unpriced(settings, admission, names, START_MS) == found


@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "mend"),
    [
        (0o700, 0o600, None),
        (0o755, 0o600, "chmod 700 {folder}"),
        (0o710, 0o640, "chmod 700 {folder} && chmod 600 {folder}/lumeproxy.db"),
        (0o700, 0o604, "chmod 600 {folder}/lumeproxy.db"),
    ],
)
async def test_data_that_others_can_get_at_is_warned_of_with_the_mend(
    tmp_path, session, log_text, folder_mode, file_mode, mend
):
    settings, admission, names, _ = parts(tmp_path, "", session)
    folder = settings.server.data
    folder.mkdir()
    (folder / "lumeproxy.db").touch()
    (folder / "lumeproxy.db").chmod(file_mode)
    folder.chmod(folder_mode)

    warn(log_to(log_text), settings, admission, names, None, Clock().now_ms())

    note = f"others can get at the database: {mend.format(folder=folder)}" if mend else ""
    assert warned(log_text) == ([("open_data", note)] if mend else [])


async def test_an_open_configuration_and_a_route_without_a_price_are_one_line_each(tmp_path, session, log_text):
    settings, admission, names, _ = parts(tmp_path, LOCAL + PROVIDER + route("q", "local"), session)
    file = tmp_path / "config.toml"
    file.chmod(0o644)

    warn(log_to(log_text), settings, admission, names, file, START_MS)

    assert warned(log_text) == [
        ("open_config", f"others can read its api_key: chmod 600 {file}"),
        ("no_price", 'calls of it are refused: add [prices."q"] with input, output'),
    ]
    assert "secret" not in log_text.getvalue()
