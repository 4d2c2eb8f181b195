"""Credit is never overrun, and nothing is charged or given twice, however many calls or repeats come at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from lumeproxy.core.pricing import cost, decode_price
from lumeproxy.core.types import Usage, UsageRecord
from lumeproxy.dashboard.control import call as control
from lumeproxy.errors import Refused
from lumeproxy.store import ledger, prices, usage
from lumeproxy.store.audit import audit
from lumeproxy.store.database import Database, Tx
from tests.faults.conftest import Report, times
from tests.faults.product import Product, product, session
from tests.store import books
from tests.support.calls import (
    ANTHROPIC,
    BILL,
    CHAT,
    INPUT,
    OUTPUT,
    PATHS,
    RESPONSES,
    ask,
    events,
    tokens_in,
    tokens_out,
    whole,
)
from tests.support.upstream import Connection, ScriptedUpstream

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]
SAMPLE_S = 0.01
LIMITS = {"max_tokens": 50, "max_output_tokens": 50}
ENDED = {ANTHROPIC: b'"error"', RESPONSES: b'"response.failed"', CHAT: b'"error"'}


# --- what the checks share -----------------------------------------------------------------------------------------------


async def customer(made: Product, name: str, credit_nanousd: int) -> dict[str, str]:
    """A new account with credit; the headers of its key."""
    await control(made.data, "account.create", {"name": name, "credit_nanousd": credit_nanousd})
    key = await control(made.data, "key.create", {"account": name})
    return {"Authorization": f"Bearer {key['key']}", "Content-Type": "application/json"}


def looked_up(made: Product, query: str, *values: object) -> list[sqlite3.Row]:
    """Rows of the product's database, read from outside."""
    with contextlib.closing(sqlite3.connect(f"file:{made.data}/lumeproxy.db?mode=ro", uri=True)) as conn:
        conn.row_factory = sqlite3.Row
        return conn.execute(query, values).fetchall()


async def settled(made: Product, name: str) -> list[sqlite3.Row]:
    """The records of an account, once it has no call open."""
    async with asyncio.timeout(30):
        while looked_up(made, "SELECT 1 FROM accounts WHERE name = ? AND held_nanousd > 0", name):  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(SAMPLE_S)
    return looked_up(made, "SELECT u.* FROM usage u JOIN accounts a ON a.id = u.account_id WHERE a.name = ?", name)


@contextlib.contextmanager
def watched(made: Product, name: str, credit_nanousd: int) -> Iterator[list[int]]:
    """Looks at an account every 10 ms, from a thread of its own; yields what was spent or held at each look."""
    seen: list[int] = []
    over = threading.Event()

    def look() -> None:
        with contextlib.closing(sqlite3.connect(f"file:{made.data}/lumeproxy.db?mode=ro", uri=True)) as conn:
            while True:
                balance, held = conn.execute(
                    "SELECT balance_nanousd, held_nanousd FROM accounts WHERE name = ?", (name,)
                ).fetchone()
                seen.append(credit_nanousd - balance + held)
                if over.wait(SAMPLE_S):
                    return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


async def taken(client: aiohttp.ClientSession, made: Product, path: str, body: bytes, headers: dict[str, str]) -> Any:
    """Status, body, and whether it came to a clean end."""
    async with client.post(made.url + path, data=body, headers=headers) as response:
        got = bytearray()
        try:
            async for piece in response.content.iter_any():
                got += piece
        except aiohttp.ClientPayloadError:
            return response.status, bytes(got), False
        return response.status, bytes(got), True


def said(path: str, body: bytes) -> int:
    """How many characters of an answer a client got."""
    chars = 0
    for event in body.split(b"\n\n"):
        text = event.partition(b"data: ")[2]
        if not text or text == b"[DONE]":
            continue
        data = json.loads(text)
        if path == CHAT:
            chars += sum(len(choice["delta"].get("content", "")) for choice in data.get("choices", ()))
        else:
            delta = data.get("delta", "")
            chars += len(delta if isinstance(delta, str) else delta.get("text", ""))
    return chars


