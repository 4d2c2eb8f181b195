"""What can be done to an account beside its books."""

from __future__ import annotations

import hashlib

import pytest

from lumeproxy.dashboard import operations_people
from lumeproxy.dashboard.operations import Operations
from lumeproxy.errors import Missing, Refused
from lumeproxy.store import accounts, people, sessions
from lumeproxy.store.database import Database
from lumeproxy.store.sessions import Session
from tests.support.clock import START_MS, FakeClock


@pytest.fixture(autouse=True)
async def ann(operations: Operations) -> None:
    await operations.run("account.create", {"name": "ann", "credit_nanousd": 10**9})


async def test_a_link_is_made_of_random_bytes_and_kept_as_a_digest(operations: Operations, database: Database):
    made = await operations.run("account.link", {"name": "ANN"})

    assert made["account"] == "ann" and made["expires_ms"] == START_MS + operations_people.LINK_MS
    start, _, token = made["url"].partition("?token=")
    assert start == "http://here:1/sign-in/link" and len(token) == 48
    digest = hashlib.sha256(token.encode()).digest()
    person = await database.write(sessions.use_link, digest, START_MS)
    assert person.name == "ann"
    with pytest.raises(Missing):
        await operations.run("account.link", {"name": "bob"})


async def test_without_a_server_a_link_is_a_path(database: Database, clock: FakeClock):
    alone = Operations(database, clock, on_change=lambda: None)

    assert (await alone.run("account.link", {"name": "ann"}))["url"].startswith("/sign-in/link?token=")


async def test_a_role_is_given_and_taken(operations: Operations):
    assert (await operations.run("account.admin", {"name": "ann"}))["role"] == "admin"
    assert (await operations.run("account.admin", {"name": "ann", "admin": False}))["role"] == "user"


async def test_a_new_password_keeps_one_session(operations: Operations, database: Database):
    account_id = (await database.read(accounts.get, "ann")).id
    for number in (1, 2):
        session = Session(bytes([number]) * 32, account_id, "key", START_MS, START_MS, START_MS + 9, "", "")
        await database.write(sessions.begin, session)

    await operations.run("account.password", {"name": "ann", "argon2id": "$x", "keep": "02" * 32})

    kept = await database.read(sessions.of_account, account_id, START_MS)
    assert [one.sha256 for one in kept] == [bytes([2]) * 32]
    assert await database.read(people.password, "ann") == (account_id, "$x")


async def test_accepting_terms_is_in_force_at_once(operations: Operations, database: Database, changes: list[str]):
    changes.clear()
    await operations.run("terms.accept", {"name": "ann", "version": "2"})

    assert changes == ["changed"]
    assert (await database.read(people.of, "ann")).accepted == "2"


async def test_a_registration_that_fails_leaves_nothing(operations: Operations, database: Database):
    made = await operations.run("code.create", {"name": "b", "kind": "invite", "amount_nanousd": 5, "count": 1})
    for sha256 in ("00" * 32, "00"):
        with pytest.raises(Refused, match="not valid"):
            await operations.run(
                "account.register", {"name": "eve", "argon2id": "$x", "version": "1", "sha256": sha256}
            )
    with pytest.raises(Missing):
        await operations.run("account.show", {"name": "eve"})
    assert (await operations.run("code.show", {"batch": made["id"]}))["redeemed"] == 0


async def test_erasing_an_account_forgets_it_on_the_pages_and_leaves_one_line(
    operations: Operations, database: Database
):
    account_id = (await database.read(accounts.get, "ann")).id
    await operations.run("account.password", {"name": "ann", "argon2id": "$x"})
    await operations.run("account.note", {"name": "ann", "note": "pays late"})

    erased = await operations.run("account.erase", {"name": "ann"})

    person = await database.read(people.get, account_id)
    assert (person.name, person.has_password, person.note) == (erased["account"], False, "")
    lines = [one for one in await operations.run("action.list", {}) if one["operation"] == "account.erase"]
    assert [one["account"] for one in lines] == [erased["account"]]
