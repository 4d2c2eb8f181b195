"""A command line on a fresh data folder, and one server as a process for all tests that need one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import Cli, Started, started


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the machine reaches a test."""
    for name in tuple(os.environ):
        if name.startswith(("LUMEPROXY_", "ANTHROPIC_", "OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Commands without a server."""
    return Cli(tmp_path / "data", capsys)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """A first run as a process; tests make their own accounts on it."""
    with started(tmp_path_factory.mktemp("served"), until="to try it out") as made:
        yield made


@pytest.fixture
def remote(server: Started, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Commands that reach the running server."""
    return Cli(server.data, capsys)


@pytest.fixture(params=["alone", "served"])
def either(request: pytest.FixtureRequest) -> Cli:
    """Commands with and without a running server: they must not differ."""
    found: Cli = request.getfixturevalue("cli" if request.param == "alone" else "remote")
    return found
