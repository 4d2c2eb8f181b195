"""Round figures for the tests of the store: a price, customers, calls and their bills, worked out by hand."""

from __future__ import annotations

import sqlite3
import threading
from typing import Any

from lumeproxy.core.pricing import Price, Rates, encode_price, make_price
from lumeproxy.core.types import UsageRecord
from lumeproxy.store import accounts, ledger, prices
from lumeproxy.store.accounts import Account
from lumeproxy.store.database import Database, Tx
from lumeproxy.store.ledger import CheckPoint
from tests.support.clock import START_MS

DOLLAR = 10**9
PER_MTOK = 10**6
# Nano-USD a token, a use.
RATES = {
    "input_tokens": 1_000,
    "cache_read_tokens": 100,
    "cache_write_5m_tokens": 2_000,
    "cache_write_1h_tokens": 3_000,
    "output_tokens": 10_000,
    "web_search_requests": 5_000_000,
}
PRICE = make_price(
    "claude-test-1",
    "operator",
    [Rates(0, 1_000 * PER_MTOK, 100 * PER_MTOK, 2_000 * PER_MTOK, 3_000 * PER_MTOK, 10_000 * PER_MTOK)],
    web_search_nanousd=5_000_000,
)
TWICE = make_price("claude-test-2", "operator", [Rates(0, *[20_000 * PER_MTOK] * 5)])
DIGEST = bytes(range(32))


def remember(tx: Tx, price: Price = PRICE) -> None:
    prices.remember(tx, price.version, encode_price(price), START_MS)


def customer(tx: Tx, name: str = "ann", credit_nanousd: int = DOLLAR) -> Account:
    accounts.create(tx, name, START_MS)
    if credit_nanousd:
        ledger.grant(tx, name, credit_nanousd, "top-up", None, START_MS)
    return accounts.get(tx, name)


def draft(call_id: str, account_id: int, **fields: Any) -> UsageRecord:
    """What is known of a call when it is held."""
    known: dict[str, Any] = {
        "time_ms": START_MS,
        "key_id": "key00001",
        "endpoint": "/v1/messages",
        "dialect": "anthropic_messages",
        "model": "claude-test-1",
        "price_version": PRICE.version,
    }
    return UsageRecord(call_id=call_id, account_id=account_id, **{**known, **fields})


def billed(call_id: str, account_id: int, **fields: Any) -> UsageRecord:
    """The record of a complete call, with what its tokens cost unless that is given."""
    cost = sum(rate * fields.get(name, 0) for name, rate in RATES.items())
    ended: dict[str, Any] = {
        "model_served": "claude-test-1",
        "upstream": "anthropic",
        "status": 200,
        "ending": "complete",
        "settled_by": "reported",
        "cost_nanousd": cost,
        "ttfb_ms": 40,
        "duration_ms": 1_000,
    }
    return draft(call_id, account_id, **{**ended, **fields})


def take(
    tx: Tx, call_id: str, account_id: int, want: int = 1_000_000, at_least: int | None = None, opened_ms: int = START_MS
) -> ledger.HoldTaken:
    least = want if at_least is None else at_least
    return ledger.hold(tx, call_id, account_id, want, least, draft(call_id, account_id), opened_ms)


def call(tx: Tx, call_id: str, account_id: int, want: int = 1_000_000, **fields: Any) -> ledger.Settled:
    """A whole call: held, then settled."""
    take(tx, call_id, account_id, want)
    return ledger.settle(tx, billed(call_id, account_id, **fields))


def point(**fields: Any) -> CheckPoint:
    known: dict[str, Any] = {
        **dict.fromkeys((*RATES, "reasoning_tokens"), 0),
        "at_ms": START_MS + 500,
        "model_served": "claude-test-1-dated",
        "price_version": PRICE.version,
        "ttfb_ms": 70,
        "status": 200,
    }
    return CheckPoint(**{**known, **fields})


def sums(tx: sqlite3.Connection) -> tuple[int, int]:
    """What all balances sum to, and what is held of all."""
    found: tuple[int, int] = tx.execute("SELECT sum(balance_nanousd), sum(held_nanousd) FROM accounts").fetchone()
    return found


class Gate:
    """Keeps the writer's thread busy until it is opened, so that what is submitted meanwhile waits together."""

    def __init__(self, database: Database) -> None:
        self._opened = threading.Event()
        self.passed = database.submit(self._wait)

    def _wait(self, _tx: Tx) -> None:
        assert self._opened.wait(10)

    def open(self) -> None:
        self._opened.set()
