"""From an address to calls and back."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest

from lumeproxy.core.limits import DAY_MS
from lumeproxy.dashboard import filters
from lumeproxy.dashboard.filters import Asked
from lumeproxy.store.reports import END, Filter

NOW_MS = 100 * DAY_MS + 5


@pytest.mark.parametrize(
    ("days", "since"), [("1", 100), ("7", 94), ("30", 71), ("90", 11), ("all", 0), ("x", 94), ("", 94), ("-1", 94)]
)
def test_a_period_is_of_whole_days_today_included(days, since):
    which = filters.asked({"days": days}).filter(7, NOW_MS)

    assert which == Filter(account_id=7, since_ms=since * DAY_MS)
    assert which.in_days


def test_all_that_is_asked_for_is_in_the_filter_and_back_in_the_address():
    given = {"days": "30", "model": "a b&c", "key": "k", "session": "s", "outcome": "failed", "account": "ann"}
    asked = filters.asked(given)

    assert asked.filter(None, NOW_MS) == Filter(
        None, 71 * DAY_MS, model="a b&c", key_id="k", session_id="s", outcome="failed"
    )
    assert dict(parse_qsl(asked.query())) == given
    assert dict(parse_qsl(asked.query(before="5.x", model=""))) == {
        **{k: v for k, v in given.items() if k != "model"},
        "before": "5.x",
    }
    assert filters.asked({"outcome": "<b>", "model": "m" * 500}) == Asked(model="m" * 200)


def test_a_place_is_read_as_it_was_written():
    assert filters.place(filters.text_of((123, "call_1"))) == (123, "call_1")
    for text in ("", "x", "-1.a", "1" * 16 + ".a", "١.a"):
        assert filters.place(text) == END
