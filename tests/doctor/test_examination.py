"""The whole examination on real folders, servers and upstreams: each injected fault is found, named and given its mend."""

from __future__ import annotations

import asyncio
import datetime
import fcntl
import json
import os
import shutil
import socket
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from lumeproxy.clients import seen as clients
from lumeproxy.clients.seen import Around
from lumeproxy.clock import Clock
from lumeproxy.dashboard.operations import Operations
from lumeproxy.doctor import examination, trial
from lumeproxy.doctor.examination import Patient, examine
from lumeproxy.doctor.finding import Finding
from lumeproxy.errors import Missing
from lumeproxy.store import inspection
from lumeproxy.store.database import Database
from lumeproxy.store.lock import LOCK_NAME
from tests.support.certificate import write_certificate
from tests.support.proxy import Proxy
from tests.support.upstream import Connection, ScriptedUpstream

DAY_MS = 86_400_000
GOOD, BAD = "provider-secret", "stale-secret"
LIST = json.dumps({"data": [{"id": "gpt-test-1"}]}).encode()


@dataclass
class Bed:
    """A person with a home, a data folder and a configuration, none of them there until a test makes it."""

    home: Path
    environ: dict[str, str] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def file(self) -> Path:
        return self.home / "config.toml"

    def config(self, text: str) -> None:
        self.file.write_text(text)
        self.file.chmod(0o600)

    async def begin(self) -> str:
        """A database at rest with an account and a key; the key."""
        database = await Database.open(self.data)
        operations = Operations(database, Clock(), on_change=lambda: None)
        await operations.run("account.create", {"name": "ann", "credit_nanousd": 10**9})
        made = await operations.run("key.create", {"account": "ann"})
        await database.close()
        key: str = made["key"]
        return key

    async def examined(self) -> list[Finding]:
        config = self.file if self.file.exists() else None
        patient = Patient(self.data, config, Around(self.home, self.home, self.environ))
        found = [finding async for finding in examine(patient, self.clock, lambda command: f"./lume {command}")]
        assert not any(secret in repr(found) for secret in (GOOD, BAD))
        return found

    async def found(self, check: str) -> list[tuple[str, str, str | None]]:
        """State, text and mend of one check's findings."""
        return [(str(f.state), f.text, f.mend) for f in await self.examined() if f.check == check]


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bed:
    """The SQLite of this machine is one without the bug, no port is taken, and nobody manages the machine."""
    monkeypatch.setattr(inspection, "sqlite_version", lambda: "3.53.1")
    monkeypatch.setattr(clients, "MANAGED", tmp_path / "managed-settings.json")
    return Bed(tmp_path, {"LUMEPROXY_SERVER__PORT": "0"})