def ended_well(path: str, body: bytes, clean: bool) -> bool:
    """Whether a stream that had to end early did so in its dialect, and not as if it were complete."""
    last = body.split(b"\n\n")[-2]
    if not clean or not body.endswith(b"\n\n") or ENDED[path] not in last:
        return False
    if path == ANTHROPIC:
        return b"content_block_stop" in body.split(b"\n\n")[-3] and b"message_stop" not in body
    return b"[DONE]" not in body and (path != RESPONSES or b"invalid_prompt" in last)


# --- check 10 ------------------------------------------------------------------------------------------------------------


async def at_the_edge(made: Product, name: str, calls: int, dice: random.Random) -> tuple[int, int, int, int]:
    """Credit for ten calls, and many more of them at once: looks, the most spent or held, the provider's bill, charged."""
    path, streamed = dice.choice(PATHS), dice.random() < 0.5
    credit, bill = 10 * BILL[path], BILL[path]
    headers = await customer(made, name, credit)
    together, billed = asyncio.Event(), 0
    before = len(made.upstream.received)

    async def script(connection: Connection) -> None:
        nonlocal billed
        await together.wait()
        await asyncio.sleep(dice.uniform(0, 0.3))
        billed += bill
        if streamed:
            await connection.stream(events(path))
        else:
            await connection.reply(whole(path))

    made.upstream.script = script
    body = ask(path, stream=streamed, **LIMITS)
    with watched(made, name, credit) as seen:
        async with session() as client:
            running = [asyncio.ensure_future(taken(client, made, path, body, headers)) for _ in range(calls)]
            async with asyncio.timeout(60):
                while sum(task.done() for task in running) + len(made.upstream.received) - before < calls:  # noqa: ASYNC110 - seen from outside
                    await asyncio.sleep(SAMPLE_S)
            together.set()
            statuses = [status for status, _, _ in await asyncio.gather(*running)]
            rows = await settled(made, name)
    assert set(statuses) <= {200, 402 if path == ANTHROPIC else 429}
    assert len(rows) == statuses.count(200) == len(made.upstream.received) - before > 0
    charged = sum(row["cost_nanousd"] - row["shortfall_nanousd"] for row in rows)
    return len(seen), max(seen) - credit, billed - credit, billed - charged


@pytest.mark.parametrize("calls", [20, 100, 500])
async def test_calls_at_the_edge_of_credit(report: Report, dice: random.Random, calls: int) -> None:
    """Check 10."""
    runs, looks, over, unpaid = times(3, 20), 0, [], 0
    async with product() as made:
        for number in range(runs):
            looked, spent_over, billed_over, missing = await at_the_edge(made, f"edge-{number}", calls, dice)
            looks += looked
            over.append(max(spent_over, billed_over))
            unpaid += abs(missing)
        assert await made.audit() == []
    overrun = max(0, *over)
    report(f"10 {calls} at the edge of credit", runs, "overrun 0 at every look, all of the provider's bill charged",
           f"overrun {overrun} in {looks} looks, {unpaid} nano-USD not charged")  # fmt: skip
    assert (overrun, unpaid) == (0, 0)


async def test_holds_that_are_too_small_overrun_it(report: Report, dice: random.Random) -> None:
    """Check 10, control: with a hold of one token of output, the same calls cost the house money."""
    async with product(more="[billing]\nhold_output_tokens = 1\nhold_least_output_tokens = 1\n") as made:
        _, _, over, unpaid = await at_the_edge(made, "edge", 100, dice)
    report("10 control", 1, "with holds of 1 token the bill is above the credit", f"{over} above, {unpaid} unpaid")
    assert over > 0
    assert unpaid == over


# --- check 11 ------------------------------------------------------------------------------------------------------------

SLICES = "[billing]\nhold_output_tokens = 64\nhold_least_output_tokens = 8\n"
# Of 160 bytes each: what a stream may deliver beyond its credit is some 4 KB, not all that happened to be read at once.
UNPAID_EVENTS = 32
STREAMS, CREDIT, TEXT = 100, 100_000_000, "forty characters of an answer to be paid"


