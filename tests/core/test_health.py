"""When an upstream is left alone and tried again: by hand, and whatever happens in whatever order."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lumeproxy.core.health import LONGEST_WAIT_MS, Circuit, HealthRules, RepeatBudget, State

RULES = HealthRules(failures=5, rest_ms=30_000, longest_rest_ms=300_000, set_aside_ms=600_000)
NOW = 1_000_000


def fail(circuit: Circuit, times: int, now_ms: int = NOW) -> bool:
    """Fail so often, outside of a trial; whether the last one opened it."""
    opened = [circuit.failed(now_ms, probe=circuit.begin()) for _ in range(times)]
    return opened[-1]


# --- opening -----------------------------------------------------------------------------------------------------------


def test_the_fifth_failure_in_a_row_opens_it_for_half_a_minute():
    circuit = Circuit(RULES)

    assert not fail(circuit, 4)
    assert circuit.available(NOW)
    assert fail(circuit, 1)

    assert circuit.state(NOW) is State.OPEN
    assert not circuit.available(NOW + 29_999)
    assert (circuit.state(NOW + 30_000), circuit.available(NOW + 30_000)) == (State.HALF_OPEN, True)


def test_a_success_in_between_begins_the_row_anew():
    circuit = Circuit(RULES)
    fail(circuit, 4)
    circuit.succeeded(NOW)

    assert not fail(circuit, 4)
    assert circuit.available(NOW)


@pytest.mark.parametrize(("apart_ms", "opens"), [(1_000, True), (1_578, True), (1_579, False)])
def test_half_of_twenty_calls_within_half_a_minute_open_it_too(apart_ms, opens):
    circuit = Circuit(RULES)
    opened = False
    for number in range(20):
        at_ms = NOW + number * apart_ms
        if number % 2:
            opened = circuit.failed(at_ms, probe=circuit.begin())
        else:
            circuit.succeeded(at_ms)

    assert opened is opens
    assert circuit.available(NOW + 19 * apart_ms) is not opens


def test_less_than_half_does_not():
    circuit = Circuit(RULES)
    for number in range(200):
        if number % 20 in (1, 3, 5, 7, 9, 11, 13, 15, 17):
            assert not circuit.failed(NOW, probe=False)
        else:
            circuit.succeeded(NOW)

    assert circuit.available(NOW)


def test_what_an_upstream_asks_for_is_granted_at_once_and_within_an_hour():
    for asked_ms, until_ms in ((45_000, 45_000), (6_000, 30_000), (10**12, LONGEST_WAIT_MS)):
        circuit = Circuit(RULES)
        assert circuit.failed(NOW, probe=False, wait_ms=asked_ms)
        assert circuit.until_ms == NOW + until_ms


def test_failures_of_calls_that_began_before_say_nothing_new_but_for_a_longer_wait():
    circuit = Circuit(RULES)
    fail(circuit, 5)

    assert not circuit.failed(NOW + 1, probe=False)
    assert circuit.until_ms == NOW + 30_000
    assert not circuit.failed(NOW + 1, probe=False, wait_ms=60_000)
    assert circuit.until_ms == NOW + 1 + 60_000


# --- trying again ------------------------------------------------------------------------------------------------------


def test_one_call_tries_it_out_and_its_answer_closes_it():
    circuit = Circuit(RULES)
    fail(circuit, 5)
    later = NOW + 30_000

    assert circuit.begin()
    assert not circuit.available(later)
    assert not circuit.begin()
    circuit.answered(later, 100, probe=True)

    assert circuit.state(later) is State.CLOSED
    assert fail(circuit, 1, later), "one more failure is enough, until a call has ended well"


def test_a_trial_that_ends_well_makes_it_as_good_as_new():
    circuit = Circuit(RULES)
    fail(circuit, 5)
    circuit.answered(NOW + 30_000, 100, probe=circuit.begin())
    circuit.succeeded(NOW + 31_000)

    assert not fail(circuit, 4, NOW + 32_000)


def test_each_further_rest_is_longer_up_to_five_minutes():
    circuit = Circuit(RULES)
    fail(circuit, 5)
    now, rests = NOW, []
    for _ in range(12):
        assert circuit.until_ms is not None
        rests.append(circuit.until_ms - now)
        now = circuit.until_ms
        assert circuit.failed(now, probe=circuit.begin())

    assert rests == [30_000 * n for n in range(1, 11)] + [300_000] * 2


@pytest.mark.parametrize(("steady_ms", "rest_ms"), [(299_999, 60_000), (300_000, 30_000)])
def test_after_five_good_minutes_the_rests_begin_anew(steady_ms, rest_ms):
    circuit = Circuit(RULES)
    fail(circuit, 5)
    circuit.answered(NOW + 30_000, 1, probe=circuit.begin())
    circuit.succeeded(NOW + 30_000)
    then = NOW + 30_000 + steady_ms
    fail(circuit, 5, then)

    assert circuit.until_ms == then + rest_ms


def test_a_trial_that_says_nothing_is_followed_by_another():
    circuit = Circuit(RULES)
    fail(circuit, 5)
    circuit.let_go(probe=circuit.begin())

    assert circuit.available(NOW + 30_000)


def test_a_refused_credential_is_set_aside_and_that_is_news_once():
    circuit = Circuit(RULES)

    assert circuit.refused(NOW, 401, probe=False)
    assert not circuit.refused(NOW + 5, 402, probe=False)
    assert (circuit.refused_status, circuit.until_ms) == (402, NOW + 5 + 600_000)
    circuit.answered(NOW + 700_000, 1, probe=circuit.begin())
    assert (circuit.refused_status, circuit.state(NOW + 700_000)) == (0, State.CLOSED)


def test_the_time_to_the_first_byte_is_smoothed():
    circuit = Circuit(RULES)
    seen = []
    for ttfb_ms in (800, 800, 0, 1600):
        circuit.answered(NOW, ttfb_ms, probe=False)
        seen.append(circuit.ttfb_ms)

    assert seen == [800, 800, 700, 812]


# --- whatever happens --------------------------------------------------------------------------------------------------


@dataclass
class Running:
    """A call under way."""

    probe: bool
    answered: bool = field(default=False)


class AnyOrder(RuleBasedStateMachine):
    """Calls begin, are answered, end and fail in any order, while time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = NOW
        self.circuit = Circuit(RULES)
        self.running: list[Running] = []

    @rule(ms=st.integers(0, 400_000))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms

    @rule()
    def a_call_begins_where_it_may(self) -> None:
        if self.circuit.available(self.now_ms):
            closed = self.circuit.state(self.now_ms) is State.CLOSED
            self.running.append(Running(self.circuit.begin()))
            assert self.running[-1].probe is not closed

    @rule()
    def a_call_is_tried_where_all_else_is_down(self) -> None:
        self.running.append(Running(self.circuit.begin()))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), end=st.sampled_from(["answered", "well", "failed", "wait", "refused", "nothing"]))
    def a_call_goes_on(self, data: st.DataObject, end: str) -> None:
        at = data.draw(st.integers(0, len(self.running) - 1))
        call, circuit = self.running[at], self.circuit
        if end == "answered":
            circuit.answered(self.now_ms, 5, probe=call.probe)
            if call.probe:
                assert circuit.state(self.now_ms) is State.CLOSED
            call.probe, call.answered = False, True
            return
        del self.running[at]
        if end == "well":
            if call.probe:
                circuit.answered(self.now_ms, 5, probe=True)
            circuit.succeeded(self.now_ms)
            assert circuit.failures == 0
        elif end == "nothing":
            circuit.let_go(probe=call.probe)
        elif end == "refused":
            circuit.refused(self.now_ms, 401, probe=call.probe)
            assert not circuit.available(self.now_ms)
        else:
            opened = circuit.failed(self.now_ms, probe=call.probe, wait_ms=90_000 if end == "wait" else 0)
            if opened or call.probe or end == "wait":
                assert not circuit.available(self.now_ms)

    @invariant()
    def at_most_one_call_tries_it_out(self) -> None:
        assert sum(call.probe for call in self.running) <= 1

    @invariant()
    def it_never_rests_for_ever(self) -> None:
        until_ms = self.circuit.until_ms
        assert until_ms is None or until_ms - self.now_ms <= max(RULES.set_aside_ms, RULES.longest_rest_ms)
        if not any(call.probe for call in self.running):
            assert self.circuit.available(self.now_ms + RULES.set_aside_ms)

    @invariant()
    def a_closed_one_has_not_failed_too_often(self) -> None:
        if self.circuit.state(self.now_ms) is State.CLOSED:
            assert self.circuit.failures < RULES.failures


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# --- the budget of repeats ---------------------------------------------------------------------------------------------


def test_the_stock_lasts_for_a_bad_moment_and_is_filled_by_calls():
    budget = RepeatBudget(percent=20, burst=3)

    assert [budget.spend() for _ in range(4)] == [True, True, True, False]
    for _ in range(4):
        budget.earn()
    assert not budget.spend()
    budget.earn()
    assert [budget.spend(), budget.spend()] == [True, False]


@given(st.lists(st.booleans(), max_size=300), st.integers(0, 100), st.integers(0, 20))
def test_repeats_never_exceed_the_stock_and_the_share_of_the_calls(asked, percent, burst):
    budget = RepeatBudget(percent=percent, burst=burst)
    calls = spent = 0
    for repeat in asked:
        if repeat:
            spent += budget.spend()
        else:
            budget.earn()
            calls += 1
    assert spent <= burst + calls * percent / 100
