"""The answers of the admin API, field by field: what is sent is made from these, and the OpenAPI document too.

Money is nano-USD (1e-9 $), times are epoch ms, durations ms. `null` stands for what does not exist or was never set.
"""

from __future__ import annotations

import msgspec


class Answer(msgspec.Struct, kw_only=True):
    """None; fields that are not named here are not sent."""


class Server(Answer):
    """The running server."""

    version: str
    base_url: str | None
    process_id: int


class Account(Answer):
    """Who pays. `available_nanousd` is what no running call holds; a limit that is null is as usual on this server."""

    account: str
    status: str
    reason: str
    balance_nanousd: int
    held_nanousd: int
    available_nanousd: int
    created_ms: int
    calls_per_minute: int | None
    concurrent_calls: int | None
    low_balance_nanousd: int | None


class Accounts(Answer):
    """Accounts by name. `next_cursor` is null at the end of the list."""

    items: list[Account]
    next_cursor: str | None


class ChangedKey(Answer):
    """A key for calls; its secret was shown when it was made, and can't be again."""

    id: str
    account: str
    account_status: str
    name: str
    last4: str
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None
    models: list[str]
    calls_per_minute: int | None
    concurrent_calls: int | None
    budget_day_nanousd: int | None
    budget_week_nanousd: int | None
    budget_month_nanousd: int | None
    budget_total_nanousd: int | None


class Key(ChangedKey):
    """A key for calls, and what is left of its tightest budget, null without one."""

    budget_left_nanousd: int | None


class Keys(Answer):
    """Keys, oldest first."""

    items: list[Key]
    next_cursor: str | None


class NewKey(Answer):
    """A key just made. `key` is its secret, shown only here (and in a repetition with the same Idempotency-Key)."""

    id: str
    account: str
    name: str
    key: str
    expires_ms: int | None
    models: list[str]
    calls_per_minute: int | None
    concurrent_calls: int | None
    budget_day_nanousd: int | None
    budget_week_nanousd: int | None
    budget_month_nanousd: int | None
    budget_total_nanousd: int | None


class ReplacedKey(NewKey):
    """A key just made in another's place."""

    replaces: str


class Balance(Answer):
    """What an account has."""

    account: str
    balance_nanousd: int
    held_nanousd: int
    available_nanousd: int


class Entry(Answer):
    """A line of the ledger as its account sees it: positive what came in, negative what went out."""

    id: int
    time_ms: int
    kind: str
    amount_nanousd: int
    call_id: str | None
    note: str


class Entries(Answer):
    """Entries, newest first."""

    items: list[Entry]
    next_cursor: str | None


class Attempt(Answer):
    """One try of a call at an upstream, by which of its credentials (counted from 1)."""

    upstream: str
    credential: int
    status: int | None
    error: str
    ms: int


class Record(Answer):
    """One call: never what was said in it. `input_tokens` excludes what was read from or written to a cache."""

    time_ms: int
    call_id: str
    account: str
    key_id: str
    endpoint: str
    dialect: str
    model: str
    model_served: str
    upstream: str
    status: int | None
    ending: str
    input_tokens: int
    cache_read_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_nanousd: int
    estimated: bool
    settled_by: str
    ttfb_ms: int | None
    duration_ms: int | None
    client_address: str
    user_agent: str
    session_id: str
    agent_id: str
    upstream_request_id: str
    error_code: str
    error_text: str
    web_search_requests: int
    shortfall_nanousd: int
    price_version: str
    multiplier_ppm: int
    credential: int
    upstream_cost_nanousd: int
    upstream_price_version: str
    attempts: list[Attempt]


class Records(Answer):
    """Usage records, newest first."""

    items: list[Record]
    next_cursor: str | None


class Group(Answer):
    """The sums of one group; `name` is the model, key id, day (2026-11-24), session, upstream or account."""

    name: str
    calls: int
    input_tokens: int
    cache_read_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_nanousd: int
    upstream_cost_nanousd: int


class Groups(Answer):
    """Sums, dearest first (days: newest first)."""

    by: str
    groups: list[Group]


class Audit(Answer):
    """Whether the books are in order, and what is wrong, a sentence each."""

    ok: bool
    problems: list[str]


class Problem(Answer):
    """Why something was refused: a stable word for programs, and a sentence for people."""

    code: str
    message: str


class Failure(Answer):
    """What every answer from 400 on is."""

    error: Problem
