"""The webhook: signed as Standard Webhooks has it, tried until it is taken, the same notice under the same id."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from lumeproxy import logs
from lumeproxy.dashboard import notifier
from lumeproxy.dashboard.notifier import HOUR_MS, Notifier, Webhook, pause_ms
from lumeproxy.store import accounts, notices
from lumeproxy.store.database import Database
from lumeproxy.store.notices import Notice
from tests.store.books import DOLLAR, call, customer, remember
from tests.support.clock import START_MS, FakeClock
from tests.support.upstream import Connection, ScriptedUpstream

SECRET = bytes(range(32))


@pytest.fixture
async def told(database: Database, clock: FakeClock, upstream: ScriptedUpstream) -> AsyncIterator[Notifier]:
    """A notifier before a receiver that a test scripts, and a notice that waits."""

    def fall(tx):
        ann = customer(tx)
        remember(tx)
        accounts.set_low_balance(tx, "ann", DOLLAR)
        call(tx, "c1", ann.id, output_tokens=1)

    await database.write(fall)
    log = logs.make(level="debug", style="json", clock=clock, stream=io.StringIO())
    async with aiohttp.ClientSession() as session:
        yield Notifier(database, clock, log, session, Webhook(upstream.url + "/hook?x=1", SECRET, 5_000, 72))


async def outcomes(database: Database) -> dict[str, int]:
    return await database.read(notices.outcomes)


async def test_a_notice_is_delivered_once_and_its_signature_can_be_checked(told, database, upstream, clock):
    upstream.script = lambda c: c.reply(b"", 204)

    assert [await told.deliver() for _ in range(2)] == [1, 0]
    (received,) = upstream.received
    assert (received.method, received.target) == ("POST", "/hook?x=1")
    assert json.loads(received.body) == {
        "type": "account.low_balance",
        "timestamp": "2026-11-18T11:06:40.000Z",
        "data": {
            "account": "ann",
            "balance_nanousd": DOLLAR - 10_000,
            "threshold_nanousd": DOLLAR,
            "time_ms": START_MS,
        },
    }
    seconds = received.header("webhook-timestamp")
    assert seconds == str(clock.now_ms() // 1000)
    signed = f"{received.header('webhook-id')}.{seconds}.".encode() + received.body
    right = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    assert received.header("webhook-signature") == f"v1,{right}"
    assert received.header("authorization") is None
    assert await outcomes(database) == {"delivered": 1}


def test_the_signature_is_that_of_the_specifications_own_example():
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'

    assert (
        notifier.signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


async def test_one_that_is_not_taken_is_tried_again_later_under_the_same_id(told, database, upstream, clock):
    async def redirect(connection: Connection) -> None:
        await connection.reply(b"", 302, {"location": upstream.url + "/elsewhere"})

    async def cut(connection: Connection) -> None:
        connection.abort()

    for number, script in enumerate([lambda c: c.reply(b"no", 500), redirect, cut, lambda c: c.reply(b"", 410)]):
        upstream.script = script
        assert [await told.deliver() for _ in range(2)] == [0, 0]
        assert len(upstream.received) == number + 1
        clock.advance(pause_ms(number) - 1)
        assert await told.deliver() == 0
        assert len(upstream.received) == number + 1
        clock.advance(1)
    upstream.script = lambda c: c.reply(b"", 200)
    assert await told.deliver() == 1

    assert {received.target for received in upstream.received} == {"/hook?x=1"}
    assert len({received.header("webhook-id") for received in upstream.received}) == 1
    assert len({received.body for received in upstream.received}) == 1
    assert await outcomes(database) == {"delivered": 1}


async def test_one_that_nobody_takes_is_given_up_after_its_time(told, database, upstream, clock):
    upstream.script = lambda c: c.reply(b"", 500)
    await told.deliver()
    clock.advance(72 * HOUR_MS + 1000)

    assert await told.deliver() == 0
    assert await outcomes(database) == {"given_up": 1}
    clock.advance(72 * HOUR_MS)
    await told.deliver()
    assert len(upstream.received) == 2


async def test_a_receiver_that_is_not_there_costs_nothing_but_a_try(told, database, upstream, clock):
    await upstream.stop()

    assert await told.deliver() == 0
    assert await outcomes(database) == {"waiting": 1}


def test_the_pauses_grow_up_to_an_hour():
    assert [pause_ms(tries) // 1000 for tries in (0, 1, 2, 6, 7, 50)] == [30, 60, 120, 1920, 3600, 3600]


def test_the_body_has_no_more_than_it_must():
    body = json.loads(notifier.content(Notice("msg_1", "ann", 1, 2, 0, 9)))

    assert (body["timestamp"], set(body["data"])) == (
        "1970-01-01T00:00:00.000Z", {"account", "balance_nanousd", "threshold_nanousd", "time_ms"})  # fmt: skip
