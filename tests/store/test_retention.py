"""What is kept how long: cleared, folded into sums that an audit can check, and erased."""

from __future__ import annotations

from typing import Any

import pytest

from lumeproxy.core.limits import DAY_MS, day_of
from lumeproxy.errors import Missing, Refused
from lumeproxy.store import accounts, keys, ledger, retention, usage
from lumeproxy.store.audit import audit
from lumeproxy.store.retention import START
from tests.store.books import DIGEST, DOLLAR, billed, call, customer, remember, take
from tests.support.clock import START_MS

TODAY = day_of(START_MS)
WHO: dict[str, Any] = {"client_address": "10.1.2.3", "user_agent": "agent/1", "session_id": "s1", "agent_id": "a1",
       "upstream_request_id": "req_1", "error_text": "slow down"}  # fmt: skip


@pytest.fixture
def year(tx):
    """Two accounts with a call a day for ten days, today last; one with a shortfall, one that failed."""
    ann, bob = customer(tx), customer(tx, "bob", 50_000)
    remember(tx)
    for day in range(10):
        at: dict[str, Any] = {"time_ms": START_MS - (9 - day) * DAY_MS, **WHO}
        call(tx, f"a{day}", ann.id, output_tokens=day, **at)
    call(tx, "b0", bob.id, 10_000, output_tokens=7, time_ms=START_MS - 9 * DAY_MS)  # costs 20,000 more than there is
    call(tx, "b1", bob.id, 0, ending="refused", time_ms=START_MS - 8 * DAY_MS, cost_nanousd=0)
    assert audit(tx) == []
    return tx


def test_addresses_are_found_in_the_order_of_time_part_by_part(year):
    before_ms = START_MS - 5 * DAY_MS
    first = retention.with_address(year, START, before_ms, 4)
    rest = retention.with_address(year, first.place, before_ms, 4)

    # Four records each, of which bob's two have no address.
    assert (first.call_ids, first.more) == (["a0", "a1"], True)
    assert (rest.call_ids, rest.more) == (["a2", "a3"], False)
    retention.clear(year, first.call_ids)
    assert retention.with_address(year, START, before_ms, 100).call_ids == ["a2", "a3"]
    record = usage.get(year, "a1")
    assert record is not None
    assert (record.client_address, record.user_agent, record.session_id) == ("", "", "s1")
    assert retention.with_address(year, rest.place, before_ms, 4).place == rest.place


def test_deleted_records_leave_the_days_and_the_charges_and_the_books_in_order(year):
    day = TODAY - 5
    before = usage.totals(year, "model"), usage.totals(year, "day"), ledger.entries(year, "ann")
    old = retention.older(year, day, 100)
    retention.fold(year, day, old[:3])
    assert audit(year) == []  # also half-way
    retention.fold(year, day, old)

    assert old == ["a0", "b0", "a1", "b1", "a2", "a3"]
    assert (usage.totals(year, "model"), usage.totals(year, "day"), ledger.entries(year, "ann")) == before
    assert {record["call_id"] for record in usage.find(year)} == {f"a{n}" for n in range(4, 10)}
    assert year.execute("SELECT calls, failed_calls, output_tokens, cost_nanousd, shortfall_nanousd, charges, shortfalls"
                        " FROM folded ORDER BY account_id").fetchall() == [
        (4, 0, 6, 60_000, 0, 3, 0), (2, 1, 7, 70_000, 20_000, 1, 1)]  # fmt: skip
    assert retention.folded_day(year) == day
    assert audit(year) == []
    retention.fold(year, day, old)  # again
    assert audit(year) == []


