"""Mixed calls whose provider keeps a bill of its own: what the product charged is measured by it, never by the product.

Three dialects, streams and whole answers, quick and slow, each with a usage of its own. A call's name is its user agent, so
that the provider's bill, the client's view and the product's record are brought together without the product's help.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from lumeproxy.dashboard.control import call as ask_server
from tests.faults.product import Product
from tests.support import calls
from tests.support.calls import ANTHROPIC, CACHED, CHAT, FINAL, INPUT, OUTPUT, PATHS, RESPONSES
from tests.support.upstream import Connection, ScriptedUpstream

WORD = "word "
CACHED_TOKENS = 40
LAST = b'"last": true}'  # how a whole answer ends, so that its last bytes are known in a trace
RICH = "[billing]\nfirst_credit = 100000\nhold_output_tokens = 256\nhold_least_output_tokens = 64\n"


@dataclass
class Bill:
    """One call as its provider saw it. `sent`: when how many characters of text had been sent in all. `reported`: when the
    output was named, which is before the last event."""

    path: str
    input: int
    output: int
    began: float | None = None
    sent: list[tuple[float, int]] = field(default_factory=list)
    reported: float | None = None
    requests: int = 0

    @property
    def input_nanousd(self) -> int:
        if self.path == ANTHROPIC:
            return self.input * INPUT
        return (self.input - CACHED_TOKENS) * INPUT + CACHED_TOKENS * CACHED

    @property
    def nanousd(self) -> int:
        """What the whole answer costs."""
        return self.input_nanousd + self.output * OUTPUT

    def characters(self, at: float) -> int:
        """How many characters of text had been sent at a moment."""
        return max((chars for when, chars in self.sent if when <= at), default=0)

    def usage(self) -> dict[str, Any]:
        """The numbers as the OpenAI dialects name them."""
        if self.path == RESPONSES:
            return {"input_tokens": self.input, "input_tokens_details": {"cached_tokens": CACHED_TOKENS},
                    "output_tokens": self.output, "total_tokens": self.input + self.output}  # fmt: skip
        return {"prompt_tokens": self.input, "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
                "completion_tokens": self.output, "total_tokens": self.input + self.output}  # fmt: skip

    def events(self, words: int) -> list[bytes]:
        text = [WORD] * words
        if self.path == ANTHROPIC:
            start = {"input_tokens": self.input, "output_tokens": 1}
            return calls.events(self.path, text, start=start, delta={"output_tokens": self.output})
        return calls.events(self.path, text, usage=self.usage())

    def whole(self, words: int) -> bytes:
        usage = {"input_tokens": self.input, "output_tokens": self.output} if self.path == ANTHROPIC else self.usage()
        return json.dumps({**json.loads(calls.whole(self.path, WORD * words, usage)), "last": True}).encode()


class Provider:
    """Answers as the call's own metadata asks, and keeps the bill of each call by its name."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self.bills: dict[str, Bill] = {}
        upstream.script = self._answer

    async def _answer(self, connection: Connection) -> None:
        received = connection.received
        body = json.loads(received.body)
        asked = body["metadata"]
        name = asked["name"]
        bill = self.bills.setdefault(name, Bill(received.target.partition("?")[0], asked["input"], asked["output"]))
        bill.requests += 1
        await asyncio.sleep(asked["wait"])
        bill.began = time.monotonic()
        if not body["stream"]:
            await connection.reply(bill.whole(asked["words"]))
            return
        await connection.stream_head()
        chars = 0
        for event in bill.events(asked["words"]):
            chars += event.count(b'"' + WORD.encode() + b'"') * len(WORD)
            bill.sent.append((time.monotonic(), chars))
            if b"usage" in event and b'_tokens": %d' % bill.output in event:
                bill.reported = bill.reported or time.monotonic()
            await connection.chunk(event)
            if asked["pause"] and WORD.encode() in event:
                await asyncio.sleep(asked["pause"])
        await connection.end()


