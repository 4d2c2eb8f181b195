"""What was altered by hand is named: each invariant, and each column that money hangs on, on its own."""

from __future__ import annotations

import re
import sqlite3

import pytest

from lumeproxy.core.pricing import encode_price, make_price
from lumeproxy.store import accounts, days, keys, ledger
from lumeproxy.store.audit import MAX_PROBLEMS, audit
from lumeproxy.store.database import in_memory
from tests.store import books
from tests.store.books import DIGEST, DOLLAR, PRICE, TWICE, billed, draft
from tests.support.clock import START_MS

ALL_CLASSES = {
    "input_tokens": 7,  # 7,000
    "cache_read_tokens": 10,  # 1,000
    "cache_write_5m_tokens": 2,  # 4,000
    "cache_write_1h_tokens": 1,  # 3,000
    "output_tokens": 5,  # 50,000
    "web_search_requests": 1,  # 5,000,000
}


@pytest.fixture(scope="module")
def sound():
    """A ledger of two customers with every kind of ending, as bytes."""
    tx = in_memory()
    for price in (PRICE, TWICE):
        books.remember(tx, price)
    ann, bob = books.customer(tx, "ann", DOLLAR), books.customer(tx, "bob", 1_000_000)
    keys.add(tx, "key00001", "ann", DIGEST, "wxyz", "", (), START_MS, None)
    books.call(tx, "whole", ann.id, **ALL_CLASSES)
    books.call(tx, "short", bob.id, input_tokens=1_500)  # 500,000 more than bob has
    books.call(tx, "twice", ann.id, input_tokens=3, cost_nanousd=90_000, price_version=TWICE.version,
               multiplier_ppm=1_500_000)  # fmt: skip
    books.call(tx, "cut", ann.id, want=200_000, input_tokens=300, cost_nanousd=200_000, ending="out_of_credit",
               settled_by="bound", estimated=True)  # fmt: skip
    books.take(tx, "down", ann.id)
    ledger.release(tx, draft("down", ann.id, ending="unreachable"))
    books.take(tx, "open", ann.id, 400_000)
    data = tx.serialize()
    tx.close()
    return data


@pytest.fixture
def altered(sound):
    """The sound ledger with every guard of the file taken down; `audit` runs with them up again."""
    conn = sqlite3.connect(":memory:", isolation_level=None)
    conn.deserialize(sound)
    for trigger in ("entries_are_not_changed", "entries_are_not_deleted"):
        conn.execute(f"DROP TRIGGER {trigger}")
    conn.execute("PRAGMA foreign_keys = OFF")
    yield conn
    conn.close()


def alter(conn, *statements, rows=1):
    """Change as many rows as said, around every CHECK."""
    conn.execute("PRAGMA ignore_check_constraints = ON")
    for statement in statements:
        assert conn.execute(statement).rowcount == rows, statement
    conn.execute("PRAGMA ignore_check_constraints = OFF")


def named(problems, *patterns):
    return all(any(re.search(pattern, problem) for problem in problems) for pattern in patterns)


# --- sound -------------------------------------------------------------------------------------------------------------


def test_sound_books_have_no_problem(altered):
    assert audit(altered) == []
    assert books.sums(altered) == (0, 400_000)


def test_an_audit_changes_nothing_and_leaves_no_transaction_open(altered):
    before = altered.total_changes

    audit(altered)

    assert altered.total_changes == before
    assert not altered.in_transaction


def test_an_audit_within_a_transaction_leaves_it_open(altered):
    altered.execute("BEGIN")

    assert audit(altered) == []

    assert altered.in_transaction
    altered.execute("ROLLBACK")


# --- each invariant ----------------------------------------------------------------------------------------------------


def test_1_balances_that_do_not_sum_to_zero(altered):
    alter(altered, "UPDATE accounts SET balance_nanousd = balance_nanousd + 5 WHERE name = 'ann'")

    assert audit(altered)[0] == "The balances of all accounts sum to 5 nano-USD instead of zero."


