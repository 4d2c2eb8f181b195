"""The product as a process that can be killed, and an account of what its provider delivered.

The provider is a scripted upstream in the test's own process: it outlives every fault that is injected into the product.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from tests.support.proxy import PRICES
from tests.support.upstream import ScriptedUpstream

ROOT = Path(__file__).parents[2]
START_S = 30
ROUTES = """
[[routes]]
model = "claude-test-*"
upstreams = ["anthropic"]
[[routes]]
model = "gpt-test-*"
upstreams = ["openai"]
"""


@dataclass
class Product:
    """One data folder, and the server process on it, if one runs. `prefix` is put before the command (strace, prlimit)."""

    folder: Path
    upstream: ScriptedUpstream
    more: str = ""
    prefix: Sequence[str] = ()
    environ: dict[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    port: int = 0
    key: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    @property
    def log(self) -> str:
        """All that the processes wrote to standard error so far."""
        return (self.folder / "log").read_text("utf-8", "replace") if (self.folder / "log").exists() else ""

    def _command(self, *arguments: str) -> list[str]:
        config = self.folder / "config.toml"
        kinds = ("anthropic", "openai")
        tables = [
            f'[upstreams.{kind}]\nkind = "{kind}"\nbase_url = "{self.upstream.url}"\napi_key = "provider-secret"\n'
            for kind in kinds
        ]
        config.write_text("\n".join([self.more, PRICES, *tables, ROUTES]))
        config.chmod(0o600)
        return [sys.executable, "-m", "lumeproxy", *arguments, "--config", str(config), "--data", str(self.data)]

    async def start(self) -> None:
        """Start the server and wait until it serves; the first start makes the account `me` with a key."""
        command = [*self.prefix, *self._command("serve", "--port", "0")]
        with (self.folder / "log").open("a") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=log, env={**os.environ, **self.environ}
            )
        assert self.process.stdout is not None
        text = ""
        async with asyncio.timeout(START_S):
            while not (found := re.search(r"serves on http://127\.0\.0\.1:(\d+)", text)) or "data folder" not in text:
                line = await self.process.stdout.readline()
                assert line, f"the server did not start: {self.log[-2000:]}"
                text += line.decode()
            if not self.key:
                while not (key := re.search(r"lume_\w{8}_\w+", text)):
                    text += (await self.process.stdout.readline()).decode()
                self.key = key[0]
        self.port = int(found[1])

    @property
    def pid(self) -> int:
        """The server's own process, below any prefix."""
        assert self.process is not None
        pid = self.process.pid
        for _ in self.prefix and (1, 2):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if not children:
                break
            pid = int(children[0])
        return pid

    async def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        await self.process.wait()
        self.process = None

    async def stop(self, seconds: float = 40) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        async with asyncio.timeout(seconds):
            status = await self.process.wait()
        self.process = None
        return status

    async def cli(self, *arguments: str) -> Any:
        """A command's JSON answer, by the running server or alone."""
        command = [*self._command(*arguments), "--json"]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, err.decode() + out.decode()
        return msgspec.json.decode(out)

    async def records(self) -> list[dict[str, Any]]:
        return list(await self.cli("usage"))

    async def audit(self) -> list[str]:
        return list((await self.cli("audit"))["problems"])

    async def balance(self, account: str = "me") -> dict[str, int]:
        return dict(await self.cli("credit", "balance", account))


@contextlib.asynccontextmanager
async def product(**options: Any) -> AsyncIterator[Product]:
    """A started product on a folder of its own, and its provider; both are gone afterwards."""
    upstream = ScriptedUpstream()
    await upstream.start()
    with tempfile.TemporaryDirectory(prefix="lumeproxy-faults-") as folder:
        made = Product(Path(folder), upstream, **options)
        try:
            await made.start()
            yield made
        finally:
            if made.process is not None:
                # The server first: a prefix that is killed before it, such as strace, would leave it running.
                with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                    os.kill(made.pid, signal.SIGKILL)
                with contextlib.suppress(ProcessLookupError):
                    made.process.kill()
                await made.process.wait()
            await upstream.stop()


def session(connections: int = 0) -> aiohttp.ClientSession:
    """A client that decodes nothing and waits long enough."""
    connector = aiohttp.TCPConnector(limit=connections)
    return aiohttp.ClientSession(connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=120))
