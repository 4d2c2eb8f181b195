"""Amounts, times and counts as a person reads them."""

from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from lumeproxy.dashboard import render
from lumeproxy.dashboard.render import Renderer

DOLLAR = 10**9


@pytest.mark.parametrize(
    ("nanousd", "digits", "told"),
    [(0, 2, "$0.00"), (DOLLAR, 2, "$1.00"), (1_234_567 * DOLLAR, 2, "$1,234,567.00"), (5_000_000, 2, "$0.01"),
     (4_999_999, 2, "<$0.01"), (1, 9, "$0.000000001"), (1, 6, "<$0.000001"), (-3 * DOLLAR // 2, 2, "-$1.50"),
     (999_999_999, 2, "$1.00"), (DOLLAR, 0, "$1"), (1_234_567, 6, "$0.001235")],
)  # fmt: skip
def test_dollars(nanousd, digits, told):
    assert render.usd(nanousd, digits) == told


@pytest.mark.parametrize(
    ("nanousd", "told"),
    [(0, "$0.00"), (DOLLAR, "$1.00"), (DOLLAR - 1, "$1.0000"), (238_000, "$0.0002"), (1, "<$0.0001")],
)
def test_dollars_with_as_many_decimals_as_fit(nanousd, told):
    assert render.fit(nanousd) == told


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (1100, "1.1k"),
        (9_999, "9.9k"),
        (10_000, "10k"),
        (1_550_000, "1.5M"),
        (12 * 10**9, "12G"),
    ],
)
def test_counts_in_few_characters(number, told):
    assert render.short(number) == told
    assert render.count(1_234_567) == "1,234,567"
    assert (render.plural(1, "call"), render.plural(2000, "call")) == ("1 call", "2,000 calls")


@pytest.mark.parametrize(
    ("ms", "told"),
    [(None, "–"), (0, "0 ms"), (999, "999 ms"), (1000, "1.0 s"), (59_999, "59.9 s"), (60_000, "1 min 0 s"),
     (3_600_000, "1 h 0 min"), (200_000_000, "2 days")],
)  # fmt: skip
def test_durations(ms, told):
    assert render.duration(ms) == told


def test_a_time_is_utc_for_whoever_has_no_script():
    assert render.time_tag(1_795_000_000_000) == '<time datetime="2026-11-18T11:06:40Z">2026-11-18 11:06 UTC</time>'
    assert "never" in render.time_tag(None) and "&lt;b&gt;" in render.time_tag(None, "<b>")
    assert "far away" in render.time_tag(2**60)


@pytest.mark.parametrize(("day", "told"), [(None, "never"), (100, "today"), (99, "yesterday"), (98, "1970-04-09")])
def test_days(day, told):
    assert render.day_text(day, 100) == told


def test_shares():
    assert [render.percent(*pair) for pair in [(1, 3), (0, 5), (5, 5), (0, 0)]] == ["33 %", "0 %", "100 %", "–"]


@pytest.mark.parametrize(
    ("value", "name", "told"),
    [(5 * DOLLAR, "balance_nanousd", "$5.000000"), (1_795_000_000_000, "expires_ms", "2026-11-18 11:06 UTC"),
     (None, "reason", "–"), ("<b>", "reason", "&lt;b&gt;"), (["a", "b"], "models", "a, b"),
     (60_000, "overlap_ms", "60000")],
)  # fmt: skip
def test_values_of_the_log_are_told_by_their_unit(value, name, told):
    assert told in render.told(value, name)
    assert render.named("budget_day_nanousd") == "budget day"


def test_a_template_that_lacks_a_value_fails_and_every_template_is_there():
    renderer = Renderer()
    renderer.offer([])

    with pytest.raises(UndefinedError):
        renderer.page("link.html")
    assert set(renderer.files) == {"icon.svg", "lume.css", "lume.js"}
    for file in renderer.files.values():
        assert b"http://" not in file.body.replace(b"http://www.w3.org/2000/svg", b"") and b"https://" not in file.body
    assert b"@import" not in renderer.files["lume.css"].body and b"url(" not in renderer.files["lume.css"].body