async def long_streams(
    made: Product, name: str, credit: int, deltas: int, burst: int = 1
) -> tuple[list[Any], list[sqlite3.Row], int]:
    """A hundred long answers at once on one account, so many events a write: what each client got, their records, the most
    spent or held."""
    headers = await customer(made, name, credit)
    started, before = asyncio.Event(), len(made.upstream.received)

    async def script(connection: Connection) -> None:
        items = events(connection.received.target, [TEXT])
        at = next(number for number, item in enumerate(items) if TEXT.encode() in item)
        await connection.stream_head()
        await started.wait()
        await connection.chunk(b"".join(items[:at]) or b": begun\n\n")
        for _ in range(0, deltas, burst):
            await connection.chunk(items[at] * burst)
            await asyncio.sleep(0.002)
        for item in items[at + 1 :]:
            await connection.chunk(item)
        await connection.end()

    made.upstream.script = script
    paths = [PATHS[number % 3] for number in range(STREAMS)]
    with watched(made, name, credit) as seen:
        async with session() as client:
            running = [asyncio.ensure_future(taken(client, made, path, ask(path), headers)) for path in paths]
            async with asyncio.timeout(60):
                while len(made.upstream.received) - before < STREAMS:
                    assert not any(task.done() for task in running), [task.result() for task in running if task.done()][
                        :1
                    ]
                    await asyncio.sleep(SAMPLE_S)
            started.set()
            answers = [(path, *answer) for path, answer in zip(paths, await asyncio.gather(*running), strict=True)]
            rows = await settled(made, name)
    return answers, rows, max(seen)


@pytest.mark.parametrize("burst", [1, 100])
async def test_streams_that_are_worth_more_than_the_credit(report: Report, burst: int) -> None:
    """Check 11: each stream would cost 40 times what there is. What is delivered and not paid is in the reads on which the
    credit ran out, and belongs to no call's charge."""
    runs, over, unclean, unpaid, spent = times(1, 10), 0, 0, 0, 0
    deltas = 40 * CREDIT // OUTPUT * 38 // 10 // len(TEXT)
    async with product(more=SLICES) as made:
        for number in range(runs):
            answers, rows, most = await long_streams(made, f"long-{number}", CREDIT, deltas, burst)
            charged = sum(row["cost_nanousd"] for row in rows)
            over, spent = max(over, charged - CREDIT, most - CREDIT), max(spent, charged)
            unclean += sum(not ended_well(path, body, clean) for path, _, body, clean in answers)
            assert {row["ending"] for row in rows} == {"out_of_credit"}
            assert not any(row["shortfall_nanousd"] for row in rows)
            given = sum(tokens_out(path, said(path, body)) * OUTPUT for path, _, body, _ in answers)
            unpaid = max(unpaid, given - charged + 100 * INPUT * STREAMS)
            balance = await control(made.data, "credit.balance", {"account": f"long-{number}"})
            assert balance["balance_nanousd"] == CREDIT - charged
        assert await made.audit() == []
        assert made.upstream.errors == []
    each = unpaid / STREAMS / (len(TEXT) * 10 / 38 * 1.55 * OUTPUT)
    report(f"11 streams above the credit, {burst} a read", runs * STREAMS,
           f"overrun 0, each ended in its dialect, at most {UNPAID_EVENTS} events a stream unpaid",
           f"overrun {over}, {unclean} unclean; {spent / CREDIT:.0%} spent; {each:.1f} events a stream unpaid")  # fmt: skip
    assert (over, unclean) == (0, 0)
    assert spent > CREDIT * 9 // 10
    assert each <= UNPAID_EVENTS


