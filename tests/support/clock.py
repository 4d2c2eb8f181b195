"""A clock that stands until it is told to move."""

from __future__ import annotations

from lumeproxy.clock import Clock

START_MS = 1_795_000_000_000  # 2026-11-18, after every dated price change of the bundled list


class FakeClock(Clock):
    """Both clocks settable; the monotonic one never follows the wall clock."""

    def __init__(self) -> None:
        self.wall_ms = START_MS
        self.steady_ms = 1_000

    def now_ms(self) -> int:
        return self.wall_ms

    def monotonic_ms(self) -> int:
        return self.steady_ms

    def advance(self, ms: int) -> None:
        self.wall_ms += ms
        self.steady_ms += ms
