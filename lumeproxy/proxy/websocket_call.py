"""One answer over a WebSocket: a held call from its request to the settled charge, by the order of design section 4.

The rules are those of an HTTP call (exchange, passage, relay): every ending settles first and then speaks to the client,
and the last event goes after the commit. What differs is that events are messages, and that both connections may go on
to serve the next call. Must not know wire formats or prices.
"""

from __future__ import annotations

import asyncio

from lumeproxy.core.types import Ending
from lumeproxy.dialects.base import Mark
from lumeproxy.dialects.openai_websocket import Asking, OpenAIWebSocket
from lumeproxy.errors import LumeError, OutOfCredit, Unreachable
from lumeproxy.logs import bug
from lumeproxy.proxy.call import Call
from lumeproxy.proxy.live import Cause, LiveCall, LiveCalls, Stage
from lumeproxy.proxy.passage import credential_rejected, reason
from lumeproxy.proxy.relay import ClientLeft, ran_out
from lumeproxy.proxy.websocket_client import Client
from lumeproxy.upstreams.base import CutShort, Message, NotReached, Socket


class SocketCall:
    """A held call and the two connections that it passes between."""

    def __init__(
        self,
        call: Call,
        asking: Asking,
        wire: OpenAIWebSocket,
        client: Client,
        socket: Socket,
        message: bytes,
        *,
        codex: bool,
        drain_ms: int,
    ) -> None:
        self._call = call
        self._asking = asking
        self._wire = wire
        self._client = client
        self._socket = socket
        self._message = message
        self._codex = codex
        self._drain_ms = drain_ms
        self._begun = False  # something of an answer has come, not only of the connection
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._live = LiveCall(
            call_id=call.draft.call_id,
            account_id=call.key.account_id,
            key_id=call.key.id,
            task=task,
            gone=lambda: client.gone,
            checkpoint=call.checkpoint,
            started_ms=call.started_ms,
        )

    async def run(self, lives: LiveCalls) -> bool:
        """Send the request and pass its answer on. Whatever happens in between, the hold ends here.

        Whether both connections are fit for another call.
        """
        lives.add(self._live)
        try:
            return await self._ended()
        except BaseException as error:
            # As in the exchange: a bug of ours, or the server does not wait any longer.
            self._live.stage = Stage.OURSELVES
            stopped = isinstance(error, asyncio.CancelledError)
            code = Cause.STOPPING.value if stopped else LumeError.code
            await self._call.settle(Ending.INTERRUPTED, error_code=code)
            if not isinstance(error, Exception):
                raise
            bug(self._call.books.log, error, self._call.draft.call_id)
            return False
        finally:
            lives.remove(self._live)

    async def _ended(self) -> bool:
        """Go, and take the ending that came of it."""
        try:
            return await self._go()
        except asyncio.CancelledError:
            if self._live.cause is None:
                raise
            self._task.uncancel()
            return await self._interrupted(self._live.cause)
        except ClientLeft:
            return await self._client_left()
        except CutShort as error:
            return await self._cut_by_upstream(str(error))
        except NotReached as error:
            await self._settle(Ending.UNREACHABLE, error.code)
            return await self._refuse(error)

    async def _go(self) -> bool:
        call, live = self._call, self._live
        if live.gone():
            raise ClientLeft  # before anything was sent, so that nobody bills it
        call.sent = True
        await self._socket.send(self._message)
        self._message = b""  # a prompt is kept no longer than needed
        while True:
            event = await self._socket.receive()
            live.progress += 1
            mark = self._metered(event)
            if not self._begun:
                refusal = self._refusal(event)
                if refusal is not None:
                    return await self._refused(event, *refusal)
            if live.cause is not None:
                raise ClientLeft  # noted before the answer began
            if mark is not Mark.NONE:
                return await self._last(event, mark)
            if call.due():
                live.urgent = live.urgent or call.review_at_chars == 0
                if not await call.funded():
                    return await self._out_of_credit(event)
            await self._write(event)
            live.stage = Stage.UPSTREAM

    def _metered(self, event: Message) -> Mark:
        """Read an event; one that nobody can read counts by its size."""
        call = self._call
        if call.ttfb_ms is None:
            call.ttfb_ms = call.books.clock.monotonic_ms() - call.started_ms
        reading = call.reader.reading
        reading.output_bytes += len(event.data)
        if event.binary:
            reading.truncated = True
            reading.output_chars += len(event.data)
            return Mark.NONE
        return call.reader.event(event.data)

    def _refusal(self, event: Message) -> tuple[int, str, str] | None:
        """What an event before the answer refuses it with, as the wire has it; None where it does not, but may begin it."""
        refusal = None if event.binary else self._wire.refusal(event.data)
        if refusal is not None:
            self._call.status = refusal[0] or None
            return refusal
        self._begun = event.binary or self._wire.starts_answer(event.data)
        self._call.status = 200 if self._begun else None
        return None

    def _look_at_warm_up(self) -> None:
        """A warm-up that has ended, and of which the provider says no usage, is not billed by it."""
        reading = self._call.reader.reading
        if not self._asking.generates and not (reading.input_reported or reading.output_chars):
            self._call.sent = False

    async def _write(self, event: Message) -> None:
        """Write under the watch's eyes: a client that takes nothing for too long is given up."""
        self._live.stage = Stage.CLIENT
        await self._client.write(event.data, binary=event.binary)
        self._live.progress += 1

    # --- endings -------------------------------------------------------------------------------------------------------

    async def _last(self, event: Message, mark: Mark) -> bool:
        """The last event, or an error in the middle: settled, then let go."""
        self._look_at_warm_up()
        await self._settle(Ending.CUT_BY_UPSTREAM if mark is Mark.FAILED else Ending.COMPLETE)
        await self._write(event)
        return True

    async def _refused(self, event: Message, status: int, code: str, text: str) -> bool:
        """An error instead of an answer: passed on unchanged, but for the operator's own credential."""
        quotable = status == 429 or status >= 500
        await self._settle(Ending.REFUSED, code or "error", text if quotable else "")
        if status not in (401, 402, 403):
            await self._write(event)
            return True
        return await self._refuse(credential_rejected())

    async def _cut_by_upstream(self, code: str) -> bool:
        """The connection broke. The client's is broken too, never ended as if the answer were complete."""
        if self._begun:
            await self._settle(Ending.CUT_BY_UPSTREAM, "upstream_cut", code)
            return False
        await self._settle(Ending.UNREACHABLE, "upstream_cut", code)
        return await self._refuse(Unreachable("The model provider closed the connection.", retry_after_s=1))

    async def _client_left(self) -> bool:
        """The provider bills all the same, so its usage is learned where that is possible soon. What it refuses or fails
        meanwhile it does not."""
        call = self._call
        self._live.stage = Stage.OURSELVES
        ending, code = Ending.CUT_BY_CLIENT, "client_gone"
        if call.settled is None and call.reader.reading.output_bytes:
            ending, code = await self._drain() or (ending, code)
        await self._settle(ending, code)
        self._client.cut()
        return False

    async def _drain(self) -> tuple[Ending, str] | None:
        """Read on until the usage is known, for at most `drain_ms` and while there is credit for it. The ending and its
        code where the provider gave no answer, or none to its end."""
        call = self._call
        try:
            async with asyncio.timeout(self._drain_ms / 1000):
                while not call.reader.reading.input_reported:
                    event = await self._socket.receive()
                    mark = self._metered(event)
                    refusal = None if self._begun else self._refusal(event)
                    if refusal is not None:
                        return Ending.REFUSED, refusal[1] or "error"
                    if mark is Mark.FAILED:
                        return Ending.CUT_BY_UPSTREAM, ""
                    if mark is not Mark.NONE:
                        self._look_at_warm_up()
                        break
                    if call.due() and not await call.funded():
                        break
        except (TimeoutError, CutShort):
            pass
        return None

    async def _interrupted(self, cause: Cause) -> bool:
        """The watch, or the operator, ended the call."""
        self._live.stage = Stage.OURSELVES
        if cause in (Cause.CLIENT_GONE, Cause.CLIENT_STALLED):
            return await self._client_left()
        if cause in (Cause.UPSTREAM_SILENT, Cause.TOO_LONG):
            if self._begun:
                await self._settle(Ending.CUT_BY_UPSTREAM, cause.value)
                return False
            await self._settle(Ending.UNREACHABLE, Unreachable.code)
            return await self._refuse(Unreachable("The model provider did not answer in time.", retry_after_s=5))
        await self._settle(Ending.INTERRUPTED, cause.value)
        error = reason(cause)
        if not self._begun:
            return await self._refuse(error)
        await self._client.farewell(self._ending(error))
        return False

    async def _out_of_credit(self, event: Message) -> bool:
        """Settle, deliver what was metered, say why. It is charged, at most the hold."""
        self._live.stage = Stage.OURSELVES
        await self._socket.close()
        settled = await self._call.settle(Ending.OUT_OF_CREDIT, error_code=OutOfCredit.code)
        await self._write(event)
        await self._write(Message(self._ending(ran_out(self._call, settled))))
        return False

    async def _settle(self, ending: Ending, code: str = "", text: str = "") -> None:
        self._live.stage = Stage.OURSELVES
        await self._call.settle(ending, error_code=code, error_text=text)

    def _ending(self, error: LumeError) -> bytes:
        """What ends an answer that has begun. The provider goes on with it, so its connection must end too."""
        return self._wire.ending(error, self._call.reader, lane=self._asking.lane)

    async def _refuse(self, error: LumeError) -> bool:
        """Say what went wrong instead of an answer. What the provider does with the request is not known."""
        call_id = self._call.draft.call_id
        await self._client.farewell(self._wire.error(error, call_id, codex=self._codex, lane=self._asking.lane))
        return False