def test_2_balances_that_their_entries_do_not_explain(altered):
    alter(
        altered,
        "UPDATE accounts SET balance_nanousd = balance_nanousd + 5 WHERE name = 'ann'",
        "UPDATE accounts SET balance_nanousd = balance_nanousd - 5 WHERE name = 'house:credit'",
    )

    assert audit(altered) == [
        "The account house:credit has a balance of -1001000005 nano-USD, its entries sum to -1001000000.",
        "The account ann has a balance of 994645005 nano-USD, its entries sum to 994645000.",
    ]


def test_3_a_customer_below_zero(altered):
    alter(
        altered,
        "UPDATE accounts SET balance_nanousd = -7 WHERE name = 'bob'",
        "UPDATE accounts SET balance_nanousd = balance_nanousd + 7 WHERE name = 'house:credit'",
        "INSERT INTO entries (time_ms, kind, from_account, to_account, amount_nanousd) SELECT 1, 'refund', id, 1, 7"
        " FROM accounts WHERE name = 'bob'",
    )

    assert audit(altered) == [
        "The database file is damaged: CHECK constraint failed in accounts.",
        "The account bob has -7 nano-USD with 0 held: below zero.",
    ]


def test_3_a_customer_below_what_is_held(altered):
    alter(
        altered,
        "UPDATE accounts SET held_nanousd = balance_nanousd + 1 WHERE name = 'ann'",
        "UPDATE holds SET amount_nanousd = (SELECT held_nanousd FROM accounts WHERE name = 'ann')",
    )

    assert audit(altered) == [
        "The database file is damaged: CHECK constraint failed in accounts.",
        "The account ann has 994645000 nano-USD with 994645001 held: below zero.",
    ]


def test_4_a_row_that_refers_to_nothing(altered):
    alter(altered, "UPDATE keys SET account_id = 99")

    assert audit(altered) == ["Row None of keys refers to a row of accounts that does not exist."]


def test_4_a_column_that_breaks_its_check(altered):
    alter(altered, "UPDATE accounts SET status = 'odd' WHERE name = 'ann'")

    assert audit(altered) == ["The database file is damaged: CHECK constraint failed in accounts."]


def test_5_a_hold_that_is_gone(altered):
    alter(altered, "DELETE FROM holds")

    assert audit(altered) == ["The account ann has 400000 nano-USD held, its open calls hold 0."]


def test_6_a_settled_call_that_still_holds(altered):
    alter(
        altered,
        "INSERT INTO holds SELECT 'whole', account_id, 5, opened_ms, draft, NULL, NULL FROM holds",
        "UPDATE accounts SET held_nanousd = held_nanousd + 5 WHERE name = 'ann'",
    )

    assert audit(altered) == ["The call whole is settled and holds credit all the same."]


def test_7_a_record_that_is_gone(altered):
    alter(altered, "DELETE FROM usage WHERE call_id = 'whole'")

    assert audit(altered) == [
        "Entry 3 (charge) belongs to the call whole, which has no usage record.",
        "The sum of 2026-11-18 for key key00001, model claude-test-1, upstream anthropic is not that of its records.",
    ]


def test_7_a_charge_that_is_gone(altered):
    alter(altered, "DELETE FROM entries WHERE call_id = 'whole'")

    assert named(
        audit(altered), "call whole costs 5065000 nano-USD with a shortfall of 0, but was charged 0 and adjusted by 0"
    )


def test_7_a_call_that_was_charged_twice(altered):
    altered.execute("DROP INDEX entries_by_call")
    alter(
        altered,
        "INSERT INTO entries (time_ms, kind, from_account, to_account, amount_nanousd, call_id)"
        " SELECT time_ms, kind, from_account, to_account, amount_nanousd, call_id FROM entries"
        " WHERE call_id = 'whole'",
        "UPDATE accounts SET balance_nanousd = balance_nanousd - 5065000 WHERE name = 'ann'",
        "UPDATE accounts SET balance_nanousd = balance_nanousd + 5065000 WHERE name = 'house:revenue'",
    )

    assert audit(altered) == [
        "The call whole costs 5065000 nano-USD with a shortfall of 0, but was charged 10130000 and adjusted by 0."
    ]


