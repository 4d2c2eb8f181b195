"""Fixtures of the end-to-end tests: installed clients, a running server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.product import ACCEPTANCE, CLIENTS, Stack, running


def missing(what: str) -> None:
    """Skip loudly where a person runs the tests, fail where a machine does."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def clients() -> Path:
    """The folder of the installed clients."""
    if not ACCEPTANCE.is_dir():
        missing(f"the real clients' scripts are not there: {ACCEPTANCE}")
    if shutil.which("npm") is None:
        missing("npm is not installed, so the real clients can't be")
    if not (CLIENTS / "node_modules" / ".bin" / "opencode").exists() or not (CLIENTS / "venv").exists():
        environ = {**os.environ, "WITH_EXTRAS": "1", "PYTHON": sys.executable}
        subprocess.run(["bash", str(ACCEPTANCE / "install_clients.sh"), str(CLIENTS)], env=environ, check=True)
    return CLIENTS


@pytest.fixture(scope="module")
def stack(clients: Path) -> Iterator[Stack]:
    """One server and one provider for a whole module of tests."""
    with running(clients) as made:
        yield made
