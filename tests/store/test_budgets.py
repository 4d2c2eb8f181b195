"""Budgets of keys: what counts, what is refused, and that parallel and running calls can't get around them."""

from __future__ import annotations

import pytest

from lumeproxy.core.limits import NO_BUDGET, USUAL, Budget, day_of
from lumeproxy.errors import BudgetSpent, Missing, OutOfCredit
from lumeproxy.store import accounts, budgets, keys, ledger
from lumeproxy.store.audit import audit
from tests.store.books import DIGEST, DOLLAR, billed, customer, draft, remember
from tests.support.clock import START_MS

DAY_MS = 86_400_000
CENT = DOLLAR // 100


@pytest.fixture
def ann(tx):
    """A customer with ten dollars and a key `k1`."""
    made = customer(tx, credit_nanousd=10 * DOLLAR)
    keys.add(tx, "k1", "ann", DIGEST, "last", "", (), START_MS, None)
    remember(tx)
    yield made
    assert audit(tx) == []


def limit(tx, **amounts):
    keys.limit(tx, "k1", USUAL, Budget(**amounts))


def hold(tx, ann, call_id, want, at_least=None, at_ms=START_MS, key="k1"):
    least = want if at_least is None else at_least
    written = draft(call_id, ann.id, key_id="k1", time_ms=at_ms)
    return ledger.hold(tx, call_id, ann.id, want, least, written, at_ms, key).amount_nanousd


def settle(tx, ann, call_id, cost_tokens, at_ms=START_MS):
    ledger.settle(tx, billed(call_id, ann.id, key_id="k1", input_tokens=cost_tokens, time_ms=at_ms))


def test_what_is_spent_and_what_running_calls_hold_both_count(tx, ann):
    limit(tx, day_nanousd=10 * CENT)
    assert hold(tx, ann, "c1", 4 * CENT) == 4 * CENT
    assert hold(tx, ann, "c2", 4 * CENT) == 4 * CENT

    with pytest.raises(
        BudgetSpent, match=r"is \$0\.10 a day: this call needs \$0\.03 at the start, and \$0\.02 is left \(\$0\.08"
    ):
        hold(tx, ann, "c3", 3 * CENT)
    assert hold(tx, ann, "c4", 3 * CENT, at_least=CENT) == 2 * CENT
    settle(tx, ann, "c1", 10_000)  # a cent
    assert budgets.left(tx, "k1", START_MS).left_nanousd == 3 * CENT
    settle(tx, ann, "c2", 0)
    settle(tx, ann, "c4", 0)
    assert budgets.left(tx, "k1", START_MS).left_nanousd == 9 * CENT


def test_the_tightest_period_decides_and_is_named(tx, ann):
    limit(tx, day_nanousd=5 * CENT, week_nanousd=3 * CENT, month_nanousd=4 * CENT, total_nanousd=9 * CENT)

    with pytest.raises(BudgetSpent, match=r"a week: .* It starts anew on 2026-11-23 at 00:00 UTC\."):
        hold(tx, ann, "c1", 6 * CENT)
    limit(tx, total_nanousd=CENT)
    with pytest.raises(BudgetSpent, match=r"in total: .* left\. Ask for a higher one"):
        hold(tx, ann, "c1", 2 * CENT)


def test_a_budget_is_new_with_its_period(tx, ann):
    limit(tx, day_nanousd=CENT)
    midnight = (day_of(START_MS) + 1) * DAY_MS
    hold(tx, ann, "c1", CENT, at_ms=midnight - 1)
    with pytest.raises(BudgetSpent):
        hold(tx, ann, "c2", 1, at_ms=midnight - 1)

    assert hold(tx, ann, "c3", CENT, at_ms=midnight) == CENT
    settle(tx, ann, "c1", 10_000, midnight - 1)
    settle(tx, ann, "c3", 10_000, midnight)
    assert budgets.left(tx, "k1", midnight - 1).left_nanousd == budgets.left(tx, "k1", midnight).left_nanousd == 0


def test_a_running_call_is_extended_within_the_budget_of_the_day_it_began_on(tx, ann):
    limit(tx, day_nanousd=10 * CENT)
    hold(tx, ann, "c1", 4 * CENT)
    hold(tx, ann, "c2", 4 * CENT, at_ms=START_MS + DAY_MS)

    assert ledger.extend(tx, "c1", 5 * CENT) == 5 * CENT
    assert ledger.extend(tx, "c1", 5 * CENT) == CENT
    assert ledger.extend(tx, "c1", 5 * CENT) == 0
    assert ledger.extend(tx, "c2", 5 * CENT) == 5 * CENT


def test_credit_is_still_the_other_limit(tx, ann):
    limit(tx, total_nanousd=100 * DOLLAR)
    with pytest.raises(OutOfCredit) as error:
        hold(tx, ann, "c1", 11 * DOLLAR)
    assert not isinstance(error.value, BudgetSpent)
    assert hold(tx, ann, "c2", 11 * DOLLAR, at_least=DOLLAR) == 10 * DOLLAR
    assert ledger.extend(tx, "c2", 1) == 0


def test_a_budget_that_is_set_while_calls_run_counts_and_binds_them(tx, ann):
    hold(tx, ann, "c1", 4 * CENT, key=None)
    hold(tx, ann, "c2", CENT, key=None)

    limit(tx, day_nanousd=6 * CENT)
    assert budgets.left(tx, "k1", START_MS).left_nanousd == CENT
    assert ledger.extend(tx, "c1", 5 * CENT) == CENT
    assert ledger.extend(tx, "c1", 5 * CENT) == 0
    keys.limit(tx, "k1", USUAL, NO_BUDGET)
    assert ledger.extend(tx, "c1", 5 * CENT) == 5 * CENT
    assert budgets.left(tx, "k1", START_MS) is None


def test_a_true_bill_above_its_hold_is_charged_and_leaves_nothing(tx, ann):
    limit(tx, day_nanousd=CENT)
    hold(tx, ann, "c1", CENT)
    settle(tx, ann, "c1", 30_000)

    assert budgets.left(tx, "k1", START_MS).left_nanousd == 0
    assert accounts.get(tx, "ann").balance_nanousd == 10 * DOLLAR - 3 * CENT
    with pytest.raises(BudgetSpent, match=r"and \$0\.00 is left\."):
        hold(tx, ann, "c2", 1)


def test_a_key_that_does_not_exist_has_no_budget(tx, ann):
    for use in (lambda: budgets.get(tx, "nobody"), lambda: budgets.put(tx, "nobody", NO_BUDGET)):
        with pytest.raises(Missing):
            use()


def test_budgets_are_found_by_index(tx, ann):
    seen = []
    tx.set_trace_callback(seen.append)
    limit(tx, day_nanousd=CENT)
    budgets.left(tx, "k1", START_MS)
    tx.set_trace_callback(None)
    queries = [q for q in seen if q.startswith("SELECT coalesce")]
    plans = {step[3] for query in queries for step in tx.execute("EXPLAIN QUERY PLAN " + query)}
    assert plans == {
        "SEARCH holds USING INDEX holds_by_budget (budget_key=?)",
        "SEARCH days USING PRIMARY KEY (key_id=? AND day>? AND day<?)",
    }
