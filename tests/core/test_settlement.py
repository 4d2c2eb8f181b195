"""The truth table of who pays, a test a row."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumeproxy.core.settlement import MAX_WEB_SEARCHES, NOTHING, Bounds, Metered, bounds, clamp, decide
from lumeproxy.core.types import Ending, SettledBy, Usage

WIDE = Bounds(10**9, 10**9)
REPORTED = Usage(100, 50, 10, 5, 20, 4)
FULL = Metered(REPORTED, True, True, True, estimated_input_tokens=77, estimated_output_tokens=33)
BEGUN = Metered(
    replace(REPORTED, output_tokens=1, reasoning_tokens=0), True, True, False, 77, 33
)  # Anthropic in mid-stream
SILENT = Metered(Usage(), False, False, False, 77, 33)  # OpenAI, in mid-stream
NEVER = Metered(Usage(), False, False, False, 77, 0)
ENDINGS = [e for e in Ending if e not in (Ending.REFUSED, Ending.UNREACHABLE)]


@pytest.mark.parametrize("ending", [Ending.REFUSED, Ending.UNREACHABLE])
@pytest.mark.parametrize("metered", [FULL, BEGUN, SILENT, NEVER])
def test_refused_or_unreachable_costs_nothing(ending, metered):
    assert decide(ending, metered, WIDE) == NOTHING


def test_complete_with_usage_is_exactly_that_usage():
    verdict = decide(Ending.COMPLETE, FULL, WIDE)

    assert verdict.usage == REPORTED
    assert (verdict.settled_by, verdict.estimated) == (SettledBy.REPORTED, False)


def test_complete_without_usage_is_an_estimate_of_both_sides():
    verdict = decide(Ending.COMPLETE, SILENT, WIDE)

    assert verdict.usage == Usage(input_tokens=77, output_tokens=33)
    assert (verdict.settled_by, verdict.estimated) == (SettledBy.ESTIMATE, True)


def test_complete_without_usage_and_output_is_an_estimate_of_the_input():
    assert decide(Ending.COMPLETE, NEVER, WIDE).usage == Usage(input_tokens=77)


def test_an_output_of_which_nothing_was_said_or_seen_makes_it_an_estimate():
    verdict = decide(Ending.COMPLETE, Metered(Usage(input_tokens=9), True, False, False, 77, 0), WIDE)

    assert verdict.usage == Usage(input_tokens=9)
    assert (verdict.settled_by, verdict.estimated) == (SettledBy.ESTIMATE, True)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_final_number_is_charged_whatever_cut_the_call(ending):
    assert decide(ending, FULL, WIDE).usage == REPORTED


@pytest.mark.parametrize("ending", ENDINGS)
def test_reported_input_is_charged_with_an_estimate_of_delivered_output(ending):
    """Complete too: the number at the beginning of an answer says nothing about its length."""
    verdict = decide(ending, BEGUN, WIDE)

    assert verdict.usage == replace(REPORTED, output_tokens=33, reasoning_tokens=0)
    assert (verdict.settled_by, verdict.estimated) == (SettledBy.ESTIMATE, True)


@pytest.mark.parametrize("ending", [Ending.CUT_BY_UPSTREAM, Ending.INTERRUPTED])
def test_cut_by_upstream_with_nothing_reported_or_delivered_costs_nothing(ending):
    assert decide(ending, NEVER, WIDE) == NOTHING
    assert decide(ending, SILENT, WIDE).usage == Usage(input_tokens=77, output_tokens=33)


@pytest.mark.parametrize("ending", [Ending.CUT_BY_CLIENT, Ending.OUT_OF_CREDIT])
def test_cut_by_client_before_anything_came_pays_the_input_that_the_provider_bills(ending):
    assert decide(ending, NEVER, WIDE).usage == Usage(input_tokens=77)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_reported_output_above_the_estimate_stands(ending):
    far = replace(BEGUN, usage=replace(REPORTED, output_tokens=500))

    verdict = decide(ending, far, WIDE)

    assert verdict.usage.output_tokens == 500
    assert verdict.settled_by is SettledBy.REPORTED


def test_claims_above_the_bound_are_charged_at_the_bound_and_flagged():
    verdict = decide(Ending.COMPLETE, FULL, Bounds(120, 3))

    assert verdict.usage.total_input_tokens == 120
    assert verdict.usage.cache_write_1h_tokens == 5
    assert (verdict.usage.output_tokens, verdict.usage.reasoning_tokens) == (3, 3)
    assert (verdict.settled_by, verdict.estimated) == (SettledBy.BOUND, True)


def test_absurd_numbers_are_flagged_even_within_the_bound():
    assert decide(Ending.COMPLETE, replace(FULL, absurd=True), WIDE).settled_by is SettledBy.BOUND


def test_web_searches_are_bounded_too():
    many = replace(FULL, usage=replace(REPORTED, web_search_requests=10**18))

    verdict = decide(Ending.COMPLETE, many, WIDE)

    assert verdict.usage.web_search_requests <= 1000
    assert verdict.settled_by is SettledBy.BOUND


def test_the_bound_grows_with_the_request_and_with_what_it_only_names():
    facts = {
        "relayed_bytes": 10,
        "floor_input_tokens": 1000,
        "referred_input_tokens": 10**6,
        "reasoning_allowance_tokens": 7,
    }

    assert bounds(body_bytes=5, refers_elsewhere=False, **facts) == Bounds(1000, 17)
    assert bounds(body_bytes=5000, refers_elsewhere=False, **facts) == Bounds(5000, 17)
    assert bounds(body_bytes=5, refers_elsewhere=True, **facts) == Bounds(10**6, 17)


def test_usage_within_the_bound_is_left_as_it_is():
    assert clamp(REPORTED, Bounds(165, 20)) is REPORTED


def test_what_is_above_the_bound_is_taken_from_uncached_input_first():
    assert clamp(REPORTED, Bounds(100, 20)) == replace(REPORTED, input_tokens=35)
    assert clamp(REPORTED, Bounds(12, 20)) == Usage(0, 0, 7, 5, 20, 4)
    assert clamp(REPORTED, Bounds(0, 0)) == Usage()


COUNT = st.one_of(st.integers(0, 50), st.integers(0, 10**30))


@given(
    usage=st.builds(Usage, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    estimates=st.tuples(st.integers(0, 100), st.integers(0, 100)),
    limit=st.builds(Bounds, st.integers(0, 40), st.integers(0, 40)),
    ending=st.sampled_from(Ending),
)
def test_whatever_is_claimed_nothing_is_charged_above_the_bound_unflagged_or_twice(
    usage, flags, estimates, limit, ending
):
    metered = Metered(usage, flags[0], flags[1], flags[2], estimates[0], estimates[1], flags[3])

    verdict = decide(ending, metered, limit)

    charged = verdict.usage
    assert 0 <= charged.total_input_tokens <= limit.input_tokens
    assert 0 <= charged.reasoning_tokens <= charged.output_tokens <= limit.output_tokens
    assert 0 <= charged.web_search_requests <= MAX_WEB_SEARCHES
    if verdict.settled_by is SettledBy.REPORTED:
        assert (charged, verdict.estimated, metered.absurd) == (usage, False, False)
    if verdict.settled_by is SettledBy.NONE:
        assert charged == Usage()
