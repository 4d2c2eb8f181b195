"""A call's way to an upstream that answers: try after try, while no byte has reached the client and a repeat is safe.

What an answer means is decided in core.failover, where the next try goes in core.selection; here they are carried out, each
within a place at its upstream, and noted for the record. The last word of several failures is the most useful one. Must not
know wire formats, prices or the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
from structlog.typing import FilteringBoundLogger

from lumeproxy.clock import Clock
from lumeproxy.core.failover import Blame, Verdict, asked_wait_ms, judge, usefulness
from lumeproxy.core.health import HealthRules, RepeatBudget
from lumeproxy.core.selection import Attempt, Selection, Target
from lumeproxy.errors import Unreachable
from lumeproxy.proxy.admission import Candidates
from lumeproxy.proxy.slots import Slots
from lumeproxy.upstreams.base import CutShort, NotReached, Outgoing, Reply, Take, Upstream

# An upstream's error body is small; what is longer is not an error message for a client.
ERROR_BODY_BYTES = 1 << 20
# How long the body of an answer is awaited that may have to be passed on, if nothing better comes.
ERROR_BODY_S = 5.0
# What a client is told to wait where every place is taken: nobody knows how long an answer takes.
BUSY_WAIT_S = 5

DOWN = Verdict(Blame.UPSTREAM, repeat=True)  # nothing can have run
SILENT = Verdict(Blame.UPSTREAM, repeat=False)  # it may have run, and be billed
SLOW = Verdict(Blame.UPSTREAM, repeat=False)  # it is answering, and the next call may be served sooner elsewhere
BUSY, UNREACHABLE, NO_ANSWER, INTERRUPTED = "busy", "unreachable", "no_answer", "interrupted"


@dataclass(frozen=True, slots=True)
class FailoverRules:
    """How often and how long a call is tried; see [failover] in config.example.toml."""

    attempts: int
    budget_ms: int
    brief_wait_ms: int
    slow_ms: int
    queue_ms: int
    queue_calls: int


class Tried(NamedTuple):
    """One try, as the usage record has it: `status` is None where there was no answer, `error` then says why."""

    upstream: str
    credential: int
    status: int | None
    error: str
    ms: int


class Dispatcher:
    """What all calls share: health, affinity, places, and the budget of repeats. One a server."""

    def __init__(
        self,
        clock: Clock,
        log: FilteringBoundLogger,
        health: HealthRules,
        rules: FailoverRules,
        budget: RepeatBudget,
    ) -> None:
        self.clock = clock
        self.log = log
        self.rules = rules
        self.budget = budget
        self.selection = Selection(health)
        self.slots: dict[str, Slots] = {}

    def offer(self, upstreams: Mapping[str, Upstream], concurrent_calls: Mapping[str, int]) -> None:
        """These upstreams are in force from now on; calls that are running keep their places."""
        self.selection.offer({name: upstream.identities for name, upstream in upstreams.items()})
        for name in upstreams:
            limit = concurrent_calls.get(name, 0)
            self.slots.setdefault(name, Slots(limit)).limit = limit

    def failed(self, attempt: Attempt, verdict: Verdict, status: int = 0) -> None:
        """Report a failed try, and tell the operator when a circuit opens by it."""
        now_ms = self.clock.monotonic_ms()
        if not attempt.failed(verdict, now_ms, status):
            return
        target = attempt.target
        if verdict.blame is Blame.REFUSED:
            self.log.error(
                "credential_set_aside", upstream=target.upstream, credential=target.credential, status=status,
                note="the provider refuses it: see `lumeproxy upstream list`",
            )  # fmt: skip
            return
        member = self.selection.members.get(target.upstream)
        if verdict.blame is Blame.CREDENTIAL:
            until_ms = member and member.credentials[target.credential - 1].until_ms
            where = {"upstream": target.upstream, "credential": target.credential}
        else:
            until_ms = member and member.circuit.until_ms
            where = {"upstream": target.upstream}
        self.log.warning("upstream_down", **where, status=status or None, rest_ms=max(0, (until_ms or now_ms) - now_ms))

    def answered(self, attempt: Attempt) -> None:
        """Report a reply that has begun, and tell the operator when a circuit closes by it."""
        if attempt.answered(self.clock.monotonic_ms()):
            self.log.info("upstream_up", upstream=attempt.target.upstream, credential=attempt.target.credential)


class Dispatch:
    """One call's tries. `session` is whose prompt cache it is about; `outgoing` makes the request for an upstream; `begin`
    is told each try before it is sent, and None when that was not taken and another follows; `stop` says that nobody waits
    for an answer any more. What is not `billed`, a token count, needs no place and may be repeated after any failure."""

    def __init__(
        self,
        desk: Dispatcher,
        candidates: Candidates,
        session: Hashable,
        outgoing: Callable[[Upstream], Outgoing],
        begin: Callable[[Target | None], None],
        stop: Callable[[], bool],
        *,
        billed: bool = True,
    ) -> None:
        self._desk = desk
        self._session = session
        self._outgoing = outgoing
        self._begin = begin
        self._stop = stop
        self._billed = billed
        self._upstreams = {upstream.name: upstream for upstream in candidates.upstreams}
        self._names = tuple(self._upstreams)
        self._weights = candidates.weights
        self._started_ms = desk.clock.monotonic_ms()
        self._tried: list[Target] = []
        self._best: _Kept | NotReached | None = None
        self._attempt: Attempt | None = None
        self._slots: Slots | None = None
        self._busy = False
        self.notes: list[Tried] = []
        self.source: Target | None = None  # whose reply `send` returned, where that is not the last one tried

    async def send(self) -> Reply:
        """The reply of the first upstream that does not fail, else the most useful failure. Raises NotReached, and
        Unreachable where no upstream takes calls."""
        self._desk.budget.earn()
        self._choose()
        while self._attempt is not None:
            reply = await self._try(self._attempt)
            if reply is not None:
                return reply
        if isinstance(self._best, NotReached):
            raise self._best
        if self._best is not None:
            self.source = self._best.target
            return self._best
        if self._busy:
            raise Unreachable(
                "The model provider has as many calls running as it may have here; please try again.",
                retry_after_s=BUSY_WAIT_S,
            )
        raise Unreachable("The upstreams of this model are switched off for now. Ask your operator.", retry_after_s=60)

    async def _try(self, attempt: Attempt) -> Reply | None:
        """Send once. The reply to pass on; None where `_attempt` is the next try, or None when there is none."""
        upstream = self._upstreams[attempt.target.upstream]
        if not await self._enter(attempt):
            return None
        self._begin(attempt.target)
        attempt.begun_ms = self._desk.clock.monotonic_ms()
        try:
            reply = await upstream.send(self._outgoing(upstream), attempt.target.credential)
        except NotReached as error:
            self._unreached(attempt, error)
            return None
        except asyncio.CancelledError:
            self._note(attempt, None, INTERRUPTED)
            raise
        clock = self._desk.clock
        wait_ms = asked_wait_ms(reply.headers, clock.now_ms()) if reply.status >= 400 else None
        verdict = judge(reply.status, wait_ms, self._desk.rules.brief_wait_ms)
        self._note(attempt, reply.status, "")
        if verdict.blame is Blame.NOBODY:
            self._desk.answered(attempt)
            self._desk.selection.served(self._session, attempt.target)
            slow_ms = self._desk.rules.slow_ms
            if slow_ms and clock.monotonic_ms() - attempt.begun_ms > slow_ms:
                self._desk.failed(attempt, SLOW, reply.status)
            return reply
        self._desk.failed(attempt, verdict, reply.status)
        if verdict.repeat and self._may_repeat(sent=True):
            self._begin(None)
            try:
                self._keep(_Kept(attempt.target, reply, await _read_soon(reply), wait_ms))
            finally:
                reply.close()
            return None
        if not verdict.repeat:
            self._move(attempt)
        if isinstance(self._best, _Kept) and self._best.use > usefulness(reply.status, wait_ms):
            reply.close()
            self.source = self._best.target
            return self._best
        return reply

    def _unreached(self, attempt: Attempt, error: NotReached) -> None:
        """No answer came. Raises the error where the request may not be sent again."""
        self._note(attempt, None, NO_ANSWER if error.sent else UNREACHABLE)
        self._desk.failed(attempt, SILENT if error.sent else DOWN)
        if error.sent and self._billed:
            self._move(attempt)
            raise error
        if self._best is None:
            self._best = error
        if self._may_repeat(sent=False):
            self._begin(None)

    def _may_repeat(self, *, sent: bool) -> bool:
        """Choose the next try, where rules, budget and the client's patience allow one; whether there is one now.

        A request that never arrived anywhere is no load, and not taken from the budget."""
        rules, elapsed_ms = self._desk.rules, self._desk.clock.monotonic_ms() - self._started_ms
        self._leave()
        self._attempt = None
        if len(self.notes) >= rules.attempts or elapsed_ms >= rules.budget_ms or self._stop():
            return False
        attempt = self._choose()
        if attempt is not None and sent and not self._desk.budget.spend():
            attempt.ended(self._desk.clock.monotonic_ms(), well=False)
            self._attempt = None
            return False
        return attempt is not None

    def _choose(self) -> Attempt | None:
        self._attempt = attempt = self._desk.selection.choose(
            self._names,
            self._weights,
            self._session,
            self._tried,
            self._desk.clock.monotonic_ms(),
            busy=self._busy,
        )
        if attempt is not None:
            self._tried.append(attempt.target)
        return attempt

    async def _enter(self, attempt: Attempt) -> bool:
        """Take a place at the upstream, or choose another one."""
        slots = self._desk.slots.get(attempt.target.upstream)
        if slots is None or not self._billed:
            return True
        if slots.free():
            slots.running += 1
        elif not await slots.enter(wait_ms=self._desk.rules.queue_ms, queue_calls=self._desk.rules.queue_calls):
            self._busy = True
            self._note(attempt, None, BUSY)
            attempt.ended(self._desk.clock.monotonic_ms(), well=False)
            self._tried += self._desk.selection.targets(attempt.target.upstream)
            self._may_repeat(sent=False)
            return False
        self._slots = slots
        return True

    def _keep(self, kept: _Kept) -> None:
        """Remember a failure, if it tells more than the one before."""
        if not isinstance(self._best, _Kept) or kept.use >= self._best.use:
            self._best = kept

    def _move(self, attempt: Attempt) -> None:
        """The client will try again by itself: not at the upstream that has just failed it."""
        now_ms = self._desk.clock.monotonic_ms()
        self._desk.selection.move(self._names, self._weights, self._session, attempt.target, now_ms)

    def _note(self, attempt: Attempt, status: int | None, error: str) -> None:
        ms = self._desk.clock.monotonic_ms() - attempt.begun_ms
        self.notes.append(Tried(attempt.target.upstream, attempt.target.credential, status, error, ms))

    # --- the end -------------------------------------------------------------------------------------------------------

    def cut(self, *, begun: bool) -> None:
        """The upstream broke its answer off, or was silent for too long. A session stays where its prompt cache is after
        the first break, and goes elsewhere after the second in a row, or where no answer had `begun`."""
        attempt = self._attempt
        if attempt is None:
            return
        if not begun and self.notes and self.notes[-1].error == INTERRUPTED:
            self.notes[-1] = self.notes[-1]._replace(error=NO_ANSWER)
        self._desk.failed(attempt, SILENT)
        member = self._desk.selection.members.get(attempt.target.upstream)
        if not begun or (member is not None and member.circuit.failures > 1):
            self._move(attempt)

    def close(self, *, well: bool) -> None:
        """The call has ended; `well`, where the upstream did its part. Gives its place back; harmless to repeat."""
        self._leave()
        if self._attempt is not None:
            self._attempt.ended(self._desk.clock.monotonic_ms(), well=well)

    def _leave(self) -> None:
        if self._slots is not None:
            self._slots.leave()
            self._slots = None


def encode_tries(tried: Sequence[Tried]) -> str:
    """The tries as the usage record keeps them: a JSON list of lists."""
    return msgspec.json.encode(tried).decode()


async def read_all(reply: Reply) -> bytes:
    """An error's body, cut at a limit that no honest error reaches; one that breaks off is kept as far as it came."""
    pieces: list[bytes] = []
    await _collect(reply, pieces)
    return b"".join(pieces)[:ERROR_BODY_BYTES]


