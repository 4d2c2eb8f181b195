"""Who is on the other end: the address that goes into a record.

The peer's own, unless the peer is a trusted proxy: then the right-most untrusted entry of X-Forwarded-For. No other header
is believed, since any client can send it. Must not know what the address is used for.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Addresses:
    """Finds the client's address behind the proxies named in `server.trusted_proxies`."""

    def __init__(self, trusted_proxies: Iterable[str]) -> None:
        self._trusted: tuple[Network, ...] = tuple(
            ipaddress.ip_network(entry, strict=False) for entry in trusted_proxies
        )

    def client(self, peer: str | None, forwarded_for: Iterable[str]) -> str:
        """The client's address, "" when the peer has none (a Unix socket); `forwarded_for` are the header's lines."""
        address = peer or ""
        if not self._trusted or not self._is_trusted(address):
            return address
        hops = [hop.strip() for line in forwarded_for for hop in line.split(",")]
        for hop in reversed(hops):
            if not _is_address(hop):
                return address
            address = hop
            if not self._is_trusted(hop):
                return hop
        return address

    def trusts(self, peer: str | None) -> bool:
        """Whether a peer is one of our own proxies, whose word on what it was asked counts."""
        return self._is_trusted(peer or "")

    def _is_trusted(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        return any(address in network for network in self._trusted)


def _is_address(text: str) -> bool:
    if "%" in text:  # a zone may be any text, and means nothing on another machine
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