@dataclass
class Seen:
    """One call as its client saw it. `complete`: its last event, or all of its whole answer, has come."""

    name: str
    path: str
    began: float
    complete: bool = False
    status: int = 0
    call_id: str = ""
    retry_after: str | None = None
    body: bytes = b""
    ended: float = 0.0

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class Clients:
    """Calls with names of their own. `on_complete` is called in the very moment in which a client has all."""

    def __init__(self, made: Product, http: aiohttp.ClientSession, dice: random.Random) -> None:
        self.made = made
        self.provider = Provider(made.upstream)
        self.dice = dice
        self.seen: dict[str, Seen] = {}
        self.on_complete: Callable[[Seen], object] = lambda seen: None
        self._http = http
        self._numbers = itertools.count(1)

    async def call(
        self, path: str, *, stream: bool = True, words: int = 2, pause: float = 0.0, wait: float = 0.0
    ) -> Seen:
        """One call to its end, whatever that is."""
        name = f"fault-{next(self._numbers)}"
        seen = self.seen[name] = Seen(name, path, time.monotonic())
        metadata = {
            "name": name,
            "words": words,
            "pause": pause,
            "wait": wait,
            "input": self.dice.randrange(50, 5000),
            "output": self.dice.randrange(1, 900),
        }
        asked = calls.ask(path, stream=stream, metadata=metadata)
        headers = {**self.made.headers, "User-Agent": name, "Content-Type": "application/json"}
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            async with self._http.post(self.made.url + path, data=asked, headers=headers) as response:
                seen.status = response.status
                seen.call_id = response.headers.get("x-lume-call-id", "")
                seen.retry_after = response.headers.get("Retry-After")
                final = FINAL[path] if stream else LAST
                async for piece in response.content.iter_any():
                    seen.body += piece
                    if not seen.complete and seen.status == 200 and final in seen.body[-len(piece) - 64 :]:
                        seen.complete = True
                        seen.ended = time.monotonic()
                        self.on_complete(seen)
        seen.ended = seen.ended or time.monotonic()
        return seen

    async def any_call(self, *, slow: bool = False, most_s: float = 4.0) -> Seen:
        """A call of any kind; a slow one is a stream of 50 words a second."""
        dice = self.dice
        path = dice.choice(PATHS)
        if slow:
            return await self.call(path, words=int(dice.uniform(0.3, most_s) * 50), pause=0.02)
        if dice.random() < 0.4:
            return await self.call(path, stream=False, words=dice.randrange(1, 200), wait=dice.uniform(0, 0.1))
        return await self.call(path, words=dice.randrange(1, 60), wait=dice.uniform(0, 0.03))

    @contextlib.asynccontextmanager
    async def busy(self, *, quick: int = 10, slow: int = 6, rest_s: float = 0.05, most_s: float = 4.0) -> Any:
        """So many clients that call again and again, gone at the end."""

        async def work(is_slow: bool) -> None:
            while True:
                await self.any_call(slow=is_slow, most_s=most_s)
                await asyncio.sleep(self.dice.uniform(0, rest_s))

        tasks = [asyncio.ensure_future(work(n < slow)) for n in range(slow + quick)]
        try:
            yield tasks
        finally:
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(ended, BaseException) and not isinstance(ended, asyncio.CancelledError):
                    raise ended

    async def open_streams(self, number: int, *, words: int, pause: float) -> list[asyncio.Task[Seen]]:
        """So many streams, all of which have delivered their first text; their answers are to be awaited."""
        before = set(self.seen)
        tasks = [asyncio.ensure_future(self.call(PATHS[n % 3], words=words, pause=pause)) for n in range(number)]
        await eventually(lambda: sum(bool(s.body) for s in self.seen.values() if s.name not in before) >= number, 20)
        return tasks


async def eventually(condition: Callable[[], bool], seconds: float) -> float:
    """Wait until it is so; how long that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "it did not come to be so in time"
        await asyncio.sleep(0.005)
    return time.monotonic() - started


@dataclass
class Books:
    """The product's own account of things, brought together by the calls' names."""

    records: dict[str, dict[str, Any]]
    doubled: list[str]
    problems: list[str]
    held: int
    balance: int

    def charged(self) -> int:
        return sum(record["cost_nanousd"] - record["shortfall_nanousd"] for record in self.records.values())


async def operation(made: Product, name: str, **arguments: Any) -> Any:
    """Ask the running server as the command line does."""
    return await ask_server(made.data, name, arguments)


async def books(made: Product) -> Books:
    """Audit, balance and records of the running server; at most 10,000 records."""
    audit = await operation(made, "audit.run")
    balance = await operation(made, "credit.balance", account="me")
    listed = await operation(made, "usage.list")
    records: dict[str, dict[str, Any]] = {}
    doubled = []
    for record in listed:
        name = record["user_agent"]
        if name in records:
            doubled.append(name)
        records[name] = record
    return Books(records, doubled, audit["problems"], balance["held_nanousd"], balance["balance_nanousd"])


def wrong_bills(found: Books, bills: Mapping[str, Bill], seen: Iterable[Seen]) -> list[str]:
    """What is wrong: a call that its client saw complete has one exact record, one that was delivered has a record, and
    the books agree with themselves."""
    wrong = []
    for one in seen:
        if not one.complete:
            continue
        record, bill = found.records.get(one.name), bills[one.name]
        if record is None:
            wrong.append(f"{one.name}: no record")
        elif (record["ending"], record["settled_by"], record["cost_nanousd"]) != ("complete", "reported", bill.nanousd):
            wrong.append(f"{one.name}: {record['ending']} {record['cost_nanousd']} instead of {bill.nanousd}")
    wrong += [f"{name}: sent {bill.requests} times" for name, bill in bills.items() if bill.requests != 1]
    wrong += [f"{name}: delivered, no record" for name in bills if name not in found.records]
    wrong += [f"{name}: two records" for name in found.doubled]
    return wrong + found.problems


def in_dialect(path: str) -> str:
    """A short word for a path."""
    return {ANTHROPIC: "messages", RESPONSES: "responses", CHAT: "chat"}[path]
