"""Whether an address may be served on: a public one needs TLS or a reverse proxy in front, else keys travel in clear."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from lumeproxy.errors import ConfigError


class Served(Protocol):
    """The settings that decide it."""

    @property
    def host(self) -> str:
        """The address or name."""
        ...

    @property
    def tls_certificate(self) -> Path | None:
        """A PEM file."""
        ...

    @property
    def tls_key(self) -> Path | None:
        """A PEM file."""
        ...

    @property
    def trusted_proxies(self) -> Sequence[str]:
        """Networks of reverse proxies."""
        ...


def check_binding(server: Served) -> None:
    """Refuse a public address without TLS or a trusted proxy in front. Raises ConfigError."""
    if (server.tls_certificate is None) != (server.tls_key is None):
        raise ConfigError("server.tls_certificate and server.tls_key go together; set both or neither.")
    if server.host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(server.host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and server.tls_certificate is None and not server.trusted_proxies:
        if not _is_here(server.host):
            raise ConfigError(f"server.host {server.host!r} is no address of this machine; set it with --host.")
        raise ConfigError(
            f"server.host = {server.host!r} can be reached from other machines, where keys would travel in clear: set "
            "server.tls_certificate and server.tls_key, or server.trusted_proxies to the reverse proxy that ends TLS."
        )


def _is_here(host: str) -> bool:
    """Whether a server on this machine could listen there."""
    try:
        for family, kind, _, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
            with socket.socket(family, kind) as sock:
                sock.bind(address)
                return True
    except (OSError, UnicodeError):
        return False
    return False
