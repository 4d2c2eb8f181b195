"""One hold: taken, extended ahead of the meter, ended exactly once, whatever is cancelled or fails in between."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from lumeproxy import logs
from lumeproxy.core.pricing import OperatorPrice, PriceBook
from lumeproxy.core.routing import Route, RoutingTable
from lumeproxy.core.settlement import NOTHING
from lumeproxy.core.types import Ending, Terms, UsageRecord
from lumeproxy.dialects.openai_chat import OpenAIChat
from lumeproxy.errors import AccountSuspended, Missing, OutOfCredit, StoreUnavailable
from lumeproxy.proxy import call as module
from lumeproxy.proxy.admission import Admission, Billing
from lumeproxy.proxy.call import Books, Call
from lumeproxy.store import accounts, keys, ledger, usage
from lumeproxy.store.audit import audit
from lumeproxy.store.database import Database
from lumeproxy.upstreams.echo import EchoUpstream
from tests.support.clock import FakeClock

CREDIT = 100_000_000
SLICE = 1000 * 10_000  # tokens, and nano-USD a token of output
BODY = b'{"model":"m","stream":true}' + b" " * 353  # 100 tokens
HELD_IN = 101 * 125 // 100 * 1000  # one token more, and a quarter on top
DIALECT = OpenAIChat()


class Desk:
    """The books of one customer with a hundred million nano-USD, without a network."""

    def __init__(self, database: Database, clock: FakeClock) -> None:
        self.database = database
        self.log = io.StringIO()
        upstream = EchoUpstream()
        admission = Admission(
            routing=RoutingTable([Route("*", (upstream.name,), None)]),
            upstreams={upstream.name: upstream},
            prices=PriceBook([("m", OperatorPrice.of(input=1, output=10))], None),
            billing=Billing(1_000_000, 1000, 256, 32_768, 10_000_000, 131_072),
        )
        log = logs.make(level="debug", style="json", clock=clock, stream=self.log)
        self.books = Books(database, admission, clock, log, set())
        self.key: Any = None

    async def open(self) -> None:
        def customer(tx: Any) -> Any:
            accounts.create(tx, "tester", 0)
            ledger.grant(tx, "tester", CREDIT, "", None, 0)
            return keys.add(tx, "k1", "tester", b"x" * 32, "last", "", (), 0, None)

        self.key = await self.database.write(customer)

    def call(self, number: int = 1) -> Call:
        plan = self.books.admission.admit(self.key, DIALECT.name, DIALECT.ask(BODY), BODY, 0)
        draft = UsageRecord(call_id=f"call_{number}", time_ms=5, account_id=self.key.account_id, key_id="k1",
                            endpoint="/v1/chat/completions", dialect=DIALECT.name, model="m",
                            price_version=plan.price.version)  # fmt: skip
        return Call(self.books, self.key, DIALECT, plan, draft, len(BODY))

    async def held(self) -> int:
        return (await self.database.read(ledger.balance, "tester")).held_nanousd

    async def balance(self) -> int:
        return (await self.database.read(ledger.balance, "tester")).balance_nanousd

    async def records(self) -> list[dict[str, Any]]:
        return await self.database.read(usage.find)


@pytest.fixture
async def desk(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Desk]:
    database = await Database.open(tmp_path)
    made = Desk(database, clock)
    await made.open()
    yield made
    assert await database.read(audit) == []
    await database.close()


def say(call: Call, chars: int) -> None:
    call.reader.event(json.dumps({"choices": [{"delta": {"content": "x" * chars}}]}).encode())


def report(call: Call, tokens_in: int, tokens_out: int, **more: Any) -> None:
    used = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}
    call.reader.event(json.dumps({"usage": used, **more}).encode())


def tokens(chars: int) -> int:
    return -(-chars * 10 // 38)


# --- hold --------------------------------------------------------------------------------------------------------------


async def test_a_hold_is_the_input_with_a_quarter_on_top_and_a_slice_of_output(desk: Desk) -> None:
    call = desk.call()

    await call.hold()

    assert call.held_nanousd == HELD_IN + SLICE == await desk.held()
    assert call.available_nanousd == CREDIT - HELD_IN - SLICE
    await call.settle(Ending.UNREACHABLE)
    assert await desk.held() == 0


async def test_a_hold_that_is_refused_leaves_nothing(desk: Desk) -> None:
    await desk.database.write(accounts.set_status, "tester", "suspended", "test", 0)
    with pytest.raises(AccountSuspended):
        await desk.call().hold()
    await desk.database.write(accounts.set_status, "tester", "active", "", 0)
    for number in range(9):
        await desk.call(number).hold()
    await desk.call(9).hold()  # what is left is less than a slice, and enough to begin with

    with pytest.raises(OutOfCredit):
        await desk.call(10).hold()

    assert await desk.held() == CREDIT
    assert await desk.records() == []


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_a_hold_whose_caller_is_cancelled_meanwhile_is_given_back(desk: Desk, turns: int) -> None:
    await desk.books.remember(desk.call().plan.price)
    taking = asyncio.ensure_future(desk.call().hold())
    for _ in range(turns):
        await asyncio.sleep(0)

    taking.cancel()

    with pytest.raises(asyncio.CancelledError):
        await taking
    for _ in range(3):
        await desk.database.write(accounts.probe)
    assert await desk.held() == 0
    assert await desk.balance() == CREDIT
    assert {(r["ending"], r["cost_nanousd"], r["settled_by"]) for r in await desk.records()} <= {
        ("interrupted", 0, "none")
    }


async def test_a_hold_that_is_cancelled_and_then_refused_raises_no_more(desk: Desk) -> None:
    await desk.database.write(accounts.set_status, "tester", "suspended", "test", 0)
    desk.books.remembered_prices.add(desk.call().plan.price.version)
    taking = asyncio.ensure_future(desk.call().hold())
    await asyncio.sleep(0)

    taking.cancel()

    with pytest.raises(asyncio.CancelledError):
        await taking
    await desk.database.write(accounts.probe)
    assert await desk.held() == 0


# --- while it runs -----------------------------------------------------------------------------------------------------


async def test_a_hold_is_extended_before_it_is_used_up_and_without_a_wait(desk: Desk) -> None:
    call = desk.call()
    await call.hold()
    assert call.due()
    assert await call.funded()
    assert not call.due()

    say(call, 2100)  # 553 tokens: less than half a slice is left
    assert call.due()
    funding = call.funded()
    with pytest.raises(StopIteration):
        funding.send(None)  # it did not wait for the database
    await desk.database.write(accounts.probe)
    await asyncio.sleep(0)

    assert call.held_nanousd == HELD_IN + 2 * SLICE == await desk.held()
    assert not call.due()
    await call.settle(Ending.UNREACHABLE)


async def test_what_was_delivered_beyond_the_hold_is_waited_for(desk: Desk) -> None:
    call = desk.call()
    await call.hold()
    say(call, 30_000)  # 7,895 tokens at once

    assert await call.funded()

    metered = 101 * 1000 + tokens(30_000) * 10_000
    assert call.held_nanousd == await desk.held()
    assert metered <= call.held_nanousd <= metered + 2 * SLICE
    await call.settle(Ending.UNREACHABLE)


async def test_the_last_of_the_credit_is_taken_and_then_there_is_no_more(desk: Desk) -> None:
    call = desk.call()
    call.sent = True
    await call.hold()
    for _ in range(100):
        say(call, 1000)
        if call.due() and not await call.funded():
            break

    assert call.held_nanousd == CREDIT == await desk.held()
    delivered = tokens(call.reader.reading.output_chars) * 10_000
    assert CREDIT < 101 * 1000 + delivered <= CREDIT + 264 * 10_000  # no more than one event too many
    assert not await call.funded()

    settled = await call.settle(Ending.OUT_OF_CREDIT)
    assert (settled.cost_nanousd, settled.shortfall_nanousd, await desk.balance()) == (CREDIT, 0, 0)
    (record,) = await desk.records()
    assert (record["settled_by"], record["estimated"]) == ("bound", True)


async def test_extensions_are_counted_once_each(desk: Desk) -> None:
    calls = [desk.call(number) for number in range(3)]
    for call in calls:
        await call.hold()
        say(call, 6000)

    assert await asyncio.gather(*(call.funded() for call in calls)) == [True] * 3
    await asyncio.sleep(0)

    assert sum(call.held_nanousd for call in calls) == await desk.held()
    for call in calls:
        await call.settle(Ending.UNREACHABLE)


async def test_a_caller_cancelled_while_it_waits_for_an_extension_loses_none_of_it(desk: Desk) -> None:
    call = desk.call()
    call.sent = True
    await call.hold()
    say(call, 6000)
    waiting = asyncio.ensure_future(call.funded())
    await asyncio.sleep(0)

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    await desk.database.write(accounts.probe)
    assert call.held_nanousd == await desk.held() > HELD_IN + SLICE
    settled = await call.settle(Ending.INTERRUPTED)
    assert settled.cost_nanousd == 101 * 1000 + tokens(6000) * 10_000
    assert await desk.held() == 0


def failing(database: Database, times: int, error: Exception, *, at_once: bool = False) -> Callable[..., Any]:
    """A writer that fails so many times and then works."""
    left, works = [times], database.submit_urgent

    def submit(*args: Any) -> asyncio.Future[Any]:
        if left[0] == 0:
            return works(*args)
        left[0] -= 1
        if at_once:
            raise error
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_exception(error)
        return future

    return submit


@pytest.mark.parametrize("at_once", [False, True])
async def test_while_the_database_takes_no_writes_a_stream_goes_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    call = desk.call()
    call.sent = True
    await call.hold()
    no_disk = StoreUnavailable("no disk")
    monkeypatch.setattr(desk.database, "submit_urgent", failing(desk.database, 2, no_disk, at_once=at_once))

    for _ in range(2):
        say(call, 6000)
        assert await call.funded()
        assert call.due()
    assert await call.funded()

    assert call.held_nanousd == await desk.held() > 101 * 1000 + tokens(12_000) * 10_000
    settled = await call.settle(Ending.CUT_BY_CLIENT)
    assert settled.cost_nanousd == 101 * 1000 + tokens(12_000) * 10_000


async def test_an_extension_of_a_hold_that_has_ended_is_no_endless_loop(desk: Desk) -> None:
    call = desk.call()
    await call.hold()
    await desk.database.write(ledger.settle, call._record(Ending.UNREACHABLE, NOTHING, call.plan.price, "", ""))
    say(call, 6000)

    with pytest.raises(Missing):
        await call.funded()


async def test_a_free_model_is_never_out_of_credit(desk: Desk) -> None:
    desk.books.admission._prices._exact["m"] = OperatorPrice.of(input=0, output=0).named("m")
    call = desk.call()
    call.sent = True
    await call.hold()
    for _ in range(50):
        say(call, 4000)
        assert await call.funded()

    assert call.held_nanousd == 0
    assert (await call.settle(Ending.COMPLETE)).cost_nanousd == 0


async def test_a_checkpoint_is_what_is_new(desk: Desk, clock: FakeClock) -> None:
    call = desk.call()
    await call.hold()
    assert call.checkpoint() is None

    say(call, 380)
    first = call.checkpoint()
    assert first is not None
    assert (first.input_tokens, first.output_tokens, first.price_version) == (101, 100, call.plan.price.version)
    assert call.checkpoint() is None
    report(call, 50, 10**30)
    second = call.checkpoint()
    assert second is not None
    assert second.input_tokens == 50
    assert 131_072 <= second.output_tokens < 132_000  # no number that could not be booked

    await desk.database.write(ledger.checkpoint, [("call_1", second)])
    await desk.database.write(ledger.recover, clock.now_ms() + 1, clock.now_ms())
    (record,) = await desk.records()
    assert (record["ending"], record["cost_nanousd"]) == ("interrupted", HELD_IN + SLICE)


# --- at its end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [e for e in Ending if e not in (Ending.REFUSED, Ending.UNREACHABLE)])
async def test_a_bill_above_the_hold_takes_the_balance_but_where_we_ended_it_ourselves(
    desk: Desk, ending: Ending
) -> None:
    call = desk.call()
    call.sent = True
    await call.hold()
    report(call, 1000, 2000)
    bill = 1000 * 1000 + 2000 * 10_000
    capped = ending in (Ending.OUT_OF_CREDIT, Ending.INTERRUPTED)

    settled = await call.settle(ending)

    assert settled.cost_nanousd == (HELD_IN + SLICE if capped else bill)
    assert await desk.balance() == CREDIT - settled.cost_nanousd
    (record,) = await desk.records()
    assert record["settled_by"] == ("bound" if capped else "reported")


async def test_what_neither_hold_nor_balance_covers_is_the_houses(desk: Desk) -> None:
    call = desk.call()
    call.sent = True
    await call.hold()
    report(call, 1000, 20_000)
    bill = 1000 * 1000 + 20_000 * 10_000

    settled = await call.settle(Ending.COMPLETE)

    assert (settled.cost_nanousd, settled.shortfall_nanousd) == (bill, bill - CREDIT)
    assert (await desk.balance(), await desk.held()) == (0, 0)
    line = json.loads(desk.log.getvalue())
    assert (line["level"], line["shortfall_nanousd"]) == ("warning", bill - CREDIT)


async def test_a_second_settlement_changes_nothing(desk: Desk) -> None:
    call = desk.call()
    call.sent = True
    await call.hold()
    report(call, 10, 10)

    first = await call.settle(Ending.COMPLETE)
    report(call, 10, 1000)
    second = await call.settle(Ending.INTERRUPTED)

    assert first is second
    assert first.cost_nanousd == 110_000
    assert [r["ending"] for r in await desk.records()] == ["complete"]
    assert desk.log.getvalue().count('"call_1"') == 1


async def test_what_was_never_sent_costs_nothing_however_it_ended(desk: Desk) -> None:
    call = desk.call()
    await call.hold()

    settled = await call.settle(Ending.CUT_BY_CLIENT)

    assert settled.cost_nanousd == 0
    assert [(r["ending"], r["settled_by"], r["model_served"]) for r in await desk.records()] == [
        ("cut_by_client", "none", "")
    ]


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_settlement_waits_for_the_database_and_says_so_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    monkeypatch.setattr(module, "SETTLE_RETRY_S", 0)
    call = desk.call()
    call.sent = True
    await call.hold()
    report(call, 10, 10)
    no_disk = StoreUnavailable("no disk")
    monkeypatch.setattr(desk.database, "submit_urgent", failing(desk.database, 5, no_disk, at_once=at_once))

    settled = await call.settle(Ending.COMPLETE)

    assert settled.cost_nanousd == 110_000
    assert await desk.balance() == CREDIT - 110_000
    assert desk.log.getvalue().count("settlement_waits") == 1


@pytest.mark.parametrize("new_price", [False, True])
async def test_a_settlement_is_carried_out_though_its_caller_is_cancelled(desk: Desk, new_price: bool) -> None:
    call = desk.call()
    call.sent = True
    await call.hold()
    report(call, 10, 10)
    if new_price:
        desk.books.remembered_prices.clear()
    settling = asyncio.ensure_future(call.settle(Ending.COMPLETE))
    await asyncio.sleep(0)

    settling.cancel()

    with pytest.raises(asyncio.CancelledError):
        await settling
    again = await call.settle(Ending.INTERRUPTED)
    assert (again.again, again.cost_nanousd) == (True, 110_000)
    assert [(r["ending"], r["cost_nanousd"]) for r in await desk.records()] == [("complete", 110_000)]


async def test_terms_that_the_reply_states_have_their_own_price_which_is_kept_with_the_charge(desk: Desk) -> None:
    dear = OperatorPrice.of(input=2, output=20).named("m at priority")

    class Listed:
        def price(self, model: str, provider: str | None, at_ms: int, terms: Terms) -> Any:
            return dear if terms.service_tier == "priority" else OperatorPrice.of(input=1, output=10).named("m")

    desk.books.admission._prices = PriceBook([], Listed())
    call = desk.call()
    call.sent = True
    await call.hold()
    report(call, 10, 10, service_tier="priority")

    settled = await call.settle(Ending.COMPLETE)

    assert settled.cost_nanousd == 220_000
    assert (await desk.records())[0]["price_version"] == dear.version
    assert dear.version in desk.books.remembered_prices


async def test_the_estimate_learns_from_what_was_reported(desk: Desk) -> None:
    body = b'{"model":"m"}' + b" " * 38_000
    call = Call(desk.books, desk.key, DIALECT, desk.books.admission.admit(
        desk.key, DIALECT.name, DIALECT.ask(body), body, 0), desk.call().draft, len(body))  # fmt: skip
    before = call.plan.estimated_input_tokens
    call.sent = True
    await call.hold()
    report(call, 2 * before, 1)
    await call.settle(Ending.COMPLETE)

    after = desk.books.admission.admit(desk.key, DIALECT.name, DIALECT.ask(body), body, 0).estimated_input_tokens

    assert abs(after - before * 9 // 8) <= 2  # an eighth of the way to twice as many