def test_8_a_bill_that_its_tokens_do_not_explain(altered):
    alter(altered, "UPDATE usage SET output_tokens = 6 WHERE call_id = 'whole'")

    assert audit(altered) == [
        "The call whole was charged $0.005065 (5065000 nano-USD); its tokens cost $0.005075 (5075000).",
        "The sum of 2026-11-18 for key key00001, model claude-test-1, upstream anthropic is not that of its records.",
    ]


@pytest.mark.parametrize(
    ("version", "billed", "problems"),
    [
        (TWICE.version, 25 * 20_000, []),  # whatever was charged for the 25 tokens
        (TWICE.version, 1, ["The call whole is said to cost us 1 nano-USD; its tokens cost 500000."]),
        ("p_1", 5, ["The call whole costs us 5 nano-USD by p_1, which is not in the book."]),
        ("", 5, ["The call whole costs us 5 nano-USD by nothing, which is not in the book."]),
        ("", 0, []),
    ],
)
def test_8_what_the_provider_bills_follows_from_its_price_where_one_is_named(altered, version, billed, problems):
    named_ = f"upstream_price_version = '{version}'"
    alter(altered, f"UPDATE usage SET upstream_cost_nanousd = {billed}, {named_} WHERE call_id = 'whole'")
    day = "account_id = (SELECT account_id FROM usage WHERE call_id = 'whole') AND upstream = 'anthropic'"
    alter(altered, f"UPDATE days SET upstream_cost_nanousd = {billed} WHERE model = 'claude-test-1' AND {day}")

    assert audit(altered) == problems


# --- each column -------------------------------------------------------------------------------------------------------

