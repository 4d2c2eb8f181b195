"""Credit: each function on its own, at its edges and repeated. Figures are nano-USD."""

from __future__ import annotations

import asyncio
import sqlite3

import msgspec
import pytest

from lumeproxy.core.pricing import encode_price
from lumeproxy.errors import AccountSuspended, Missing, OutOfCredit, Refused
from lumeproxy.store import accounts, ledger, prices, usage
from lumeproxy.store.ledger import MAX_GRANT_NANOUSD, Balance, EntryRow, HoldTaken, Settled
from tests.store import books
from tests.store.books import DOLLAR, TWICE, billed, call, customer, draft, point, remember, take
from tests.support.clock import START_MS


def balance(tx, name="ann"):
    found = ledger.balance(tx, name)
    return found.balance_nanousd, found.held_nanousd


def house(tx):
    """What the house's accounts have: credit given, revenue, shortfall."""
    return tuple(row[0] for row in tx.execute("SELECT balance_nanousd FROM accounts WHERE kind = 'house' ORDER BY id"))


# --- grants ------------------------------------------------------------------------------------------------------------


def test_a_grant_comes_from_the_house(tx):
    accounts.create(tx, "ann", 0)

    assert ledger.grant(tx, "Ann", 700, "hello", None, 5) == Balance("ann", 700, 0, 700)

    assert house(tx) == (-700, 0, 0)
    assert ledger.entries(tx, "ann") == [EntryRow(1, 5, "grant", 700, None, "hello")]


def test_a_key_grants_once_and_no_key_each_time(tx):
    accounts.create(tx, "ann", 0)
    for _ in range(1000):
        assert ledger.grant(tx, "ann", 700, "x", "order-1", 5).balance_nanousd == 700
    ledger.grant(tx, "ann", 700, "x", "order-2", 5)
    ledger.grant(tx, "ann", 700, "x", None, 5)
    ledger.grant(tx, "ann", 700, "x", None, 5)

    assert balance(tx) == (2800, 0)
    assert len(ledger.entries(tx, "ann")) == 4


@pytest.mark.parametrize(("name", "amount", "note"), [("bob", 700, "x"), ("ann", 701, "x"), ("ann", 700, "y")])
def test_a_key_with_other_parameters_is_refused(tx, name, amount, note):
    for customer_name in ("ann", "bob"):
        accounts.create(tx, customer_name, 0)
    ledger.grant(tx, "ann", 700, "x", "order-1", 5)

    with pytest.raises(Refused, match="idempotency key was used before"):
        ledger.grant(tx, name, amount, note, "order-1", 6)

    assert (balance(tx, "ann"), balance(tx, "bob")) == ((700, 0), (0, 0))


@pytest.mark.parametrize("amount", [0, -1, -DOLLAR, MAX_GRANT_NANOUSD + 1, 2**70])
def test_amounts_that_are_no_grant_are_refused(tx, amount):
    accounts.create(tx, "ann", 0)

    with pytest.raises(Refused, match=r"above \$0 and at most \$1,000,000\.00"):
        ledger.grant(tx, "ann", amount, "", None, 5)

    assert balance(tx) == (0, 0)


def test_the_largest_and_the_smallest_grant(tx):
    accounts.create(tx, "ann", 0)
    ledger.grant(tx, "ann", MAX_GRANT_NANOUSD, "", None, 5)

    assert ledger.grant(tx, "ann", 1, "", None, 5).balance_nanousd == 10**15 + 1


def test_who_may_be_granted(tx):
    customer(tx, "ann", 10)
    accounts.set_status(tx, "ann", "suspended", "x", 1)
    ledger.grant(tx, "ann", 5, "", "k", 2)
    accounts.set_status(tx, "ann", "closed", "x", 3)

    assert ledger.grant(tx, "ann", 5, "", "k", 4).balance_nanousd == 15  # a repeat is an answer, not a grant
    with pytest.raises(Refused, match="ann is closed"):
        ledger.grant(tx, "ann", 5, "", None, 5)
    for name in ("bob", "house:revenue"):
        with pytest.raises(Missing):
            ledger.grant(tx, name, 5, "", None, 5)
        with pytest.raises(Missing):
            ledger.balance(tx, name)


