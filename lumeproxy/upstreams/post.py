"""One POST on a connection of aiohttp's pool, without the general client around it.

`ClientSession.request` prepares for redirects, cookies, proxies, uploads and middlewares, none of which an upstream has,
and sends each body in a task of its own: twice the time of this (2026-11, aiohttp 3.14.5). The connector, its pool, the
writer and the parser are aiohttp's own. `BaseConnector.connect` is documented; that a connection's protocol is told what to
parse by `set_response_params`, and read by `read`, is not: hence this one small module, and aiohttp below 3.15. Knows no
upstream.
"""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage, StreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

SWITCHING_PROTOCOLS = 101


class Answer:
    """An answer's head, and the reader of its body; what is used of `aiohttp.ClientResponse`.

    `connection` is None once it went back to the pool or was closed.
    """

    __slots__ = ("connection", "content", "headers", "status")

    def __init__(self, message: RawResponseMessage, content: aiohttp.StreamReader, connection: Connection) -> None:
        self.status: int = message.code
        self.headers: CIMultiDictProxy[str] = message.headers
        self.content = content
        self.connection: Connection | None = connection
        content.on_eof(self._ended)

    @property
    def content_length(self) -> int | None:
        """The size that is announced, None where none is."""
        length = self.headers.get("Content-Length")
        return None if length is None else int(length)

    def release(self) -> None:
        """Give the connection of an answer that was read to its end back to the pool."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        transport = connection.transport
        if transport is not None and transport.get_write_buffer_size():
            connection.close()  # answered before the request was taken: another one must not come behind the rest
        else:
            connection.release()

    def close(self) -> None:
        """Close the connection; whoever reads the body still is told."""
        connection, self.connection = self.connection, None
        if self.content.exception() is None:
            self.content.set_exception(aiohttp.ClientConnectionError("Connection closed"))
        if connection is not None:
            connection.close()

    def _ended(self) -> None:
        protocol = None if self.connection is None else self.connection.protocol
        if protocol is None or not protocol.upgraded:
            self.release()


class Poster:
    """Posts to one server, by way of a session's connector and limits."""

    def __init__(self, session: aiohttp.ClientSession, url: URL) -> None:
        """`url` is any address of the server; only scheme, host and port of it count."""
        self._session = session
        self._url = url
        self._host = url.host_port_subcomponent or ""
        self._asks: aiohttp.ClientRequest | None = None

    async def post(self, target: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        """Send `body` in one piece to a path (with its query, as it goes on the wire); the answer when its head is there.

        Nothing is added to `headers` but host and length. Raises ClientConnectorError or ConnectionTimeoutError where
        nothing was sent, another ClientError or OSError where the request may have arrived.
        """
        session = self._session
        connector = session.connector
        if connector is None:
            raise aiohttp.ClientConnectionError("The session is closed.")
        try:
            connection = await connector.connect(self._request(), [], session.timeout)
        except TimeoutError:
            raise aiohttp.ConnectionTimeoutError("Connection timeout") from None
        try:
            protocol = connection.protocol
            assert protocol is not None
            protocol.set_response_params(
                read_until_eof=True,
                auto_decompress=False,
                read_bufsize=session._read_bufsize,
                max_line_size=session._max_line_size,
                max_field_size=session._max_field_size,
                max_headers=session._max_headers,
            )
            fields = CIMultiDict((("Host", self._host), *headers, ("Content-Length", str(len(body)))))
            writer = StreamWriter(protocol, asyncio.get_running_loop())
            await writer.write_headers(f"POST {target} HTTP/1.1", fields)
            # Not waiting until it is taken: an upstream may answer before, and it is small.
            await writer.write(body, drain=False)
            return await _answer(protocol, connection)
        except BaseException:
            connection.close()
            raise

    def _request(self) -> aiohttp.ClientRequest:
        """What tells the connector where to connect to, one for all requests."""
        if self._asks is None:
            self._asks = aiohttp.ClientRequest(
                "POST", self._url, loop=asyncio.get_running_loop(), session=self._session
            )
        return self._asks


async def _answer(protocol: ResponseHandler, connection: Connection) -> Answer:
    try:
        while True:
            message, content = await protocol.read()
            if not 100 <= message.code < 200 or message.code == SWITCHING_PROTOCOLS:
                return Answer(message, content, connection)
    except HttpProcessingError as error:
        raise aiohttp.ClientPayloadError(type(error).__name__) from None
