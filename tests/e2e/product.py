"""The product as a user runs it: `python -m lumeproxy` as a process of its own, the fake provider behind it, real clients
in front. Needs `../shared` and npm; the clients are installed once into CLIENTS_DIR (default `.clients`)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("SHARED", ROOT.parent / "shared"))
ACCEPTANCE = SHARED / "acceptance"
CLIENTS = Path(os.environ.get("CLIENTS_DIR", ROOT / ".clients")).absolute()
START_S = 20
PROVIDER_KEY = "provider-key"

# Prices that no list has, so that a bill can only have come from here.
CONFIG = """
[upstreams.anthropic]
kind = "anthropic"
base_url = "{fake}"
api_key = "provider-key"
[upstreams.openai]
kind = "openai"
base_url = "{fake}/v1"
api_key = "provider-key"
[prices."claude-*"]
input = 3.01
cache_read = 0.307
cache_write_5m = 3.77
cache_write_1h = 6.1
output = 15.03
[prices."gpt-*"]
input = 1.25
cache_read = 0.13
output = 10.01
"""
# The same in nano-USD a token, by hand.
PRICES = {
    "claude": {"in": 3010, "cr": 307, "cw5": 3770, "cw1": 6100, "out": 15030},
    "gpt": {"in": 1250, "cr": 130, "cw5": 0, "cw1": 0, "out": 10010},
}


@dataclass
class Stack:
    """A running server before a running fake provider."""

    base: str
    fake: str
    key: str
    folder: Path
    log: Path
    others: tuple[str, ...] = ()  # further providers
    pid: int = 0

    def cli(self, *arguments: str) -> Any:
        """A command's JSON answer."""
        command = [sys.executable, "-m", "lumeproxy", *arguments, "--json", "--data", str(self.folder / "data")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    def account(self, name: str, credit: str, *options: str) -> str:
        """A new account with so much credit; its key, made with these options."""
        self.cli("account", "create", name, "--credit", credit)
        return str(self.cli("key", "create", name, *options)["key"])

    def ledger(self, fake: str = "") -> Any:
        """What the provider claimed, or another one."""
        with urllib.request.urlopen((fake or self.fake) + "/_fake/ledger", timeout=10) as answer:
            return json.load(answer)

    def provider_does(self, *directives: str) -> None:
        """Let all providers forget what was, and the first one do this from now on."""
        for fake in (self.fake, *self.others):
            urllib.request.urlopen(fake + "/_fake/reset", b"", timeout=10).close()
        body = json.dumps({"directives": directives}).encode()
        urllib.request.urlopen(self.fake + "/_fake/set", body, timeout=10).close()

    def requests(self) -> list[Any]:
        """What the provider received."""
        with urllib.request.urlopen(self.fake + "/_fake/requests", timeout=10) as answer:
            return list(json.load(answer))

    def reload(self) -> None:
        """Have the server read its settings anew."""
        before = self.log.read_text().count('"reloaded"')
        os.kill(self.pid, signal.SIGHUP)
        _awaited(lambda: self.log.read_text().count('"reloaded"') > before)

    def script(self, name: str, key: str | None = None, **environ: str) -> str:
        """Run an acceptance script; its one line. Fails where the script does."""
        command = [str(ACCEPTANCE / name), self.base, key or self.key]
        if name.endswith(".py"):
            command.insert(0, str(CLIENTS / "venv" / "bin" / "python"))
        given = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "CLIENTS_DIR": str(CLIENTS), **environ}
        done = subprocess.run(command, env=given, cwd=self.folder, capture_output=True, text=True, timeout=240)
        line = done.stdout.strip()
        print(line)  # noqa: T201 - the evidence that `make e2e` is run for
        assert done.returncode == 0, line + done.stderr
        return line


@contextlib.contextmanager
def running(clients: Path, *options: str, text: str = CONFIG, **environ: str) -> Iterator[Stack]:
    """One server, with more in its environment, before one provider, or several, with more options; `text` is its
    configuration, in which `{fake}` is the first one's address and `{others[0]}` the next one's."""
    folder = Path(tempfile.mkdtemp(prefix="lumeproxy-e2e-"))
    processes: list[subprocess.Popen[str]] = []
    try:
        fakes = []
        for number in range(1 + text.count("{others[")):
            port_file = folder / f"fake-{number}.port"
            fake_command = [str(clients / "venv" / "bin" / "python"), str(ACCEPTANCE / "fake_upstream.py"), "--port", "0",
                            "--port-file", str(port_file), "--key", PROVIDER_KEY, *options]  # fmt: skip
            processes.append(
                subprocess.Popen(fake_command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
            )
            port = _awaited(lambda file=port_file: file.read_text().strip() if file.exists() else "")
            fakes.append(f"http://127.0.0.1:{port}")
        fake, *others = fakes
        (folder / "config.toml").write_text(text.format(fake=fake, others=others))
        log = folder / "log.jsonl"
        command = [sys.executable, "-m", "lumeproxy", "--config", str(folder / "config.toml"), "--port", "0",
                   "--data", str(folder / "data")]  # fmt: skip
        with log.open("w") as stderr, (folder / "out.txt").open("w") as stdout:
            processes.append(
                subprocess.Popen(
                    command, cwd=ROOT, env={**os.environ, **environ}, stdout=stdout, stderr=stderr, text=True
                )
            )
        greeting = _awaited(lambda: (folder / "out.txt").read_text())
        base = re.search(r"http://127\.0\.0\.1:\d+", greeting)
        key = re.search(r"lume_\w+", greeting)
        assert base and key, greeting
        yield Stack(base[0], fake, key[0], folder, log, tuple(others), processes[-1].pid)
    finally:
        for process in reversed(processes):
            process.terminate()
        codes = [process.wait(40) for process in reversed(processes)]
        shutil.rmtree(folder)
    assert codes[0] == 0, "the server did not end cleanly"


def _awaited(probe: Any) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if found := probe():
            return str(found)
        time.sleep(0.05)
    raise AssertionError("the process did not start")
