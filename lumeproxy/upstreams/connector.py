"""Connections to upstreams that read little at once and have a small receive buffer.

asyncio reads up to 256 KiB in one go. All of it is passed on before anything else is read, so that a client which takes
nothing would make us keep that much; and a connection over TLS has a buffer of that size from its first moment to its last.
Knows bytes only.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio import sslproto
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

# How much is read from a connection at once: more costs memory for each client that takes nothing, less costs time where
# events come in bursts (8 KiB a tenth of an event's cost).
READ_BYTES = 12_288


class Connector(aiohttp.TCPConnector):
    """aiohttp's connector; `receive_buffer_bytes` is the kernel's buffer of each connection, before it doubles it.

    The size of TLS reads is a constant of the whole process in asyncio: the connections of clients, which read requests
    of any size in such pieces too, have smaller buffers with it.
    """

    def __init__(self, *, receive_buffer_bytes: int, **options: Any) -> None:
        def small(address: aiohttp.AddrInfoType) -> socket.socket:
            family, kind, protocol, _, _ = address
            sock = socket.socket(family, kind, protocol)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
            return sock

        super().__init__(socket_factory=small, **options)
        sslproto.SSLProtocol.max_size = READ_BYTES

    async def _wrap_create_connection(self, *args: Any, **options: Any) -> tuple[asyncio.Transport, ResponseHandler]:
        transport, protocol = await super()._wrap_create_connection(*args, **options)
        if hasattr(transport, "max_size"):  # uvloop reads as much as it likes
            transport.max_size = READ_BYTES
        return transport, protocol
