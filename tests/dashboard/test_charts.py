"""Pictures: the right heights, readable without seeing them, and nothing unescaped."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from lumeproxy.dashboard import charts
from lumeproxy.dashboard.charts import Series

COLUMNS = ["11-01", "11-02", "11-03"]
EVIL = "<script>\"&'"


def parsed(markup) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(f"<all>{markup}</all>"))


def test_a_picture_is_drawn_wide_and_narrow_with_title_and_description():
    made = parsed(charts.stacked("cost", "Cost by day", COLUMNS, [Series("a", (1, 2, 0)), Series("b", (0, 2, 0))], str))

    assert [svg.get("class") for svg in made] == ["chart wide", "chart narrow"]
    names = [svg.get("aria-labelledby").split() for svg in made]
    assert len({name for pair in names for name in pair}) == 4
    for svg, (title, described) in zip(made, names, strict=True):
        assert svg.get("role") == "img"
        assert svg.find(f"title[@id='{title}']").text == "Cost by day"
        text = svg.find(f"desc[@id='{described}']").text
        assert text == "3 columns from 11-01 to 11-03. In all 5. The highest is 4 on 11-02."
        assert [g.find("title").text for g in svg.findall("g")] == ["11-01: 1\na 1", "11-02: 4\na 2\nb 2", "11-03: 0"]


def test_heights_are_in_proportion_and_stand_on_each_other():
    (wide, _) = parsed(charts.stacked("x", "t", COLUMNS, [Series("a", (1, 2, 0)), Series("b", (0, 2, 0))], str))
    bars = [
        [(float(r.get("y", "")), float(r.get("height", ""))) for r in g.findall("rect") if r.get("class") != "hit"]
        for g in wide.findall("g")
    ]

    ((first,), (low, high), nothing) = bars
    assert nothing == []
    assert low[1] == pytest.approx(2 * first[1], abs=0.2)
    assert high[0] + high[1] == pytest.approx(low[0], abs=0.2)
    assert first[0] + first[1] == pytest.approx(low[0] + low[1], abs=0.2)


def test_nothing_is_drawn_of_nothing():
    (wide, _) = parsed(charts.stacked("x", "t", COLUMNS, [], str))

    assert wide.find("desc").text.endswith("In all 0. There is nothing yet.")
    assert [g.find("title").text for g in wide.findall("g")] == ["11-01: 0", "11-02: 0", "11-03: 0"]
    assert parsed(charts.spark("s", "t", []))[0].find("title").text == "t"


def test_what_is_shown_is_escaped():
    made = charts.stacked("x", EVIL, [EVIL], [Series(EVIL, (1,))], lambda value: f"{EVIL}{value}")

    assert "<script" not in made
    (wide, _) = parsed(made)
    assert wide.find("title").text == EVIL
    assert "<script" not in charts.spark("s", EVIL, [1, 2])


def test_no_style_and_no_script_is_in_a_picture():
    made = str(charts.stacked("x", "t", COLUMNS, [Series("a", (1, 2, 3))], str) + charts.spark("s", "t", [1, 2]))

    assert not re.search(r"style=|<style|<script|on\w+=|href", made)


@pytest.mark.parametrize(
    ("top", "steps"),
    [(0, [0, 1]), (1, [0, 1]), (4, [0, 1, 2, 3, 4]), (5, [0, 2, 4, 6]), (17, [0, 5, 10, 15, 20]),
     (100, [0, 50, 100]), (999_999_999, [0, 500_000_000, 1_000_000_000])],
)  # fmt: skip
def test_the_grid_has_round_steps_that_reach_the_top(top, steps):
    assert charts.nice_steps(top) == steps


def test_the_largest_series_have_colours_and_the_rest_one_together():
    series = [Series(f"m{number}", (number, 1)) for number in range(9)]

    shown = charts.ranked(series, "other models")
    assert [one.name for one in shown] == ["m8", "m7", "m6", "m5", "m4", "other models"]
    assert shown[-1].values == (0 + 1 + 2 + 3, 4)
    assert [one.name for one in charts.ranked(series[:6])] == ["m5", "m4", "m3", "m2", "m1", "m0"]
    assert charts.ranked([]) == []


@pytest.mark.parametrize("count", [1, 7, 30, 90])
def test_the_columns_names_do_not_overlap(count):
    for svg in parsed(
        charts.stacked("x", "t", [f"11-{at:02}" for at in range(count)], [Series("a", (1,) * count)], str)
    ):
        at = [float(text.get("x", "")) for text in svg.findall("text") if text.get("text-anchor") == "middle"]
        assert at
        assert all(after - before >= 38 for before, after in zip(at, at[1:], strict=False))
