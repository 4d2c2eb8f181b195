"""Who tries out keys, by address, and how long that address has to wait.

A key has 190 random bits, so that guessing is hopeless; what this saves is the look-ups, and it makes the guessing known.
Valid keys from a blocked address are served all the same: many people may share it. IPv6 addresses count by their /64,
which is one household. Decides from values and a clock; no I/O. Must not know keys.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from lumeproxy.clock import Clock

MINUTE_MS = 60_000
# A block doubles with each that follows it, up to an hour; an hour without a failure makes the address a new one.
LONGEST_MS = 3_600_000
FORGET_MS = 3_600_000
REMEMBERED_ADDRESSES = 10_000


@dataclass(slots=True)
class _Seen:
    failures: int = 0
    since_ms: int = 0
    last_ms: int = 0
    blocked_until_ms: int = 0
    blocks: int = 0


class Guesses:
    """Failures by address. `per_minute` failures are free, 0 turns blocking off."""

    def __init__(self, clock: Clock, *, per_minute: int) -> None:
        self._clock = clock
        self._per_minute = per_minute
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def wait_s(self, address: str) -> int:
        """How long the address is blocked for, in whole seconds, 0 when it is not."""
        seen = self._seen.get(group(address))
        left_ms = 0 if seen is None else seen.blocked_until_ms - self._clock.monotonic_ms()
        return max(0, -(-left_ms // 1000))

    def failed(self, address: str) -> bool:
        """Count a key that is none. True when that blocks the address, which is worth a log line."""
        if not self._per_minute:
            return False
        now_ms, name = self._clock.monotonic_ms(), group(address)
        seen = self._seen.get(name)
        if seen is None or now_ms - seen.last_ms > FORGET_MS:
            seen = self._seen[name] = _Seen(since_ms=now_ms)
        self._seen.move_to_end(name)
        if len(self._seen) > REMEMBERED_ADDRESSES:
            self._seen.popitem(last=False)
        if now_ms - seen.since_ms >= MINUTE_MS:
            seen.failures, seen.since_ms = 0, now_ms
        seen.failures += 1
        seen.last_ms = now_ms
        if seen.failures < self._per_minute or now_ms < seen.blocked_until_ms:
            return False
        seen.blocked_until_ms = now_ms + min(LONGEST_MS, MINUTE_MS << min(seen.blocks, 10))
        seen.blocks += 1
        seen.failures = 0
        return True


def group(address: str) -> str:
    """What an address counts as: itself, or its /64."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return address
