"""The real Claude Code before two providers of which the first fails: its turn succeeds, and nobody is charged twice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.product import CONFIG, PRICES, Stack, running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
TWO = (
    """
[upstreams.second]
kind = "anthropic"
base_url = "{others[0]}"
api_key = "provider-key"
[[routes]]
model = "claude-*"
upstreams = ["anthropic", "second"]
"""
    + CONFIG
)
CLASSES = {"in": "input_tokens", "out": "output_tokens", "cr": "cache_read_tokens", "cw5": "cache_write_5m_tokens",
           "cw1": "cache_write_1h_tokens"}  # fmt: skip


@pytest.fixture(scope="module")
def pair(clients: Path) -> Iterator[Stack]:
    """One server before two providers."""
    with running(clients, text=TWO) as made:
        yield made


def turn(pair: Stack, *faults: str) -> tuple[int, list[dict[str, Any]], list[Any]]:
    """A turn with a tool while the first provider does this: the client's own retries, our records (oldest first), both
    providers' ledgers."""
    known = {record["call_id"] for record in pair.cli("usage")}
    pair.provider_does(*faults)
    pair.cli("upstream", "enable", "anthropic")
    line = pair.script("run_claude_code.sh")
    retries = re.search(r"retries=(\d+)", line)
    assert retries is not None
    records = [record for record in pair.cli("usage")[::-1] if record["call_id"] not in known]
    ledgers = [pair.ledger(fake)["entries"] for fake in (pair.fake, *pair.others)]
    tries = "; ".join("+".join(f"{one['status'] or one['error']}" for one in record["attempts"]) for record in records)
    charged = sum(record["cost_nanousd"] for record in records)
    print(f"{' '.join(faults) or 'no fault'}: tries {tries}; retries of the client {retries[1]}; charged {charged}")  # noqa: T201
    return int(retries[1]), records, ledgers


def cost(usage: dict[str, int]) -> int:
    return sum(usage[short] * rate for short, rate in PRICES["claude"].items())


@pytest.mark.parametrize(
    "faults",
    [
        (),
        ("fault-401",),
        ("fault-402",),
        ("fault-403",),
        ("fault-429",),
        ("fault-429", "retry-after-60"),
        ("fault-500",),
        ("fault-html",),
        ("fault-503",),
        ("fault-529",),
        ("fault-529x1",),
    ],
    ids="+".join,
)
def test_a_fault_that_may_be_repeated_elsewhere_is_not_noticed(pair: Stack, faults: tuple[str, ...]) -> None:
    retries, records, ledgers = turn(pair, *faults)

    assert retries == 0
    assert all(record["ending"] == "complete" and not record["estimated"] for record in records)
    billed = [entry["usage"] for ledger in ledgers for entry in ledger if entry["outcome"] == "ok"]
    assert len(billed) == len(records) == 2
    for short, name in CLASSES.items():
        assert sum(record[name] for record in records) == sum(usage[short] for usage in billed)
    assert sum(record["cost_nanousd"] for record in records) == sum(map(cost, billed))
    if faults:
        assert records[0]["upstream"] == "second"
        assert [one["upstream"] for one in records[0]["attempts"]] == ["anthropic", "second"]


@pytest.mark.parametrize("faults", [("fault-close",), ("fault-504",)], ids="+".join)
def test_a_fault_that_may_have_been_billed_is_left_to_the_client_whose_next_try_goes_elsewhere(
    pair: Stack, faults: tuple[str, ...]
) -> None:
    retries, records, ledgers = turn(pair, *faults)

    assert retries == 1
    assert [record["upstream"] for record in records] == ["anthropic", "second", "second"]
    assert [len(record["attempts"]) for record in records] == [1, 1, 1]
    assert [record["ending"] == "complete" for record in records] == [False, True, True]
    billed = [entry["usage"] for entry in ledgers[1] if entry["outcome"] == "ok"]
    assert sum(record["cost_nanousd"] for record in records) == sum(map(cost, billed))


@pytest.mark.parametrize("faults", [("fault-midstream-drop",), ("fault-truncated",)], ids="+".join)
def test_an_answer_that_breaks_off_is_charged_as_delivered_and_the_turn_goes_on_elsewhere(
    pair: Stack, faults: tuple[str, ...]
) -> None:
    _, records, ledgers = turn(pair, *faults)

    broken = [record for record in records if record["ending"] == "cut_by_upstream"]
    seen = [entry["seen"] for entry in ledgers[0] if entry["seen"] is not None and entry["outcome"] != "ok"]
    assert len(broken) == len(seen) > 0
    for short, name in CLASSES.items():
        if short != "out":  # which is estimated from what was delivered
            assert sum(record[name] for record in broken) == sum(usage[short] for usage in seen)
    whole = [record for record in records if record["ending"] == "complete"]
    billed = [entry["usage"] for ledger in ledgers for entry in ledger if entry["outcome"] == "ok"]
    assert sum(record["cost_nanousd"] for record in whole) == sum(map(cost, billed))


def test_a_silent_moment_in_an_answer_is_waited_for(pair: Stack) -> None:
    retries, records, _ = turn(pair, "fault-stall-3000")

    assert retries == 0
    assert [record["upstream"] for record in records] == ["anthropic"] * len(records)


def test_a_first_provider_that_is_gone_is_not_noticed(pair: Stack) -> None:
    config = pair.folder / "config.toml"
    text = config.read_text()
    pair.provider_does()
    config.write_text(text.replace(pair.fake, "http://127.0.0.1:9"))
    pair.reload()
    try:
        retries, records, ledgers = turn(pair)
    finally:
        config.write_text(text)
        pair.reload()

    assert retries == 0
    # The first call finds out, and the session stays where it was served.
    assert [[one["error"] for one in record["attempts"]] for record in records] == [["unreachable", ""], [""]]
    assert sum(record["cost_nanousd"] for record in records) == sum(cost(entry["usage"]) for entry in ledgers[1])


def test_the_audit_finds_nothing_wrong(pair: Stack) -> None:
    assert pair.cli("audit") == {"ok": True, "problems": []}
