"""One real call: through the running server with an account of its own, or through a server of its own."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from lumeproxy.clock import Clock
from lumeproxy.dashboard import control
from lumeproxy.doctor import trial
from lumeproxy.doctor.certificate import first_der
from lumeproxy.doctor.finding import Finding
from lumeproxy.doctor.trial import ACCOUNT, GRANT_NANOUSD, Reply, Way, ask, judged, through_own, through_running
from lumeproxy.errors import Refused
from lumeproxy.settings import Settings, load
from tests.support.certificate import write_certificate
from tests.support.proxy import Proxy
from tests.support.upstream import Connection, ScriptedUpstream

COST_NANOUSD = 16_000  # a word in at a dollar per million, three out at five


def hint(command: str) -> str:
    return f"./lume {command}"


def told(finding: Finding) -> tuple[str, str, str | None]:
    return str(finding.state), finding.text, finding.mend


async def check(lume: Proxy, multiplier: int = 1, **way: Any) -> Finding:
    given = dataclasses.replace(Way(lume.url, None, None, 10_000), **way)
    return await through_running(lume.settings.server.data, given, multiplier, Clock(), hint)


async def account(lume: Proxy) -> dict[str, Any]:
    shown: dict[str, Any] = await lume.run("account.show", name=ACCOUNT)
    return shown


# --- through the running server ------------------------------------------------------------------------------------------


async def test_the_call_is_paid_by_an_account_of_its_own_and_its_key_is_revoked(lume: Proxy, upstream):
    before = await lume.balance()

    finding = await check(lume)

    assert finding.state == "ok"
    assert finding.text.startswith("claude-echo answered in ")
    assert finding.text.endswith(
        f" ms through the server at {lume.url}; it cost $0.000016, paid by the account lumeproxy-doctor."
    )
    shown = await account(lume)
    assert shown["balance_nanousd"] == GRANT_NANOUSD - COST_NANOUSD
    (key,) = shown["keys"]
    assert key["models"] == ["claude-echo"]
    assert key["revoked_ms"] is not None
    assert trial.KEY_MS - 10_000 < key["expires_ms"] - key["created_ms"] <= trial.KEY_MS
    (record,) = await lume.records()
    assert (record["account"], record["ending"], record["cost_nanousd"]) == (ACCOUNT, "complete", COST_NANOUSD)
    assert (await lume.balance(), upstream.received) == (before, [])
    assert "secret" not in finding.text


async def test_the_cent_lasts_and_is_given_anew_when_it_is_used_up(lume: Proxy):
    for _ in range(2):
        await check(lume)
    assert (await account(lume))["balance_nanousd"] == GRANT_NANOUSD - 2 * COST_NANOUSD

    finding = await check(lume, multiplier=1000)  # needs a dollar to be at hand, and gives ten

    assert finding.state == "ok"
    assert (await account(lume))["balance_nanousd"] == 1001 * GRANT_NANOUSD - 3 * COST_NANOUSD


async def test_an_account_that_the_operator_suspended_makes_no_call(lume: Proxy):
    await check(lume)
    await lume.run("account.suspend", name=ACCOUNT, reason="no more")

    assert told(await check(lume)) == (
        "warning",
        "No call was made: the account lumeproxy-doctor, which pays for it, is not active.",
        "./lume account resume lumeproxy-doctor",
    )
    assert len(await lume.records()) == 1


async def test_an_account_that_another_doctor_has_just_made_is_used(lume: Proxy, monkeypatch):
    real, asked = control.call, []

    async def call(folder: Path, name: str, arguments: dict[str, Any]) -> Any:
        asked.append(name)
        if asked == ["account.show"]:
            await real(folder, "account.create", {"name": ACCOUNT, "credit_nanousd": GRANT_NANOUSD})
            return await real(folder, "account.show", {"name": "nobody-yet"})
        return await real(folder, name, arguments)

    monkeypatch.setattr(trial, "call", call)

    assert (await check(lume)).state == "ok"
    assert asked == ["account.show", "account.create", "account.show", "key.create", "key.revoke"]


async def test_the_key_is_revoked_also_where_the_call_fails(lume: Proxy, unused_tcp_port):
    finding = await check(lume, base_url=f"http://127.0.0.1:{unused_tcp_port}")

    assert told(finding) == (
        "failed",
        f"A call through the server at http://127.0.0.1:{unused_tcp_port} got no answer: the connection failed.",
        "look at the server's log",
    )
    assert [key["revoked_ms"] is not None for key in (await account(lume))["keys"]] == [True]


async def test_a_server_that_refuses_an_operation_is_told(lume: Proxy, monkeypatch):
    async def full(_folder: Path, name: str, _arguments: dict[str, Any]) -> Any:
        raise Refused("The proxy's database takes no writes at the moment.")

    monkeypatch.setattr(trial, "call", full)

    assert told(await check(lume)) == (
        "failed", "No call could be made: The proxy's database takes no writes at the moment.", None,
    )  # fmt: skip


async def test_a_server_that_stops_meanwhile_is_no_failure(tmp_path: Path):
    finding = await through_running(tmp_path, Way("http://127.0.0.1:9", None, None, 100), 1, Clock(), hint)

    assert told(finding) == ("warning", "No call was made: the server has just stopped.", "./lume doctor")


async def test_what_the_server_says_of_a_refusal_is_told(lume: Proxy):
    (lume.settings.server.data / "lumeproxy.db-shm").unlink()
    assert lume.server.database.look_at_files() == "lumeproxy.db-shm"

    way = Way(lume.url, None, None, 10_000)
    finding = judged(await ask(way, lume.key, Clock()), "it", "paid")

    assert (str(finding.state), finding.text) == (
        "failed",
        "A call of claude-echo through it was answered 503: The proxy's database can't be written at the moment; please "
        "try again.",
    )


@pytest.mark.parametrize("body", [b"", b"{}", b'{"error": "no"}', b"\xff", b'{"error": {"message": "a\\nb"}}'])
async def test_a_refusal_without_a_sentence_is_told_by_its_status(upstream: ScriptedUpstream, body):
    async def script(connection: Connection) -> None:
        await connection.reply(body, 500)

    upstream.script = script

    assert await asked(upstream) == Reply(500)


# --- the call itself -----------------------------------------------------------------------------------------------------


async def asked(server: ScriptedUpstream, **way: Any) -> Reply:
    given = dataclasses.replace(Way(server.url, None, None, 5_000), **way)
    return dataclasses.replace(await ask(given, "lume_key", Clock()), duration_ms=0)


async def test_the_host_is_the_one_that_the_server_answers_to(upstream):
    async def script(connection: Connection) -> None:
        await connection.reply(b"{}", 200, {"x-lume-charge": "0.5"})

    upstream.script = script

    assert await asked(upstream, host="proxy.test") == Reply(200, "0.5")
    (received,) = upstream.received
    assert (received.method, received.target, received.header("host")) == ("POST", "/v1/messages", "proxy.test")
    assert received.header("authorization") == "Bearer lume_key"


async def test_no_answer_is_told_by_its_reason_and_a_redirect_is_not_followed(upstream):
    held = asyncio.Event()

    async def silent(_connection: Connection) -> None:
        await held.wait()

    async def redirects(connection: Connection) -> None:
        await connection.reply(b"", 302, {"location": "/elsewhere"})

    upstream.script = silent
    assert await asked(upstream, timeout_ms=50) == Reply(error="no answer within 0.05 s")
    held.set()
    upstream.script = redirects
    assert await asked(upstream) == Reply(302)
    assert len(upstream.received) == 2


@pytest.mark.parametrize(
    ("reply", "state", "text"),
    [
        (Reply(200, "0.000016000", duration_ms=12), "ok",
         "claude-echo answered in 12 ms through it; it cost $0.000016, paid."),
        (Reply(200, duration_ms=1), "ok", "claude-echo answered in 1 ms through it; it cost $0.00, paid."),
        (Reply(503), "failed", "A call of claude-echo through it was answered 503."),
        (Reply(503, said="No writes."), "failed", "A call of claude-echo through it was answered 503: No writes."),
        (Reply(error="the connection failed"), "failed", "A call through it got no answer: the connection failed."),
        (Reply(error="it serves another certificate than the file that is configured"), "warning",
         "No call was made through it: it serves another certificate than the file that is configured."),
    ],
)  # fmt: skip
def test_an_outcome_is_judged(reply, state, text):
    finding = judged(reply, "it", "paid")

    assert (str(finding.state), finding.text) == (state, text)


# --- through a server of its own -----------------------------------------------------------------------------------------


def settings_of(folder: Path, text: str = "") -> Settings:
    (folder / "config.toml").write_text(text)
    return load(config=folder / "config.toml", data=folder / "data", environ={})


async def test_without_a_server_one_is_started_for_the_call_and_leaves_nothing(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    settings = settings_of(tmp_path, "[billing]\nmultiplier = 2")

    finding = await through_own(settings, {}, Way("", None, None, 10_000), Clock())

    assert finding.state == "ok"
    assert finding.text.endswith(
        " ms through a server of its own with this configuration; it cost $0.000032, in books that are gone again."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


async def test_a_configuration_with_which_none_starts_is_told(tmp_path: Path):
    settings = settings_of(tmp_path, '[upstreams.x]\nkind = "openai"\napi_key_env = "NO_SUCH"')

    finding = await through_own(settings, {}, Way("", None, None, 10_000), Clock())

    assert told(finding) == (
        "failed",
        "A server with this configuration does not start: upstreams.x.api_key_env names NO_SUCH, which is not set.",
        None,
    )


async def test_a_server_with_tls_is_known_by_its_certificate(tmp_path: Path):
    now_ms = Clock().now_ms()
    certificate, key = write_certificate(tmp_path, now_ms - 1_000_000, now_ms - 1_000)  # its dates are another check's
    other, _ = write_certificate(tmp_path, now_ms, now_ms + 1_000_000, name="other")
    settings = settings_of(tmp_path, f'[server]\ntls_certificate = "{certificate}"\ntls_key = "{key}"')

    findings = [
        await through_own(settings, {}, Way("", None, first_der(file.read_text()), 10_000), Clock())
        for file in (certificate, other)
    ]

    assert [str(finding.state) for finding in findings] == ["ok", "warning"]
    assert "serves another certificate" in findings[1].text
