"""Who calls: which header counts, what is refused and with which words, and that a change is in force at once."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from lumeproxy.core import apikey
from lumeproxy.dashboard.operations import Operations
from lumeproxy.errors import AccountSuspended, ForeignCredential, LumeError, Unauthorized
from lumeproxy.proxy import auth as auth_module
from lumeproxy.proxy.auth import Auth, allows
from lumeproxy.store import keys
from lumeproxy.store.database import Database
from lumeproxy.store.keys import StoredKey
from tests.support.clock import START_MS, FakeClock
from tests.support.proxy import Proxy, proxy
from tests.support.upstream import ScriptedUpstream

FOREIGN = "sk-ant-oat01-someone-elses-login-token"


@dataclass
class Desk:
    """Auth over a real database, whose reads are counted."""

    auth: Auth
    operations: Operations
    database: Database
    clock: FakeClock
    reads: list[object]
    key: str = ""

    async def run(self, operation: str, **arguments: Any) -> Any:
        return await self.operations.run(operation, arguments)

    async def caller(self, **headers: str) -> StoredKey:
        return await self.auth.caller(CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()}))

    async def refusal(self, **headers: str) -> LumeError:
        with pytest.raises(LumeError) as caught:
            await self.caller(**headers)
        return caught.value


@pytest.fixture
async def desk(tmp_path: Path, clock: FakeClock, monkeypatch) -> AsyncIterator[Desk]:
    database = await Database.open(tmp_path / "data")
    reads: list[object] = []
    read = database.read

    async def counted(fn: Any, *args: Any) -> Any:
        reads.append(fn)
        return await read(fn, *args)

    monkeypatch.setattr(database, "read", counted)
    auth = Auth(database, clock)
    made = Desk(auth, Operations(database, clock, on_change=auth.forget), database, clock, reads)
    await made.run("account.create", name="ann")
    made.key = (await made.run("key.create", account="ann"))["key"]
    reads.clear()
    yield made
    await database.close()


# --- which header counts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer {key}"},
        {"Authorization": "bearer {key}"},
        {"Authorization": "BEARER   {key} "},
        {"x_api_key": "{key}"},
        {"X_API_KEY": " {key} "},
        {"authorization": "Bearer {key}", "x_api_key": "{key}"},
        {"authorization": "Bearer {key}", "x_api_key": FOREIGN},
        {"authorization": "Bearer " + FOREIGN, "x_api_key": "{key}"},
        {"authorization": "Basic " + base64.b64encode(b"a:b").decode(), "x_api_key": "{key}"},
        {"authorization": "", "x_api_key": "{key}"},
    ],
)
async def test_our_key_counts_in_whichever_header_it_stands(desk: Desk, headers):
    found = await desk.caller(**{name: value.format(key=desk.key) for name, value in headers.items()})

    assert (found.account_name, found.last4) == ("ann", desk.key[-4:])


@pytest.mark.parametrize(
    ("headers", "kind", "word"),
    [
        ({}, Unauthorized, "No API key"),
        ({"authorization": ""}, Unauthorized, "No API key"),
        ({"authorization": "Bearer"}, Unauthorized, "No API key"),
        ({"authorization": "Bearer   "}, Unauthorized, "No API key"),
        ({"x_api_key": "  "}, Unauthorized, "No API key"),
        ({"authorization": "Basic bHVtZV86"}, Unauthorized, "No API key"),
        ({"authorization": "lume_12345678_x"}, Unauthorized, "No API key"),
        ({"authorization": "Bearer " + FOREIGN}, ForeignCredential, "ANTHROPIC_AUTH_TOKEN"),
        ({"x_api_key": "sk-proj-1"}, ForeignCredential, "lume_"),
        ({"x_api_key": "LUME_12345678_x"}, ForeignCredential, "lume_"),
        ({"authorization": "Bearer lume_"}, Unauthorized, "unknown, expired or revoked"),
        ({"authorization": "Bearer lume_12345678_x"}, Unauthorized, "unknown, expired or revoked"),
        ({"authorization": "Bearer lume_' OR '1'='1"}, Unauthorized, "unknown, expired or revoked"),
        ({"authorization": "Bearer lume_" + "é" * 47}, Unauthorized, "unknown, expired or revoked"),
        ({"authorization": "Bearer lume_\udcff" + "a" * 46}, Unauthorized, "unknown, expired or revoked"),
        ({"authorization": "Bearer lume_" + "a" * 1_000_000}, Unauthorized, "unknown, expired or revoked"),
    ],
)
async def test_what_is_no_key_of_ours_is_refused_without_a_look_up(desk: Desk, headers, kind, word):
    error = await desk.refusal(**headers)

    assert type(error) is kind
    assert word in error.message
    assert error.final
    assert not any(value.split(" ")[-1] in error.message for value in headers.values() if len(value) > 20)
    assert desk.reads == []


def with_other_secret(key: str) -> str:
    """A well-formed key of the same id."""
    digits = iter([apikey._ALPHABET.index(char) for char in apikey.parse(key) or ""])
    made = apikey.make(lambda count: bytes(next(digits, 7) for _ in range(count))).text
    assert apikey.parse(made) == apikey.parse(key) and made != key
    return made


# --- one answer and one effort for all that is refused ----------------------------------------------------------------


async def test_unknown_wrong_revoked_and_expired_keys_get_the_same_answer_for_the_same_effort(desk: Desk):
    expiring = await desk.run("key.create", account="ann", expires_ms=START_MS + 1)
    revoked = await desk.run("key.create", account="ann")
    for text in (desk.key, expiring["key"], revoked["key"]):
        await desk.caller(x_api_key=text)
    await desk.run("key.revoke", id=revoked["id"])
    desk.clock.advance(1)
    await desk.caller(x_api_key=desk.key)
    refused = {
        "unknown": apikey.make(os.urandom).text,
        "right id, wrong secret": with_other_secret(desk.key),
        "revoked": revoked["key"],
        "expired": expiring["key"],
    }

    for _ in range(2):  # the first time some are not remembered, the second time all that exist are
        told = {}
        for name, text in refused.items():
            desk.reads.clear()
            error = await desk.refusal(authorization="Bearer " + text)
            told[name] = (type(error), error.message, error.code, error.status, desk.reads.copy())
        assert len({str(what) for what in told.values()}) == 1, told
        assert told["unknown"][4] == [keys.find]


async def test_a_key_with_anything_behind_it_is_another_key(desk: Desk):
    for text in (desk.key + "a", desk.key[:-1], desk.key.swapcase(), desk.key[:14] + "-" + desk.key[15:], desk.key * 2):
        assert isinstance(await desk.refusal(x_api_key=text), Unauthorized)
    assert (await desk.caller(x_api_key=desk.key)).account_name == "ann"


# --- what is remembered, and how it is forgotten -----------------------------------------------------------------------


async def test_a_known_key_costs_no_read(desk: Desk):
    for _ in range(3):
        await desk.caller(x_api_key=desk.key)

    assert desk.reads == [keys.find]


async def test_a_key_expires_on_the_millisecond(desk: Desk):
    made = await desk.run("key.create", account="ann", expires_ms=START_MS + 5000)

    desk.clock.advance(4999)
    assert (await desk.caller(x_api_key=made["key"])).expires_ms == START_MS + 5000
    desk.clock.advance(1)
    assert type(await desk.refusal(x_api_key=made["key"])) is Unauthorized


async def test_a_rotated_key_lives_through_its_overlap(desk: Desk):
    old = apikey.parse(desk.key)
    await desk.caller(x_api_key=desk.key)
    new = await desk.run("key.rotate", id=old, overlap_ms=1000)

    desk.clock.advance(999)
    assert (await desk.caller(x_api_key=desk.key)).id == old
    assert (await desk.caller(x_api_key=new["key"])).id == new["id"]
    desk.clock.advance(1)
    assert type(await desk.refusal(x_api_key=desk.key)) is Unauthorized
    assert (await desk.caller(x_api_key=new["key"])).id == new["id"]


async def test_revocation_suspension_and_resumption_are_in_force_with_the_next_request(desk: Desk):
    other = await desk.run("key.create", account="ann")
    await desk.caller(x_api_key=desk.key)

    await desk.run("account.suspend", name="ann", reason="late")
    error = await desk.refusal(x_api_key=desk.key)
    assert (type(error), error.status) == (AccountSuspended, 403)
    assert "suspended" in error.message
    assert "late" not in error.message  # the reason is the operator's own note

    await desk.run("account.resume", name="ann")
    await desk.caller(x_api_key=desk.key)
    await desk.run("key.revoke", id=apikey.parse(desk.key))
    assert type(await desk.refusal(x_api_key=desk.key)) is Unauthorized
    assert (await desk.caller(x_api_key=other["key"])).id == other["id"]

    await desk.run("account.close", name="ann")
    assert "closed" in (await desk.refusal(x_api_key=other["key"])).message


async def test_a_suspended_account_is_not_told_to_whoever_has_the_wrong_secret(desk: Desk):
    await desk.run("account.suspend", name="ann", reason="late")

    assert type(await desk.refusal(x_api_key=with_other_secret(desk.key))) is Unauthorized


async def test_a_key_that_changes_while_it_is_read_is_not_remembered(desk: Desk, monkeypatch):
    read = desk.database.read

    async def overtaken(fn: Any, *args: Any) -> Any:
        found = await read(fn, *args)
        desk.auth.forget()
        return found

    monkeypatch.setattr(desk.database, "read", overtaken)
    await desk.caller(x_api_key=desk.key)
    monkeypatch.setattr(desk.database, "read", read)
    await desk.caller(x_api_key=desk.key)
    await desk.caller(x_api_key=desk.key)

    assert len(desk.reads) == 2


async def test_the_memory_of_keys_is_bounded_and_unknown_ones_take_none(desk: Desk, monkeypatch):
    monkeypatch.setattr(auth_module, "REMEMBERED_KEYS", 2)
    texts = [(await desk.run("key.create", account="ann"))["key"] for _ in range(4)]
    for text in [*texts, apikey.make(os.urandom).text]:
        try:
            await desk.caller(x_api_key=text)
        except Unauthorized:
            assert text not in texts
        assert len(desk.auth._known) <= 2

    assert len(desk.auth._known) == 2


@pytest.mark.parametrize(
    ("patterns", "model", "allowed"),
    [
        ((), "anything", True),
        (("claude-*",), "claude-opus-5", True),
        (("claude-*",), "gpt-5", False),
        (("gpt-5", "claude-haiku-*"), "claude-haiku-4-5", True),
        (("gpt-5",), "gpt-5-mini", False),
        (("gpt-5",), "GPT-5", False),
        (("",), "x", False),
    ],
)
def test_a_keys_patterns_say_which_models_it_may_use(patterns, model, allowed):
    key = StoredKey("k", 1, "ann", "active", b"", "", "", 0, None, None, patterns)

    assert allows(key, model) is allowed


# --- over the wire -----------------------------------------------------------------------------------------------------


async def test_a_providers_own_credential_is_answered_with_what_to_set_and_kept_nowhere(tmp_path: Path):
    async with proxy(tmp_path, {}) as lume:
        for headers in ({"Authorization": "Bearer " + FOREIGN}, {"x-api-key": FOREIGN}):
            async with lume.session.post(lume.url + "/v1/messages", data=b"{}", headers=headers) as response:
                body = await response.text()
                assert response.status == 401
                assert response.headers["x-should-retry"] == "false"
                assert "lume_" in body
                assert FOREIGN not in body + str(response.headers)

    assert '"error":"foreign_credential"' in lume.log.getvalue()
    assert FOREIGN not in lume.log.getvalue()
    kept = [path for path in lume.settings.server.data.iterdir() if path.is_file()]
    assert "lumeproxy.db" in [path.name for path in kept]
    assert [path.name for path in kept if FOREIGN.encode() in path.read_bytes()] == []


async def test_changes_made_while_the_server_runs_are_in_force_at_once(lume: Proxy):
    async def models(key: str) -> tuple[int, list[str]]:
        async with lume.session.get(lume.url + "/v1/models", headers={"x-api-key": key}) as response:
            found = await response.json()
            return response.status, [entry["id"] for entry in found.get("data", ())]

    narrow = await lume.run("key.create", account="tester", models=["gpt-*"])
    assert await models(narrow["key"]) == (200, ["gpt-echo"])
    assert await models(lume.key) == (200, ["claude-echo", "gpt-echo"])

    await lume.run("account.suspend", name="tester", reason="x")
    assert (await models(lume.key))[0] == 403
    await lume.run("account.resume", name="tester")
    assert (await models(lume.key))[0] == 200
    await lume.run("key.revoke", id=apikey.parse(lume.key))
    assert (await models(lume.key))[0] == 401
    assert (await models(narrow["key"]))[0] == 200


async def test_guessing_is_answered_429_after_ten_and_right_keys_are_served_meanwhile(
    tmp_path: Path, upstream: ScriptedUpstream, clock: FakeClock
) -> None:
    async with proxy(tmp_path, {"anthropic": upstream}, clock=clock, environ={}) as lume:
        other = (await lume.run("key.create", account="tester"))["key"]
        reads = 0
        read = lume.server.database.read

        async def counted(*args: Any) -> Any:
            nonlocal reads
            reads += 1
            return await read(*args)

        lume.server.database.read = counted  # type: ignore[method-assign,assignment]
        statuses = []
        for number in range(200):
            guess = apikey.make(os.urandom).text
            forged = {"X-Forwarded-For": f"10.0.0.{number}", "CF-Connecting-IP": "10.9.9.9", "X-Real-IP": "10.8.8.8"}
            headers = {"Authorization": f"Bearer {guess}", **forged}
            async with lume.session.get(lume.url + "/v1/models", headers=headers) as response:
                statuses.append(response.status)
                text = await response.text()
        assert statuses == [401] * 10 + [429] * 190
        assert response.headers["retry-after"] == "60"
        assert "x-should-retry" not in response.headers
        assert guess not in text
        assert reads <= 20

        for key in (lume.key, other):
            async with lume.session.get(lume.url + "/v1/models", headers={"x-api-key": key}) as response:
                assert response.status == 200
        told = [line for line in lume.log.getvalue().splitlines() if '"guessing"' in line]
        assert len(told) == 1
        assert '"address":"127.0.0.1"' in told[0]
        clock.advance(60_000)
        async with lume.session.get(lume.url + "/v1/models", headers={"x-api-key": guess}) as response:
            assert response.status == 401
