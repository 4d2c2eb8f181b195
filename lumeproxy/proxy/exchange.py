"""One billed call from the client's request to the settled charge: the order of design section 4, readable on one screen.

Everything that can end a call passes through `_run`, so that each hold ends exactly once. Must not know wire formats.
"""

from __future__ import annotations

import asyncio
import os

from aiohttp import web

from lumeproxy.core import callid
from lumeproxy.core.types import Ending, UsageRecord
from lumeproxy.dialects.base import Dialect, Endpoint
from lumeproxy.errors import LumeError, Unreachable
from lumeproxy.logs import bug
from lumeproxy.proxy.address import Addresses
from lumeproxy.proxy.admission import Plan
from lumeproxy.proxy.auth import Auth
from lumeproxy.proxy.body import decoded, read_body
from lumeproxy.proxy.call import Books, Call
from lumeproxy.proxy.dispatch import Dispatcher
from lumeproxy.proxy.incoming import Incoming, printable
from lumeproxy.proxy.live import Cause, LiveCall, LiveCalls, Stage
from lumeproxy.proxy.pace import Pace
from lumeproxy.proxy.passage import ExchangeLimits, Passage
from lumeproxy.proxy.relay import ClientLeft
from lumeproxy.store.keys import StoredKey
from lumeproxy.upstreams.base import CutShort

CALL_ID = web.RequestKey("call_id", str)  # where a request carries its id, given before anything can fail


class Exchange:
    """Serves the billed endpoints of all dialects."""

    def __init__(
        self,
        *,
        books: Books,
        auth: Auth,
        live: LiveCalls,
        pace: Pace,
        addresses: Addresses,
        limits: ExchangeLimits,
        dispatcher: Dispatcher,
    ) -> None:
        self.books = books
        self.dispatcher = dispatcher
        self.limits = limits
        self._auth = auth
        self.live = live
        self.pace = pace
        self._addresses = addresses

    async def serve(self, request: web.BaseRequest, dialect: Dialect, endpoint: Endpoint) -> web.StreamResponse:
        """Answer one call. Errors before the hold cost nothing and are rendered in the caller's dialect."""
        incoming = await self.receive(request, dialect, endpoint)
        key, plain = incoming.key, incoming.plain
        plan = self.books.admission.admit(key, dialect.name, incoming.asked, plain, incoming.time_ms)
        address = self.address(request)
        with self.pace.slot(key, address):
            call = Call(self.books, key, dialect, plan, self.draft(incoming, plan, address), len(plain))
            await call.hold()
            return await self._run(call, incoming)

    async def receive(self, request: web.BaseRequest, dialect: Dialect, endpoint: Endpoint) -> Incoming:
        """Authenticate, then read and understand the request. Raises CallerError kinds, ClientGone."""
        time_ms = self.books.clock.now_ms()
        generation = self._auth.generation
        key = await self.caller(request)
        limits = self.limits
        limit = limits.body_bytes
        body = await read_body(
            request, limit_bytes=limit, idle_ms=limits.body_idle_ms, bytes_per_s=limits.body_bytes_per_s
        )
        if self._auth.generation != generation or key.has_end:
            key = await self.caller(request)  # it may have ended while the body arrived
        coding = request.headers.get("Content-Encoding", "")
        plain = decoded(body, coding, limit) if coding else body
        return Incoming(request, dialect, endpoint, request[CALL_ID], time_ms, key, body, plain, dialect.ask(plain))

    async def caller(self, request: web.BaseRequest) -> StoredKey:
        """The key of a request. Raises as Auth.caller."""
        return await self._auth.caller(request.headers, lambda: self.address(request))

    def address(self, request: web.BaseRequest) -> str:
        """The client's address, as it is recorded."""
        return self._addresses.client(request.remote, request.headers.getall("X-Forwarded-For", ()))

    def draft(self, incoming: Incoming, plan: Plan, address: str) -> UsageRecord:
        """The record of a call as far as it is known before the call."""
        request = incoming.request
        session_id, agent_id = incoming.dialect.session(request.headers)
        return UsageRecord(
            call_id=incoming.call_id,
            time_ms=incoming.time_ms,
            account_id=incoming.key.account_id,
            key_id=incoming.key.id,
            endpoint="/v1" + incoming.endpoint.path,
            dialect=incoming.dialect.name,
            model=incoming.asked.model,
            price_version=plan.price.version,
            multiplier_ppm=self.books.admission.billing.multiplier_ppm,
            client_address=address,
            user_agent=printable(request.headers.get("User-Agent", "")),
            session_id=session_id,
            agent_id=agent_id,
        )

    # --- one call ------------------------------------------------------------------------------------------------------

    async def _run(self, call: Call, incoming: Incoming) -> web.StreamResponse:
        """Relay and settle. Whatever happens in between, the hold ends here."""
        request = incoming.request
        task = asyncio.current_task()
        assert task is not None
        live = LiveCall(
            call_id=incoming.call_id,
            account_id=incoming.key.account_id,
            key_id=incoming.key.id,
            task=task,
            gone=lambda: request.transport is None,
            checkpoint=call.checkpoint,
            started_ms=call.started_ms,
        )
        passage = Passage(self.limits, call, incoming, live, self.dispatcher)
        self.live.add(live)
        try:
            return await self._ended(passage, live, task)
        except BaseException as error:
            # A bug of ours, or the server is going down and does not wait any longer. The call must not keep its hold,
            # nor be charged more than was metered.
            live.stage = Stage.OURSELVES
            stopped = isinstance(error, asyncio.CancelledError)
            await call.settle(Ending.INTERRUPTED, error_code=Cause.STOPPING.value if stopped else LumeError.code)
            begun = passage.cut()
            if begun is None or not isinstance(error, Exception):
                raise
            bug(self.books.log, error, incoming.call_id)
            return begun
        finally:
            passage.end()
            self.live.remove(live)

    @staticmethod
    async def _ended(passage: Passage, live: LiveCall, task: asyncio.Task[object]) -> web.StreamResponse:
        """Go, and take the ending that came of it."""
        try:
            return await passage.go()
        except asyncio.CancelledError:
            if live.cause is None:
                raise
            task.uncancel()
            return await passage.interrupted(live.cause)
        except ClientLeft:
            return await passage.client_left()
        except CutShort as error:
            return await passage.cut_by_upstream(str(error))
        except Unreachable as error:
            return await passage.failed(error)


def new_call_id(now_ms: int) -> str:
    """A fresh id from the system's randomness."""
    return callid.make(now_ms, os.urandom(callid.RANDOM_BYTES))
