"""`lumeproxy usage`: calls and sums, for people and machines."""

from __future__ import annotations

import json
import urllib.request

import pytest

from lumeproxy.cli.usage import SHOWN_ROWS
from lumeproxy.store.usage import SHOWN
from tests.cli.support import Cli, Started, book_call, cells, in_database

NAMES = [
    "time_ms", "call_id", "account", "key_id", "endpoint", "dialect", "model", "model_served", "upstream", "status",
    "ending", "input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens",
    "reasoning_tokens", "cost_nanousd", "estimated", "settled_by", "ttfb_ms", "duration_ms", "client_address",
    "user_agent", "session_id", "agent_id", "upstream_request_id", "error_code", "error_text",
]  # fmt: skip


def booked(cli: Cli, *calls: dict[str, object], account: str = "ann") -> None:
    """An account with calls, newest first."""
    cli("account", "create", account, "--credit", "1000")
    in_database(cli.data, lambda tx: [book_call(tx, number, account, **call) for number, call in enumerate(calls)])


def test_a_call_through_the_echo_is_listed_with_the_names_outsiders_rely_on(remote: Cli, server: Started):
    ask = {"model": "claude-echo", "max_tokens": 50, "messages": [{"role": "user", "content": "one two three"}]}
    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json", "User-Agent": "tester/1"}
    request = urllib.request.Request(server.url + "/v1/messages", json.dumps(ask).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        reported = json.load(response)["usage"]

    (record,) = remote.json("usage", "me")

    assert list(record)[: len(NAMES)] == NAMES == list(SHOWN[: len(NAMES)])
    assert record["cost_nanousd"] == reported["input_tokens"] * 1000 + reported["output_tokens"] * 5000
    assert (record["account"], record["model"], record["upstream"]) == ("me", "claude-echo", "echo")
    assert (record["status"], record["ending"], record["settled_by"]) == (200, "complete", "reported")
    assert (record["estimated"], record["user_agent"]) == (False, "tester/1")
    assert record["key_id"] == server.key[5:13]
    assert remote.json("audit") == {"ok": True, "problems": []}


def test_no_calls_are_said_to_be_none(cli: Cli):
    cli.begin()

    assert cli("usage").out == "No calls yet.\n"
    assert cli("usage", "--by", "model").out == "No calls yet.\n"
    assert cli("usage", "--since", "1h").out == "No calls in that time.\n"
    assert cli.json("usage") == cli.json("usage", "--by", "day") == []


def test_a_list_has_a_line_a_call_and_ends_with_the_sum(cli: Cli):
    tokens = {"input_tokens": 1_234_567, "cache_read_tokens": 999_999, "cache_write_5m_tokens": 20,
              "cache_write_1h_tokens": 3}  # fmt: skip
    booked(cli, {}, {"ending": "cut_by_upstream", "estimated": True, **tokens})

    out = cli("usage").out
    head, whole, cut = cells(out)

    assert head == ["time", "account", "model", "ending", "input", "cached", "written", "output", "cost"]
    assert whole[1:] == ["ann", "claude-echo", "complete", "100", "0", "0", "10", "$0.000150"]
    assert cut[3:] == ["cut_by_upstream", "1.23M", "999,999", "23", "10", "~$2.234639"]
    assert out.endswith("\n\n2 calls, $2.234789. ~ is estimated.\n")
    assert cells(cli("usage", "ann", "--limit", "1").out)[0][1] == "model"
    assert cli("usage", "--limit", "1").out.endswith(
        "\n\n1 call, $0.00015. There are older ones: see --limit and --since.\n"
    )


def test_the_list_keeps_within_the_screen_whatever_the_names(cli: Cli):
    million = {"input_tokens": 987_654_321, "cache_read_tokens": 999_499_999, "output_tokens": 999_999}
    booked(cli, {"model": "m" * 200, "ending": "cut_by_upstream", "estimated": True, **million},
           {"model": "ü\n\x1b[31m 漢字" * 9}, account="a" * 64)  # fmt: skip

    _, big, odd = cells(cli("usage").out)

    assert big[3:] == ["cut_by_upstream", "988M", "999M", "0", "999,999", "~$1,992.154315"]
    assert (big[1][-1], big[2][-1]) == ("…", "…")
    assert "\x1b" not in odd[2]
    assert odd[2].startswith("ü??[31m")
    assert cli.json("usage")[1]["model"] == "ü\n\x1b[31m 漢字" * 9


def test_only_the_newest_are_shown_unless_asked_for_more(cli: Cli):
    booked(cli, *[{}] * (SHOWN_ROWS + 2))

    assert len(cells(cli("usage").out)) == 1 + SHOWN_ROWS
    assert len(cells(cli("usage", "--limit", "52").out)) == 1 + 52
    assert "older" not in cli("usage", "--limit", "52").out
    assert len(cli.json("usage")) == 52
    assert [r["call_id"] for r in cli.json("usage", "--limit", "2")] == [f"call_{n:026}" for n in (0, 1)]


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("model", [("big", 2), ("small", 1)]),
        ("key", [("k2", 2), ("abcdefgh", 1)]),
        ("day", [("2026-11-18", 1), ("2026-11-17", 2)]),
        ("session", [("s1", 2), ("", 1)]),
        ("upstream", [("one", 2), ("echo", 1)]),
        ("account", [("ann", 3)]),
    ],
)
def test_sums_are_by_group_dearest_first_and_days_newest_first(cli: Cli, by, groups):
    big = {"model": "big", "key_id": "k2", "session_id": "s1", "upstream": "one", "output_tokens": 1_000_000}
    booked(cli, {"model": "small"}, *[{**big, "time_ms": 1_795_000_000_000 - 86_400_000}] * 2)

    sums = cli.json("usage", "--by", by)
    out = cli("usage", "--by", by).out
    head, *rows = cells(out)

    assert [(s[by], s["calls"]) for s in sums] == groups
    assert sum(s["cost_nanousd"] for s in sums) == 150_000 + 2 * 5_000_100_000
    assert head == ["day (UTC)" if by == "day" else by, "calls", "input", "cached", "written", "output", "cost"]
    assert [row[0] for row in rows] == [name or "-" for name, _ in groups]
    assert out.endswith("\n\n3 calls, $10.00035.\n")


