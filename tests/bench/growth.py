"""Does a call stay as cheap when the ledger has grown? Fills a data folder, and measures before and after.

    python tests/bench/growth.py FOLDER [--records 10000000] [--accounts 10000] [--pairs 20000]

What is measured, on a fresh file and on the grown one: hold and settle pairs a second (64 callers, random accounts), CPU a
pair, the times of holds at 500 calls a second, and how long the summaries of the commands take. FOLDER must be new,
needs about 8 GB for ten million records, and is the caller's to delete.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import random
import sqlite3
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from lumeproxy.core.pricing import Rates, encode_price, make_price
from lumeproxy.core.types import UsageRecord
from lumeproxy.store import accounts, audit, days, ledger, prices, usage
from lumeproxy.store.database import FILE_NAME, Database, Tx

say = functools.partial(print, flush=True)
NOW_MS = 1_790_000_000_000
DAYS = 90
DAY_MS = 86_400_000
# 1 and 10 dollars per million tokens in and out.
PRICE = make_price("claude-model", "operator", [Rates(0, 10**9, 0, 0, 0, 10**10)])
COST_NANOUSD = 1_200 * 1_000 + 300 * 10_000
GRANT_NANOUSD = 10**12
INDEXED = ("entries", "usage")


def people(tx: Tx, count: int) -> list[int]:
    """Accounts with a thousand dollars each; their ids."""
    prices.remember(tx, PRICE.version, encode_price(PRICE), NOW_MS)
    for number in range(count):
        accounts.create(tx, f"account{number}", NOW_MS)
        ledger.grant(tx, f"account{number}", GRANT_NANOUSD, "", None, NOW_MS)
    return [row[0] for row in tx.execute("SELECT id FROM accounts WHERE kind = 'customer' ORDER BY id")]


def fill(file: Path, records: int) -> None:
    """As many settled calls as that, evenly over DAYS and all accounts, written past the ledger but as it would."""
    conn = sqlite3.connect(file, isolation_level=None)
    conn.execute("PRAGMA cache_size = -400000")
    indexes = conn.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
                           f" AND tbl_name IN {INDEXED}").fetchall()  # fmt: skip
    conn.execute("BEGIN")
    for name, _ in indexes:
        conn.execute(f"DROP INDEX {name}")
    first, count = conn.execute("SELECT min(id), count(*) FROM accounts WHERE kind = 'customer'").fetchone()
    step_ms = DAYS * DAY_MS / records
    numbers = f"WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {records - 1})"
    call, at_ms = "printf('call_%026d', i)", f"CAST({NOW_MS - DAYS * DAY_MS} + i * {step_ms} AS INTEGER)"
    account = f"{first} + (i * 7919) % {count}"
    fields = {
        "call_id": call, "time_ms": at_ms, "account_id": account, "key_id": f"printf('k%07d', {account})",
        "endpoint": "'/v1/messages'", "dialect": "'anthropic_messages'", "model": "'claude-model-' || (i % 5)",
        "model_served": "'claude-model-20261101'", "upstream": "'anthropic'", "status": "200", "ending": "'complete'",
        "cost_nanousd": str(COST_NANOUSD), "price_version": f"'{PRICE.version}'", "multiplier_ppm": "1000000",
        "estimated": "0",
        "settled_by": "'reported'", "ttfb_ms": "700", "duration_ms": "9000", "client_address": "'203.0.113.7'",
        "user_agent": "'claude-cli/2.1 (external, cli)'", "session_id": "printf('session-%028d', i / 50)",
        "upstream_request_id": "printf('req_%024d', i)", "input_tokens": "1200", "output_tokens": "300",
    }  # fmt: skip
    rest = {
        field.name: str(int(field.default)) if isinstance(field.default, int) else "''"
        for field in msgspec.structs.fields(UsageRecord)
        if field.name not in fields
    }
    every = fields | rest
    conn.execute(f"{numbers} INSERT INTO usage ({', '.join(every)}) SELECT {', '.join(every.values())} FROM n")
    conn.execute(f"{numbers} INSERT INTO entries (time_ms, kind, from_account, to_account, amount_nanousd, call_id)"
                 f" SELECT {at_ms} + 9000, 'charge', {account}, 2, {COST_NANOUSD}, {call} FROM n")  # fmt: skip
    conn.execute("DELETE FROM days")
    sums = ", ".join(f"sum({name})" for name in days.SUMMED)
    conn.execute(
        f"INSERT INTO days (key_id, day, model, upstream, account_id, calls, failed_calls, {', '.join(days.SUMMED)})"
        f" SELECT key_id, time_ms / {DAY_MS}, model, upstream, account_id, count(*), 0, {sums}"
        " FROM usage GROUP BY 1, 2, 3, 4, 5"
    )
    conn.execute(f"UPDATE accounts SET balance_nanousd = {GRANT_NANOUSD} - spent FROM (SELECT account_id AS owner,"
                 " sum(cost_nanousd) AS spent FROM usage GROUP BY 1) WHERE owner = id")  # fmt: skip
    conn.execute("UPDATE accounts SET balance_nanousd = (SELECT sum(cost_nanousd) FROM usage) WHERE id = 2")
    for _, text in indexes:
        conn.execute(text)
    conn.execute("COMMIT")
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()


async def call(database: Database, account_id: int, call_id: str) -> float:
    """A hold and its settlement; the time that the hold took, in ms."""
    draft = UsageRecord(
        call_id=call_id, time_ms=NOW_MS, account_id=account_id, key_id=f"k{account_id:07}", endpoint="/v1/messages",
        dialect="anthropic_messages", model="claude-model-1", client_address="203.0.113.7",
        user_agent="claude-cli/2.1 (external, cli)", session_id="session-0000000000000000000000000001",
        price_version=PRICE.version,
    )  # fmt: skip
    began = time.perf_counter()
    await database.submit(ledger.hold, call_id, account_id, 100_000_000, 1_000, draft, NOW_MS)
    held_ms = (time.perf_counter() - began) * 1000
    record = msgspec.structs.replace(
        draft,
        cost_nanousd=COST_NANOUSD,
        input_tokens=1200,
        output_tokens=300,
        ending="complete",
        upstream="anthropic",
        settled_by="reported",
    )
    await database.submit_urgent(ledger.settle, record)
    return held_ms


async def measure(database: Database, ids: list[int], pairs: int, mark: str) -> str:
    """Pairs as fast as they go, then at 500 a second; a line of figures."""
    dice = random.Random(1)
    numbers = iter(range(10 * pairs))

    async def worker() -> None:
        for number in numbers:
            if number >= pairs:
                return
            await call(database, dice.choice(ids), f"call_{mark}{number:022d}")

    await asyncio.gather(*(worker() for _ in range(64)))  # warm: what is read often is in memory then
    numbers = iter(range(pairs, 10 * pairs))
    end, cpu_s, began = 2 * pairs, time.process_time(), time.perf_counter()

    async def measured() -> None:
        for number in numbers:
            if number >= end:
                return
            await call(database, dice.choice(ids), f"call_{mark}{number:022d}")

    await asyncio.gather(*(measured() for _ in range(64)))
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    loop, tasks = asyncio.get_running_loop(), []
    began = loop.time()
    for number in range(2_500):
        await asyncio.sleep(began + number / 500 - loop.time())
        tasks.append(asyncio.create_task(call(database, dice.choice(ids), f"call_{mark}p{number:021d}")))
    holds = sorted(await asyncio.gather(*tasks))
    return (
        f"{pairs / wall_s:.0f} pairs/s, {cpu_s / pairs * 1e6:.0f} us CPU a pair; holds at 500 calls/s: "
        f"p50 {statistics.median(holds):.2f} ms, p99 {holds[len(holds) * 99 // 100]:.2f} ms"
    )


async def summaries(database: Database) -> str:
    """How long the slowest questions of the commands take, in ms."""
    found = []
    week_ms = NOW_MS - 7 * DAY_MS - 1
    questions: dict[str, tuple[Callable[..., Any], *tuple[Any, ...]]] = {
        "usage --by model": (usage.totals, "model"),
        "--by day": (usage.totals, "day"),
        "--by account": (usage.totals, "account"),
        "--by key": (usage.totals, "key"),
        "--by model --since 7d": (usage.totals, "model", None, week_ms),
        "ACCOUNT --by session": (usage.totals, "session", "account7"),
        "newest 100 records": (usage.find, None, None, 100),
        "an account's newest 100": (usage.find, "account7", None, 100),
        "balance": (ledger.balance, "account7"),
    }
    for name, (fn, *args) in questions.items():
        began = time.perf_counter()
        await database.read(fn, *args)
        found.append(f"{name} {(time.perf_counter() - began) * 1000:.0f}")
    return ", ".join(found)


async def main(folder: Path, records: int, count: int, pairs: int) -> None:
    """Measure, fill, measure again."""
    database = await Database.open(folder)
    ids = await database.write(people, count)
    say("fresh:", await measure(database, ids, pairs, "a"))
    await database.close()
    began = time.perf_counter()
    fill(folder / FILE_NAME, records)
    say(f"filled with {records} records in {time.perf_counter() - began:.0f} s,"
          f" {(folder / FILE_NAME).stat().st_size / 1e9:.1f} GB")  # fmt: skip
    database = await Database.open(folder)
    say("grown:", await measure(database, ids, pairs, "b"))
    say("summaries, ms:", await summaries(database))
    began = time.perf_counter()
    problems = await database.outside(audit.audit)
    say(f"audit: {problems[:1] or 'in order'}, {time.perf_counter() - began:.0f} s")
    await database.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=20_000)
    args = parser.parse_args()
    asyncio.run(main(args.folder, args.records, args.accounts, args.pairs))
