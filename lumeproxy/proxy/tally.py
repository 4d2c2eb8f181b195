"""What the process has served since its start, in counters: a few dictionary accesses a call. Must not know who asks."""

from __future__ import annotations

from collections.abc import Iterator

from lumeproxy.core.metrics import Counter
from lumeproxy.core.types import Ending, UsageRecord
from lumeproxy.store.ledger import Settled

# Endings that are an upstream's doing.
_FAILURES = frozenset({Ending.REFUSED, Ending.UNREACHABLE, Ending.CUT_BY_UPSTREAM})
# Token classes as Prometheus has them; reasoning is a part of output.
_TOKENS = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning")


class Tally:
    """The counters of one server."""

    def __init__(self) -> None:
        self._calls = Counter("lumeproxy_calls_total", "Calls that were settled.", ("dialect", "status", "ending"))
        self._refused = Counter("lumeproxy_refusals_total", "Requests that were refused before a hold.", ("code",))
        self._tokens = Counter("lumeproxy_tokens_total", "Tokens that calls were charged for.", ("dialect", "class"))
        self._cost = Counter("lumeproxy_cost_nanousd_total", "Cost of calls in 1e-9 dollars.", ("dialect",))
        self._failures = Counter(
            "lumeproxy_upstream_failures_total",
            "Calls that an upstream refused, cut, or could not be reached for.",
            ("upstream", "ending"),
        )

    def ended(self, record: UsageRecord, settled: Settled) -> None:
        """Count a call that was settled just now."""
        status = "none" if record.status is None else str(record.status)
        self._calls.add(1, record.dialect, status, record.ending)
        self._cost.add(settled.cost_nanousd, record.dialect)
        for name in _TOKENS:
            count: int = getattr(record, name + "_tokens")
            if count:
                self._tokens.add(count, record.dialect, name)
        if record.upstream and record.ending in _FAILURES:
            self._failures.add(1, record.upstream, record.ending)

    def refused(self, code: str) -> None:
        """Count a request that cost nothing, by the word for why."""
        self._refused.add(1, code)

    def lines(self) -> Iterator[str]:
        """The counters in Prometheus' text format."""
        for counter in (self._calls, self._refused, self._tokens, self._cost, self._failures):
            yield from counter.lines()
