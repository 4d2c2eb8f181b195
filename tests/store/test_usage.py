"""Usage records: what is found, in which order, summed how, and that an index serves it."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from lumeproxy.errors import Missing, Refused
from lumeproxy.store import ledger, usage
from lumeproxy.store.audit import audit
from lumeproxy.store.usage import TOKEN_CLASSES
from tests.store import books
from tests.store.books import billed, customer, remember, take
from tests.support.clock import START_MS

DAY_MS = 86_400_000
# 2026-11-18 11:06:40 UTC is the moment that every test begins at.
MIDNIGHT_MS = START_MS - 40_000_000

# The document that outsiders rely on.
DOCUMENTED = """time_ms, call_id, account, key_id, endpoint, dialect, model, model_served, upstream,
status, ending, input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens,
reasoning_tokens, cost_nanousd, estimated, settled_by, ttfb_ms, duration_ms, client_address, user_agent, session_id,
agent_id, upstream_request_id, error_code, error_text"""


@pytest.fixture
def filled(tx):
    """Two customers with five calls over three days."""
    ann, bob = books.customer(tx, "ann"), books.customer(tx, "bob")
    rows: list[tuple[str, int, int, dict[str, Any]]] = [
        ("call1", ann.id, MIDNIGHT_MS - 1, {"model": "m1", "key_id": "k1", "session_id": "s1", "upstream": "u1",
                                            "input_tokens": 1}),
        ("call2", ann.id, MIDNIGHT_MS, {"model": "m2", "key_id": "k1", "session_id": "s1", "upstream": "u2",
                                        "output_tokens": 1, "reasoning_tokens": 1}),
        ("call3", bob.id, MIDNIGHT_MS, {"model": "m1", "key_id": "k2", "session_id": "s2", "upstream": "u2",
                                        "cache_read_tokens": 30}),
        ("call4", bob.id, MIDNIGHT_MS + DAY_MS, {"model": "m3", "key_id": "k2", "session_id": "", "upstream": "u1",
                                                 "cache_write_5m_tokens": 2, "cache_write_1h_tokens": 1}),
        ("call5", ann.id, MIDNIGHT_MS + DAY_MS, {"model": "m4", "key_id": "k3", "session_id": "", "upstream": "",
                                                 "ending": "unreachable", "settled_by": "none", "status": None}),
    ]  # fmt: skip
    for call_id, account_id, time_ms, fields in rows:
        books.call(tx, call_id, account_id, time_ms=time_ms, **fields)
    return tx


def ids(rows):
    return [row["call_id"] for row in rows]


# --- one record --------------------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was(tx):
    ann = books.customer(tx)
    record = billed(
        "call1",
        ann.id,
        input_tokens=1,
        cache_read_tokens=2,
        cache_write_5m_tokens=3,
        cache_write_1h_tokens=4,
        output_tokens=5,
        reasoning_tokens=6,
        web_search_requests=7,
        multiplier_ppm=1_000_000,
        estimated=True,
        settled_by="estimate",
        client_address="2001:db8::1",
        user_agent="codex_cli_rs/0.1 (ü)",
        session_id="s",
        agent_id="a",
        upstream_request_id="req_1",
        error_code="overloaded",
        error_text="Overloaded\x00'; DROP TABLE usage; --",
    )
    books.take(tx, "call1", ann.id, 50_000_000)
    ledger.settle(tx, record)

    assert usage.get(tx, "call1") == record
    assert usage.get(tx, "call1").estimated is True
    assert usage.get(tx, "call2") is None


def test_a_call_has_one_record(filled):
    with pytest.raises(sqlite3.IntegrityError):
        usage.insert(filled, billed("call1", 4, input_tokens=1))

    assert len(usage.find(filled)) == 5


# --- lists -------------------------------------------------------------------------------------------------------------


def test_the_names_are_the_documented_ones_in_their_order(filled):
    documented = [name.strip() for name in DOCUMENTED.split(",")]

    for row in usage.find(filled):
        assert list(row)[: len(documented)] == documented


def test_the_values_are_those_of_the_record(filled):
    (row,) = (row for row in usage.find(filled) if row["call_id"] == "call2")

    assert row == {
        "time_ms": MIDNIGHT_MS, "call_id": "call2", "account": "ann", "key_id": "k1", "endpoint": "/v1/messages",
        "dialect": "anthropic_messages", "model": "m2", "model_served": "claude-test-1", "upstream": "u2",
        "status": 200, "ending": "complete", "input_tokens": 0, "cache_read_tokens": 0, "cache_write_5m_tokens": 0,
        "cache_write_1h_tokens": 0, "output_tokens": 1, "reasoning_tokens": 1, "cost_nanousd": 10_000,
        "estimated": False, "settled_by": "reported", "ttfb_ms": 40, "duration_ms": 1_000, "client_address": "",
        "user_agent": "", "session_id": "s1", "agent_id": "", "upstream_request_id": "", "error_code": "",
        "error_text": "", "web_search_requests": 0, "shortfall_nanousd": 0, "price_version": books.PRICE.version,
        "multiplier_ppm": 1_000_000, "credential": 0, "upstream_cost_nanousd": 0, "upstream_price_version": "",
        "attempts": [],
    }  # fmt: skip
    assert row["estimated"] is False


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, ["call5", "call4", "call3", "call2", "call1"]),
        ({"limit": 2}, ["call5", "call4"]),
        ({"limit": 0}, []),
        ({"account_name": "ann"}, ["call5", "call2", "call1"]),
        ({"account_name": "BOB"}, ["call4", "call3"]),
        ({"since_ms": MIDNIGHT_MS}, ["call5", "call4", "call3", "call2"]),
        ({"since_ms": MIDNIGHT_MS + 1}, ["call5", "call4"]),
        ({"since_ms": 0}, ["call5", "call4", "call3", "call2", "call1"]),
        ({"since_ms": MIDNIGHT_MS + 2 * DAY_MS}, []),
        ({"account_name": "ann", "since_ms": MIDNIGHT_MS, "limit": 1}, ["call5"]),
        ({"account_name": "ann", "since_ms": MIDNIGHT_MS}, ["call5", "call2"]),
    ],
)
def test_records_are_found_newest_first(filled, asked, found):
    assert ids(usage.find(filled, **asked)) == found


def test_an_unknown_account_is_missing_and_the_house_has_no_records(filled):
    for name in ("cy", "house:revenue"):
        with pytest.raises(Missing):
            usage.find(filled, name)
        with pytest.raises(Missing):
            usage.totals(filled, "model", name)


# --- sums --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "found"),
    [
        ("model", [("m2", 1, 10_000), ("m3", 1, 7_000), ("m1", 2, 4_000), ("m4", 1, 0)]),
        ("key", [("k1", 2, 11_000), ("k2", 2, 10_000), ("k3", 1, 0)]),
        ("day", [("2026-11-19", 2, 7_000), ("2026-11-18", 2, 13_000), ("2026-11-17", 1, 1_000)]),
        ("session", [("s1", 2, 11_000), ("", 2, 7_000), ("s2", 1, 3_000)]),
        ("upstream", [("u2", 2, 13_000), ("u1", 2, 8_000), ("", 1, 0)]),
        ("account", [("ann", 3, 11_000), ("bob", 2, 10_000)]),
    ],
)
def test_sums_by_each_group_dearest_first_and_days_newest_first(filled, by, found):
    rows = usage.totals(filled, by)

    assert [(row[by], row["calls"], row["cost_nanousd"]) for row in rows] == found
    assert all(list(row) == [by, "calls", *TOKEN_CLASSES, "cost_nanousd", "upstream_cost_nanousd"] for row in rows)


def test_each_token_class_is_summed_under_its_own_name(filled):
    (ann, bob) = usage.totals(filled, "account")

    assert [ann[name] for name in TOKEN_CLASSES] == [1, 0, 0, 0, 1, 1]
    assert [bob[name] for name in TOKEN_CLASSES] == [0, 30, 2, 1, 0, 0]


def test_groups_of_one_cost_are_in_order_of_their_names(tx):
    ann = books.customer(tx)
    for n, model in enumerate(["b", "c", "a"]):
        books.call(tx, f"call{n}", ann.id, model=model, input_tokens=1)

    assert [row["model"] for row in usage.totals(tx, "model")] == ["a", "b", "c"]


def test_sums_of_one_account_and_since_a_time(filled):
    assert [row["model"] for row in usage.totals(filled, "model", "bob")] == ["m3", "m1"]
    assert [row["day"] for row in usage.totals(filled, "day", None, MIDNIGHT_MS)] == ["2026-11-19", "2026-11-18"]
    assert usage.totals(filled, "day", "bob", MIDNIGHT_MS + 1)[0]["cost_nanousd"] == 7_000
    assert usage.totals(filled, "key", "ann", MIDNIGHT_MS + 2 * DAY_MS) == []


@pytest.mark.parametrize("by", ["", "status", "u.model", "client_address; DROP TABLE usage"])
def test_a_group_that_is_not_offered_is_refused(filled, by):
    with pytest.raises(Refused, match="choose one of model, key, day, session, upstream, account"):
        usage.totals(filled, by)


# --- plans -------------------------------------------------------------------------------------------------------------


def plan(tx, ask):
    """How SQLite goes about the last statement of `ask`."""
    seen = []
    tx.set_trace_callback(seen.append)
    ask(tx)
    tx.set_trace_callback(None)
    return [row[3] for row in tx.execute("EXPLAIN QUERY PLAN " + seen[-1])]


@pytest.mark.parametrize(
    ("asked", "index"),
    [
        ({}, "SCAN u USING INDEX usage_by_time"),
        ({"since_ms": 5}, "SEARCH u USING INDEX usage_by_time (time_ms>?)"),
        ({"account_name": "ann"}, "SEARCH u USING INDEX usage_by_account (account_id=?)"),
        ({"account_name": "ann", "since_ms": 5}, "SEARCH u USING INDEX usage_by_account (account_id=? AND time_ms>?)"),
    ],
)
def test_an_index_finds_and_orders_the_records(filled, asked, index):
    found = plan(filled, lambda tx: usage.find(tx, limit=10, **asked))

    assert index in found
    assert not any("TEMP B-TREE" in step for step in found)


def test_sums_by_session_read_only_the_records_of_the_span_that_was_asked_for(filled):
    all_of_them = plan(filled, lambda tx: usage.totals(tx, "session", since_ms=5))
    of_one = plan(filled, lambda tx: usage.totals(tx, "session", "ann", 5))

    assert "SEARCH u USING INDEX usage_by_time (time_ms>?)" in all_of_them
    assert "SEARCH u USING INDEX usage_by_account (account_id=? AND time_ms>?)" in of_one


@pytest.mark.parametrize("by", ["model", "key", "day", "upstream", "account"])
def test_other_sums_read_the_days_and_of_the_first_one_the_records(filled, by):
    all_of_them = plan(filled, lambda tx: usage.totals(tx, by, since_ms=5))
    of_one = plan(filled, lambda tx: usage.totals(tx, by, "ann", 5))

    assert "SEARCH days USING INDEX days_by_day (day>?)" in all_of_them
    assert "SEARCH usage USING INDEX usage_by_time (time_ms>? AND time_ms<?)" in all_of_them
    assert "SEARCH days USING INDEX days_by_account (account_id=? AND day>?)" in of_one
    assert "SEARCH usage USING INDEX usage_by_account (account_id=? AND time_ms>? AND time_ms<?)" in of_one
    whole = plan(filled, lambda tx: usage.totals(tx, by, since_ms=0))
    assert not any("usage" in step for step in whole)


def test_sums_from_any_moment_are_those_of_the_records(tx):
    ann = customer(tx)
    remember(tx)
    day = START_MS // DAY_MS * DAY_MS
    for number in range(30):
        at_ms = day + number * 5 * 3_600_000 + number
        model = f"claude-test-{number % 2}"
        record = billed(f"call{number}", ann.id, output_tokens=number, time_ms=at_ms, model=model)
        take(tx, record.call_id, ann.id)
        ledger.settle(tx, record)
    for since_ms in (None, 0, day, day + 1, day + 86_399_999, day + DAY_MS, day + 3 * DAY_MS + 7, day + 99 * DAY_MS):
        found = usage.find(tx, None, since_ms)
        for account in (None, "ann"):
            by_day = usage.totals(tx, "day", account, since_ms)
            by_model = usage.totals(tx, "model", account, since_ms)
            for sums in (by_day, by_model):
                assert sum(s["calls"] for s in sums) == len(found)
                assert sum(s["output_tokens"] for s in sums) == sum(r["output_tokens"] for r in found)
                assert sum(s["cost_nanousd"] for s in sums) == sum(r["cost_nanousd"] for r in found)
    assert audit(tx) == []


def test_one_record_is_found_by_its_id(filled):
    assert plan(filled, lambda tx: usage.get(tx, "call1")) == ["SEARCH usage USING PRIMARY KEY (call_id=?)"]
