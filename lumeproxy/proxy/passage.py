"""The way of one held call through upstream and relay, and every ending it can take.

Each ending settles first and then speaks to the client. Must not know wire formats, prices or the database.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp import web

from lumeproxy.core.selection import Target
from lumeproxy.core.types import Ending
from lumeproxy.dialects.base import Mark, error_facts
from lumeproxy.errors import AccountSuspended, CredentialRejected, LumeError, Unauthorized, Unreachable, UpstreamError
from lumeproxy.proxy import answers
from lumeproxy.proxy.answers import headers_for_client, request_id
from lumeproxy.proxy.call import Call
from lumeproxy.proxy.dispatch import Dispatch, Dispatcher, encode_tries, read_all
from lumeproxy.proxy.incoming import Incoming
from lumeproxy.proxy.live import Cause, LiveCall, Stage
from lumeproxy.proxy.meter import JsonMeter, StreamMeter
from lumeproxy.proxy.relay import ClientLeft, Relay
from lumeproxy.upstreams.base import CutShort, Outgoing, Reply, Upstream

# nginx's word for a client that closed the request; nobody receives it.
CLIENT_CLOSED_STATUS = 499


@dataclass(frozen=True, slots=True)
class ExchangeLimits:
    """The limits of design section 11 that this module applies; see config.example.toml for their reasons."""

    body_bytes: int
    body_idle_ms: int
    body_bytes_per_s: int
    event_bytes: int
    json_reply_bytes: int
    json_buffer_bytes: int
    count_ms: int
    drain_ms: int


class Passage:
    """The way of one call through upstream and relay, and its endings other than complete."""

    def __init__(
        self, limits: ExchangeLimits, call: Call, incoming: Incoming, live: LiveCall, dispatcher: Dispatcher
    ) -> None:
        self._limits = limits
        self._call = call
        self._incoming = incoming
        self._live = live
        self._dispatch = Dispatch(
            dispatcher, call.plan.candidates, self._session(), self._outgoing, self._begin, self._unwanted
        )
        self._reply: Reply | None = None
        self._relay: Relay | None = None
        self._meter: StreamMeter | JsonMeter | None = None
        self._refusing = False

    async def go(self) -> web.StreamResponse:
        """Send, then pass the reply on by its kind. Raises NotReached, CutShort, ClientLeft."""
        call, live = self._call, self._live
        try:
            reply = self._reply = await self._dispatch.send()
        finally:
            call.attempts = encode_tries(self._dispatch.notes)
        self._incoming.forget_body()
        if self._dispatch.source is not None:
            call.upstream, call.credential = self._dispatch.source.upstream, self._dispatch.source.credential
        call.status = reply.status
        call.upstream_request_id = request_id(reply)
        if reply.status >= 300 or reply.status < 200:
            return await self._refused(reply)
        streamed = reply.content_type == "text/event-stream"
        if streamed:
            self._meter = StreamMeter(
                call.reader,
                call.dialect.terminal_markers,
                event_bytes=self._limits.event_bytes,
                encoding=reply.encoding,
            )
        else:
            self._meter = JsonMeter(call.reader, limit_bytes=self._limits.json_reply_bytes, encoding=reply.encoding)
        relay = self._relay = Relay(call, live, self._incoming.request, reply)
        if isinstance(self._meter, StreamMeter):
            return await relay.stream(self._meter)
        return await relay.whole(self._meter, buffer_bytes=self._limits.json_buffer_bytes)

    def _session(self) -> tuple[str, str, str]:
        """Whose prompt cache a call is about: the session's, else the key's; each model has its own."""
        draft = self._call.draft
        return (draft.key_id, draft.session_id, self._call.plan.candidates.model)

    def _outgoing(self, upstream: Upstream) -> Outgoing:
        model = self._call.plan.candidates.model_at(upstream.name, self._incoming.asked.model)
        return self._incoming.outgoing(model, plain=not upstream.takes_encoded)

    def _begin(self, target: Target | None) -> None:
        """A try is about to be sent, or (None) was not taken: then nobody bills it. Raises ClientLeft."""
        call = self._call
        call.sent = False
        if target is None:
            return
        if self._live.gone():
            raise ClientLeft
        call.upstream, call.credential, call.sent = target.upstream, target.credential, True
        if self._dispatch.notes:
            self._live.progress += 1  # the patience with a first byte begins anew

    def _unwanted(self) -> bool:
        return self._live.cause is not None or self._live.gone()

    async def _refused(self, reply: Reply) -> web.StreamResponse:
        """The upstream answered with an error: passed on unchanged, but for the operator's own credential."""
        self._refusing = True
        body = await read_all(reply)
        code, text = error_facts(body)
        if reply.status in (401, 402, 403):
            error: LumeError = credential_rejected()
        elif reply.status < 400:
            error = UpstreamError("The model provider answered with a redirect, which is not followed.")
        else:
            quotable = reply.status == 429 or reply.status >= 500
            await self._settle(Ending.REFUSED, code or f"http_{reply.status}", text if quotable else "")
            return web.Response(
                status=reply.status, headers=headers_for_client(reply, self._incoming.call_id), body=body
            )
        return await self.failed(error, Ending.REFUSED, code or f"http_{reply.status}")

    # --- endings -------------------------------------------------------------------------------------------------------

    async def failed(self, error: LumeError, ending: Ending = Ending.UNREACHABLE, code: str = "") -> web.StreamResponse:
        """No answer came; nothing is charged, and the client is told in its dialect."""
        await self._settle(ending, code or error.code)
        return self._answer(error)

    async def cut_by_upstream(self, code: str) -> web.StreamResponse:
        """The reply broke off. The client sees a broken answer too, never a clean end."""
        self._dispatch.cut(begun=True)
        begun = self._begun()
        if begun is None:
            started = self._call.reader.reading.output_bytes > 0
            await self._settle(Ending.CUT_BY_UPSTREAM if started else Ending.UNREACHABLE, "upstream_cut", code)
            error = Unreachable("The model provider's answer broke off before it was complete.", retry_after_s=1)
            return self._answer(error)
        self._count_delivered()
        await self._settle(Ending.CUT_BY_UPSTREAM, "upstream_cut", code)
        self.cut()
        return begun

    async def client_left(self) -> web.StreamResponse:
        """The client is gone. The provider bills all the same, so its usage is learned where that is possible soon."""
        call = self._call
        self._live.stage = Stage.OURSELVES
        if call.settled is None and self._reply is not None and self._meter is not None:
            await self._drain(self._reply, self._meter)
        self.close()
        if isinstance(self._meter, StreamMeter) and self._meter.mark is Mark.FAILED:
            await self._settle(Ending.CUT_BY_UPSTREAM, "")  # as if somebody had waited for it
        else:
            await self._settle(Ending.REFUSED if self._refusing else Ending.CUT_BY_CLIENT, "client_gone")
        return self.cut(at_once=True) or web.Response(status=CLIENT_CLOSED_STATUS)

    async def _drain(self, reply: Reply, meter: StreamMeter | JsonMeter) -> None:
        """Read on until the usage is known that can be, for at most `drain_ms` and while there is credit for it; what
        is not learned is estimated."""
        call = self._call
        complete = False
        if self._relay is not None and isinstance(meter, StreamMeter) and meter.mark is Mark.NONE:
            meter.feed(b"".join(self._relay.portions))  # they came, and are billed, though their turn did not come
        try:
            async with asyncio.timeout(self._limits.drain_ms / 1000):
                while not meter.learned:
                    chunk = await reply.read()
                    complete = not chunk
                    if complete:
                        break
                    meter.feed(chunk)
                    if call.due() and not await call.funded():
                        break
        except (TimeoutError, CutShort):
            pass
        if isinstance(meter, JsonMeter):
            meter.finish(complete=complete)

    async def interrupted(self, cause: Cause) -> web.StreamResponse:
        """The watch, or the operator, ended the call."""
        self._live.stage = Stage.OURSELVES
        if cause in (Cause.CLIENT_GONE, Cause.CLIENT_STALLED):
            return await self.client_left()
        self.close()
        begun = self._begun()
        if begun is not None:
            self._count_delivered()
        if cause in (Cause.UPSTREAM_SILENT, Cause.TOO_LONG):
            if cause is Cause.UPSTREAM_SILENT:
                self._dispatch.cut(begun=self._reply is not None)
                self._call.attempts = encode_tries(self._dispatch.notes)
            if begun is None:
                return await self.failed(Unreachable("The model provider did not answer in time.", retry_after_s=5))
            await self._settle(Ending.CUT_BY_UPSTREAM, cause.value)
            self.cut()
            return begun
        await self._settle(Ending.INTERRUPTED, cause.value)
        error = reason(cause)
        if begun is None:
            return self._answer(error)
        if self._relay is not None and isinstance(self._meter, StreamMeter):
            await self._relay.end_early(self._meter, error)
        else:
            self.cut()
        return begun

    def _count_delivered(self) -> None:
        """A JSON answer that breaks off can't be read: what was delivered of it counts by its size."""
        if isinstance(self._meter, JsonMeter):
            self._meter.finish(complete=False)

    def _answer(self, error: LumeError) -> web.StreamResponse:
        return answers.failed(self._incoming.dialect, error, self._incoming.request, self._incoming.call_id)

    def _begun(self) -> web.StreamResponse | None:
        return None if self._relay is None else self._relay.response

    async def _settle(self, ending: Ending, code: str, text: str = "") -> None:
        self._live.stage = Stage.OURSELVES
        await self._call.settle(ending, error_code=code, error_text=text)

    def cut(self, *, at_once: bool = False) -> web.StreamResponse | None:
        """Break the client's connection if an answer has begun, and return that answer; None when none has."""
        begun = self._begun()
        if begun is not None and self._relay is not None:
            self._relay.cut(at_once=at_once)
        return begun

    def close(self) -> None:
        """Let go of the upstream's reply and of the place there; harmless to repeat."""
        if self._reply is not None:
            self._reply.close()

    def end(self) -> None:
        """The call is settled, or will never be: report what that says of the upstream."""
        self.close()
        ending = self._call.ending
        if ending is Ending.CUT_BY_UPSTREAM:  # also by an error event, which the relay settles
            self._dispatch.cut(begun=True)
        self._dispatch.close(well=ending in (Ending.COMPLETE, Ending.REFUSED))


def credential_rejected() -> CredentialRejected:
    """What a client is told instead of the upstream's word about the operator's own credential."""
    return CredentialRejected(
        "The model provider refused this proxy's own credential or balance. Tell your operator; your key is fine."
    )


def reason(cause: Cause) -> LumeError:
    """What a client is told whose call was ended from outside."""
    if cause is Cause.SUSPENDED:
        return AccountSuspended("This account was suspended while the call was running.")
    if cause is Cause.REVOKED:
        return Unauthorized("This API key was revoked while the call was running. Ask your operator for a new one.")
    return Unreachable("This proxy is being restarted; please try again.", retry_after_s=5)