# --- entries -----------------------------------------------------------------------------------------------------------


def test_entries_are_signed_and_newest_first_and_can_be_continued(tx):
    ann = customer(tx, "ann", DOLLAR)
    customer(tx, "bob", 77)
    call(tx, "call1", ann.id, input_tokens=3)
    call(tx, "call2", ann.id, output_tokens=2)

    rows = ledger.entries(tx, "ann")

    assert [(row.kind, row.amount_nanousd, row.call_id) for row in rows] == [
        ("charge", -20_000, "call2"),
        ("charge", -3_000, "call1"),
        ("grant", DOLLAR, None),
    ]
    assert rows[0].time_ms == START_MS + 1_000
    assert ledger.entries(tx, "ann", limit=2) == rows[:2]
    assert ledger.entries(tx, "ann", 2, rows[1].id) == rows[2:]
    assert [row.amount_nanousd for row in ledger.entries(tx, "bob")] == [77]
    with pytest.raises(Missing):
        ledger.entries(tx, "cy")


def test_entries_cannot_be_changed_or_removed(tx):
    customer(tx)
    for statement in ("UPDATE entries SET note = 'x'", "DELETE FROM entries"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            tx.execute(statement)


# --- holds -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("credit", "want", "at_least", "amount"),
    [
        (1_000, 300, 300, 300),
        (1_000, 1_000, 1_000, 1_000),
        (1_000, 1_001, 1_000, 1_000),
        (1_000, 5_000, 1, 1_000),
        (1_000, 5_000, 1_001, None),
        (1_000, 1_001, 9_999, None),
        (1_000, 900, 9_999, 900),
        (0, 1, 1, None),
        (0, 1, 0, 0),
        (0, 0, 0, 0),
        (1_000, 0, 0, 0),
    ],
)
def test_a_hold_is_what_is_wanted_or_all_that_suffices(tx, credit, want, at_least, amount):
    ann = customer(tx, "ann", credit)

    if amount is None:
        with pytest.raises(OutOfCredit):
            take(tx, "call1", ann.id, want, at_least)
        assert ledger.open_holds(tx) == []
        assert balance(tx) == (credit, 0)
    else:
        assert take(tx, "call1", ann.id, want, at_least) == HoldTaken(amount, credit - amount)
        assert balance(tx) == (credit, amount)
        assert [held.amount_nanousd for held in ledger.open_holds(tx)] == [amount]


def test_holds_add_up_and_the_last_takes_the_rest(tx):
    ann, bob = customer(tx, "ann", 1_000), customer(tx, "bob", 1_000)
    assert take(tx, "bob1", bob.id, 999) == HoldTaken(999, 1)

    assert take(tx, "call1", ann.id, 400) == HoldTaken(400, 600)
    assert take(tx, "call2", ann.id, 350) == HoldTaken(350, 250)
    assert take(tx, "call3", ann.id, 400, at_least=250) == HoldTaken(250, 0)
    with pytest.raises(OutOfCredit):
        take(tx, "call4", ann.id, 1, at_least=1)

    assert {held.call_id: held.amount_nanousd for held in ledger.open_holds(tx)} == {
        "bob1": 999, "call1": 400, "call2": 350, "call3": 250,
    }  # fmt: skip


def test_a_hold_of_exactly_the_rest_is_held_once(tx):
    ann = customer(tx, "ann", 1_000)
    take(tx, "call1", ann.id, 400)

    assert take(tx, "call2", ann.id, 600) == HoldTaken(600, 0)


def test_repeating_a_hold_returns_the_first(tx):
    ann = customer(tx, "ann", 1_000)
    take(tx, "call1", ann.id, 5_000, at_least=1)
    for _ in range(1000):
        assert take(tx, "call1", ann.id, 5_000, at_least=5_000) == HoldTaken(1_000, 0)

    assert balance(tx) == (1_000, 1_000)


def test_a_call_that_has_ended_is_not_held_again(tx):
    """Such a hold could never be settled, and would stop the recovery at the next start."""
    ann = customer(tx)
    call(tx, "call1", ann.id, input_tokens=5)
    take(tx, "call2", ann.id)
    ledger.release(tx, draft("call2", ann.id))

    for call_id in ("call1", "call2"):
        with pytest.raises(Refused, match=f"The call {call_id} has ended"):
            take(tx, call_id, ann.id)

    assert balance(tx) == (DOLLAR - 5_000, 0)
    assert ledger.recover(tx, START_MS + 1, START_MS) == []