def answers(*, skew_s: int = 0, status: int = 200, **headers: str) -> Callable[[Connection], Awaitable[None]]:
    """A provider that takes GOOD and no other credential, whose clock is off by so much."""

    async def script(connection: Connection) -> None:
        at = datetime.datetime.fromtimestamp(Clock().now_ms() // 1000 + skew_s, datetime.UTC)
        known = GOOD in str(connection.received.headers)
        given = {"date": format_datetime(at, usegmt=True), **headers}
        await connection.reply(LIST if known else b"{}", status if known else 401, given)

    return script


def upstream_of(provider: ScriptedUpstream, more: str = "", key: str = GOOD) -> str:
    return (
        f'[upstreams.prod]\nkind = "openai"\nbase_url = "{provider.url}"\napi_key = "{key}"\n'
        f'[[routes]]\nmodel = "gpt-test-1"\nupstreams = ["prod"]\n{more}'
    )


PRICE = '[prices."gpt-test-1"]\ninput = 1\noutput = 2\n'


# --- health --------------------------------------------------------------------------------------------------------------


async def test_where_nothing_was_ever_started_nothing_is_wrong_and_nothing_is_made(bed: Bed, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(bed.home))

    found = await bed.examined()

    assert [(str(f.state), f.check) for f in found] == [
        ("ok", check)
        for check in (
            "configuration",
            "server",
            "sqlite",
            "data folder",
            "disk",
            "address",
            "upstreams",
            "prices",
            "call",
        )
    ]
    assert found[3].text == f"{bed.data} does not exist yet; the first start makes it."
    assert list(bed.home.iterdir()) == []


async def test_a_healthy_folder_at_rest_is_left_as_it_was(bed: Bed, upstream: ScriptedUpstream):
    await bed.begin()
    bed.config(upstream_of(upstream, PRICE))
    upstream.script = answers()
    before = sorted((path.name, path.stat().st_mtime_ns) for path in bed.data.iterdir())

    found = await bed.examined()

    assert {str(f.state) for f in found} == {"ok"}
    assert [f.check for f in found] == [
        "configuration", "server", "sqlite", "data folder", "disk", "wal", "database", "keys", "file modes", "address",
        "upstream:prod", "clock", "prices", "call",
    ]  # fmt: skip
    assert found[0].text == f"{bed.file} is valid, and LUMEPROXY_SERVER__PORT."
    assert sorted((path.name, path.stat().st_mtime_ns) for path in bed.data.iterdir()) == before


async def test_a_running_server_is_examined_and_called_and_its_users_are_left_alone(
    lume: Proxy, upstream: ScriptedUpstream, bed: Bed
):
    upstream.script = answers()
    lume.config.chmod(0o600)
    before = await lume.balance()

    found = await bed.examined()

    assert {str(f.state) for f in found} == {"ok"}
    by_check = {f.check: f.text for f in found}
    assert by_check["server"] == f"lumeproxy 0.1.0 (process {os.getpid()}) serves on {lume.url}."
    assert by_check["keys"] == "2 accounts, 2 keys in force."  # `me` of the first start, and the tester
    assert "address" not in by_check  # it has it
    assert f"through the server at {lume.url}" in by_check["call"]
    assert (await lume.balance(), [record["account"] for record in await lume.records()]) == (before, [trial.ACCOUNT])
    assert lume.server.database.look_at_files() is None


# --- configuration -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[server]\nprot = 1", "Unknown setting server.prot in {file}; see config.example.toml for all that exist."),
        ("[server", "{file} is not valid TOML: "),
        ('[server]\nhost = "0.0.0.0"', "server.host = '0.0.0.0' can be reached from other machines, where keys would"),
    ],
)
async def test_a_wrong_configuration_fails_and_what_needs_none_is_looked_at_all_the_same(bed: Bed, text, told):
    await bed.begin()
    bed.config(text)

    found = await bed.examined()

    assert (found[0].check, str(found[0].state), found[0].mend) == ("configuration", "failed", f"mend {bed.file}")
    assert found[0].text.startswith(told.format(file=bed.file))
    assert [f.check for f in found[1:]] == [
        "server", "sqlite", "data folder", "disk", "wal", "database", "keys", "file modes", "call",
    ]  # fmt: skip
    assert (str(found[-1].state), found[-1].text) == ("warning", "None was made: first mend what failed above.")


async def test_a_wrong_variable_fails(bed: Bed):
    bed.environ["LUMEPROXY_SERVR__PORT"] = "1"

    ((state, text, mend),) = await bed.found("configuration")

    assert (state, mend) == ("failed", "change the variable, or unset it")
    assert text.startswith("The variable LUMEPROXY_SERVR__PORT names no section")


async def test_without_a_data_folder_to_be_known_the_tools_are_looked_at(bed: Bed):
    bed.config("[server")
    (bed.home / ".claude").mkdir()
    (bed.home / ".claude/settings.json").write_text("{}")
    patient = Patient(None, bed.file, Around(bed.home, bed.home, {}))

    found = [finding async for finding in examine(patient, bed.clock, str)]

    assert [f.check for f in found] == ["configuration", "sqlite", "tool:claude-code", "call"]


# --- data ----------------------------------------------------------------------------------------------------------------


async def test_an_old_sqlite_is_warned_of(bed: Bed, monkeypatch):
    monkeypatch.setattr(inspection, "sqlite_version", lambda: "3.40.1")

    ((state, text, mend),) = await bed.found("sqlite")

    assert (state, text[:13]) == ("warning", "SQLite 3.40.1")
    assert mend is not None
    assert mend.endswith("-m pip install 'lumeproxy[sqlite]'")


