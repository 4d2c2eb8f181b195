"""Responses over WebSockets: who may open a connection, and its life between two answers.

An accepted connection is tied to one to the provider, made with the operator's credential before the client's handshake is
answered: whatever keeps the provider from taking it, the client is told 426 and comes over HTTP, where it learns the
truth. Each `response.create` is a call of its own: authenticated anew, admitted, held, metered and settled as over HTTP
(websocket_call). One runs at a time; the next waits for it. Must not know wire formats or prices.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from aiohttp import WSCloseCode, web

from lumeproxy.core.headers import for_upstream
from lumeproxy.core.types import UsageRecord
from lumeproxy.dialects.openai_websocket import Asking, OpenAIWebSocket
from lumeproxy.errors import AccountSuspended, CallerError, LumeError, Unauthorized, UpgradeRequired
from lumeproxy.logs import bug
from lumeproxy.proxy.admission import Plan
from lumeproxy.proxy.answers import headers_for_client, is_codex
from lumeproxy.proxy.body import ClientGone
from lumeproxy.proxy.call import Call
from lumeproxy.proxy.exchange import CALL_ID, Exchange, new_call_id
from lumeproxy.proxy.incoming import Incoming
from lumeproxy.proxy.relay import ClientLeft
from lumeproxy.proxy.websocket_call import SocketCall
from lumeproxy.proxy.websocket_client import Client
from lumeproxy.store.keys import StoredKey
from lumeproxy.upstreams.base import CutShort, NotReached, Socket, Upstream

# How many of a connection's answers are remembered by what a request brings along that goes on from them.
REMEMBERED_ANSWERS = 16
# A client that has asked for nothing reads what it is told at once, or is not there.
TELL_S = 5.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """See config.example.toml: how long a connection may be without an answer, how long in all, how many an account may
    have open, 0 for any number."""

    idle_ms: int
    open_ms: int
    per_account: int


class WebSockets:
    """All WebSockets of the server."""

    def __init__(self, exchange: Exchange, wire: OpenAIWebSocket, limits: ConnectionLimits) -> None:
        self.exchange = exchange
        self.wire = wire
        self.limits = limits
        self.books = exchange.books
        self._stopping = False
        self._open: dict[_Connection, int] = {}

    def stop(self) -> None:
        """Accept no more, and close each connection as soon as no answer runs on it."""
        self._stopping = True
        for connection in self._open:
            connection.stop()

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Accept a WebSocket and serve it to its end.

        Raises as Exchange.caller, InvalidRequest for a bad handshake, ClientGone, and UpgradeRequired where no WebSocket
        can be had now, on which Codex comes over HTTP at once.
        """
        # A model that only HTTP serves is told at once: in the middle of a connection, Codex would try six times.
        announced = self.wire.model_announced(request.headers)
        off = self.exchange.dispatcher.selection.disabled
        upstream = self.books.admission.websocket_upstream(self.wire.dialect.name, announced, off)
        if upstream is None or self._stopping:
            raise UpgradeRequired("WebSockets are not offered here; use HTTP.")
        key = await self._caller(request)
        response = Client.accepting(request, self.exchange.limits.body_bytes)
        connection = _Connection(self, request)
        with self._place(key, connection):
            try:
                socket = await connection.dial(upstream)
            except NotReached as error:
                self.books.log.warning("websocket_refused", upstream=upstream.name, reason=error.message)
                raise UpgradeRequired("The model provider takes no WebSocket now; use HTTP.") from None
            try:
                for name, value in headers_for_client(socket, request[CALL_ID]):
                    response.headers.add(name, value)
                await response.prepare(request)
            except BaseException as error:
                await socket.close()
                if isinstance(error, ConnectionError):
                    raise ClientGone from None
                raise
            await connection.run(response)
        return response

    async def _caller(self, request: web.BaseRequest) -> StoredKey:
        try:
            return await self.exchange.caller(request)
        except CallerError as error:
            if is_codex(request):
                # It tries a handshake that is refused with a 401 eleven times in a minute, and then comes over HTTP.
                raise UpgradeRequired(error.message) from None
            raise

    @contextlib.contextmanager
    def _place(self, key: StoredKey, connection: _Connection) -> Iterator[None]:
        most, mine = self.limits.per_account, sum(account == key.account_id for account in self._open.values())
        if most and mine >= most:
            raise UpgradeRequired(f"This account has {mine} WebSockets open, which is its limit; use HTTP.")
        self._open[connection] = key.account_id
        try:
            yield
        finally:
            del self._open[connection]