async def _read_soon(reply: Reply) -> bytes:
    """The same of an answer that is probably not needed: what comes in ERROR_BODY_S."""
    pieces: list[bytes] = []
    try:
        async with asyncio.timeout(ERROR_BODY_S):
            await _collect(reply, pieces)
    except TimeoutError:
        pass  # what has come is a piece of an error message, and better than none
    return b"".join(pieces)[:ERROR_BODY_BYTES]


async def _collect(reply: Reply, pieces: list[bytes]) -> None:
    size = 0
    try:
        while size < ERROR_BODY_BYTES and (chunk := await reply.read()):
            pieces.append(chunk)
            size += len(chunk)
    except CutShort:
        pass


class _Kept:
    """A failed upstream's answer, whole: passed on where nothing better comes."""

    def __init__(self, target: Target, reply: Reply, body: bytes, wait_ms: int | None) -> None:
        self.target = target
        self.status = reply.status
        self.headers = reply.headers
        self.content_type = reply.content_type
        self.content_length: int | None = len(body)
        self.encoding = reply.encoding
        self.use = usefulness(reply.status, wait_ms)
        self._left = body

    async def read(self) -> bytes:
        """All of it, then the end."""
        body, self._left = self._left, b""
        return body

    async def flow(self, _take: Take) -> bool:
        """Nothing arrives by itself here."""
        return False

    def pause(self) -> None:
        """Nothing arrives by itself here."""

    def close(self) -> None:
        """Nothing is open."""
