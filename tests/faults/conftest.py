"""The faults of reliability.md section 6, really injected: `make faults` runs them and prints one table.

Each check says how often it was tried, what was expected and what was seen. FAULTS=full runs the long form.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable

import pytest

Row = tuple[str, int, str, str]
ROWS = pytest.StashKey[list[Row]]()
Report = Callable[[str, int, str, str], None]
FULL = os.environ.get("FAULTS") == "full"


def times(short: int, full: int) -> int:
    """How often a check is tried: in CI, and in the long form."""
    return full if FULL else short


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Puts a row into the table: check number with a word, cycles, expected, seen."""
    rows = request.config.stash.setdefault(ROWS, [])

    def add(check: str, cycles: int, expected: str, seen: str) -> None:
        rows.append((check, cycles, expected, seen))

    return add


@pytest.fixture
def dice() -> random.Random:
    """Chance that can be repeated: FAULTS_SEED, or a fresh seed that a failing run prints."""
    seed = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(2**32))
    print(f"FAULTS_SEED={seed}")  # noqa: T201 - shown with a failure
    return random.Random(seed)


@pytest.fixture
def strace() -> str:
    """The path of strace; skipped loudly where a person runs the tests without it, failed where a machine does."""
    found = shutil.which("strace")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("strace is not installed (apt-get install strace)")
        pytest.skip("strace is not installed (apt-get install strace)")
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table."""
    rows = config.stash.setdefault(ROWS, [])
    rows.sort(key=lambda row: (int(row[0].split()[0]), row[0]))
    if rows:
        terminalreporter.section("faults")
        width = max(len(row[0]) for row in rows)
        for check, cycles, expected, seen in rows:
            terminalreporter.write_line(f"{check:<{width}}  x{cycles:<6} expected: {expected}")
            terminalreporter.write_line(f"{'':<{width}}  {'':<7} seen:     {seen}")