def test_a_record_that_is_not_old_enough_is_not_deleted_whoever_names_it(year):
    retention.fold(year, TODAY - 5, ["a4", "a9", "nobody", "a0"])

    assert usage.get(year, "a0") is None
    assert usage.get(year, "a4") is not None
    assert usage.get(year, "a9") is not None
    assert audit(year) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("DELETE FROM usage WHERE call_id = 'a9'", "The account ann has 4 charges of 150000 nano-USD without a"),
        ("DELETE FROM usage WHERE call_id = 'a9'", "The sum of 2026-11-18 for key key00001"),
        ("DELETE FROM usage WHERE call_id = 'b1'", "The sums of the account bob before 2026-11-13 are not those"),
        ("UPDATE days SET cost_nanousd = cost_nanousd + 1 WHERE day = 20775", "The sum of 2026-11-18"),
        ("UPDATE days SET calls = calls + 1 WHERE day < 20770", "The sums of the account ann before 2026-11-13"),
        ("UPDATE days SET cost_nanousd = cost_nanousd + 1 WHERE day < 20770", "The days of the account ann sum to"),
        ("UPDATE folded SET charges = 9", "9 of 60000 were deleted when their time was over"),
        ("UPDATE folded SET shortfall_nanousd = 1, cost_nanousd = cost_nanousd - 19999 WHERE shortfalls = 1",
         "There are 1 shortfalls of 20000 nano-USD without a usage record; 1 of 1"),
        ("UPDATE usage SET output_tokens = 99 WHERE call_id = 'a8'", "The call a8 was charged"),
    ],
)  # fmt: skip
def test_the_audit_notices_what_was_altered_before_and_after_the_folded_day(year, change, told):
    day = TODAY - 5
    retention.fold(year, day, [one for one in retention.older(year, day, 100) if one != "b1"])
    assert audit(year) == []
    assert day == 20770
    year.execute("SAVEPOINT altered")
    year.execute(change)
    problems = audit(year)
    year.execute("ROLLBACK TO altered")

    assert any(told in problem for problem in problems), problems


def test_a_call_that_a_crash_left_open_on_a_folded_day_is_settled_and_then_folded(year):
    day, ann = TODAY - 5, accounts.get(year, "ann")
    retention.fold(year, day, retention.older(year, day, 100))
    take(year, "late", ann.id)
    ledger.settle(year, billed("late", ann.id, output_tokens=3, time_ms=START_MS - 9 * DAY_MS))

    assert audit(year) == []
    retention.fold(year, day, retention.older(year, day, 100))
    assert usage.get(year, "late") is None
    assert audit(year) == []


def test_the_folded_day_never_goes_back(year):
    retention.fold(year, TODAY - 2, retention.older(year, TODAY - 2, 100))
    retention.fold(year, TODAY - 8, ["a9"])

    assert retention.folded_day(year) == TODAY - 2
    assert audit(year) == []


# --- erasing -----------------------------------------------------------------------------------------------------------


def test_an_erased_account_is_a_number_with_a_ledger(year):
    keys.add(year, "key00001", "ann", DIGEST, "wxyz", "ann's laptop", ("claude-*",), START_MS, None)
    ann = retention.close(year, "ann", START_MS)
    balance = ledger.balance(year, "ann")
    look = retention.with_traces(year, ann.id, START, 100)
    retention.wipe(year, look.call_ids)
    erased = retention.erase(year, ann.id, START_MS)

    assert len(look.call_ids) == 10
    assert (erased.name, erased.status, erased.reason) == (f"erased-{ann.id}", "closed", "erased")
    assert erased.balance_nanousd == balance.balance_nanousd == DOLLAR - 450_000
    with pytest.raises(Missing):
        accounts.get(year, "ann")
    key = keys.get(year, "key00001")
    assert (key.name, key.last4, key.models, key.sha256, key.revoked_ms) == ("", "", (), bytes(32), START_MS)
    records = usage.find(year, erased.name)
    assert {record[name] for record in records for name in WHO} == {""}
    assert [record["cost_nanousd"] for record in records] == [10_000 * n for n in range(9, -1, -1)]
    assert retention.with_traces(year, ann.id, START, 100).call_ids == []
    assert retention.erase(year, ann.id, START_MS) == erased
    customer(year, "ann")  # the name is free again
    with pytest.raises(Refused, match="begin with erased-"):
        accounts.create(year, "erased-99", START_MS)
    assert audit(year) == []


def test_an_account_is_not_erased_while_a_call_of_it_is_running_nor_while_it_is_open(year):
    ann = accounts.get(year, "ann")
    with pytest.raises(Refused, match="still ending"):
        retention.erase(year, ann.id, START_MS)
    take(year, "running", ann.id)
    retention.close(year, "ann", START_MS)
    assert retention.open_calls(year, ann.id) == 1
    with pytest.raises(Refused, match="still ending"):
        retention.erase(year, ann.id, START_MS)
    with pytest.raises(Missing):
        retention.erase(year, 2, START_MS)  # the house's

    ledger.settle(year, billed("running", ann.id, output_tokens=1))
    assert retention.erase(year, ann.id, START_MS).name == f"erased-{ann.id}"
    assert audit(year) == []