@pytest.mark.parametrize("status", ["suspended", "closed"])
def test_an_inactive_account_holds_nothing(tx, status):
    ann = customer(tx)
    accounts.set_status(tx, "ann", status, "x", 1)

    with pytest.raises(AccountSuspended, match=f"This account is {status}"):
        take(tx, "call1", ann.id)

    assert balance(tx) == (DOLLAR, 0)


def test_an_account_that_does_not_exist_holds_nothing(tx):
    with pytest.raises(Missing, match="does not exist"):
        take(tx, "call1", 999)


def test_out_of_credit_says_what_is_needed_and_what_is_left(tx):
    ann = customer(tx, "ann", 3 * DOLLAR // 2)
    take(tx, "call1", ann.id, DOLLAR)

    with pytest.raises(OutOfCredit) as refused:
        take(tx, "call2", ann.id, 2 * DOLLAR, at_least=DOLLAR)

    assert str(refused.value) == (
        "Out of credit: this call needs $1.00 at the start, and $0.50 is left ($1.00 more is set aside for calls that "
        "are running). Ask your operator to top up the account."
    )
    ledger.release(tx, draft("call1", ann.id))
    with pytest.raises(OutOfCredit, match=r"and \$1\.50 is left\. Ask"):
        take(tx, "call3", ann.id, 2 * DOLLAR)


def test_the_table_refuses_what_the_code_never_does(tx):
    ann = customer(tx, "ann", 1_000)
    take(tx, "call1", ann.id, 400)

    for change in ("held_nanousd = 1001", "held_nanousd = -1", "balance_nanousd = 399", "balance_nanousd = -1"):
        with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
            tx.execute(f"UPDATE accounts SET {change} WHERE id = {ann.id}")
    tx.execute("BEGIN")
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        take(tx, "call2", ann.id, -1)
    tx.execute("ROLLBACK")


@pytest.mark.parametrize(("at_least", "holders", "held"), [(1_000_000, 30, 30_000_000), (1, 31, 30_500_000)])
async def test_a_hundred_parallel_holders_hold_no_more_than_there_is(database, at_least, holders, held):
    ann = await database.write(customer, "ann", 30_500_000)

    found = await asyncio.gather(
        *(database.write(take, f"call{n}", ann.id, 1_000_000, at_least) for n in range(100)), return_exceptions=True
    )

    taken = [one for one in found if isinstance(one, HoldTaken)]
    assert (len(taken), sum(one.amount_nanousd for one in taken)) == (holders, held)
    assert sum(isinstance(one, OutOfCredit) for one in found) == 100 - holders
    assert min(one.available_nanousd for one in taken) == 30_500_000 - held
    assert await database.read(ledger.balance, "ann") == Balance("ann", 30_500_000, held, 30_500_000 - held)


# --- extensions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("by", "granted"), [(100, 100), (600, 600), (601, 600), (10**12, 600), (0, 0), (-5, 0)])
def test_an_extension_is_what_is_wanted_or_what_is_left(tx, by, granted):
    ann = customer(tx, "ann", 1_000)
    take(tx, "call1", ann.id, 400)

    assert ledger.extend(tx, "call1", by) == granted

    assert balance(tx) == (1_000, 400 + granted)
    assert ledger.open_holds(tx)[0].amount_nanousd == 400 + granted


def test_nothing_is_left_to_extend_by(tx):
    ann = customer(tx, "ann", 1_000)
    take(tx, "call1", ann.id, 1_000)

    assert ledger.extend(tx, "call1", 1) == 0


def test_an_extension_leaves_what_others_hold(tx):
    ann = customer(tx, "ann", 1_000)
    take(tx, "call1", ann.id, 300)
    take(tx, "call2", ann.id, 300)

    assert (ledger.extend(tx, "call1", 300), ledger.extend(tx, "call2", 300)) == (300, 100)


@pytest.mark.parametrize("status", ["suspended", "closed"])
def test_an_inactive_account_is_not_extended(tx, status):
    ann = customer(tx, "ann", 1_000)
    take(tx, "call1", ann.id, 300)
    accounts.set_status(tx, "ann", status, "x", 1)

    assert ledger.extend(tx, "call1", 300) == 0
    assert balance(tx) == (1_000, 300)


def test_an_ended_hold_is_not_extended(tx):
    ann = customer(tx)
    call(tx, "call1", ann.id)

    for call_id in ("call1", "never"):
        with pytest.raises(Missing, match=f"There is no open hold {call_id}"):
            ledger.extend(tx, call_id, 5)


# --- checkpoints -------------------------------------------------------------------------------------------------------


def test_the_last_checkpoint_of_an_open_call_is_kept(tx):
    ann = customer(tx)
    for n in range(3):
        take(tx, f"call{n}", ann.id, opened_ms=START_MS - n)
    ledger.settle(tx, billed("call0", ann.id))

    ledger.checkpoint(tx, [("call0", point(input_tokens=1)), ("call1", point(input_tokens=1)), ("no", point())])
    ledger.checkpoint(tx, [("call1", point(input_tokens=9, ttfb_ms=None))])
    ledger.checkpoint(tx, [])

    assert [(held.call_id, held.checkpoint) for held in ledger.open_holds(tx)] == [
        ("call2", None),
        ("call1", point(input_tokens=9, ttfb_ms=None)),
    ]


def test_an_open_hold_keeps_the_draft(tx):
    ann = customer(tx)
    given = draft("call1", ann.id, user_agent="claude-cli/2", session_id="s", client_address="10.0.0.1")
    ledger.hold(tx, "call1", ann.id, 50, 50, given, 77)

    (found,) = ledger.open_holds(tx)
    assert (found.call_id, found.account_id, found.amount_nanousd, found.opened_ms) == ("call1", ann.id, 50, 77)
    assert found.draft == given


# --- settlements -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("credit", "hold", "tokens", "settled"),
    [
        (1_000_000, 500_000, 120, Settled(120_000, 0, 880_000, 880_000)),
        (1_000_000, 500_000, 500, Settled(500_000, 0, 500_000, 500_000)),
        (1_000_000, 500_000, 900, Settled(900_000, 0, 100_000, 100_000)),
        (1_000_000, 500_000, 1_000, Settled(1_000_000, 0, 0, 0)),
        (1_000_000, 500_000, 1_001, Settled(1_001_000, 1_000, 0, 0)),
        (1_000_000, 1_000_000, 50_000, Settled(50_000_000, 49_000_000, 0, 0)),
        (0, 0, 7, Settled(7_000, 7_000, 0, 0)),
        (1_000_000, 500_000, 0, Settled(0, 0, 1_000_000, 1_000_000)),
    ],
    ids=["below the hold", "the hold", "above the hold", "all", "short", "far short", "nothing there", "free"],
)
def test_a_settlement_charges_the_cost_and_gives_back_the_rest(tx, credit, hold, tokens, settled):
    ann = customer(tx, "ann", credit)
    take(tx, "call1", ann.id, hold)
    record = billed("call1", ann.id, input_tokens=tokens)

    assert ledger.settle(tx, record) == settled

    charged = settled.cost_nanousd - settled.shortfall_nanousd
    assert balance(tx) == (credit - charged, 0)
    assert house(tx) == (-credit, settled.cost_nanousd, -settled.shortfall_nanousd)
    kept = usage.get(tx, "call1")
    assert kept == msgspec.structs.replace(record, shortfall_nanousd=settled.shortfall_nanousd)
    moves = tx.execute("SELECT kind, amount_nanousd, note FROM entries WHERE call_id = 'call1' ORDER BY id").fetchall()
    assert moves == [("charge", charged, "")] * bool(charged) + [
        ("adjustment", settled.shortfall_nanousd, "shortfall")
    ] * bool(settled.shortfall_nanousd)


