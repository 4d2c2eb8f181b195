"""Documents of any length: all records, in one JSON document, part by part."""

from __future__ import annotations

import json

import pytest

from lumeproxy.cli import export
from tests.cli.support import Cli, book_call, in_database


@pytest.fixture
def booked(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """An account with a key and seven calls, and one without; parts of three rows."""
    monkeypatch.setattr(export, "PAGE_ROWS", 3)
    cli("account", "create", "ann", "--credit", "1000")
    cli("account", "create", "bob")
    cli("key", "create", "ann", "--name", "laptop")
    in_database(cli.data, lambda tx: [book_call(tx, number, "ann", session_id=f"s{number}") for number in range(7)])
    return cli


def test_usage_as_json_is_whole_whatever_its_length(booked: Cli):
    records = booked.json("usage")

    assert [record["session_id"] for record in records] == [f"s{number}" for number in range(7)]
    assert booked("usage", "--json").out == json.dumps(records, indent=2) + "\n"
    for most in (1, 3, 4, 6, 7, 100):
        assert booked.json("usage", "--limit", str(most)) == records[:most]
    assert booked.json("usage", "bob") == []


def test_an_export_has_all_that_is_stored_of_an_account(booked: Cli):
    out = booked("account", "export", "ann").out
    found = json.loads(out)

    assert out == json.dumps(found, indent=2) + "\n"
    assert list(found) == ["account", "keys", "days", "entries", "usage"]
    assert found["account"]["account"] == "ann"
    assert [key["name"] for key in found["keys"]] == ["laptop"]
    assert [entry["kind"] for entry in found["entries"]] == ["charge"] * 7 + ["grant"]
    assert found["usage"] == booked.json("usage", "ann")
    assert sum(day["calls"] for day in found["days"]) == 7
    empty = booked.json("account", "export", "bob")
    assert {name: empty[name] for name in ("keys", "days", "entries", "usage")} == {
        "keys": [], "days": [], "entries": [], "usage": []}  # fmt: skip
    outcome = booked("account", "export", "nobody")
    assert (outcome.status, outcome.out, outcome.err) == (1, "", "lumeproxy: There is no account nobody.\n")


def test_a_running_server_gives_the_same(remote: Cli):
    remote("account", "create", "exported", "--credit", "1")
    found = remote.json("account", "export", "exported")

    assert [entry["amount_nanousd"] for entry in found["entries"]] == [10**9]
    assert found["usage"] == []
