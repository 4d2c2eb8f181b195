"""Stopped, frozen, asked to stop and to read its settings anew, with streams running: none is lost, none is doubled."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.conftest import Report, times
from tests.faults.mixed import RICH, Books, Clients, Seen, books, wrong_bills
from tests.faults.product import Product, product, session
from tests.support.calls import ANTHROPIC, OUTPUT, PATHS, tokens_out

pytestmark = [pytest.mark.faults, pytest.mark.timeout(times(150, 3000))]

STREAMS = 100
PAUSE_S = 0.05


def wrong_streams(found: Books, clients: Clients, streams: list[Seen]) -> list[str]:
    """What is wrong where every stream was to come to its end."""
    wrong = [f"{seen.name}: not complete" for seen in streams if not seen.complete]
    if found.held:
        wrong.append(f"{found.held} is still held")
    return wrong + wrong_bills(found, clients.provider.bills, clients.seen.values())


async def test_frozen_for_a_while(report: Report, dice: random.Random) -> None:
    """Check 20: SIGSTOP, and SIGCONT after a while; the streams go on."""
    wrong, complete = [], 0
    pauses = [10.0, 60.0] if times(0, 1) else [3.0]
    async with product(more=RICH) as made, session() as http:
        clients = Clients(made, http, dice)
        for pause in pauses:
            tasks = await clients.open_streams(STREAMS, words=20, pause=PAUSE_S)
            os.kill(made.pid, signal.SIGSTOP)
            await asyncio.sleep(pause)
            running = sum(not task.done() for task in tasks)
            os.kill(made.pid, signal.SIGCONT)
            ended = await asyncio.wait_for(asyncio.gather(*tasks), 60)
            complete += sum(seen.complete for seen in ended)
            if running < STREAMS:
                wrong.append(f"only {running} were running while the server was frozen")
            wrong += wrong_streams(await books(made), clients, ended)
    report(
        f"20 SIGSTOP for {' and '.join(f'{pause:.0f} s' for pause in pauses)}",
        len(pauses),
        f"{STREAMS} of {STREAMS} streams complete, 0 doubled",
        f"{complete} of {STREAMS * len(pauses)}, {len(wrong)} wrong",
    )
    assert wrong == []


async def records_after(made: Product) -> Books:
    """The books as the next start finds them: nothing may be left for it to recover."""
    before = made.log.count('"event":"recovered"')
    await made.start()
    found = await books(made)
    if made.log.count('"event":"recovered"') != before:
        found.problems.append("calls were left open")
    return found


async def test_asked_to_stop(report: Report, dice: random.Random) -> None:
    """Check 21: SIGTERM with 100 streams; each comes to its end, then the server ends with status 0."""
    cycles, wrong, slowest = times(2, 20), [], 0.0
    async with product(more=RICH) as made, session() as http:
        clients = Clients(made, http, dice)
        for _ in range(cycles):
            tasks = await clients.open_streams(STREAMS, words=20, pause=PAUSE_S)
            started = time.monotonic()
            os.kill(made.pid, signal.SIGTERM)
            await asyncio.sleep(0.3)
            late = await clients.call(ANTHROPIC)
            if late.status:
                wrong.append(f"a new call was answered {late.status}")
            streams = await asyncio.gather(*tasks)
            status = await made.stop()
            slowest = max(slowest, time.monotonic() - started)
            if status:
                wrong.append(f"exit status {status}")
            wrong += wrong_streams(await records_after(made), clients, streams)
    report(
        "21 SIGTERM with 100 streams",
        cycles,
        "drained within 25 s, exit 0, 0 unsettled",
        f"within {slowest:.1f} s, {len(wrong)} wrong",
    )
    assert wrong == []
    assert slowest <= 25


def wrongly_cut(found: Books, clients: Clients, seen: Seen) -> str | None:
    """What is wrong with a stream that the operator cut: a clean end, or a charge that is not for what was delivered."""
    bill, record = clients.provider.bills[seen.name], found.records.get(seen.name)
    if record is None:
        return f"{seen.name}: no record"
    if seen.complete or (record["ending"], record["error_code"]) != ("interrupted", "stopping"):
        return f"{seen.name}: {record['ending']} {record['error_code']}, complete for its client: {seen.complete}"
    if b"being restarted" not in seen.body:
        return f"{seen.name}: its client was not told why"
    words = seen.body.count(b'"word "')
    least = tokens_out(bill.path, words * 5)
    most = tokens_out(bill.path, bill.characters(time.monotonic()))
    if not least <= record["output_tokens"] <= max(most, 1):
        return f"{seen.name}: {record['output_tokens']} tokens for {words} words"
    if bill.path == ANTHROPIC and record["cost_nanousd"] < bill.input_nanousd + least * OUTPUT:
        return f"{seen.name}: charged {record['cost_nanousd']}"
    return None


async def test_asked_to_stop_twice(report: Report, dice: random.Random) -> None:
    """Check 21: the second SIGTERM cuts the streams; each is charged for what was delivered, and told that it was cut."""
    cycles, wrong, slowest = times(1, 20), [], 0.0
    async with product(more=RICH) as made, session() as http:
        clients = Clients(made, http, dice)
        for _ in range(cycles):
            tasks = await clients.open_streams(STREAMS, words=1000, pause=PAUSE_S)
            os.kill(made.pid, signal.SIGTERM)
            await asyncio.sleep(dice.uniform(0.3, 1.0))
            started = time.monotonic()
            assert made.process is not None and made.process.returncode is None
            status = await made.stop(20)
            slowest = max(slowest, time.monotonic() - started)
            streams = await asyncio.gather(*tasks)
            found = await records_after(made)
            wrong += found.problems + ([f"exit status {status}"] if status else [])
            wrong += [f"{found.held} is still held"] if found.held else []
            wrong += [text for seen in streams if (text := wrongly_cut(found, clients, seen)) is not None]
    report(
        "21 SIGTERM twice",
        cycles,
        "cut, charged for what was delivered, exit 0",
        f"within {slowest:.1f} s, {len(wrong)} wrong of {cycles * STREAMS}",
    )
    assert wrong == []
    assert slowest <= 10


# --- SIGHUP ------------------------------------------------------------------------------------------------------------


def credential(made: Product) -> Any:
    """The credential with which the last call was sent to its provider."""
    received = made.upstream.received[-1]
    return received.header("x-api-key") or received.header("authorization")


async def hangup(made: Product, text: str | None) -> dict[str, Any]:
    """Put a configuration in place, or take it away, and have it read: what the log says of it."""
    file = made.folder / "config.toml"
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    before = len(made.log)
    os.kill(made.pid, signal.SIGHUP)
    async with asyncio.timeout(10):
        while True:
            for line in made.log[before:].splitlines():
                with contextlib.suppress(ValueError):
                    said: dict[str, Any] = json.loads(line)
                    if said["event"].startswith("reload"):
                        return said
            await asyncio.sleep(0.02)


BAD: dict[str, Callable[[str], str | None]] = {
    "not TOML": lambda good: good + "\n[upstreams",
    "an unknown key": lambda good: good.replace("[billing]", "[billing]\nfrist_credit = 1"),
    "an upstream that is not there": lambda good: good.replace('upstreams = ["openai"]', 'upstreams = ["opanai"]'),
    "a credential that can't be read": lambda good: good.replace(
        'api_key = "provider-secret"', 'api_key_file = "nowhere"'
    ),
    "no file": lambda _good: None,
}


async def reload_all(made: Product, clients: Clients) -> list[str]:
    """Each bad configuration, then a good one, while streams are running; what was wrong."""
    wrong = []
    good = (made.folder / "config.toml").read_text()
    tasks = await clients.open_streams(30, words=50, pause=PAUSE_S)
    for what, spoil in BAD.items():
        assert spoil(good) != good
        said = await hangup(made, spoil(good))
        if said["event"] != "reload_refused" or not str(said.get("reason", "")).endswith("."):
            wrong.append(f"{what}: {said}")
        if not (await clients.call(PATHS[0])).complete or "provider-secret" not in credential(made):
            wrong.append(f"{what}: the old settings are not in force")
    running = sum(not task.done() for task in tasks)
    said = await hangup(
        made, good.replace('"provider-secret"', '"another-secret"').replace("output = 10\n", "output = 20\n")
    )
    if said["event"] != "reloaded" or running < len(tasks):
        wrong.append(f"a good file: {said}, {running} streams were running")
    wrong += await after_reload(made, clients, tasks)
    (made.folder / "config.toml").write_text(good)
    return wrong


async def after_reload(made: Product, clients: Clients, tasks: list[asyncio.Task[Seen]]) -> list[str]:
    """What is wrong with calls that began before and after the settings were changed."""
    wrong = []
    new = [await clients.call(path) for path in PATHS]
    if "another-secret" not in credential(made):
        wrong.append("the new credential is not in force")
    streams = await asyncio.gather(*tasks)
    found = await books(made)
    for seen in new:
        bill = clients.provider.bills.pop(seen.name)
        cost = found.records[seen.name]["cost_nanousd"]
        if not seen.complete or cost != bill.input_nanousd + bill.output * 2 * OUTPUT:
            wrong.append(f"{seen.name}: {cost} by the new price")
        del clients.seen[seen.name]
    return wrong + wrong_streams(found, clients, list(streams))


async def test_settings_are_read_anew(report: Report, dice: random.Random) -> None:
    """Check 21: SIGHUP with bad files changes nothing and says why; with a good one new calls have the new credential
    and price, and running streams keep theirs."""
    cycles, wrong = times(1, 4), []
    for _ in range(cycles):
        async with product(more=RICH) as made, session() as http:
            wrong += await reload_all(made, Clients(made, http, dice))
    report(
        "21 SIGHUP with streams running",
        cycles * (len(BAD) + 1),
        "bad files refused with a sentence, a good one in force, 0 streams dropped",
        f"{len(wrong)} wrong",
    )
    assert wrong == []