def test_what_other_calls_hold_is_not_charged(tx):
    ann = customer(tx, "ann", 1_000_000)
    take(tx, "other", ann.id, 700_000)
    take(tx, "call1", ann.id, 200_000)

    assert ledger.settle(tx, billed("call1", ann.id, input_tokens=400)) == Settled(400_000, 100_000, 700_000, 0)
    assert balance(tx) == (700_000, 700_000)


def test_an_extended_hold_is_given_back_whole(tx):
    ann = customer(tx, "ann", 1_000_000)
    take(tx, "call1", ann.id, 100_000)
    ledger.extend(tx, "call1", 300_000)

    assert ledger.settle(tx, billed("call1", ann.id, input_tokens=1)) == Settled(1_000, 0, 999_000, 999_000)


def test_settling_again_returns_the_first_answer_whatever_it_says(tx):
    ann = customer(tx, "ann", 1_000_000)
    take(tx, "call1", ann.id, 500_000)
    first = billed("call1", ann.id, input_tokens=1_001)
    ledger.settle(tx, first)
    before = balance(tx), house(tx), usage.get(tx, "call1")

    for n in range(1000):
        again = ledger.settle(tx, billed("call1", ann.id, input_tokens=n))
        assert again == Settled(1_001_000, 1_000, 0, 0, again=True)

    assert (balance(tx), house(tx), usage.get(tx, "call1")) == before
    assert len(ledger.entries(tx, "ann")) == 2


