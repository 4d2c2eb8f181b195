"""Whether an upstream, or one of its credentials, is worth a try: a passive circuit breaker, and a budget of repeats.

    closed ──failures in a row, or half of the last calls──▶ open ──rest over──▶ half-open ──an answer──▶ closed
       ▲                                                      ▲                      │
       └──────────── an answer of the least bad ──────────────┘◀─────a failure───────┘

Pure: times come in, decisions go out. A rest is `rest_ms` times the number of rests in a row, at most `longest_rest_ms`,
and never shorter than what the upstream itself asked for. While half-open one call is let through; its answer closes the
circuit, and one more failure opens it again. Must not know what a status means (failover) nor who is called (selection).
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass

# Half of so many calls within so long is too much, also where no five in a row fail.
WINDOW_CALLS, WINDOW_FAILURES, WINDOW_MS = 20, 10, 30_000
# An upstream that asks for more is looked at again all the same.
LONGEST_WAIT_MS = 3_600_000
# A circuit that has been closed for so long rests as if it had never rested.
STEADY_MS = 300_000
PERCENT = 100


class State(enum.StrEnum):
    """What a circuit says of the next call."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class HealthRules:
    """When a circuit opens, and for how long; `set_aside_ms` is the rest of a refused credential."""

    failures: int
    rest_ms: int
    longest_rest_ms: int
    set_aside_ms: int


class Circuit:
    """The health of one upstream or credential. Times are monotonic ms, 0 or more.

    A call is announced by `begin` and reported by `answered` (its reply has begun), then `succeeded`, `failed`, or
    `let_go` where its end says nothing. `ttfb_ms` is smoothed over about eight answers, 0 before the first.
    `refused_status`: the status by which the upstream refused this credential, 0 where it did not.
    """

    __slots__ = ("_probing", "_recent", "_rests", "_rules", "failures", "refused_status", "steady_since_ms", "ttfb_ms",
                 "until_ms")  # fmt: skip

    def __init__(self, rules: HealthRules) -> None:
        self._rules = rules
        self._recent: deque[tuple[int, bool]] = deque(maxlen=WINDOW_CALLS)
        self._rests = 0
        self._probing = False
        self.failures = 0  # in a row
        self.until_ms: int | None = None  # the end of the rest; None while closed
        self.steady_since_ms = 0
        self.ttfb_ms = 0
        self.refused_status = 0

    def state(self, now_ms: int) -> State:
        """Where the circuit stands."""
        if self.until_ms is None:
            return State.CLOSED
        return State.HALF_OPEN if now_ms >= self.until_ms else State.OPEN

    def available(self, now_ms: int) -> bool:
        """Whether a call may be sent: closed, or half-open with nobody trying it out."""
        return self.until_ms is None or (now_ms >= self.until_ms and not self._probing)

    def begin(self) -> bool:
        """A call is sent. Whether it tries the circuit out; then its report is what closes or opens it."""
        if self.until_ms is None or self._probing:
            return False
        self._probing = True
        return True

    def answered(self, now_ms: int, ttfb_ms: int, *, probe: bool) -> None:
        """A reply has begun. One that tried the circuit out closes it; its failures are forgotten when it has ended
        well, so that a stream that breaks off opens it again."""
        self.ttfb_ms = ttfb_ms if not self.ttfb_ms else (7 * self.ttfb_ms + ttfb_ms) // 8
        if probe:
            self._probing = False
            self.until_ms = None
            self.steady_since_ms = now_ms
            self.refused_status = 0
            self.failures = self._rules.failures - 1
            self._recent.clear()

    def succeeded(self, now_ms: int) -> None:
        """A call has ended well."""
        self.failures = 0
        self._recent.append((now_ms, False))

    def failed(self, now_ms: int, *, probe: bool, wait_ms: int = 0) -> bool:
        """A call has failed; `wait_ms` is what the upstream asks for. Whether that has opened the circuit."""
        if probe:
            self._probing = False
            return self._open(now_ms, wait_ms)
        if self.until_ms is not None:
            if wait_ms:
                self.until_ms = max(self.until_ms, now_ms + min(wait_ms, LONGEST_WAIT_MS))
            return False  # it began before the circuit opened, and says nothing new
        self.failures += 1
        self._recent.append((now_ms, True))
        if wait_ms or self.failures >= self._rules.failures or self._half_failed(now_ms):
            return self._open(now_ms, wait_ms)
        return False

    def refused(self, now_ms: int, status: int, *, probe: bool) -> bool:
        """The upstream refused the credential: it is set aside. Whether that is news."""
        if probe:
            self._probing = False
        news = not self.refused_status
        self.refused_status = status
        self.until_ms = now_ms + self._rules.set_aside_ms
        return news

    def let_go(self, *, probe: bool) -> None:
        """A call has ended without saying anything about the circuit."""
        if probe:
            self._probing = False

    def _half_failed(self, now_ms: int) -> bool:
        recent = self._recent
        if len(recent) < WINDOW_CALLS or now_ms - recent[0][0] > WINDOW_MS:
            return False
        return sum(failed for _, failed in recent) >= WINDOW_FAILURES

    def _open(self, now_ms: int, wait_ms: int) -> bool:
        steady = self.until_ms is None and now_ms - self.steady_since_ms >= STEADY_MS
        self._rests = 1 if steady else self._rests + 1
        rest_ms = min(self._rules.rest_ms * self._rests, self._rules.longest_rest_ms)
        self.until_ms = now_ms + max(rest_ms, min(wait_ms, LONGEST_WAIT_MS))
        self._recent.clear()
        return True


class RepeatBudget:
    """How many tries there may be beyond one a call: `percent` of the calls, and a stock of `burst` for a bad moment.
    Without it a failing upstream's load would fall on the others twice."""

    __slots__ = ("_full", "_percent", "_stock")

    def __init__(self, *, percent: int, burst: int) -> None:
        self._percent = percent
        self._full = self._stock = burst * PERCENT

    def earn(self) -> None:
        """A call has come."""
        if self._stock < self._full:
            self._stock = min(self._full, self._stock + self._percent)

    def spend(self) -> bool:
        """Take one try out of the stock; False where there is none."""
        if self._stock < PERCENT:
            return False
        self._stock -= PERCENT
        return True
