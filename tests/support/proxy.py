"""The whole proxy in this process, on a real socket, before scripted upstreams."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lumeproxy import logs
from lumeproxy.app import Server, Signals, running
from lumeproxy.clock import Clock
from lumeproxy.settings import Settings, load
from lumeproxy.store import ledger, usage
from lumeproxy.store.audit import audit
from tests.support.upstream import ScriptedUpstream

PRICES = """
[prices."claude-test-*"]
input = 1
output = 10
cache_read = 0.1
cache_write_5m = 2
cache_write_1h = 3
[prices."gpt-test-*"]
input = 1
output = 10
cache_read = 0.1
"""


@dataclass
class Proxy:
    """A running proxy with one customer."""

    server: Server
    session: aiohttp.ClientSession
    key: str
    log: io.StringIO
    settings: Settings
    config: Path
    hangup: asyncio.Event
    account: str = "tester"
    credit_nanousd: int = 0  # all that was ever granted
    told: set[str] = field(default_factory=set)  # calls whose records a test has seen
    _ends: list[Callable[[], object]] = field(default_factory=list)

    def at_end(self, act: Callable[[], object]) -> None:
        """Do this before the proxy is stopped, which waits for its clients."""
        self._ends.append(act)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def post(self, path: str, body: Any, **options: Any) -> Any:
        """A request context; `body` as bytes or a file of them goes out untouched, else as JSON."""
        headers = {**self.headers, **options.pop("headers", {})}
        given = {"data": body} if isinstance(body, bytes | io.BytesIO) else {"json": body}
        return self.session.post(self.url + path, headers=headers, **given, **options)

    async def run(self, operation: str, **arguments: Any) -> Any:
        return await self.server.operations.run(operation, arguments)

    async def grant(self, amount_nanousd: int) -> None:
        await self.run("credit.grant", account=self.account, amount_nanousd=amount_nanousd)
        self.credit_nanousd += amount_nanousd

    def delay(self, job: Any, until: asyncio.Event, patch: pytest.MonkeyPatch) -> None:
        """Let the database's answers to one kind of job be known only after an event."""
        database = self.server.database
        submit = database.submit_urgent

        def delayed(fn: Any, *args: Any) -> Any:
            if fn is not job:
                return submit(fn, *args)

            async def wait() -> Any:
                await until.wait()
                return await submit(fn, *args)

            return asyncio.ensure_future(wait())

        patch.setattr(database, "submit_urgent", delayed)

    async def reload(self) -> dict[str, Any]:
        """Have the settings read anew; the log line that says what came of it."""
        before = len(self.log.getvalue())
        self.hangup.set()
        async with asyncio.timeout(5):
            while '"reload' not in self.log.getvalue()[before:]:  # noqa: ASYNC110 - a line of the log is no event
                await asyncio.sleep(0)
        lines = [json.loads(line) for line in self.log.getvalue()[before:].splitlines()]
        return next(line for line in lines if line["event"].startswith("reload"))

    async def records(self) -> list[dict[str, Any]]:
        """All usage records, oldest first, once no call is running."""
        await asyncio.wait_for(self.server.live.emptied(), 20)
        return (await self.server.database.read(usage.find))[::-1]

    async def balance(self) -> ledger.Balance:
        return await self.server.database.read(ledger.balance, self.account)

    async def audit(self) -> list[str]:
        return await self.server.database.read(audit)


@contextlib.asynccontextmanager
async def proxy(
    folder: Path,
    upstreams: dict[str, ScriptedUpstream],
    *,
    more: str = "",
    credit_nanousd: int = 10**9,
    clock: Clock | None = None,
    routes: str | None = None,
    environ: dict[str, str] | None = None,
    variables: dict[str, str] | None = None,
) -> AsyncIterator[Proxy]:
    """Start the proxy before upstreams named by kind ("anthropic", "openai", or "openai-2" for a second one). Unless
    `environ` says otherwise, wrong keys may be tried without end. `variables` are the process's own."""
    environ = {"LUMEPROXY_LIMITS__FAILED_KEYS_PER_MINUTE": "0"} if environ is None else environ
    config = folder / "config.toml"
    lines = [more, PRICES]
    for name, upstream in upstreams.items():
        kind = name.split("-")[0]
        lines.append(f'[upstreams.{name}]\nkind = "{kind}"\nbase_url = "{upstream.url}"\napi_key = "provider-secret"\n')
    lines.append(routes or "")
    config.write_text("\n".join(lines))
    data = folder / "data"
    settings = load(config=config, data=data, port=0, environ=environ)
    hangup = asyncio.Event()
    signals = Signals(asyncio.Event(), hangup, lambda: load(config=config, data=data, port=0, environ=environ))
    written = io.StringIO()
    clock = clock or Clock()
    log = logs.make(level="debug", style="json", clock=clock, stream=written)
    async with running(settings, variables or {}, clock, log, signals=signals) as server:
        await server.operations.run("account.create", {"name": "tester", "credit_nanousd": credit_nanousd})
        made = await server.operations.run("key.create", {"account": "tester"})
        async with aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=30)) as session:
            given = (server, session, made["key"], written, settings, config, hangup)
            lume = Proxy(*given, credit_nanousd=credit_nanousd)
            try:
                yield lume
            finally:
                for act in lume._ends:
                    act()
        problems = await server.database.read(audit)
        assert problems == []
