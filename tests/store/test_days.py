"""The sums of the days."""

from __future__ import annotations

from lumeproxy.core.limits import END, day_of
from lumeproxy.store import days, ledger
from lumeproxy.store.audit import audit
from tests.store.books import billed, customer, remember, take
from tests.support.clock import START_MS

TODAY = day_of(START_MS)
DAY_MS = 86_400_000


def settle(tx, call_id, account_id, **fields):
    record = billed(call_id, account_id, **fields)
    take(tx, call_id, account_id)
    ledger.settle(tx, record)
    return record


def test_each_settlement_is_counted_once_where_it_belongs(tx):
    ann, bob = customer(tx), customer(tx, "bob")
    remember(tx)
    first = settle(tx, "c1", ann.id, input_tokens=7, output_tokens=1, key_id="k1")
    settle(tx, "c2", ann.id, input_tokens=3, output_tokens=2, key_id="k1", ending="cut_by_upstream")
    settle(tx, "c3", ann.id, output_tokens=5, key_id="k1", time_ms=START_MS + DAY_MS)
    settle(tx, "c4", ann.id, output_tokens=5, key_id="k2", model="other")
    settle(tx, "c5", bob.id, output_tokens=5, key_id="k3", upstream="u2")
    ledger.settle(tx, first)  # again

    rows = days.of_account(tx, ann.id, TODAY)

    shown = [
        (r["day"] - TODAY, r["key_id"], r["model"], r["calls"], r["failed_calls"], r["output_tokens"]) for r in rows
    ]
    assert shown == [
        (0, "k1", "claude-test-1", 2, 1, 3),
        (0, "k2", "other", 1, 0, 5),
        (1, "k1", "claude-test-1", 1, 0, 5),
    ]
    assert (rows[0]["input_tokens"], rows[0]["cost_nanousd"]) == (10, 40_000)
    assert [r["key_id"] for r in days.of_account(tx, ann.id, TODAY + 1)] == ["k1"]
    assert [r["upstream"] for r in days.of_account(tx, bob.id, 0)] == ["u2"]
    assert audit(tx) == []


def test_what_a_key_spent_is_counted_by_the_day_on_which_its_calls_began(tx):
    ann = customer(tx)
    remember(tx)
    midnight = (TODAY + 1) * DAY_MS
    settle(tx, "c1", ann.id, output_tokens=1, key_id="k1", time_ms=midnight - 1, duration_ms=60_000)
    settle(tx, "c2", ann.id, output_tokens=2, key_id="k1", time_ms=midnight)
    settle(tx, "c3", ann.id, output_tokens=4, key_id="k2", time_ms=midnight)

    spans = [(0, END), (TODAY, TODAY + 1), (TODAY + 1, TODAY + 2), (TODAY + 2, END)]
    assert [days.spent(tx, "k1", *span) for span in spans] == [30_000, 10_000, 20_000, 0]
    assert audit(tx) == []
