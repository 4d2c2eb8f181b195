"""Where a call goes: in order, by weight, where the session's prompt cache is, and what is left when all is down."""

from __future__ import annotations

from collections import Counter

import pytest

from lumeproxy.core import selection
from lumeproxy.core.failover import REFUSAL, Blame, Verdict
from lumeproxy.core.health import HealthRules, State
from lumeproxy.core.selection import Selection, Target

RULES = HealthRules(failures=2, rest_ms=30_000, longest_rest_ms=300_000, set_aside_ms=600_000)
NOW = 1_000_000
DOWN = Verdict(Blame.UPSTREAM, repeat=True)
LIMITED = Verdict(Blame.CREDENTIAL, repeat=True, wait_ms=60_000)


@pytest.fixture
def made() -> Selection:
    """Upstream a with one credential, b with three, c with one."""
    made = Selection(RULES)
    made.offer({"a": ["a1"], "b": ["b1", "b2", "b3"], "c": ["c1"]})
    return made


def place(made: Selection, names: str, session: object = "s", now_ms: int = NOW) -> Target | None:
    """Where a call of the session goes, which then ends well."""
    attempt = made.choose(tuple(names), (), session, (), now_ms)
    if attempt is None:
        return None
    attempt.answered(now_ms)
    made.served(session, attempt.target)
    attempt.ended(now_ms, well=True)
    return attempt.target


def fail(made: Selection, names: str, verdict: Verdict = DOWN, *, times: int = 2, session: object = "s") -> Target:
    for _ in range(times):
        attempt = made.choose(tuple(names), (), session, (), NOW)
        assert attempt is not None
        attempt.failed(verdict, NOW, 401)
    return attempt.target


# --- where to ----------------------------------------------------------------------------------------------------------


def test_a_route_in_order_begins_with_the_first_that_is_up(made):
    assert place(made, "ac").upstream == "a"
    fail(made, "ac")

    assert place(made, "ac").upstream == "c"
    assert place(made, "ac", "another").upstream == "c"


def test_a_second_try_goes_where_the_first_did_not(made):
    tried: list[Target] = []
    while (attempt := made.choose(("a", "b", "c"), (), "s", tried, NOW)) is not None:
        tried.append(attempt.target)

    assert [target.upstream for target in tried] == ["a", "b", "b", "b", "c"]
    assert sorted(target.credential for target in tried[1:4]) == [1, 2, 3]


def test_sessions_are_shared_by_weight_and_come_to_the_same_place_in_every_process(made):
    other = Selection(RULES)
    other.offer({"c": ["c1"], "a": ["a1"]})
    drawn = Counter()
    for session in range(4_000):
        first, second = (one.choose(("a", "c"), (3, 1), session, (), NOW) for one in (made, other))
        assert first.target == second.target
        drawn[first.target.upstream] += 1

    assert 2_900 < drawn["a"] < 3_100


def test_sessions_are_spread_over_an_upstreams_credentials(made):
    drawn = Counter(place(made, "b", session).credential for session in range(3_000))

    assert all(900 < drawn[number] < 1_100 for number in (1, 2, 3))


# --- affinity ----------------------------------------------------------------------------------------------------------


def test_a_session_stays_where_it_is_when_its_place_comes_up_again(made):
    fail(made, "ac")
    assert place(made, "ac").upstream == "c"

    assert place(made, "ac", now_ms=NOW + 30_000).upstream == "c"
    assert place(made, "ac", "new", now_ms=NOW + 30_000).upstream == "a"


def test_one_failure_does_not_move_a_session_that_was_served_there(made):
    assert place(made, "ac").upstream == "a"
    fail(made, "ac", times=1)
    tried = [Target("a", 1)]

    assert made.choose(("a", "c"), (), "s", tried, NOW).target.upstream == "c"
    assert place(made, "ac").upstream == "a"


def test_a_session_whose_first_call_was_served_elsewhere_stays_there(made):
    fail(made, "ac", times=1)
    made.served("s", made.choose(("a", "c"), (), "s", [Target("a", 1)], NOW).target)

    assert place(made, "ac").upstream == "c"