async def test_parallel_settlements_of_one_call_charge_once(database):
    ann = await database.write(customer)
    await database.write(take, "call1", ann.id)
    record = billed("call1", ann.id, input_tokens=5)

    found = await asyncio.gather(*(database.submit_urgent(ledger.settle, record) for _ in range(200)))

    assert [one.again for one in found].count(False) == 1
    assert {one.cost_nanousd for one in found} == {5_000}
    assert await database.read(ledger.balance, "ann") == Balance("ann", DOLLAR - 5_000, 0, DOLLAR - 5_000)


def test_what_was_never_held_is_not_settled(tx):
    ann = customer(tx)

    with pytest.raises(Missing, match="There is no hold call1"):
        ledger.settle(tx, billed("call1", ann.id, input_tokens=5))

    assert balance(tx) == (DOLLAR, 0)
    assert usage.get(tx, "call1") is None


@pytest.mark.parametrize("status", ["suspended", "closed"])
def test_a_running_call_is_charged_after_its_account_was_stopped(tx, status):
    ann = customer(tx)
    take(tx, "call1", ann.id)
    accounts.set_status(tx, "ann", status, "x", 1)

    assert ledger.settle(tx, billed("call1", ann.id, input_tokens=5)).cost_nanousd == 5_000
    assert balance(tx) == (DOLLAR - 5_000, 0)


async def test_a_settlement_that_fails_half_way_leaves_the_hold(database):
    ann = await database.write(customer)
    await database.write(take, "call1", ann.id)

    with pytest.raises(sqlite3.IntegrityError):
        await database.write(ledger.settle, billed("call1", ann.id, input_tokens=5, cache_read_tokens=-1))

    assert await database.read(ledger.balance, "ann") == Balance("ann", DOLLAR, 1_000_000, DOLLAR - 1_000_000)
    assert len(await database.read(ledger.open_holds)) == 1
    assert (await database.write(ledger.settle, billed("call1", ann.id, input_tokens=5))).again is False


def test_a_release_gives_everything_back_and_keeps_a_record(tx):
    ann = customer(tx, "ann", 1_000_000)
    take(tx, "call1", ann.id, 500_000)
    record = draft("call1", ann.id, ending="unreachable", error_code="upstream_unreachable")

    assert ledger.release(tx, record) == Settled(0, 0, 1_000_000, 1_000_000)

    assert balance(tx) == (1_000_000, 0)
    assert usage.get(tx, "call1") == record
    assert [row.kind for row in ledger.entries(tx, "ann")] == ["grant"]
    assert ledger.release(tx, record).again is True


def test_a_release_charges_nothing(tx):
    ann = customer(tx)
    take(tx, "call1", ann.id)

    with pytest.raises(ValueError, match="charges nothing"):
        ledger.release(tx, billed("call1", ann.id, input_tokens=1))

    assert balance(tx) == (DOLLAR, 1_000_000)


# --- recovery ----------------------------------------------------------------------------------------------------------


