"""Any order of everything that may happen to credit, against a model of a few dictionaries.

After each step the audit must find nothing and the rows must be those of the model. A failing run prints the shortest steps
that fail and the seed to repeat it with; LEDGER_EXAMPLES makes a longer run.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lumeproxy.core.types import UsageRecord
from lumeproxy.errors import AccountSuspended, Missing, OutOfCredit, Refused
from lumeproxy.store import accounts, ledger
from lumeproxy.store.audit import audit
from lumeproxy.store.database import in_memory
from lumeproxy.store.ledger import CheckPoint, HoldTaken, Settled
from tests.store import books
from tests.store.books import billed, draft, point, take
from tests.support.clock import START_MS

EXAMPLES, STEPS = int(os.environ.get("LEDGER_EXAMPLES", "130")), 50
NAMES = ("ann", "bob", "cy")
OUTPUT_NANOUSD = 10_000
NEW_CALL_NANOUSD = 300_000

picks = st.integers(0, 999)
amounts = st.integers(1, 2_000_000)
tokens = st.integers(0, 120)


@dataclass
class Customer:
    id: int
    balance: int = 0
    status: str = "active"


@dataclass
class Hold:
    name: str
    amount: int
    point: CheckPoint | None = None


@dataclass
class Model:
    """What should be in the tables."""

    customers: dict[str, Customer] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    records: dict[str, tuple[str, int, int, str]] = field(default_factory=dict)  # name, cost, shortfall, ending
    grants: dict[str, tuple[str, int]] = field(default_factory=dict)
    given: int = 0
    entries: int = 0

    def held(self, name: str) -> int:
        return sum(hold.amount for hold in self.holds.values() if hold.name == name)

    def runs(self, name: str) -> bool:
        return any(hold.name == name for hold in self.holds.values())

    def left(self, name: str) -> int:
        return self.customers[name].balance - self.held(name)


class LedgerMachine(RuleBasedStateMachine):
    """Each rule calls one function as the writer does, within a transaction, and tells the model what should come of it."""

    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.tx = in_memory()
        self.model = Model()
        self.calls = 0
        self.now_ms = START_MS

    @initialize()
    def begin(self) -> None:
        books.remember(self.tx)
        for name in NAMES:
            self.model.customers[name] = Customer(accounts.create(self.tx, name, START_MS).id)
            self.granted(name, 1_500_000, None)

    def run(self, fn: Any, *args: Any, commit: bool = True) -> Any:
        self.tx.execute("BEGIN IMMEDIATE")
        try:
            return fn(self.tx, *args)
        except BaseException:
            commit = False
            raise
        finally:
            self.tx.execute("COMMIT" if commit else "ROLLBACK")

    def some(self, of: Any, pick: int) -> Any:
        found = sorted(of)
        return found[pick % len(found)]

    # --- grant -----------------------------------------------------------------------------------------------------

    def granted(self, name: str, amount: int, key: str | None) -> None:
        customer = self.model.customers[name]
        customer.balance += amount
        self.model.given += amount
        self.model.entries += 1
        found = self.run(ledger.grant, name, amount, "", key, self.now_ms)
        assert (found.balance_nanousd, found.held_nanousd) == (customer.balance, self.model.held(name))

    @rule(pick=picks, amount=amounts)
    def grant(self, pick: int, amount: int) -> None:
        name = self.some(NAMES, pick)
        if self.model.customers[name].status == "closed":
            with pytest.raises(Refused):
                self.run(ledger.grant, name, amount, "", f"key{len(self.model.grants)}", self.now_ms)
            return
        key = f"key{len(self.model.grants)}"
        self.model.grants[key] = (name, amount)
        self.granted(name, amount, key)

    @rule(pick=picks, other=st.booleans())
    def repeat_a_grant(self, pick: int, other: bool) -> None:
        if not self.model.grants:
            self.grant(0, 1)
        key = self.some(self.model.grants, pick)
        name, amount = self.model.grants[key]
        if other:
            with pytest.raises(Refused):
                self.run(ledger.grant, name, amount + 1, "", key, self.now_ms)
        else:
            found = self.run(ledger.grant, name, amount, "", key, self.now_ms)
            assert found.balance_nanousd == self.model.customers[name].balance

    # --- hold, extend, checkpoint ----------------------------------------------------------------------------------

    def an_open_call(self, pick: int) -> str:
        """One of those that run, or a new one for an account that stands open."""
        if not self.model.holds or pick % 3 == 0:
            self.model.customers["ann"].status = "active"
            self.run(accounts.set_status, "ann", "active", "", self.now_ms)
            if self.model.left("ann") < NEW_CALL_NANOUSD:
                self.granted("ann", NEW_CALL_NANOUSD, None)
            self.hold(0, NEW_CALL_NANOUSD, NEW_CALL_NANOUSD, 1)
        return str(self.some(self.model.holds, pick))

    @rule(pick=picks, want=amounts, at_least=amounts, commit=st.integers(0, 9))
    def hold(self, pick: int, want: int, at_least: int, commit: int) -> None:
        name, call_id = self.some(NAMES, pick), f"call{self.calls:04}"
        self.calls += 1
        customer, left = self.model.customers[name], self.model.left(name)
        hold = (take, call_id, customer.id, want, at_least, self.now_ms)
        if customer.status != "active":
            with pytest.raises(AccountSuspended):
                self.run(*hold)
        elif left < min(want, at_least):
            with pytest.raises(OutOfCredit):
                self.run(*hold)
        elif commit == 0:
            self.run(*hold, commit=False)
        else:
            amount = min(want, left)
            self.model.holds[call_id] = Hold(name, amount)
            assert self.run(*hold) == HoldTaken(amount, left - amount)

    @rule(pick=picks, want=amounts)
    def repeat_a_hold(self, pick: int, want: int) -> None:
        call_id = self.an_open_call(pick)
        hold = self.model.holds[call_id]
        found = self.run(take, call_id, self.model.customers[hold.name].id, want, want, self.now_ms)
        assert found == HoldTaken(hold.amount, self.model.left(hold.name))

    @rule(pick=picks, by=st.integers(-5, 1_000_000))
    def extend(self, pick: int, by: int) -> None:
        call_id = self.an_open_call(pick)
        hold = self.model.holds[call_id]
        active = self.model.customers[hold.name].status == "active"
        granted = max(0, min(by, self.model.left(hold.name))) if active else 0
        hold.amount += granted
        assert self.run(ledger.extend, call_id, by) == granted

    @rule(pick=picks, output=tokens)
    def checkpoint(self, pick: int, output: int) -> None:
        call_id = self.an_open_call(pick)
        self.model.holds[call_id].point = known = point(output_tokens=output)
        self.run(
            ledger.checkpoint, [(call_id, known), ("call-unknown", known), *[(one, known) for one in self.ended()]]
        )

    def ended(self) -> list[str]:
        return list(self.model.records)[:1]

    # --- settle, release, recover ----------------------------------------------------------------------------------

    def ends(self, call_id: str, cost: int, ending: str) -> Settled:
        """The hold is gone and its cost is paid, by the house where need be."""
        hold = self.model.holds.pop(call_id)
        customer = self.model.customers[hold.name]
        charge = min(cost, self.model.left(hold.name))
        customer.balance -= charge
        self.model.entries += (charge > 0) + (charge < cost)
        self.model.records[call_id] = (hold.name, cost, cost - charge, ending)
        return Settled(cost, cost - charge, customer.balance, self.model.left(hold.name))

    def record(self, call_id: str, name: str, output: int) -> UsageRecord:
        return billed(call_id, self.model.customers[name].id, output_tokens=output)

    @rule(pick=picks, output=tokens, commit=st.integers(0, 9))
    def settle(self, pick: int, output: int, commit: int) -> None:
        call_id = self.an_open_call(pick)
        record = self.record(call_id, self.model.holds[call_id].name, output)
        if commit == 0:
            self.run(ledger.settle, record, commit=False)
        else:
            assert self.ends(call_id, output * OUTPUT_NANOUSD, "complete") == self.run(ledger.settle, record)

    @rule(pick=picks, output=tokens)
    def settle_out_of_credit(self, pick: int, output: int) -> None:
        call_id = self.an_open_call(pick)
        hold = self.model.holds[call_id]
        cost = min(output * OUTPUT_NANOUSD, hold.amount)
        record = msgspec.structs.replace(
            self.record(call_id, hold.name, output), ending="out_of_credit", settled_by="bound", cost_nanousd=cost
        )
        settled = self.ends(call_id, cost, "out_of_credit")
        assert settled.shortfall_nanousd == 0
        assert self.run(ledger.settle, record) == settled

    @rule(pick=picks)
    def release(self, pick: int) -> None:
        call_id = self.an_open_call(pick)
        record = draft(call_id, self.model.customers[self.model.holds[call_id].name].id)
        assert self.ends(call_id, 0, "unreachable") == self.run(ledger.release, record)

    @rule(pick=picks, output=tokens)
    def repeat_on_an_ended_call(self, pick: int, output: int) -> None:
        if not self.model.records:
            self.release(pick)
        call_id = self.some(self.model.records, pick)
        name, cost, shortfall, _ = self.model.records[call_id]
        customer = self.model.customers[name]
        first = Settled(cost, shortfall, customer.balance, self.model.left(name), again=True)
        assert self.run(ledger.settle, self.record(call_id, name, output)) == first
        assert self.run(ledger.release, draft(call_id, customer.id)) == first
        with pytest.raises(Missing):
            self.run(ledger.extend, call_id, output)
        with pytest.raises(Refused):
            self.run(take, call_id, customer.id)

    @rule(spare=st.booleans(), later=st.integers(0, 2))
    def recover(self, spare: bool, later: int) -> None:
        """The process died: all that was opened before is settled, calls of this moment are spared or not."""
        self.now_ms += later
        before_ms = self.now_ms + (not spare)
        opened = {row[0]: row[1] for row in self.tx.execute("SELECT call_id, opened_ms FROM holds")}
        expected = []
        for call_id in sorted(opened, key=lambda one: (opened[one], one)):
            if opened[call_id] < before_ms:
                hold = self.model.holds[call_id]
                metered = hold.point.output_tokens * OUTPUT_NANOUSD if hold.point else 0
                expected.append((call_id, self.ends(call_id, min(metered, hold.amount), "interrupted")))
        assert self.run(ledger.recover, before_ms, self.now_ms) == expected
        assert self.run(ledger.recover, before_ms, self.now_ms) == []

    # --- suspend, resume, close ------------------------------------------------------------------------------------

    @rule(pick=picks, status=st.sampled_from(["suspended", "active"]))
    def suspend_or_resume(self, pick: int, status: str) -> None:
        name = self.some(NAMES, pick)
        if self.model.customers[name].status == "closed":
            with pytest.raises(Refused):
                self.run(accounts.set_status, name, status, "", self.now_ms)
        else:
            self.model.customers[name].status = status
            assert self.run(accounts.set_status, name, status, "", self.now_ms).status == status

    @precondition(lambda self: self.model.customers["cy"].status != "closed")
    @rule()
    def close(self) -> None:
        """Only one of the three, so that there is always something to do."""
        self.model.customers["cy"].status = "closed"
        self.run(accounts.set_status, "cy", "closed", "", self.now_ms)

    # --- after each step -------------------------------------------------------------------------------------------

    @invariant()
    def audit_finds_nothing(self) -> None:
        LedgerMachine.steps += 1
        assert audit(self.tx) == []

    @invariant()
    def rows_are_those_of_the_model(self) -> None:
        model, tx = self.model, self.tx
        rows = tx.execute("SELECT name, status, balance_nanousd, held_nanousd FROM accounts WHERE kind = 'customer'")
        assert {row[0]: row[1:] for row in rows} == {
            name: (one.status, one.balance, model.held(name)) for name, one in model.customers.items()
        }
        assert {held.call_id: (held.amount_nanousd, held.checkpoint) for held in ledger.open_holds(tx)} == {
            call_id: (hold.amount, hold.point) for call_id, hold in model.holds.items()
        }
        rows = tx.execute(
            "SELECT u.call_id, a.name, u.cost_nanousd, u.shortfall_nanousd, u.ending FROM usage u"
            " JOIN accounts a ON a.id = u.account_id"
        )
        assert {row[0]: row[1:] for row in rows} == model.records
        costs = sum(record[1] for record in model.records.values())
        short = sum(record[2] for record in model.records.values())
        house = tx.execute("SELECT balance_nanousd FROM accounts WHERE kind = 'house' ORDER BY id").fetchall()
        assert house == [(-model.given,), (costs,), (-short,)]
        assert tx.execute("SELECT count(*) FROM entries").fetchone()[0] == model.entries
        assert set(accounts.inactive_ids(tx)) == {
            one.id for name, one in model.customers.items() if one.status != "active" and model.runs(name)
        }

    def teardown(self) -> None:
        self.tx.close()


def test_any_order_of_events_keeps_the_books():
    chosen = int(os.environ.get("LEDGER_SEED", random.SystemRandom().getrandbits(32)))
    print(f"repeat with LEDGER_SEED={chosen}")  # noqa: T201  # pytest shows it when the test fails
    LedgerMachine.steps = 0

    run_state_machine_as_test(
        seed(chosen)(LedgerMachine),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )

    assert LedgerMachine.steps >= 5_000