async def test_the_same_streams_spend_what_there_is(report: Report) -> None:
    """Check 11, control: with credit enough the same answers are complete, and cost more than the credit above."""
    async with product(more=SLICES) as made:
        answers, rows, _ = await long_streams(made, "rich", 100 * CREDIT, 400)
    wanted = sum(tokens_out(path, said(path, body)) for path, _, body, _ in answers) * OUTPUT
    unclean = sum(not ended_well(path, body, clean) for path, _, body, clean in answers)
    report("11 control", STREAMS, "with 100 x the credit all complete, more delivered than the credit above",
           f"{unclean} not cut, {wanted / CREDIT:.1f} x delivered")  # fmt: skip
    assert unclean == STREAMS
    assert {row["ending"] for row in rows} == {"complete"}
    assert wanted > CREDIT


# --- check 13 ------------------------------------------------------------------------------------------------------------


async def test_a_settlement_or_grant_that_is_repeated(report: Report, tmp_path: Path) -> None:
    """Check 13, on the store: in turn and all at once."""
    count = 1_000
    database = await Database.open(tmp_path)
    try:
        record = await database.write(_held)
        answers = await asyncio.gather(*(database.submit(ledger.settle, record) for _ in range(count // 2)))
        other = msgspec.structs.replace(record, cost_nanousd=7, input_tokens=1)
        answers += [await database.write(ledger.settle, other) for _ in range(count // 2)]
        firsts = sum(not answer.again for answer in answers)
        costs = {answer.cost_nanousd for answer in answers}

        def grant(tx: Tx, name: str = "twice", nanousd: int = 5_000, note: str = "top-up") -> ledger.Balance:
            return ledger.grant(tx, name, nanousd, note, "key-1", 3)

        given = await asyncio.gather(*(database.submit(grant) for _ in range(count // 2)))
        given += [await database.write(grant) for _ in range(count // 2)]
        refused = 0
        for changed in (("twice", 5_001, "top-up"), ("twice", 5_000, "other"), ("else", 5_000, "top-up")):
            with contextlib.suppress(Refused):
                await database.write(grant, *changed)
                continue
            refused += 1
        plain = [await database.write(ledger.grant, "twice", 1, "", None, 4) for _ in range(10)]
        counted = await database.read(lambda tx: tx.execute(
            "SELECT (SELECT count(*) FROM entries WHERE kind = 'charge'), (SELECT count(*) FROM usage),"
            " (SELECT count(*) FROM entries WHERE idempotency_key = 'key-1')").fetchone())  # fmt: skip
        problems = await database.read(audit)
    finally:
        await database.close()
    more = plain[-1].balance_nanousd - given[-1].balance_nanousd
    report("13 settle repeated", count, "1 entry, 1 record, the first answer each time",
           f"{counted[0]} entry, {counted[1]} record, {firsts} first, {len(costs)} answer")  # fmt: skip
    report("13 grant repeated", count, "1 entry; other parameters refused (3 of 3); without a key 10 of 10 given",
           f"{counted[2]} entry; {refused} refused; {more} given")  # fmt: skip
    assert (counted, firsts, costs, refused) == ((1, 1, 1), 1, {record.cost_nanousd}, 3)
    assert more == 10
    assert problems == []


def _held(tx: Tx) -> UsageRecord:
    """An open hold of one of two customers, and the record that ends it."""
    books.remember(tx)
    books.customer(tx, "else")
    account = books.customer(tx, "twice")
    draft = books.draft("call_1", account.id)
    ledger.hold(tx, "call_1", account.id, 500_000, 1, draft, draft.time_ms)
    spent = {"input_tokens": 100, "output_tokens": 20, "cost_nanousd": BILL[ANTHROPIC], "settled_by": "reported"}
    return msgspec.structs.replace(draft, ending="complete", status=200, **spent)


async def test_a_grant_that_is_sent_again(report: Report) -> None:
    """Check 13, through the socket of the running server, and by the command line, which means each call."""
    count = times(200, 1_000)
    async with product() as made:
        grant = {"account": "me", "amount_nanousd": 1_000, "note": "x", "idempotency_key": "again"}
        start = (await made.balance())["balance_nanousd"]
        for _ in range(count // 20):
            await asyncio.gather(*(control(made.data, "credit.grant", grant) for _ in range(20)))
        by_socket = (await made.balance())["balance_nanousd"] - start
        with pytest.raises(Refused):
            await control(made.data, "credit.grant", {**grant, "amount_nanousd": 2_000})
        await made.kill()
        await made.start()
        await control(made.data, "credit.grant", grant)
        await asyncio.gather(*(made.cli("credit", "grant", "me", "0.000001") for _ in range(3)))
        by_command = (await made.balance())["balance_nanousd"] - start - by_socket
        entries = looked_up(made, "SELECT count(*) FROM entries WHERE idempotency_key = 'again'")[0][0]
        assert await made.audit() == []
    report("13 grant sent again", count, "1 entry, also after a kill; 3 commands give 3 times",
           f"{entries} entry, {by_socket // 1_000} given; {by_command // 1_000} given")  # fmt: skip
    assert (entries, by_socket, by_command) == (1, 1_000, 3_000)


# --- check 17 ------------------------------------------------------------------------------------------------------------

TRIES = "[limits]\nconnect_ms = 500\nfirst_byte_ms = 1500\n"
JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n"


def _error(status: int) -> bytes:
    return (
        b"HTTP/1.1 %d No\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}" % status
    )


async def _nothing(connection: Connection) -> None:
    await connection.closed_by_peer()


def _says(data: bytes, *, reset: bool = False) -> Callable[[Connection], Awaitable[None]]:
    async def script(connection: Connection) -> None:
        if data:
            await connection.send(data)
            await asyncio.sleep(0.02)
        if reset:
            sock = connection.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.abort()
        else:
            connection.writer.close()

    return script


# What A does with the request that it got, and how the client's answer begins then. None of these may be sent again.
RECEIVED: dict[str, tuple[Callable[[Connection], Awaitable[None]], tuple[int, ...]]] = {
    "resets": (_says(b"", reset=True), (503,)),
    "closes": (_says(b""), (503,)),
    "breaks off in its head": (_says(b"HTTP/1.1 200 OK\r\ncontent-ty"), (503,)),
    "resets in its head": (_says(b"HTTP/1.1 200 OK\r\ncontent-ty", reset=True), (503,)),
    "breaks off in its body": (_says(JSON_HEAD + b'{"id":'), (503,)),
    "is no HTTP": (_says(b"SSH-2.0-OpenSSH_9.2\r\n"), (503,)),
    "is silent": (_nothing, (503,)),
    "504": (_says(_error(504)), (504,)),
    "307": (_says(_error(307)), (502,)),
}
# Here the proxy may ask B, since A says that it did nothing, or pass A's answer on.
DECLINED = {f"{status}": (_says(_error(status)), (200, status)) for status in (401, 402, 403, 429, 500, 502, 503, 529)}
NOT_REACHED = ("refuses to connect", "takes no connection", "speaks no TLS")


def _unreachable(stack: contextlib.AsyncExitStack, way: str) -> str:
    """The base URL of a place that can't be reached."""
    sock = stack.enter_context(socket.socket())
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    if way == "refuses to connect":
        sock.close()
        return f"http://127.0.0.1:{port}"
    sock.listen(0)
    for _ in range(3):  # the kernel takes so many for us, and then no more
        waiting = stack.enter_context(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(("127.0.0.1", port))
    return f"http://127.0.0.1:{port}"


async def test_a_request_is_sent_again_only_where_nothing_can_have_run(report: Report) -> None:
    """Check 17: A fails in many ways, B works."""
    ways = [*NOT_REACHED, *RECEIVED, *DECLINED]
    scripts = {**RECEIVED, **DECLINED}
    models = {way: f"claude-test-way-{number}" for number, way in enumerate(ways)}
    bad = ScriptedUpstream()

    async def script(connection: Connection) -> None:
        asked = json.loads(connection.received.body)["model"]
        await scripts[next(way for way, name in models.items() if name == asked)][0](connection)

    bad.script = script
    await bad.start()
    wrong, second, twice = [], 0, 0
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(bad.stop)
        lines = [TRIES]
        for number, way in enumerate(ways):
            url = bad.url if way not in NOT_REACHED else _unreachable(stack, way)
            url = bad.url.replace("http:", "https:") if way == "speaks no TLS" else url
            lines.append(f'[upstreams.a{number}]\nkind = "anthropic"\nbase_url = "{url}"\napi_key = "x"')
            lines.append(f'[[routes]]\nmodel = "{models[way]}"\nupstreams = ["a{number}", "anthropic"]')
        lines.append(f'[[routes]]\nmodel = "claude-test-alone"\nupstreams = ["a{ways.index("refuses to connect")}"]')
        async with product(more="\n".join(lines) + "\n") as made, session() as client:
            made.upstream.script = lambda c: c.reply(whole(ANTHROPIC))
            headers = {**made.headers, "Content-Type": "application/json"}
            for way in ways:
                body = ask(ANTHROPIC, stream=False, model=models[way])
                status, _, _ = await taken(client, made, ANTHROPIC, body, headers)
                at_a = sum(models[way] == json.loads(one.body)["model"] for one in bad.received)
                at_b = sum(models[way] == json.loads(one.body)["model"] for one in made.upstream.received)
                rows = looked_up(made, "SELECT cost_nanousd, upstream FROM usage WHERE model = ?", models[way])
                expected = (200,) if way in NOT_REACHED else scripts[way][1]
                again = way in NOT_REACHED or (way in DECLINED and status == 200)
                charge = BILL[ANTHROPIC] if status == 200 else 0
                seen = (status in expected, at_a, at_b, [row["cost_nanousd"] for row in rows])
                if seen != (True, int(way not in NOT_REACHED), int(again), [charge]):
                    wrong.append(f"{way}: {status} {seen}")
                second += at_b
                twice += at_a > 1 or at_b > 1 or (at_a + at_b > 1 and way in RECEIVED)
            alone, _, _ = await taken(client, made, ANTHROPIC, ask(ANTHROPIC, stream=False, model="claude-test-alone"),
                                      headers)  # fmt: skip
            stale = await _closed_while_idle(client, made, headers)
            assert await made.audit() == []
            assert (await made.balance())["held_nanousd"] == 0
    report("17 retry safety", len(ways), f"B serves the {len(NOT_REACHED)} that A can't have got; 0 sent twice; 0 wrong",
           f"B served {second}; {twice} sent twice; {len(wrong)} wrong")  # fmt: skip
    report("17 closed while idle", 20, "20 of 20 served on a new connection", f"{stale} of 20")
    report("17 control", 1, "without B: 503, nothing charged", f"{alone}")
    assert not wrong, wrong
    assert twice == 0
    assert alone == 503
    assert stale == 20


async def _closed_while_idle(client: aiohttp.ClientSession, made: Product, headers: dict[str, str]) -> int:
    """How many calls of 20 are served where the provider closes each connection after its answer without a word."""

    async def script(connection: Connection) -> None:
        await connection.reply(whole(ANTHROPIC))
        connection.writer.close()

    made.upstream.script = script
    served = 0
    for _ in range(20):
        status, _, _ = await taken(client, made, ANTHROPIC, ask(ANTHROPIC, stream=False), headers)
        served += status == 200
        await asyncio.sleep(0.01)
    return served


# --- checks 18, 22, 48 ---------------------------------------------------------------------------------------------------


async def test_the_same_request_id_twice_is_two_calls(report: Report) -> None:
    """Check 18: a client's ids are not ours; one after the other, and at the same time."""
    same = {"x-client-request-id": "thread-1", "idempotency-key": "i-1", "x-request-id": "r-1", "session-id": "s-1"}
    counted = []
    async with product() as made, session() as client:
        made.upstream.script = lambda c: c.reply(whole(c.received.target))
        for number, path in enumerate(PATHS):
            headers = {**await customer(made, f"same-{number}", 10**9), **same}
            body = ask(path, stream=False)
            for retry in (0, 1):
                await taken(client, made, path, body, {**headers, "x-stainless-retry-count": str(retry)})
            await asyncio.gather(*(taken(client, made, path, body, headers) for _ in range(2)))
            rows = await settled(made, f"same-{number}")
            balance = await control(made.data, "credit.balance", {"account": f"same-{number}"})
            assert balance["balance_nanousd"] == 10**9 - 4 * BILL[path]
            counted.append(len(rows))
        asked = len(made.upstream.received)
    report("18 same request id", 2 * len(PATHS), "2 of 2 charged, in turn and at once, in 3 dialects",
           f"{counted} of 4 each; {asked} at the provider")  # fmt: skip
    assert counted == [4, 4, 4]
    assert asked == 12


async def test_ten_thousand_bills_are_recomputed(report: Report, dice: random.Random) -> None:
    """Check 22: and one that was altered is named."""
    count = 10_000
    async with product() as made, session() as client:
        made.upstream.script = lambda c: c.reply(whole(ANTHROPIC))
        headers = {**made.headers, "Content-Type": "application/json"}
        await taken(client, made, ANTHROPIC, ask(ANTHROPIC, stream=False), headers)
        await control(made.data, "credit.grant", {"account": "me", "amount_nanousd": 10**12})
        await made.stop()
        database = await Database.open(made.data)
        try:
            for start in range(1, count, 500):
                await database.write(_copied, start, min(start + 500, count), random.Random(dice.random()))
        finally:
            await database.close()
        await made.start()
        began = time.monotonic()
        problems = await made.audit()
        took = time.monotonic() - began
        await made.stop()
        with contextlib.closing(sqlite3.connect(made.data / "lumeproxy.db")) as conn, conn:
            (altered,) = conn.execute("SELECT call_id FROM usage WHERE output_tokens > 0 ORDER BY random()").fetchone()
            conn.execute("UPDATE usage SET output_tokens = output_tokens - 1 WHERE call_id = ?", (altered,))
        named = await control_alone(made)
        rows = looked_up(made, "SELECT count(*) FROM usage")[0][0]
    report("22 bills recomputed", rows, "all equal, <= 5 s", f"{len(problems)} problems, {took:.2f} s")
    report("22 control", 1, "an altered record is named", f"{len(named)} named")
    assert (rows, problems) == (count, [])
    assert took <= 5
    assert len(named) == 3  # the bill, what the provider bills, and the sum of its day
    assert altered in named[0]


async def control_alone(made: Product) -> list[str]:
    """What an audit without a server says; the command itself ends with 1 where it finds something."""
    database = await Database.open(made.data)
    try:
        return await database.outside(audit)
    finally:
        await database.close()


def _copied(tx: Tx, start: int, end: int, dice: random.Random) -> None:
    """Calls like the first one, of many sizes."""
    (first,) = tx.execute("SELECT call_id FROM usage ORDER BY time_ms LIMIT 1").fetchone()
    record = usage.get(tx, first)
    assert record is not None
    price = decode_price(str(prices.load(tx, record.price_version)))
    for number in range(start, end):
        spent = Usage(dice.randrange(2_000), dice.randrange(2_000), dice.randrange(90), dice.randrange(90),
                      dice.randrange(500))  # fmt: skip
        call = f"call_copy_{number:05}"
        draft = msgspec.structs.replace(record, call_id=call, time_ms=record.time_ms + number)
        copy = msgspec.structs.replace(
            draft,
            **{name: getattr(spent, name) for name in Usage.__slots__},
            cost_nanousd=cost(price, spent, record.multiplier_ppm),
            upstream_cost_nanousd=cost(price, spent, 1_000_000),
        )
        ledger.hold(tx, call, record.account_id, 100_000, 1, draft, draft.time_ms)
        ledger.settle(tx, copy)


@pytest.mark.parametrize("act", ["suspend", "revoke"])
async def test_streams_end_when_their_account_or_key_does(report: Report, act: str) -> None:
    """Check 48: 50 streams of three dialects; by the server's socket, timed from the asking, and by the command line, timed
    from the command's end. A stream of another account goes on."""
    cycles, slowest, held_on, unclean, off = times(2, 10), [0.0, 0.0], [0.0, 0.0], 0, 0
    words, over = ["a few words of it "] * 10, asyncio.Event()
    async with product() as made, session() as client:
        closed: list[float] = []

        async def script(connection: Connection) -> None:
            await connection.stream_head()
            items = events(connection.received.target, words)
            cut = next(n for n, item in reversed(list(enumerate(items))) if b"of it" in item) + 1
            for item in items[:cut]:
                await connection.chunk(item)
            if b"bystander" in connection.received.body:
                await over.wait()
                for item in items[cut:]:
                    await connection.chunk(item)
                await connection.end()
                return
            await connection.closed_by_peer()
            closed.append(time.monotonic())
            connection.writer.close()

        made.upstream.script = script
        other = {**made.headers, "Content-Type": "application/json"}
        bystander = asyncio.ensure_future(taken(client, made, ANTHROPIC, ask(ANTHROPIC, user="bystander"), other))
        async with asyncio.timeout(30):
            while not made.upstream.received:  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(SAMPLE_S)
        for cycle in range(cycles):
            name = f"team-{cycle}"
            headers = await customer(made, name, 10**11)
            key_id = headers["Authorization"].split("_")[1]
            ends: list[float] = []
            before = len(made.upstream.received)

            async def call(
                path: str, headers: dict[str, str] = headers, ends: list[float] = ends
            ) -> tuple[str, tuple[int, bytes, bool]]:
                got = await taken(client, made, path, ask(path), headers)
                ends.append(time.monotonic())
                return path, got

            running = [asyncio.ensure_future(call(PATHS[number % 3])) for number in range(50)]
            async with asyncio.timeout(30):
                while len(made.upstream.received) - before < 50:  # noqa: ASYNC110 - seen from outside
                    await asyncio.sleep(SAMPLE_S)
            await asyncio.sleep(0.5)
            assert not ends
            closed.clear()
            alone = cycle % 2
            since = time.monotonic()
            if alone:
                command = (
                    ("account", "suspend", name, "--reason", "a test")
                    if act == "suspend"
                    else ("key", "revoke", key_id)
                )
                await made.cli(*command)
                since = time.monotonic()
            elif act == "suspend":
                await control(made.data, "account.suspend", {"name": name, "reason": "a test"})
            else:
                await control(made.data, "key.revoke", {"id": key_id})
            answers = await asyncio.gather(*running)
            slowest[alone] = max(slowest[alone], max(ends) - since)
            held_on[alone] = max(held_on[alone], max(closed) - since)
            unclean += sum(not ended_well(path, body, clean) for path, (_, body, clean) in answers)
            assert not bystander.done()
            refused, _, _ = await taken(client, made, ANTHROPIC, ask(ANTHROPIC), headers)
            assert refused == (403 if act == "suspend" else 401)
            for row in await settled(made, name):
                path = next(p for p in PATHS if p == row["endpoint"])
                out = tokens_out(path, len("".join(words)))
                input_tokens = 100 if path == ANTHROPIC else tokens_in(path, ask(path))
                off += row["cost_nanousd"] != input_tokens * INPUT + out * OUTPUT or row["ending"] != "interrupted"
        over.set()
        _, body, clean = await bystander
        assert clean
        assert b"message_stop" in body
        assert len(looked_up(made, "SELECT 1 FROM usage")) == cycles * 50 + 1
        assert await made.audit() == []
    report(f"48 {act} with streams open", cycles * 50, "<= 1 s, all ended in their dialect and charged; no other's",
           f"{slowest[0]:.2f} s, provider let go {held_on[0]:.2f} s; {unclean} unclean, {off} off")  # fmt: skip
    assert max(slowest) <= 1
    assert max(held_on) <= 1
    assert (unclean, off) == (0, 0)