WHOLE, ANN = "WHERE call_id = 'whole'", "WHERE name = 'ann'"
DEAREST = "WHERE cost_nanousd = (SELECT max(cost_nanousd) FROM days)"
COLUMNS = [
    ("accounts", "id", f"SET id = 77 {ANN}", "refers to a row of accounts"),
    ("accounts", "balance_nanousd", f"SET balance_nanousd = balance_nanousd - 1 {ANN}", "account ann has a balance"),
    ("accounts", "held_nanousd", f"SET held_nanousd = held_nanousd - 1 {ANN}", "ann has 399999 .* hold 400000"),
    ("accounts", "kind", "SET kind = 'customer' WHERE id = 1", "house:credit has -1001000000 .*below zero"),
    ("accounts", "status", f"SET status = 'Active' {ANN}", "CHECK constraint failed in accounts"),
    ("keys", "account_id", "SET account_id = 88", "of keys refers"),
    ("keys", "sha256", "SET sha256 = x'00'", "CHECK constraint failed in keys"),
    ("holds", "call_id", "SET call_id = 'whole'", "call whole is settled and holds"),
    ("holds", "account_id", "SET account_id = 5", "account bob has 0 nano-USD held, its open calls hold 400000"),
    ("holds", "amount_nanousd", "SET amount_nanousd = 1", "ann has 400000 .* hold 1"),
    ("entries", "kind", f"SET kind = 'refund' {WHOLE}", "call whole costs .* was charged 0"),
    ("entries", "kind", "SET kind = 'gift' WHERE id = 1", "CHECK constraint failed in entries"),
    ("entries", "from_account", f"SET from_account = 5 {WHOLE}", "account bob has a balance"),
    ("entries", "to_account", f"SET to_account = 1 {WHOLE}", "house:revenue has a balance"),
    ("entries", "amount_nanousd", f"SET amount_nanousd = 1 {WHOLE}", "call whole costs .* was charged 1 "),
    ("entries", "amount_nanousd", "SET amount_nanousd = 1 WHERE kind = 'adjustment'", r"call short .* adjusted by 1\."),
    ("entries", "call_id", f"SET call_id = NULL {WHOLE}", "belongs to the call None"),
    ("entries", "call_id", f"SET call_id = 'ghost' {WHOLE}", "call ghost, which has no usage record"),
    ("entries", "call_id", f"SET call_id = 'down' {WHOLE}", "call down costs 0 .* charged 5065000"),
    ("prices", "version", f"SET version = 'p_1' WHERE version = '{TWICE.version}'", "twice was priced by p_"),
    ("prices", "version", f"SET version = 'p_1' WHERE version = '{TWICE.version}'", "p_1 has the terms of p_"),
    ("prices", "price", f"SET price = '{{}}' WHERE version = '{TWICE.version}'", "price p_.* can't be used: not a"),
    ("prices", "price", f"SET price = replace(price, '2', '1') WHERE version = '{TWICE.version}'", "was altered"),
    ("usage", "call_id", f"SET call_id = 'ghost' {WHOLE}", "call ghost costs .* was charged 0"),
    ("usage", "account_id", f"SET account_id = 5 {WHOLE}", "call whole costs .* was charged 0"),
    ("usage", "ending", "SET ending = 'complete' WHERE call_id = 'cut'", r"cut was charged .* \(200000 .* \(300000\)"),
    ("usage", "input_tokens", f"SET input_tokens = 8 {WHOLE}", r"cost .* \(5066000\)"),
    ("usage", "cache_read_tokens", f"SET cache_read_tokens = 11 {WHOLE}", r"cost .* \(5065100\)"),
    ("usage", "cache_write_5m_tokens", f"SET cache_write_5m_tokens = 1 {WHOLE}", r"cost .* \(5063000\)"),
    ("usage", "cache_write_1h_tokens", f"SET cache_write_1h_tokens = 0 {WHOLE}", r"cost .* \(5062000\)"),
    ("usage", "output_tokens", f"SET output_tokens = 4 {WHOLE}", r"cost .* \(5055000\)"),
    ("usage", "reasoning_tokens", f"SET reasoning_tokens = -1 {WHOLE}", "CHECK constraint failed in usage"),
    ("usage", "web_search_requests", f"SET web_search_requests = 2 {WHOLE}", r"cost .* \(10065000\)"),
    ("usage", "cost_nanousd", f"SET cost_nanousd = 5064999 {WHOLE}", "call whole costs 5064999"),
    ("usage", "shortfall_nanousd", "SET shortfall_nanousd = 0 WHERE call_id = 'short'", "short costs .* adjusted by 5"),
    ("usage", "price_version", f"SET price_version = '{TWICE.version}' {WHOLE}", "call whole was charged"),
    ("usage", "price_version", f"SET price_version = '' {WHOLE}", "whole was priced by nothing"),
    ("usage", "multiplier_ppm", f"SET multiplier_ppm = 1000001 {WHOLE}", r"cost .* \(5065006\)"),
    ("usage", "estimated", f"SET estimated = 2 {WHOLE}", "CHECK constraint failed in usage"),
    ("usage", "settled_by", f"SET settled_by = 'none' {WHOLE}", r"cost \$0\.00 \(0\)"),
    *(
        (
            "days",
            name,
            f"SET {name} = {name} + 1 {DEAREST}",
            "sum of 2026-11-18 for key key00001, model",
        )
        for name in ("day", "calls", "failed_calls", *days.SUMMED)
    ),
    ("days", "model", f"SET model = 'other' {DEAREST}", "sum of .* model other"),
    ("usage", "settled_by", "SET settled_by = 'reported' WHERE call_id = 'cut'", "call cut was charged"),
]


@pytest.mark.parametrize(("table", "column", "change", "pattern"), COLUMNS)
def test_an_altered_column_is_named(altered, table, column, change, pattern):
    alter(altered, f"UPDATE {table} {change}")

    assert named(audit(altered), pattern), audit(altered)


def test_at_least_twenty_columns_are_covered():
    assert len({(table, column) for table, column, _, _ in COLUMNS}) >= 20


def test_a_price_that_stands_under_anothers_version_is_named(altered):
    alter(altered, f"UPDATE prices SET price = '{encode_price(PRICE)}' WHERE version = '{TWICE.version}'")

    assert audit(altered) == [
        f"The price {TWICE.version} has the terms of {PRICE.version}.",
        "The call twice was charged $0.00009 (90000 nano-USD); its tokens cost $0.000004 (4500).",
    ]