class _Connection:
    """One client's WebSocket and the provider's behind it."""

    def __init__(self, sockets: WebSockets, request: web.BaseRequest) -> None:
        self._sockets = sockets
        self._request = request
        self._books = sockets.books
        self._wire = sockets.wire
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._opened_ms = self._books.clock.monotonic_ms()
        self._carried: dict[str, int] = {}
        self._upstream: Upstream | None = None
        self._socket: Socket | None = None
        self._message = b""  # that is being served; let go as soon as it is sent, for it holds a prompt
        self._close_code: int = WSCloseCode.OK

    def stop(self) -> None:
        """Take no more calls; a running one goes on."""
        if not self._stopped.done():
            self._stopped.set_result(None)

    async def dial(self, upstream: Upstream) -> Socket:
        """Open the provider's side, in the place of one that is open. Raises NotReached."""
        if self._socket is not None:
            await self._socket.close()
            self._socket = None
            self._carried.clear()
        assert upstream.websocket is not None
        request = self._request
        headers = for_upstream(request.headers.items())
        socket = await upstream.websocket.dial(headers, self._wire.endpoint.path, request.rel_url.raw_query_string)
        self._upstream, self._socket = upstream, socket
        return socket

    async def run(self, response: web.WebSocketResponse) -> None:
        """Serve calls until one side leaves, a limit is reached, or the server stops."""
        async with asyncio.TaskGroup() as readers:  # which end when the connections are closed
            client = Client(self._request, response, readers)
            try:
                going = True
                while going and await self._next(client, readers):
                    going = await self._answer(client)
            except ClientLeft:
                pass
            except Exception as error:
                bug(self._books.log, error, self._request[CALL_ID])
                self._close_code = WSCloseCode.INTERNAL_ERROR
            finally:
                try:
                    if self._socket is not None:
                        await self._socket.close()
                finally:
                    await client.close(self._close_code)

    # --- between two answers -------------------------------------------------------------------------------------------

    async def _next(self, client: Client, readers: asyncio.TaskGroup) -> bool:
        """Wait for the client's next message; False when the connection is over. What the provider says meanwhile is
        passed on."""
        limits, now_ms = self._sockets.limits, self._books.clock.monotonic_ms()
        left_s = min(limits.idle_ms, limits.open_ms - (now_ms - self._opened_ms)) / 1000
        loop = asyncio.get_running_loop()
        until = loop.time() + left_s
        while True:
            waited = {client.arrival(), self._stopped}
            if self._socket is not None:
                waited.add(self._socket.arrival(readers))
            done, _ = await asyncio.wait(
                waited, timeout=max(0.0, until - loop.time()), return_when=asyncio.FIRST_COMPLETED
            )
            if not done or self._stopped in done:
                self._close_code = WSCloseCode.GOING_AWAY
                return False
            if self._socket is not None and self._socket.arrival(readers) in done:
                if not await self._told(client, self._socket):
                    return False
                continue
            try:
                self._message = client.take()
                return True
            except LumeError as error:
                await self._tell(client, self._refusal(error, self._request[CALL_ID]))

    async def _told(self, client: Client, socket: Socket) -> bool:
        """Pass on what the provider says of its own accord. False where it has closed, or begins an answer that nobody
        has asked for and nobody would pay."""
        try:
            message = await socket.receive()
        except CutShort:
            self._close_code = WSCloseCode.GOING_AWAY
            return False
        if message.binary or self._wire.starts_answer(message.data):
            assert self._upstream is not None
            self._books.log.warning("websocket_unasked", upstream=self._upstream.name)
            self._close_code = WSCloseCode.INTERNAL_ERROR
            return False
        await self._tell(client, message.data)
        return True

    async def _tell(self, client: Client, message: bytes) -> None:
        try:
            async with asyncio.timeout(TELL_S):
                await client.write(message)
        except TimeoutError:
            client.cut()
            raise ClientLeft from None

    def _refusal(self, error: LumeError, call_id: str, lane: str = "") -> bytes:
        """The error event, and its line in the log: nothing was charged, and there is no record."""
        self._books.log.info("refused", call=call_id, path="/v1" + self._wire.endpoint.path, error=error.code)
        return self._wire.error(error, call_id, codex=is_codex(self._request), lane=lane)

    # --- one call ------------------------------------------------------------------------------------------------------

    async def _answer(self, client: Client) -> bool:
        """Serve the message. Whether the connection goes on."""
        call_id, lane = new_call_id(self._books.clock.now_ms()), ""
        try:
            asking = self._wire.read(self._message)
            if asking is None:
                if self._socket is not None:
                    await self._socket.send(self._message)
                return True
            lane = asking.lane
            return await self._called(client, asking, call_id)
        except NotReached as error:
            await self._tell(client, self._refusal(error, call_id, lane))
            self._close_code = WSCloseCode.INTERNAL_ERROR
            return False
        except LumeError as error:
            await self._tell(client, self._refusal(error, call_id, lane))
            return not isinstance(error, Unauthorized | AccountSuspended)

    async def _called(self, client: Client, asking: Asking, call_id: str) -> bool:
        """Authenticate, admit, hold, and pass one answer on. Raises LumeError for what ends before the hold."""
        sockets, books, request = self._sockets, self._books, self._request
        dialect = self._wire.dialect
        key, now_ms = await sockets.exchange.caller(request), books.clock.now_ms()
        plan = books.admission.admit(
            key,
            dialect.name,
            asking.asked,
            self._message,
            now_ms,
            carried_tokens=self._carried.get(asking.follows, 0),
            websocket=True,
        )
        upstream = plan.upstreams[0]
        address = sockets.exchange.address(request)
        with sockets.exchange.pace.slot(key, address):
            call = Call(books, key, dialect, plan, self._draft(asking, plan, key, call_id, now_ms), len(self._message))
            # Before the hold: a request that can't be changed for its route is refused, and must not leave one behind.
            model = plan.candidates.model_at(upstream.name, asking.asked.model)
            message = dialect.to_upstream(self._message, asking.asked, model)
            socket = self._socket
            if socket is None or upstream is not self._upstream:
                socket = await self.dial(upstream)
            await call.hold()
            call.upstream, call.credential = upstream.name, 1  # a connection is opened with the first
            running = SocketCall(
                call,
                asking,
                self._wire,
                client,
                socket,
                message,
                codex=is_codex(request),
                drain_ms=sockets.exchange.limits.drain_ms,
            )
            self._message = message = b""
            going = await running.run(sockets.exchange.live)
        if going:
            self._remember(self._wire.answer_id(call.reader), call.carried_tokens())
        else:
            self._close_code = WSCloseCode.INTERNAL_ERROR
        return going

    def _draft(self, asking: Asking, plan: Plan, key: StoredKey, call_id: str, now_ms: int) -> UsageRecord:
        exchange, wire, request = self._sockets.exchange, self._wire, self._request
        incoming = Incoming(request, wire.dialect, wire.endpoint, call_id, now_ms, key, b"", b"", asking.asked)
        return exchange.draft(incoming, plan, exchange.address(request))

    def _remember(self, answer_id: str, tokens: int) -> None:
        if answer_id:
            self._carried.pop(answer_id, None)
            self._carried[answer_id] = tokens
            if len(self._carried) > REMEMBERED_ANSWERS:
                del self._carried[next(iter(self._carried))]