def test_a_call_without_a_checkpoint_is_released(tx):
    ann = customer(tx, "ann", 1_000_000)
    take(tx, "call1", ann.id, 500_000)

    assert ledger.recover(tx, START_MS + 1, START_MS + 9_000) == [("call1", Settled(0, 0, 1_000_000, 1_000_000))]

    assert usage.get(tx, "call1") == draft(
        "call1", ann.id, ending="interrupted", error_code="process_died", duration_ms=9_000
    )


def test_a_call_is_charged_by_its_last_checkpoint(tx):
    ann = customer(tx, "ann", DOLLAR)
    take(tx, "call1", ann.id, 900_000_000)
    counted = {
        "input_tokens": 100,  # 100,000
        "cache_read_tokens": 1_000,  # 100,000
        "cache_write_5m_tokens": 10,  # 20,000
        "cache_write_1h_tokens": 10,  # 30,000
        "output_tokens": 20,  # 200,000
        "web_search_requests": 2,  # 10,000,000
        "reasoning_tokens": 7,
    }
    ledger.checkpoint(tx, [("call1", point(**counted))])

    ((call_id, settled),) = ledger.recover(tx, START_MS + 1, START_MS + 60_000)

    assert (call_id, settled.cost_nanousd, settled.shortfall_nanousd) == ("call1", 10_450_000, 0)
    assert balance(tx) == (DOLLAR - 10_450_000, 0)
    assert usage.get(tx, "call1") == draft(
        "call1",
        ann.id,
        **counted,
        model_served="claude-test-1-dated",
        status=200,
        ttfb_ms=70,
        ending="interrupted",
        error_code="process_died",
        duration_ms=60_000,
        cost_nanousd=10_450_000,
        estimated=True,
        settled_by="checkpoint",
    )


def test_recovery_knows_what_the_provider_bills_where_the_checkpoint_says_it(tx):
    ann = customer(tx, "ann", DOLLAR)
    remember(tx, TWICE)
    where = {"upstream": "second", "credential": 3}
    for call_id, version in (("call1", TWICE.version), ("call2", "")):
        take(tx, call_id, ann.id, 100_000_000)
        ledger.checkpoint(tx, [(call_id, point(input_tokens=10, upstream_price_version=version, **where))])
    ledger.recover(tx, START_MS + 1, START_MS + 60_000)

    found = [usage.get(tx, call_id) for call_id in ("call1", "call2")]
    assert [(r.upstream, r.credential, r.cost_nanousd) for r in found] == [("second", 3, 10_000)] * 2
    assert [(r.upstream_cost_nanousd, r.upstream_price_version) for r in found] == [(200_000, TWICE.version), (0, "")]


def test_a_checkpoint_of_an_older_version_is_still_read(tx):
    ann = customer(tx, "ann", DOLLAR)
    take(tx, "call1", ann.id, 100_000_000)
    ledger.checkpoint(tx, [("call1", point(input_tokens=10))])
    tx.execute("UPDATE holds SET checkpoint = CAST(json_remove(CAST(checkpoint AS TEXT), '$.upstream', '$.credential',"
               " '$.upstream_price_version') AS BLOB)")  # fmt: skip

    ((_, settled),) = ledger.recover(tx, START_MS + 1, START_MS + 60_000)
    assert settled.cost_nanousd == 10_000


def test_a_checkpoint_with_absurd_numbers_does_not_keep_the_server_from_starting(tx):
    ann = customer(tx, "ann", DOLLAR)
    take(tx, "call1", ann.id, 100_000)
    ledger.checkpoint(tx, [("call1", point(input_tokens=10**20, output_tokens=-5))])

    ((_, settled),) = ledger.recover(tx, START_MS + 1, START_MS)

    assert settled.cost_nanousd == 100_000
    assert usage.get(tx, "call1").settled_by == "bound"
    assert balance(tx) == (DOLLAR - 100_000, 0)


def test_an_interrupted_call_costs_at_most_what_was_held(tx):
    ann = customer(tx, "ann", DOLLAR)
    take(tx, "call1", ann.id, 100_000)
    take(tx, "call2", ann.id, 100_000)
    ledger.checkpoint(tx, [("call1", point(input_tokens=100)), ("call2", point(input_tokens=101))])

    found = dict(ledger.recover(tx, START_MS + 1, START_MS))

    assert [found[call_id].cost_nanousd for call_id in ("call1", "call2")] == [100_000, 100_000]
    assert [usage.get(tx, call_id).settled_by for call_id in ("call1", "call2")] == ["checkpoint", "bound"]
    assert balance(tx) == (DOLLAR - 200_000, 0)