def test_sums_align_with_long_names(cli: Cli):
    booked(cli, {"session_id": "s" * 128, "input_tokens": 12_345_678, "cache_read_tokens": 400_000_000})

    (_, row) = cells(cli("usage", "--by", "session").out)

    assert row[0].endswith("s…")
    assert row[1:5] == ["1", "12,345,678", "400,000,000", "0"]


def test_a_period_and_an_account_narrow_what_is_listed(cli: Cli):
    booked(cli, {"time_ms": 10**12}, {"time_ms": 10**12 - 1})
    cli("account", "create", "bob")

    assert cli.json("usage", "bob") == []
    assert len(cli.json("usage", "--since", "2001-09-08")) == 2
    assert cli.json("usage", "--since", "2001-09-11") == []
    assert cli("usage", "--since", "52w", "--by", "model").out == "No calls in that time.\n"


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("nobody",), 1, "There is no account nobody."),
        (("nobody", "--by", "day"), 1, "There is no account nobody."),
        (
            ("--since", "yesterday"),
            2,
            "Invalid value for '--since': 'yesterday' is no period; write 7d, 24h or 2026-11-24.",
        ),
        (("--by", "colour"), 2, "'colour' is not one of"),
        (("--limit", "0"), 2, "--limit"),
    ],
)
def test_what_cannot_be_listed_is_said_in_a_sentence(either: Cli, arguments, status, told):
    either("account", "create", "ann")

    outcome = either("usage", *arguments)

    assert (outcome.status, outcome.out) == (status, "")
    assert told in outcome.err