def test_a_session_moves_to_another_credential_when_its_own_reaches_its_limit(made):
    before = {session: place(made, "b", session) for session in range(50)}
    limited = before[0]
    fail(made, "b", LIMITED, times=1, session=0)
    after = {session: place(made, "b", session) for session in range(50)}

    assert limited not in after.values()
    for session in range(50):
        assert (after[session] == before[session]) is (before[session] != limited)


def test_a_session_that_was_failed_beyond_repeat_goes_elsewhere_next(made):
    assert place(made, "ac").upstream == "a"
    made.move(("a", "c"), (), "s", Target("a", 1), NOW)

    assert place(made, "ac").upstream == "c"
    assert place(made, "ac", "other").upstream == "a"
    made.move(("a",), (), "alone", Target("a", 1), NOW)
    assert place(made, "a", "alone").upstream == "a"


def test_only_so_many_sessions_are_remembered(made, monkeypatch):
    monkeypatch.setattr(selection, "REMEMBERED_SESSIONS", 100)
    for session in range(1_000):
        place(made, "b", session)

    assert len(made._places) <= 100
    assert 999 in made._places


# --- what is down ------------------------------------------------------------------------------------------------------


def test_where_all_is_down_the_one_that_is_soonest_back_is_tried_and_a_refused_one_last(made):
    fail(made, "c", LIMITED, times=1)  # 60 s
    fail(made, "a")  # 30 s
    assert made.choose(("c", "a"), (), "s", (), NOW).target.upstream == "a"
    fail(made, "a", REFUSAL, times=1)

    assert made.choose(("a", "c"), (), "s", (), NOW).target.upstream == "c"
    assert made.choose(("a", "c"), (), "s", [Target("c", 1)], NOW) is None, "a further try is not wasted on it"


def test_the_answer_of_the_least_bad_closes_its_circuit(made):
    fail(made, "a")
    attempt = made.choose(("a",), (), "s", (), NOW + 5)

    assert attempt.answered(NOW + 6)
    assert made.shown("a", NOW + 6) == (State.CLOSED, (State.CLOSED,))


def test_a_refusal_says_that_the_upstream_is_up(made):
    fail(made, "b")
    attempt = made.choose(("b",), (), "s", (), NOW + 30_000)
    assert attempt.failed(REFUSAL, NOW + 30_000, 401)

    upstream, credentials = made.shown("b", NOW + 30_000)
    assert upstream is State.CLOSED
    assert sorted(credentials) == [State.CLOSED, State.CLOSED, State.OPEN]


def test_a_try_is_reported_once(made):
    attempt = made.choose(("a",), (), "s", (), NOW)
    for _ in range(9):
        attempt.failed(DOWN, NOW)
    attempt.ended(NOW, well=True)

    assert made.members["a"].circuit.failures == 1


def test_a_switched_off_upstream_gets_nothing_until_it_is_on_again(made):
    made.disable({"a"})
    assert place(made, "ac").upstream == "c"
    assert place(made, "a", "x") is None
    assert made.disabled == {"a"}
    made.disable(())

    assert place(made, "a", "x").upstream == "a"


def test_a_readmitted_upstream_is_as_good_as_new(made):
    fail(made, "b", REFUSAL, times=3)
    made.readmit("b")

    assert made.shown("b", NOW) == (State.CLOSED, (State.CLOSED,) * 3)


# --- new settings ------------------------------------------------------------------------------------------------------


def test_health_is_kept_for_what_stays_and_a_refused_credential_is_tried_anew(made):
    fail(made, "a")
    limited = fail(made, "b", LIMITED, times=1, session=1)
    refused = fail(made, "b", REFUSAL, times=1, session=1)
    made.disable({"c"})
    made.offer({"a": ["a1"], "b": ["b0", "b1", "b2", "b3"], "c": ["c2"]})

    assert made.shown("a", NOW)[0] is State.OPEN
    states = made.shown("b", NOW)[1]
    assert states[limited.credential] is State.OPEN
    assert states[refused.credential] is State.CLOSED
    assert made.members["c"].disabled
    made.offer({"a": ["another"]})
    assert made.shown("a", NOW)[0] is State.CLOSED
    assert place(made, "b") is None


def test_a_session_whose_credential_is_gone_is_placed_anew(made):
    for session in range(20):
        place(made, "b", session)
    made.offer({"b": ["b1"]})

    assert {place(made, "b", session) for session in range(20)} == {Target("b", 1)}
