"""Tells the operator's webhook of balances that fell low: Standard Webhooks (github.com/standard-webhooks, specification
1.0.0, 2023-12): an id, a time, an HMAC-SHA256 of both and the body.

The database holds what is to be told, so that nothing is lost by a restart; each notice is delivered at least once, with
the same id each time. Only the configured address is called; no redirect is followed. Must not know when a balance is low.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import hmac
from dataclasses import dataclass

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout
from structlog.typing import FilteringBoundLogger

from lumeproxy.clock import Clock
from lumeproxy.errors import StoreUnavailable
from lumeproxy.store import notices
from lumeproxy.store.database import Database
from lumeproxy.store.notices import DELIVERED, GIVEN_UP, Notice

KIND = "account.low_balance"
LOOK_S = 5.0  # between two looks for what is due
AT_ONCE = 20  # of one look, delivered one after the other
FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 30_000, 3_600_000
HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where notices go, what signs them, and how long one may take and be tried."""

    url: str
    secret: bytes
    timeout_ms: int
    give_up_h: int


class Notifier:
    """Delivers what waits; one a server."""

    def __init__(
        self, database: Database, clock: Clock, log: FilteringBoundLogger, session: ClientSession, webhook: Webhook
    ) -> None:
        self._database = database
        self._clock = clock
        self._log = log
        self._session = session
        self._webhook = webhook

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            try:
                await self.deliver()
            except StoreUnavailable as error:
                self._log.error("notices_wait", reason=error.code)  # they stay in the database for the next look
            await asyncio.sleep(LOOK_S)

    async def deliver(self) -> int:
        """Try all that is due once; how many were taken."""
        now_ms = self._clock.now_ms()
        taken = 0
        if await self._database.read(notices.unseen):
            await self._database.write(notices.stamp, now_ms)
        for notice in await self._database.read(notices.due, now_ms, AT_ONCE):
            problem = await self._post(notice)
            if not problem:
                taken += 1
                await self._database.write(notices.end, notice.id, DELIVERED)
                self._log.info("notice", id=notice.id, account=notice.account)
            elif self._clock.now_ms() - notice.time_ms >= self._webhook.give_up_h * HOUR_MS:
                await self._database.write(notices.end, notice.id, GIVEN_UP)
                self._log.error("notice_given_up", id=notice.id, account=notice.account, problem=problem)
            else:
                next_ms = self._clock.now_ms() + pause_ms(notice.tries)
                await self._database.write(notices.put_off, notice.id, next_ms)
                self._log.warning("notice_failed", id=notice.id, tries=notice.tries + 1, problem=problem)
        return taken

    async def _post(self, notice: Notice) -> str:
        """Send one; why it was not taken, "" when it was."""
        body = content(notice)
        seconds = self._clock.now_ms() // 1000
        headers = {
            "content-type": "application/json",
            "webhook-id": notice.id,
            "webhook-timestamp": str(seconds),
            "webhook-signature": signature(self._webhook.secret, notice.id, seconds, body),
        }
        timeout = ClientTimeout(total=self._webhook.timeout_ms / 1000)
        try:
            async with self._session.post(
                self._webhook.url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                return "" if 200 <= response.status < 300 else f"http_{response.status}"
        except (ClientError, OSError, TimeoutError, ValueError) as error:
            return type(error).__name__


def content(notice: Notice) -> bytes:
    """The body of a notice, the same at every try."""
    at = datetime.datetime.fromtimestamp(notice.time_ms / 1000, datetime.UTC)
    return msgspec.json.encode(
        {
            "type": KIND,
            "timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "data": {
                "account": notice.account,
                "balance_nanousd": notice.balance_nanousd,
                "threshold_nanousd": notice.threshold_nanousd,
                "time_ms": notice.time_ms,
            },
        }
    )


def signature(secret: bytes, notice_id: str, seconds: int, body: bytes) -> str:
    """What the receiver computes too: an HMAC of id, time and body."""
    signed = f"{notice_id}.{seconds}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def pause_ms(tries: int) -> int:
    """Until the next try after one more has failed: it doubles, up to an hour."""
    return min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS << min(tries, 10))
