"""Notices of low balances: written with the charge that causes them, once each time."""

from __future__ import annotations

from lumeproxy.store import accounts, ledger, notices
from tests.store.books import DOLLAR, call, customer, remember
from tests.support.clock import START_MS

PER_TOKEN = 10_000


def spend(tx, account, call_id, nanousd):
    call(tx, call_id, account.id, nanousd, output_tokens=nanousd // PER_TOKEN)


def told(tx):
    notices.stamp(tx, START_MS)
    return [(one.account, one.balance_nanousd, one.threshold_nanousd) for one in notices.due(tx, 2**62, 100)]


def test_a_balance_that_falls_below_its_threshold_is_told_once_until_it_was_above_again(tx):
    ann = customer(tx)
    remember(tx)
    accounts.set_low_balance(tx, "ann", DOLLAR // 2)

    spend(tx, ann, "c1", DOLLAR // 2)  # to the threshold, not below it
    assert told(tx) == []
    spend(tx, ann, "c2", PER_TOKEN)
    spend(tx, ann, "c3", PER_TOKEN)
    assert told(tx) == [("ann", DOLLAR // 2 - PER_TOKEN, DOLLAR // 2)]
    ledger.grant(tx, "ann", PER_TOKEN, "too little to be above", None, START_MS)
    spend(tx, ann, "c4", PER_TOKEN)
    assert len(told(tx)) == 1
    ledger.grant(tx, "ann", DOLLAR, "armed again", None, START_MS)
    assert len(told(tx)) == 1
    spend(tx, ann, "c5", DOLLAR)
    assert [balance for _, balance, _ in sorted(told(tx))] == sorted(
        [DOLLAR // 2 - PER_TOKEN, DOLLAR // 2 - 2 * PER_TOKEN]
    )


def test_the_usual_threshold_is_for_all_that_have_none_of_their_own_and_zero_never_tells(tx):
    ann, bob, eve = customer(tx), customer(tx, "bob"), customer(tx, "eve")
    remember(tx)
    notices.set_usual(tx, DOLLAR // 2)
    accounts.set_low_balance(tx, "bob", 0)
    accounts.set_low_balance(tx, "eve", DOLLAR // 4)
    for number, one in enumerate((ann, bob, eve)):
        spend(tx, one, f"c{number}", DOLLAR * 6 // 10)

    assert told(tx) == [("ann", DOLLAR * 4 // 10, DOLLAR // 2)]
    assert notices.usual(tx) == DOLLAR // 2
    assert accounts.get(tx, "eve").low_balance_nanousd == DOLLAR // 4
    spend(tx, bob, "last", DOLLAR * 4 // 10)
    assert len(told(tx)) == 1


def test_its_time_is_when_it_was_first_seen(tx):
    ann = customer(tx)
    remember(tx)
    accounts.set_low_balance(tx, "ann", DOLLAR)
    assert notices.unseen(tx) is False
    call(tx, "c1", ann.id, output_tokens=1)

    assert notices.due(tx, 2**62, 1) == []
    assert notices.unseen(tx) is True
    notices.stamp(tx, START_MS + 7)
    notices.stamp(tx, START_MS + 9)
    (notice,) = notices.due(tx, 2**62, 1)
    assert (notice.time_ms, notice.tries, notice.id[:4], len(notice.id)) == (START_MS + 7, 0, "msg_", 36)
    assert notices.unseen(tx) is False


def test_a_charge_that_is_undone_tells_nobody(tx):
    ann = customer(tx)
    remember(tx)
    accounts.set_low_balance(tx, "ann", DOLLAR)
    tx.execute("BEGIN")
    spend(tx, ann, "c1", PER_TOKEN)
    assert len(told(tx)) == 1
    tx.execute("ROLLBACK")

    assert told(tx) == []


def test_one_that_failed_waits_for_its_time_and_one_that_has_ended_is_not_due(tx):
    ann = customer(tx)
    remember(tx)
    accounts.set_low_balance(tx, "ann", DOLLAR)
    spend(tx, ann, "c1", PER_TOKEN)
    notices.stamp(tx, START_MS)
    (notice,) = notices.due(tx, START_MS, 1)
    notices.put_off(tx, notice.id, START_MS + 50)

    assert notices.due(tx, START_MS + 49, 1) == []
    assert [one.tries for one in notices.due(tx, START_MS + 50, 1)] == [1]
    notices.end(tx, notice.id, notices.DELIVERED)
    notices.end(tx, notice.id, notices.GIVEN_UP)
    assert notices.outcomes(tx) == {"delivered": 1}
    assert notices.due(tx, 2**62, 1) == []
    assert [notices.forget(tx, at, 9) for at in (START_MS, 2**62)] == [0, 1]