# --- what may lie below its tokens' cost -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "settled_by", "cost", "problems"),
    [
        ("out_of_credit", "bound", 5_000, 0),
        ("interrupted", "bound", 5_000, 0),
        ("interrupted", "bound", 7_000, 0),
        ("complete", "bound", 5_000, 1),
        ("interrupted", "checkpoint", 5_000, 1),
        ("out_of_credit", "bound", 7_001, 1),
        ("complete", "reported", 7_001, 1),
        ("complete", "none", 0, 0),
        ("complete", "none", 7_000, 1),
    ],
)
def test_only_a_bill_that_was_cut_to_the_hold_may_lie_below_its_tokens(ending, settled_by, cost, problems):
    tx = in_memory()
    books.remember(tx)
    ann = books.customer(tx)
    books.call(tx, "call1", ann.id, input_tokens=7, cost_nanousd=cost, ending=ending, settled_by=settled_by)

    assert len(audit(tx)) == problems
    tx.close()


@pytest.mark.parametrize(("cost", "version", "problems"), [(0, "", 1), (0, "p_bad", 1), (7_000, "p_bad", 2)])
def test_a_price_that_cannot_be_used_is_a_problem_of_every_bill_by_it(cost, version, problems):
    tx = in_memory()
    tx.execute("INSERT INTO prices VALUES ('p_bad', 'not json', 1)" if version else "SELECT 1")
    ann = books.customer(tx)
    books.call(tx, "call1", ann.id, cost_nanousd=cost, price_version=version)

    assert len(audit(tx)) == problems
    tx.close()


# --- many, damaged, moving ---------------------------------------------------------------------------------------------


def test_nobody_is_told_more_than_he_reads():
    tx = in_memory()
    books.remember(tx)
    ann = books.customer(tx)
    for n in range(MAX_PROBLEMS + 50):
        books.call(tx, f"call{n}", ann.id, want=1_000, input_tokens=1, cost_nanousd=999)

    found = audit(tx)

    assert len(found) == MAX_PROBLEMS == 200
    assert not tx.in_transaction
    tx.close()


def test_a_damaged_file_is_a_problem_and_no_crash(sound):
    pages = [sound[at : at + 4096] for at in range(0, len(sound), 4096)]
    for n in range(1, len(pages)):
        conn = sqlite3.connect(":memory:", isolation_level=None)
        conn.deserialize(b"".join([*pages[:n], b"\xa5" * 4096, *pages[n + 1 :]]))
        assert "The database file is damaged: " in audit(conn)[0]
        conn.close()


def test_other_faults_of_the_disk_are_no_finding():
    conn = sqlite3.connect(":memory:", isolation_level=None)

    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        audit(conn)

    assert not conn.in_transaction
    conn.close()


def test_calls_that_are_settled_meanwhile_are_no_contradiction(tmp_path):
    """The audit takes several statements; between any two of them a call by a new price is settled."""
    path = tmp_path / "a.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    fresh = in_memory()
    books.remember(fresh)
    ann = books.customer(fresh)
    fresh.backup(writer)
    fresh.close()
    reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    statements = []

    def meanwhile(sql):
        statements.append(sql)
        if not sql.startswith(("BEGIN", "ROLLBACK", "--")):
            n = len(statements)
            price = make_price(f"m{n}", "operator", books.PRICE.tiers)
            books.remember(writer, price)
            books.call(writer, f"call{n}", ann.id, 1_000, input_tokens=1, price_version=price.version)
            books.take(writer, f"open{n}", ann.id, 1_000)

    reader.set_trace_callback(meanwhile)
    assert audit(reader) == []
    reader.set_trace_callback(None)

    assert len(statements) >= 10
    assert writer.execute("SELECT count(*) FROM usage").fetchone()[0] >= 8
    assert audit(writer) == []
    reader.close()
    writer.close()


def test_the_sound_books_are_what_the_cases_say(altered):
    assert [ledger.balance(altered, name).balance_nanousd for name in ("ann", "bob")] == [994_645_000, 0]
    assert [account.id for account in accounts.list_all(altered)] == [4, 5]
    assert billed("x", 4, **ALL_CLASSES).cost_nanousd == 5_065_000
