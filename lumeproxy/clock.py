"""The two clocks of the product, in one place so that tests can set them.

Wall time dates records and decides prices and expiry; monotonic time measures intervals, so that a clock that is set
back neither ends a call nor keeps one alive. Knows nothing of calls or money.
"""

from __future__ import annotations

import time


class Clock:
    """Reads the machine's clocks. Tests pass a subclass with settable values."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, for records, prices and expiry."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Milliseconds of an arbitrary origin that never run backwards, for intervals."""
        return time.monotonic_ns() // 1_000_000