def test_recovery_bills_at_the_checkpoints_price_and_the_drafts_multiplier(tx):
    prices.remember(tx, TWICE.version, encode_price(TWICE), START_MS)
    ann = customer(tx, "ann", DOLLAR)
    ledger.hold(tx, "call1", ann.id, DOLLAR, 0, draft("call1", ann.id, multiplier_ppm=1_500_000), START_MS)
    ledger.checkpoint(tx, [("call1", point(input_tokens=3, price_version=TWICE.version))])

    ((_, settled),) = ledger.recover(tx, START_MS + 1, START_MS)

    assert settled.cost_nanousd == 90_000  # 3 tokens at 20,000, half as much again
    assert usage.get(tx, "call1").price_version == TWICE.version


def test_recovery_takes_what_was_opened_before_and_repeats_to_nothing(tx):
    ann = customer(tx)
    for n in range(4):
        take(tx, f"call{n}", ann.id, opened_ms=START_MS + n)

    assert [call_id for call_id, _ in ledger.recover(tx, START_MS + 2, START_MS)] == ["call0", "call1"]
    assert ledger.recover(tx, START_MS + 2, START_MS) == []
    assert balance(tx) == (DOLLAR, 2_000_000)
    assert [call_id for call_id, _ in ledger.recover(tx, START_MS + 4, START_MS)] == ["call2", "call3"]
    assert balance(tx) == (DOLLAR, 0)


def test_recovery_under_a_clock_that_was_set_back_has_no_negative_duration(tx):
    ann = customer(tx)
    take(tx, "call1", ann.id)

    ledger.recover(tx, START_MS + 1, START_MS - 86_400_000)

    assert usage.get(tx, "call1").duration_ms == 0


def test_recovery_charges_accounts_that_were_stopped_meanwhile(tx):
    ann = customer(tx)
    take(tx, "call1", ann.id)
    ledger.checkpoint(tx, [("call1", point(input_tokens=4))])
    accounts.set_status(tx, "ann", "closed", "x", 1)

    ledger.recover(tx, START_MS + 1, START_MS)

    assert balance(tx) == (DOLLAR - 4_000, 0)


async def test_recovery_halts_rather_than_booking_without_a_price(database):
    ann = await database.write(customer)
    await database.write(take, "call1", ann.id)
    await database.write(ledger.checkpoint, [("call1", point(input_tokens=4, price_version="p_lost"))])

    with pytest.raises(ValueError, match="the price p_lost of the open call call1 is missing"):
        await database.write(ledger.recover, START_MS + 1, START_MS)

    assert await database.read(ledger.balance, "ann") == Balance("ann", DOLLAR, 1_000_000, DOLLAR - 1_000_000)


# --- all together ------------------------------------------------------------------------------------------------------


def test_every_step_of_every_function_keeps_the_sum_at_zero(tx):
    ann, bob = customer(tx, "ann", 1_000_000), customer(tx, "bob", 2_000_000)
    steps = [
        lambda: take(tx, "call1", ann.id, 400_000),
        lambda: take(tx, "call2", bob.id, 400_000),
        lambda: ledger.extend(tx, "call1", 100_000),
        lambda: ledger.settle(tx, billed("call1", ann.id, input_tokens=2_000)),
        lambda: ledger.release(tx, draft("call2", bob.id)),
        lambda: take(tx, "call3", bob.id, 400_000),
        lambda: ledger.checkpoint(tx, [("call3", point(output_tokens=9))]),
        lambda: ledger.recover(tx, START_MS + 1, START_MS),
    ]
    held = []
    for step in steps:
        step()
        total, all_held = books.sums(tx)
        assert total == 0
        held.append(all_held)

    assert held == [400_000, 800_000, 900_000, 400_000, 0, 400_000, 400_000, 0]
    assert (balance(tx, "ann"), balance(tx, "bob")) == ((0, 0), (1_910_000, 0))
    assert house(tx) == (-3_000_000, 2_090_000, -1_000_000)