async def test_a_database_that_this_user_may_not_write_fails(bed: Bed, monkeypatch):
    await bed.begin()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK or path != bed.data / "lumeproxy.db")

    found = {f.check: f for f in await bed.examined()}

    assert (str(found["data folder"].state), found["data folder"].mend) == ("failed", f"chmod -R u+rwX {bed.data}")
    assert (str(found["database"].state), str(found["call"].state)) == ("ok", "ok")


async def test_of_a_folder_that_is_closed_to_this_user_nothing_is_claimed(bed: Bed, monkeypatch):
    await bed.begin()
    monkeypatch.setattr(os, "access", lambda path, mode: bed.data not in (path, path.parent))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    found = {f.check: f for f in await bed.examined()}

    assert str(found["data folder"].state) == "failed"
    assert found["data folder"].mend is not None
    assert found["data folder"].mend.startswith("sudo -u ")
    assert not {"server", "wal", "database", "keys", "address"} & set(found)
    assert str(found["call"].state) == "warning"


async def test_a_file_in_the_folders_place_fails(bed: Bed):
    bed.data.touch()

    found = {f.check: f for f in await bed.examined()}

    assert found["data folder"].text == f"There is a file in the place of {bed.data}."
    assert (str(found["call"].state), "database" in found) == ("warning", False)


