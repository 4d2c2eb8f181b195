"""What fits into an operation's arguments."""

from __future__ import annotations

import msgspec
import pytest

from lumeproxy.core.limits import NO_BUDGET, USUAL, Budget, Limits
from lumeproxy.dashboard import arguments as args


def test_what_is_not_given_stays_and_null_takes_a_limit_back():
    old = Limits(5, 6)
    for given, found in (
        ({}, old),
        ({"calls_per_minute": None}, Limits(None, 6)),
        ({"concurrent_calls": 0}, Limits(5, 0)),
    ):
        assert msgspec.convert({"name": "a", **given}, args.LimitAccount).limits(old) == found
        assert msgspec.convert({"id": "a", **given}, args.LimitKey).limits(old) == found
    changed = msgspec.convert({"id": "a", "budget_week_nanousd": None, "budget_day_nanousd": 1}, args.LimitKey)
    assert changed.budget(Budget(7, 8, 9, 10)) == Budget(1, None, 9, 10)


def test_a_new_key_has_the_limits_that_are_given():
    plain = msgspec.convert({"account": "a"}, args.CreateKey)
    assert (plain.limits(), plain.budget()) == (USUAL, NO_BUDGET)
    given = msgspec.convert({"account": "a", "calls_per_minute": 1, "budget_total_nanousd": 2}, args.CreateKey)
    assert (given.limits(), given.budget()) == (Limits(1, None), Budget(total_nanousd=2))


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (args.CreateKey, {"account": "a", "budget_day_nanousd": -1}),
        (args.CreateKey, {"account": "a", "expires_ms": args.LAST_MS + 1}),
        (args.LimitKey, {"id": "a", "calls_per_minute": 10**10}),
        (args.LimitKey, {"id": "a", "calls_per_minute": 1.5}),
        (args.Suspend, {"name": "a", "reason": "x" * 501}),
        (args.Entries, {"account": "a", "limit": 0}),
        (args.Name, {"name": "a", "other": 1}),
    ],
)
def test_what_does_not_fit_is_refused(kind, given):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(given, kind)
