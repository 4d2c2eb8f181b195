"""One billed call: its hold, what is known of it so far, and its settlement. No HTTP here.

The hold is committed before a byte goes upstream, is extended ahead of the metered cost without stalling the stream, and
ends exactly once in `settle`, whatever the ending. Must not know wire formats.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TypeVar

import msgspec
from structlog.typing import FilteringBoundLogger

from lumeproxy.clock import Clock
from lumeproxy.core.money import PPM
from lumeproxy.core.pricing import Price, cost, encode_price
from lumeproxy.core.settlement import NOTHING, Bounds, Metered, Verdict, clamp, decide
from lumeproxy.core.types import Ending, SettledBy, Usage, UsageRecord
from lumeproxy.dialects.base import Dialect, Reader
from lumeproxy.errors import StoreUnavailable
from lumeproxy.proxy.admission import Admission, Plan
from lumeproxy.proxy.tally import Tally
from lumeproxy.store import ledger, prices
from lumeproxy.store.database import Database, Tx, unattended
from lumeproxy.store.keys import StoredKey
from lumeproxy.store.ledger import CheckPoint, HoldTaken, Settled

T = TypeVar("T")
# Between two tries to settle while the database takes no writes. The call's client waits for its last event so long.
SETTLE_RETRY_S = 0.5


@dataclass(slots=True)
class Books:
    """What a call needs to be held, priced and settled; one a server.

    `admission` is exchanged as a whole when the settings are read anew; a call keeps the one that admitted it.
    """

    database: Database
    admission: Admission
    clock: Clock
    log: FilteringBoundLogger
    remembered_prices: set[str]
    tally: Tally = field(default_factory=Tally)

    async def remember(self, price: Price) -> None:
        """See to it that a bill by this price can be recomputed for ever: its terms are in the database."""
        if price.version not in self.remembered_prices:
            await self.database.submit_urgent(prices.remember, price.version, encode_price(price), self.clock.now_ms())
            self.remembered_prices.add(price.version)

    def submit(self, record: UsageRecord, *used: Price) -> asyncio.Future[Settled]:
        """Queue a settlement, and with it the prices `used` that are new: before this returns, so that no cancellation
        can come in between."""
        new = [price for price in used if price.version not in self.remembered_prices]
        if not new:
            return self.database.submit_urgent(ledger.settle, record)
        texts, now_ms = [(price.version, encode_price(price)) for price in new], self.clock.now_ms()

        def settle(tx: Tx) -> Settled:
            for version, text in texts:
                prices.remember(tx, version, text, now_ms)
            return ledger.settle(tx, record)

        return self.database.submit_urgent(settle)


class Call:
    """The life of one hold."""

    def __init__(
        self, books: Books, key: StoredKey, dialect: Dialect, plan: Plan, draft: UsageRecord, body_bytes: int
    ) -> None:
        self.books = books
        self._admission = books.admission
        self.key = key
        self.dialect = dialect
        self.plan = plan
        self.draft = draft
        self.started_ms = books.clock.monotonic_ms()
        self.reader: Reader = dialect.reader(plan.asked)
        self.upstream = ""
        self.credential = 0
        self.attempts = ""  # every try, as the record has it
        self.ending: Ending | None = None  # once the settlement has been decided
        self.status: int | None = None
        self.ttfb_ms: int | None = None
        self.sent = False  # a provider may have the request, and bill it
        self.upstream_request_id = ""
        self.held_nanousd = 0
        self.available_nanousd = 0
        self.settled: Settled | None = None
        self.review_at_chars = 0
        self._covered_chars = 0
        self._body_bytes = body_bytes
        self._reviewed: Usage | None = None
        self._extending: asyncio.Future[int] | None = None
        self._exhausted = False
        self._kept: tuple[Usage, int] | None = None

    async def hold(self) -> None:
        """Set credit aside, committed when this returns. Raises OutOfCredit, AccountSuspended, StoreUnavailable."""
        # A checkpoint names what the provider bills, too, at whichever upstream it will be.
        for price in (self.plan.price, *(self._cost_price(one.name, self.plan.price) for one in self.plan.upstreams)):
            if price.version not in self.books.remembered_prices:
                await self.books.remember(price)
        taking = self.books.database.submit(
            ledger.hold,
            self.draft.call_id,
            self.draft.account_id,
            self.plan.want_nanousd,
            self.plan.at_least_nanousd,
            self.draft,
            self.draft.time_ms,
            self.key.id if self.key.budget else None,
            abandoned=self._give_back,
        )
        try:
            taken = await taking
        except asyncio.CancelledError:
            if not taking.cancelled() and taking.exception() is None:  # taken in the very turn of the cancellation
                self._give_back(taking.result())
            raise
        self.held_nanousd = taken.amount_nanousd
        self.available_nanousd = taken.available_nanousd

    def _give_back(self, _taken: HoldTaken) -> None:
        """End a hold whose caller was cancelled while it was being taken: nobody is left to settle it."""
        price = self.plan.price
        record = self._record(Ending.INTERRUPTED, NOTHING, price, "stopping", "")
        try:
            self.books.submit(record, price).add_done_callback(unattended)
        except StoreUnavailable:
            return  # the next start releases it

    # --- while it runs -------------------------------------------------------------------------------------------------

    def due(self) -> bool:
        """Whether the metered cost may have come near the hold since the last `funded`; cheap, asked per chunk."""
        reading = self.reader.reading
        return reading.output_chars >= self.review_at_chars or reading.usage is not self._reviewed

    def covers(self, size: int) -> bool:
        """Whether the hold covers what a chunk of so many bytes can hold, as far as the last `funded` knew."""
        reading = self.reader.reading
        return reading.output_chars + size < self._covered_chars and reading.usage is self._reviewed

    def room(self) -> int:
        """How many bytes may come of which the hold covers whatever they hold, as far as the last `funded` knew."""
        reading = self.reader.reading
        return max(0, self._covered_chars - reading.output_chars - 1) if reading.usage is self._reviewed else 0

    async def funded(self) -> bool:
        """Extend the hold ahead of the metered cost; False when the credit is out and the stream has to end.

        Returns at once while the hold covers what was delivered; waits for a pending extension only when it does not.
        While the database takes no writes the stream goes on: what it costs beyond the hold is taken from the balance
        when it is settled.
        """
        while not self.reviewed():
            pending = self._extending
            if pending is None:
                return False
            # Not awaited itself: a call that is cancelled here must not cancel an extension that is under way. Its own
            # callback, which was there first, has taken it in when this goes on.
            await _landed(pending)
            error = pending.exception()
            if isinstance(error, StoreUnavailable):
                return True
            if error is not None:
                raise error
        return True

    def reviewed(self) -> bool:
        """What `funded` can tell without waiting: True while the hold covers what was delivered."""
        slack = self.held_nanousd - self._metered_nanousd()
        margin = self.plan.slice_nanousd // 2
        if slack < margin and self._extending is None and not self._exhausted:
            try:
                self._extend(self.plan.slice_nanousd - min(slack, 0))
            except StoreUnavailable:
                return True
        if slack < 0:
            return False
        # Until an extension has come, or when none will, there is nothing to be done before the hold is used up.
        self._set_review(slack, 0 if self._exhausted or self._extending is not None else margin)
        return True

    def _extend(self, by_nanousd: int) -> None:
        self._extending = self.books.database.submit_urgent(ledger.extend, self.draft.call_id, by_nanousd)
        self._extending.add_done_callback(self._extended)

    def _extended(self, future: asyncio.Future[int]) -> None:
        """Take an extension in."""
        self._extending = None
        if future.cancelled() or future.exception() is not None:
            return
        self.held_nanousd += future.result()
        self._exhausted = future.result() == 0

    def _set_review(self, slack: int, margin: int) -> None:
        """The number of delivered characters at which to look again: a hundredth of a slice at least."""
        reading = self.reader.reading
        self._reviewed = reading.usage
        ahead = max(slack - margin, self.plan.slice_nanousd // 100)
        # A token is at least two characters in the estimate, so this many can't cost more than `ahead`.
        per_char = max(1, self.plan.slice_nanousd // (2 * self.plan.slice_tokens))
        self.review_at_chars = reading.output_chars + max(1, ahead // per_char)
        self._covered_chars = reading.output_chars + slack // per_char

    def _metered_usage(self) -> Usage:
        """Usage so far: reported numbers, our estimate where nothing was reported yet, at most the bound: an upstream
        that lies must not take all the account's credit for a hold, nor leave a checkpoint that can't be booked."""
        reading = self.reader.reading
        usage = reading.usage
        if not reading.input_reported:
            usage = replace(usage, input_tokens=self.plan.estimated_input_tokens)
        if not reading.output_final:
            delivered = self._admission.output_tokens(self.plan.upstream_model, reading.output_chars)
            if delivered > usage.output_tokens:
                usage = replace(usage, output_tokens=delivered)
        return clamp(usage, self._bounds())

    def carried_tokens(self) -> int:
        """How many tokens a request brings along that goes on from this answer: what went in, and what came out."""
        usage = self._metered_usage()
        return usage.total_input_tokens + usage.output_tokens

    def _bounds(self) -> Bounds:
        return self._admission.bounds(self.plan, self._body_bytes, self.reader.reading.output_bytes)

    def _metered_nanousd(self) -> int:
        return cost(self.plan.price, self._metered_usage(), self._admission.billing.multiplier_ppm)

    def checkpoint(self) -> CheckPoint | None:
        """What is to survive the death of the process, None when nothing is new since the last one."""
        reading = self.reader.reading
        mark = (reading.usage, reading.output_chars)
        if self.settled is not None or mark == self._kept or not (reading.input_reported or reading.output_chars):
            return None
        self._kept = mark
        usage = self._metered_usage()
        return CheckPoint(
            **{name: getattr(usage, name) for name in Usage.__slots__},
            at_ms=self.books.clock.now_ms(),
            model_served=reading.model_served,
            price_version=self.plan.price.version,
            ttfb_ms=self.ttfb_ms,
            status=self.status,
            upstream=self.upstream,
            credential=self.credential,
            upstream_price_version=self._cost_price(self.upstream, self.plan.price).version,
        )

    def _cost_price(self, upstream: str, charged: Price) -> Price:
        """What the provider bills at an upstream."""
        return self._admission.cost_price(self.plan, upstream, charged, self.draft.time_ms)

    # --- at its end ----------------------------------------------------------------------------------------------------

    async def settle(self, ending: Ending, *, error_code: str = "", error_text: str = "") -> Settled:
        """End the hold with one transaction; returns what was charged. Repeats return the first answer.

        Waits for as long as the database takes no writes: the charge is not dropped. A caller that is cancelled
        meanwhile leaves a submitted settlement behind, which is carried out all the same.
        """
        if self.settled is not None:
            return self.settled
        self.ending = ending
        verdict, price = self._verdict(ending)
        billed = self._cost_price(self.upstream, price)
        record = self._record(ending, verdict, price, error_code, error_text)
        complained = False
        while True:
            try:
                self.settled = await self.books.submit(record, price, billed)
                break
            except StoreUnavailable as error:
                if not complained:
                    self.books.log.error("settlement_waits", call=record.call_id, reason=error.message)
                    complained = True
                await asyncio.sleep(SETTLE_RETRY_S)
        self.books.remembered_prices |= {price.version, billed.version}
        self._report(record)
        return self.settled

    def _verdict(self, ending: Ending) -> tuple[Verdict, Price]:
        plan, reading = self.plan, self.reader.reading
        admission = self._admission
        price = plan.price
        if reading.terms is not None and reading.terms != plan.asked.terms:
            provider = plan.upstreams[0].provider
            price = (
                admission.price(plan.asked.model, plan.upstream_model, provider, self.draft.time_ms, reading.terms)
                or plan.price
            )
        if not self.sent:
            return NOTHING, price
        metered = Metered(
            usage=reading.usage,
            input_reported=reading.input_reported,
            output_reported=reading.output_reported,
            output_final=reading.output_final,
            estimated_input_tokens=plan.estimated_input_tokens,
            estimated_output_tokens=admission.output_tokens(plan.upstream_model, reading.output_chars),
            absurd=reading.absurd,
        )
        verdict = decide(ending, metered, self._bounds())
        if verdict.settled_by is SettledBy.REPORTED:
            admission.observe(plan, verdict.usage.total_input_tokens)
        return verdict, price

    def _record(self, ending: Ending, verdict: Verdict, price: Price, error_code: str, error_text: str) -> UsageRecord:
        billed = self._cost_price(self.upstream, price)
        ppm = self._admission.billing.multiplier_ppm
        bill = cost(price, verdict.usage, ppm)
        billed_nanousd = bill if billed is price and ppm == PPM else cost(billed, verdict.usage, PPM)
        settled_by, estimated = verdict.settled_by, verdict.estimated
        if ending in (Ending.OUT_OF_CREDIT, Ending.INTERRUPTED) and bill > self.held_nanousd:
            bill, settled_by, estimated = self.held_nanousd, SettledBy.BOUND, True
        reading = self.reader.reading
        return msgspec.structs.replace(
            self.draft,
            **{name: getattr(verdict.usage, name) for name in Usage.__slots__},
            model_served=reading.model_served or (self.plan.upstream_model if self.sent else ""),
            upstream=self.upstream,
            status=self.status,
            ending=ending.value,
            cost_nanousd=bill,
            price_version=price.version,
            multiplier_ppm=ppm,
            estimated=estimated,
            settled_by=settled_by.value,
            ttfb_ms=self.ttfb_ms,
            duration_ms=self.books.clock.monotonic_ms() - self.started_ms,
            upstream_request_id=self.upstream_request_id,
            error_code=error_code or reading.error_code,
            error_text=error_text,
            credential=self.credential,
            upstream_cost_nanousd=billed_nanousd if self.sent else 0,
            upstream_price_version=billed.version if self.sent else "",
            attempts=self.attempts,
        )

    def _report(self, record: UsageRecord) -> None:
        """The one log line of a call."""
        assert self.settled is not None
        self.books.tally.ended(record, self.settled)
        log = self.books.log.warning if self.settled.shortfall_nanousd else self.books.log.info
        log(
            "call",
            call=record.call_id,
            account=self.key.account_name,
            model=record.model,
            upstream=record.upstream,
            status=record.status,
            ending=record.ending,
            input=record.input_tokens,
            cached=record.cache_read_tokens,
            written=record.cache_write_5m_tokens + record.cache_write_1h_tokens,
            output=record.output_tokens,
            cost_nanousd=self.settled.cost_nanousd,
            settled_by=record.settled_by,
            ttfb_ms=record.ttfb_ms,
            duration_ms=record.duration_ms,
            **({"error": record.error_code} if record.error_code else {}),
            **({"shortfall_nanousd": self.settled.shortfall_nanousd} if self.settled.shortfall_nanousd else {}),
        )


async def _landed(future: asyncio.Future[T]) -> None:
    """Wait until a future is done without awaiting it: a caller that is cancelled must not cancel what is under way. As
    asyncio.wait, which costs five times as much for one."""
    waiter = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda _: None if waiter.done() else waiter.set_result(None))
    await waiter
