"""The two clocks."""

from __future__ import annotations

import time

from lumeproxy.clock import Clock


def test_wall_time_is_in_milliseconds_since_the_epoch(monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: 1_795_000_000_123_999_999)

    assert Clock().now_ms() == 1_795_000_000_123


def test_intervals_are_measured_on_the_clock_that_cannot_be_set(monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    monkeypatch.setattr(time, "monotonic_ns", lambda: 7_654_321)

    assert Clock().monotonic_ms() == 7