async def test_a_nearly_full_disk_fails(bed: Bed, monkeypatch):
    usage = shutil.disk_usage(bed.home)._replace(free=20_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    ((state, text, _),) = await bed.found("disk")

    assert (state, text.split(" of ")[0]) == ("failed", "20 MB")


async def test_a_write_ahead_log_of_200_mb_is_warned_of_and_the_database_read_through_it(bed: Bed):
    await bed.begin()
    with (bed.data / "lumeproxy.db-wal").open("wb") as wal:
        wal.truncate(200_000_000)

    found = {f.check: f for f in await bed.examined()}

    assert (str(found["wal"].state), found["wal"].mend) == ("warning", "./lume serve")
    assert "200 MB" in found["wal"].text
    assert str(found["database"].state) == "ok"


async def test_books_that_are_wrong_fail(bed: Bed):
    await bed.begin()
    conn = sqlite3.connect(bed.data / "lumeproxy.db")
    conn.execute("UPDATE accounts SET balance_nanousd = balance_nanousd + 5 WHERE name = 'ann'")
    conn.commit()
    conn.close()

    ((state, text, mend),) = await bed.found("database")

    assert (state, mend) == ("failed", "./lume audit")
    assert text.startswith("The balances of all accounts sum to 5 nano-USD instead of zero.")


async def test_a_damaged_database_fails(bed: Bed):
    bed.data.mkdir(mode=0o700)
    (bed.data / "lumeproxy.db").write_bytes(b"not a database" * 100)

    ((state, text, _),) = await bed.found("database")

    assert (state, text) == ("failed", f"{bed.data / 'lumeproxy.db'} can't be read: file is not a database.")


async def test_a_folder_without_a_database_is_told(bed: Bed):
    bed.data.mkdir(mode=0o700)

    assert await bed.found("database") == [("ok", f"There is none in {bed.data} yet; the first start makes it.", None)]


async def test_a_process_that_has_the_lock_and_does_not_answer_fails(bed: Bed, monkeypatch):
    monkeypatch.setattr(examination, "PAUSE_S", 0)
    await bed.begin()
    lock = os.open(bed.data / LOCK_NAME, os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.pwrite(lock, b"4711   ", 0)

    found = {f.check: f for f in await bed.examined()}
    os.close(lock)

    assert str(found["server"].state) == "failed"
    assert found["server"].text.startswith("Process 4711 has the data folder and does not answer")
    assert (str(found["database"].state), str(found["call"].state)) == ("ok", "warning")


async def test_a_server_of_another_version_that_knows_no_such_question_is_told_as_its_process(bed: Bed, monkeypatch):
    async def older(*_: object) -> Any:
        raise Missing("There is no operation server.show.")

    monkeypatch.setattr(examination, "call", older)

    assert (await bed.found("server"))[0][1] == "None runs on this data folder now."


# --- file modes ----------------------------------------------------------------------------------------------------------


async def test_all_that_holds_secrets_and_is_open_to_others_is_warned_of(bed: Bed, upstream: ScriptedUpstream):
    await bed.begin()
    secret = bed.home / "key"
    secret.write_text(GOOD)
    certificate, key = write_certificate(bed.home, Clock().now_ms() - DAY_MS, Clock().now_ms() + 90 * DAY_MS)
    upstream.script = answers()
    elsewhere = upstream.url.replace("127.0.0.1", "0.0.0.0")  # this machine too, which only who knows it can tell
    bed.config(
        f'[server]\ntls_certificate = "{certificate}"\ntls_key = "{key}"\n[upstreams.file]\nkind = "openai"\n'
        f'base_url = "{upstream.url}"\napi_key_file = "key"\n[upstreams.far]\nkind = "openai"\n'
        f'base_url = "{elsewhere}"\napi_key = "{BAD}"\n'
    )
    for path, mode in (
        (bed.data, 0o750), (bed.data / "lumeproxy.db", 0o644), (bed.file, 0o604), (secret, 0o640), (key, 0o604),
    ):  # fmt: skip
        path.chmod(mode)

    found = await bed.found("file modes")

    assert [(state, mend) for state, _, mend in found] == [
        ("warning", f"chmod 700 {bed.data}"),
        ("warning", f"chmod 600 {bed.data / 'lumeproxy.db'}"),
        ("warning", f"chmod 600 {bed.file}"),
        ("warning", f"chmod 600 {secret}"),
        ("warning", f"chmod 600 {key}"),
    ]


# --- where it listens ----------------------------------------------------------------------------------------------------


async def test_a_port_that_another_program_has_fails(bed: Bed):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bed.environ["LUMEPROXY_SERVER__PORT"] = str(taken.getsockname()[1])
        ((state, text, _),) = await bed.found("address")

    assert (state, "is in use by another program" in text) == ("failed", True)


@pytest.mark.parametrize(
    ("ends", "mixed", "state", "told", "call"),
    [
        (90, False, "ok", "The certificate fits its key and is valid for 89 days more.", "ok"),
        (5, False, "warning", "expires in 4 days.", "ok"),
        (-3, False, "failed", "expired 3 days ago: no client connects.", "warning"),
        (90, True, "failed", "server.tls_certificate and server.tls_key can't be used: ", "warning"),
    ],
)
async def test_a_certificate_is_looked_at_and_the_call_goes_by_it(bed: Bed, ends, mixed, state, told, call):
    now_ms = Clock().now_ms()
    certificate, key = write_certificate(bed.home, now_ms - 90 * DAY_MS, now_ms + ends * DAY_MS)
    if mixed:
        _, key = write_certificate(bed.home, now_ms, now_ms + DAY_MS, name="other")
    bed.config(f'[server]\ntls_certificate = "{certificate}"\ntls_key = "{key}"')

    found = {f.check: f for f in await bed.examined()}

    assert (str(found["tls"].state), told in found["tls"].text) == (state, True)
    assert str(found["call"].state) == call


async def test_a_certificate_file_that_is_missing_fails(bed: Bed):
    bed.config('[server]\ntls_certificate = "no.pem"\ntls_key = "no.key"')

    ((state, text, mend),) = await bed.found("tls")

    assert (state, mend) == ("failed", "name the right files in server.tls_certificate and server.tls_key")
    assert "no.pem can't be read" in text


# --- upstreams -----------------------------------------------------------------------------------------------------------


async def test_a_wrong_key_fails_with_the_place_where_it_stands(bed: Bed, upstream: ScriptedUpstream):
    bed.config(upstream_of(upstream, PRICE, key=BAD))
    upstream.script = answers()

    ((state, text, mend),) = await bed.found("upstream:prod")

    assert (state, text) == ("failed", f"prod ({upstream.url}/v1) refuses the credential (401).")
    assert mend == "put a valid key into upstreams.prod.api_key, and restart the server (or kill -HUP it)"


@pytest.mark.parametrize(
    ("given", "environ", "place"),
    [
        ('api_key_env = "PROD_KEY"', {"PROD_KEY": BAD}, "the variable PROD_KEY"),
        ('api_key_file = "key"', {}, "the file {home}/key"),
    ],
)
async def test_a_wrong_key_may_stand_elsewhere(bed: Bed, upstream: ScriptedUpstream, given, environ, place):
    (bed.home / "key").write_text(BAD)
    bed.environ |= environ
    bed.config(upstream_of(upstream, PRICE).replace(f'api_key = "{GOOD}"', given))
    upstream.script = answers()

    ((_, _, mend),) = await bed.found("upstream:prod")

    assert mend is not None
    assert place.format(home=bed.home) in mend


async def test_without_a_configuration_the_keys_of_the_environment_are_tried(bed: Bed, upstream, monkeypatch):
    bed.environ["OPENAI_API_KEY"] = BAD
    monkeypatch.setattr("lumeproxy.upstreams.openai.DEFAULT_BASE_URL", upstream.url)
    upstream.script = answers()

    ((state, _, mend),) = await bed.found("upstream:openai")

    assert state == "failed"
    assert mend is not None
    assert "the variable OPENAI_API_KEY" in mend


async def test_an_upstream_that_is_down_fails_and_holds_up_no_other(
    bed: Bed, upstream: ScriptedUpstream, unused_tcp_port
):
    down = (
        f'[upstreams.gone]\nkind = "anthropic"\nbase_url = "http://127.0.0.1:{unused_tcp_port}"\napi_key = "{GOOD}"\n'
    )
    bed.config(upstream_of(upstream, down + PRICE))
    upstream.script = answers()

    found = {f.check: f for f in await bed.examined()}

    assert str(found["upstream:prod"].state) == "ok"
    assert str(found["upstream:gone"].state) == "failed"
    assert found["upstream:gone"].text.endswith("is not reached: can't connect: Connection refused.")


async def test_a_silent_upstream_is_given_up_after_the_limit(bed: Bed, upstream: ScriptedUpstream):
    held = asyncio.Event()

    async def silent(_connection: Connection) -> None:
        await held.wait()

    bed.config(upstream_of(upstream, PRICE + "[limits]\nprobe_ms = 60\n"))
    upstream.script = silent

    ((state, text, _),) = await bed.found("upstream:prod")
    held.set()

    assert (state, text.endswith("is not reached: no answer within 0.06 s.")) == ("failed", True)


async def test_an_upstream_that_redirects_fails(bed: Bed, upstream: ScriptedUpstream):
    bed.config(upstream_of(upstream, PRICE))
    upstream.script = answers(status=301, location="https://moved.test/v1/models")

    ((state, text, _),) = await bed.found("upstream:prod")

    assert (state, "redirects to https://moved.test, which is not followed" in text) == ("failed", True)


async def test_a_clock_that_is_an_hour_off_fails(bed: Bed, upstream: ScriptedUpstream):
    bed.config(upstream_of(upstream, PRICE))
    upstream.script = answers(skew_s=3_600)

    ((state, text, _),) = await bed.found("clock")

    assert (state, text) == ("failed", "It is 1 hour behind prod's: prices, expiry and records go by it.")


async def test_a_route_without_a_price_and_one_to_a_model_that_is_not_there_are_found(bed: Bed, upstream):
    bed.config(
        upstream_of(upstream, '[[routes]]\nmodel = "x"\nupstreams = ["prod"]\n[prices.x]\ninput = 1\noutput = 1\n')
    )
    upstream.script = answers()

    found = {f.check: f for f in await bed.examined()}

    assert (str(found["prices"].state), found["prices"].mend) == (
        "failed", 'add [prices."gpt-test-1"] with input and output',
    )  # fmt: skip
    assert str(found["routes"].state) == "warning"


async def test_a_route_to_nowhere_fails_and_no_call_is_made(bed: Bed):
    bed.config('[[routes]]\nmodel = "x"\nupstreams = ["nobody"]')

    found = {f.check: f for f in await bed.examined()}

    assert (str(found["routes"].state), found["routes"].text) == (
        "failed", "Route 1 (x) names the upstream 'nobody'; there are echo.",
    )  # fmt: skip
    assert str(found["call"].state) == "warning"


async def test_a_variable_that_is_not_set_fails_or_is_a_warning_where_a_server_may_have_it(
    lume: Proxy, bed: Bed, upstream
):
    text = '[upstreams.x]\nkind = "openai"\napi_key_env = "NO_SUCH"\n'
    told = "upstreams.x.api_key_env names NO_SUCH, which is not set."
    upstream.script = answers()
    bed.config(text)
    served = await bed.found("upstream:x")
    elsewhere = Bed(bed.home / "other", {})
    elsewhere.home.mkdir()
    elsewhere.config(text + "[server]\nport = 0")

    assert served == [("warning", told + " The running server may have it.", "export NO_SUCH=…")]
    assert await elsewhere.found("upstream:x") == [("failed", told, "export NO_SUCH=…")]
    assert (await elsewhere.found("call"))[0][0] == "warning"


async def test_a_model_that_a_route_takes_elsewhere_is_not_called(bed: Bed, upstream: ScriptedUpstream):
    bed.config(upstream_of(upstream, '[[routes]]\nmodel = "claude-echo"\nupstreams = ["prod"]\n' + PRICE))
    upstream.script = answers()

    ((state, text, _),) = await bed.found("call")

    assert (state, "takes claude-echo elsewhere" in text) == ("ok", True)
    assert {received.method for received in upstream.received} == {"GET"}


# --- tools ---------------------------------------------------------------------------------------------------------------


async def test_the_tools_of_this_machine_are_looked_at(bed: Bed):
    key = await bed.begin()
    bed.environ["LUMEPROXY_SERVER__PORT"] = "8787"
    bed.environ["LUME_KEY"] = key[:-1]
    claude, codex = bed.home / ".claude/settings.json", bed.home / ".codex/config.toml"
    opencode = bed.home / ".config/opencode/opencode.json"
    for file in (claude, codex, opencode):
        file.parent.mkdir(parents=True)
    env = {"ANTHROPIC_BASE_URL": "http://localhost:8787", "ANTHROPIC_AUTH_TOKEN": key}
    claude.write_text(json.dumps({"env": env | {"ANTHROPIC_API_KEY": "sk-ant-another"}}))
    codex.write_text(
        'model_provider = "l"\n[model_providers.l]\nbase_url = "http://127.0.0.1:8787/v1"\nenv_key = "LUME_KEY"'
    )
    options = {"baseURL": "http://127.0.0.1:9999/v1", "apiKey": "k"}
    opencode.write_text(json.dumps({"provider": {"lume": {"options": options}}}))

    found = [(str(f.state), f.check, f.text) for f in await bed.examined() if f.check.startswith("tool:")]

    assert [(state, check) for state, check, _ in found] == [
        ("ok", "tool:claude-code"),
        ("warning", "tool:claude-code"),
        ("failed", "tool:codex"),
        ("ok", "tool:opencode"),
    ]
    assert found[0][2].endswith(f"with key {key[5:13]} of ann.")
    assert "is not whole" in found[2][2]
    assert not any(key[14:] in text for _, _, text in found)


async def test_a_tools_file_without_end_is_not_read(bed: Bed, monkeypatch):
    monkeypatch.setattr(examination, "TOOL_FILE_BYTES", 10)
    (bed.home / ".claude").mkdir()
    (bed.home / ".claude/settings.json").write_text('{"env": {"ANTHROPIC_BASE_URL": "http://x"}}')

    assert await bed.found("tool:claude-code") == []


async def test_each_of_several_credentials_is_tried_and_told_by_its_number(bed: Bed, upstream: ScriptedUpstream):
    upstream.script = answers()
    bed.config(upstream_of(upstream, PRICE).replace(f'api_key = "{GOOD}"', f'api_key = ["{GOOD}", "{BAD}"]'))

    (first,) = await bed.found("upstream:prod, credential 1")
    ((state, text, _),) = await bed.found("upstream:prod, credential 2")
    assert first[0] == "ok"
    assert (state, text) == ("failed", f"prod, credential 2 ({upstream.url}/v1) refuses the credential (401).")
