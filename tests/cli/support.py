"""What the tests of the commands share: a command line run in this process, a server run as another, calls by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lumeproxy.cli.main import run
from lumeproxy.core.pricing import Rates, encode_price, make_price
from lumeproxy.core.types import Ending, SettledBy, UsageRecord
from lumeproxy.store import accounts, ledger, prices
from lumeproxy.store.database import Database, Tx
from tests.support.clock import START_MS

ROOT = Path(__file__).parents[2]
STOP_S = 20
# A dollar and five per million tokens: 1,000 and 5,000 nano-USD a token.
PRICE = make_price("m", "operator", [Rates(0, 10**9, 10**9, 10**9, 10**9, 5 * 10**9)])


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.err == ""
        return json.loads(self.out)


@dataclass
class Cli:
    """Runs command lines on one data folder."""

    data: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> Outcome:
        self.capture.readouterr()
        status = run([*arguments, "--data", str(self.data)])
        captured = self.capture.readouterr()
        assert "Traceback" not in captured.err
        return Outcome(status, captured.out, captured.err)

    def json(self, *arguments: str) -> Any:
        return self(*arguments, "--json").json

    def begin(self) -> None:
        """An empty database, which most commands do not make by themselves."""
        in_database(self.data, lambda _: None)


def cells(text: str, block: int = 0) -> list[list[str]]:
    """The cells of a table's lines, its head first: columns are two spaces apart. No line is wider than 100 columns."""
    lines = text.split("\n\n")[block].splitlines()
    assert max(map(len, lines)) <= 100
    return [re.split(r" {2,}", line.strip()) for line in lines]


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """The process's environment without what configures lumeproxy or its upstreams."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LUMEPROXY_", "ANTHROPIC_", "OPENAI_", "XDG_"))}
    return {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), **more}


@dataclass
class Started:
    """`python -m lumeproxy` as a process of its own; `greeting` is what it has said so far, `log` its standard error."""

    process: subprocess.Popen[str]
    data: Path
    log: Path
    greeting: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.greeting)

    @property
    def url(self) -> str:
        found = re.search(r"serves on (\S+)", self.greeting[0])
        assert found, self.text
        return found[1]

    @property
    def key(self) -> str:
        return re.findall(r"lume_\w+", self.text)[0]

    def read_until(self, part: str) -> None:
        assert self.process.stdout is not None
        while not self.greeting or part not in self.greeting[-1]:
            line = self.process.stdout.readline()
            assert line, self.log.read_text()
            self.greeting.append(line)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the process and wait for its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        assert self.process.stdout is not None
        self.greeting += self.process.stdout.readlines()
        return self.process.wait(STOP_S)


@contextlib.contextmanager
def started(home: Path, *arguments: str, until: str = "data folder", **environ: str) -> Iterator[Started]:
    """A server on a free port with its data below `home`."""
    data = home / "data"
    log = home / "log.jsonl"
    command = [sys.executable, "-m", "lumeproxy", "--port", "0", "--data", str(data), *arguments]
    with log.open("a") as err:
        process = subprocess.Popen(
            command, cwd=home, stdout=subprocess.PIPE, stderr=err, text=True, env=clean_environment(home, **environ)
        )
    server = Started(process, data, log)
    try:
        server.read_until(until)
        yield server
    finally:
        server.stop()
        assert process.stdout is not None
        process.stdout.close()


def in_database(data: Path, work: Callable[[Tx], Any]) -> Any:
    """Run one transaction on a data folder that no server uses."""

    async def go() -> Any:
        database = await Database.open(data)
        try:
            return await database.write(work)
        finally:
            await database.close()

    return asyncio.run(go())


def book_call(tx: Tx, number: int, account: str, **fields: Any) -> UsageRecord:
    """A settled call, priced at PRICE, `number` minutes before START_MS."""
    prices.remember(tx, PRICE.version, encode_price(PRICE), START_MS)
    known: dict[str, Any] = {
        "call_id": f"call_{number:026}", "time_ms": START_MS - number * 60_000, "account_id": accounts.get(tx, account).id,
        "key_id": "abcdefgh", "endpoint": "/v1/messages", "dialect": "anthropic_messages", "model": "claude-echo",
        "model_served": "claude-echo", "upstream": "echo", "status": 200, "ending": Ending.COMPLETE.value,
        "price_version": PRICE.version, "multiplier_ppm": 10**6, "settled_by": SettledBy.REPORTED.value,
        "input_tokens": 100, "output_tokens": 10, "duration_ms": 5,
    }  # fmt: skip
    known |= fields
    tokens = [known.get(name, 0) for name in ("input_tokens", "cache_read_tokens", "cache_write_5m_tokens",
                                              "cache_write_1h_tokens")]  # fmt: skip
    known.setdefault("cost_nanousd", sum(tokens) * 1000 + known["output_tokens"] * 5000)
    record = UsageRecord(**known)
    ledger.hold(tx, record.call_id, record.account_id, record.cost_nanousd, 0, record, START_MS)
    ledger.settle(tx, record)
    return record
