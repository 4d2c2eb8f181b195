"""Counters and histograms as Prometheus reads them."""

from __future__ import annotations

from lumeproxy.core.metrics import Counter, Histogram, gauge, gauges


def test_a_counter_has_a_line_for_each_combination_of_labels():
    counter = Counter("calls_total", "Calls.", ("dialect", "ending"))
    counter.add(1, "chat", "complete")
    counter.add(2, "chat", "complete")
    counter.add(5, "chat", 'a"b\\c\nd')

    assert list(counter.lines()) == [
        "# HELP calls_total Calls.",
        "# TYPE calls_total counter",
        'calls_total{dialect="chat",ending="a\\"b\\\\c\\nd"} 5',
        'calls_total{dialect="chat",ending="complete"} 3',
    ]


def test_beyond_its_limit_a_counter_counts_the_rest_together():
    counter = Counter("n", "N.", ("label",), limit=2)
    for label in ("a", "b", "c", "d", "a"):
        counter.add(1, label)

    assert list(counter.lines())[2:] == ['n{label="a"} 2', 'n{label="b"} 1', 'n{label="other"} 2']


def test_a_histogram_counts_what_is_at_most_as_large_as_each_bucket():
    histogram = Histogram((0.5, 1.0))
    for value in (0.25, 0.5, 0.75, 8.0):
        histogram.observe(value)

    assert list(histogram.lines("t_seconds", "T.")) == [
        "# HELP t_seconds T.",
        "# TYPE t_seconds histogram",
        't_seconds_bucket{le="0.5"} 2',
        't_seconds_bucket{le="1.0"} 3',
        't_seconds_bucket{le="+Inf"} 4',
        "t_seconds_sum 9.5",
        "t_seconds_count 4",
    ]


def test_a_gauge_is_one_number():
    assert list(gauge("open_calls", "Open.", 3)) == [
        "# HELP open_calls Open.",
        "# TYPE open_calls gauge",
        "open_calls 3",
    ]


def test_gauges_have_a_line_for_each_value_of_their_label():
    assert list(gauges("g", "What.", "upstream", {"b": 2, 'a"': 0})) == [
        "# HELP g What.",
        "# TYPE g gauge",
        'g{upstream="a\\""} 0',
        'g{upstream="b"} 2',
    ]
