"""Admin keys: what they open, what they don't, and who is throttled."""

from __future__ import annotations

import os

import pytest

from lumeproxy.core import apikey
from lumeproxy.dashboard.adminkeys import AdminAuth
from lumeproxy.dashboard.operations import Operations
from lumeproxy.errors import Forbidden, RateLimited, Refused, Unauthorized
from lumeproxy.proxy.guessing import Guesses
from lumeproxy.store.database import Database
from tests.support.calls import ask
from tests.support.clock import START_MS, FakeClock
from tests.support.proxy import Proxy


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_a_key_is_made_listed_without_its_secret_and_revoked(operations: Operations, database: Database, clock):
    auth = AdminAuth(database, clock, Guesses(clock, per_minute=0))
    made = await operations.run("admin_key.create", {"name": "ci", "may_change": False})
    key = made.pop("key")

    assert key.startswith(f"lume_admin_{made['id']}_")
    assert await operations.run("admin_key.list", {}) == [made]
    assert made == {"id": made["id"], "name": "ci", "last4": key[-4:], "may_change": False, "created_ms": START_MS,
                    "expires_ms": None, "revoked_ms": None}  # fmt: skip
    found, text = await auth.caller(bearer(key), "10.0.0.1")
    assert (found.id, found.may_change, text) == (made["id"], False, key)
    await operations.run("admin_key.revoke", {"id": made["id"]})
    with pytest.raises(Unauthorized, match="unknown, expired or revoked"):
        await auth.caller(bearer(key), "10.0.0.1")
    stored = await database.read(lambda tx: "\n".join(map(str, tx.execute("SELECT * FROM admin_keys").fetchall())))
    assert key not in stored
    assert key.split("_")[-1] not in stored


async def test_a_key_expires(operations: Operations, database: Database, clock: FakeClock):
    auth = AdminAuth(database, clock, Guesses(clock, per_minute=0))
    key = (await operations.run("admin_key.create", {"expires_ms": START_MS + 10}))["key"]
    with pytest.raises(Refused, match="expired already"):
        await operations.run("admin_key.create", {"expires_ms": START_MS})

    clock.advance(9)
    await auth.caller(bearer(key), "")
    clock.advance(1)
    with pytest.raises(Unauthorized):
        await auth.caller(bearer(key), "")


@pytest.mark.parametrize(
    ("headers", "error", "told"),
    [
        ({}, Unauthorized, "No admin key"),
        ({"Authorization": "Basic abc"}, Unauthorized, "No admin key"),
        ({"x-api-key": "lume_admin_x"}, Unauthorized, "No admin key"),
        (bearer("sk-ant-1"), Unauthorized, "begin with lume_admin_"),
        (bearer("lume_admin_abcdefgh_typo"), Unauthorized, "unknown, expired"),
        (bearer("lume_\udce4"), Unauthorized, "begin with"),
        (bearer(apikey.make(os.urandom, apikey.ADMIN_PREFIX).text), Unauthorized, "unknown, expired"),
        (bearer(apikey.make(os.urandom).text), Forbidden, "an account's key"),
    ],
)
async def test_nothing_else_opens_anything(database: Database, clock: FakeClock, headers, error, told):
    with pytest.raises(error, match=told):
        await AdminAuth(database, clock, Guesses(clock, per_minute=0)).caller(headers, "10.0.0.1")


async def test_an_address_that_tries_out_keys_is_told_to_wait_and_a_right_key_passes_all_the_same(
    operations: Operations, database: Database, clock: FakeClock
):
    blocked: list[str] = []
    auth = AdminAuth(database, clock, Guesses(clock, per_minute=3), on_block=blocked.append)
    key = (await operations.run("admin_key.create", {}))["key"]
    wrong = bearer(apikey.make(os.urandom, apikey.ADMIN_PREFIX).text)
    for _ in range(3):
        with pytest.raises(Unauthorized):
            await auth.caller(wrong, "10.0.0.1")

    with pytest.raises(RateLimited) as refused:
        await auth.caller(wrong, "10.0.0.1")
    assert refused.value.retry_after_s == 60
    assert blocked == ["10.0.0.1"]
    await auth.caller(bearer(key), "10.0.0.1")
    with pytest.raises(Unauthorized):
        await auth.caller(wrong, "10.0.0.2")


async def test_an_admin_key_makes_no_call_to_a_model(lume: Proxy, upstream):
    made = await lume.run("admin_key.create")
    for path in ("/v1/messages", "/v1/responses"):
        async with lume.post(path, ask(path), headers=bearer(made["key"])) as response:
            assert response.status == 401
            assert "makes no calls to models" in await response.text()
    assert upstream.received == []
    assert made["key"] not in lume.log.getvalue()
