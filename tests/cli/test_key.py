"""`lumeproxy key`: made and shown once, listed, revoked, replaced."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lumeproxy.cli.key import state
from lumeproxy.core import apikey
from tests.cli.support import Cli, Started, cells
from tests.support.clock import START_MS

DAY_MS = 86_400_000


def test_a_new_key_is_shown_once_and_works_by_its_checksum(either: Cli):
    either("account", "create", "kim")

    made = either.json(
        "key", "create", "kim", "--name", "laptop", "--expires", "30d", "--model", "claude-*", "--model", "x"
    )

    assert set(made) >= {"id", "account", "name", "key", "expires_ms", "models"}
    assert apikey.parse(made["key"]) == made["id"]
    assert (made["account"], made["name"], made["models"]) == ("kim", "laptop", ["claude-*", "x"])
    (listed,) = either.json("key", "list", "kim")
    assert listed["expires_ms"] == made["expires_ms"]
    assert made["expires_ms"] - listed["created_ms"] == pytest.approx(30 * DAY_MS, abs=5000)
    assert made["key"] not in either("key", "list", "kim").out + either("account", "show", "kim").out


def test_a_new_key_comes_with_the_lines_that_connect_claude_code(cli: Cli):
    cli("account", "create", "kim")

    out = cli("key", "create", "kim").out

    key = out.split("\n\n")[1].strip()
    assert apikey.parse(key)
    assert f"    export ANTHROPIC_BASE_URL=http://127.0.0.1:8787\n    export ANTHROPIC_AUTH_TOKEN={key}\n" in out
    assert "No server runs here now, so this is the default address" in out
    assert max(map(len, out.splitlines())) <= 100


def test_a_running_servers_own_address_is_named(remote: Cli, server: Started):
    remote("account", "create", "addr")

    out = remote("key", "create", "addr").out

    assert f"ANTHROPIC_BASE_URL={server.url}\n" in out
    assert f"base URL {server.url}/v1 " in out
    assert "default" not in out


def test_a_revoked_key_is_over(either: Cli):
    either("account", "create", "rev")
    made = either.json("key", "create", "rev")

    assert either("key", "revoke", made["id"]).out == f"Key {made['id']} of rev is revoked.\n"
    ended = either.json("key", "revoke", made["id"])

    assert ended["revoked_ms"] is not None
    assert cells(either("key", "list", "rev").out)[1][-2] == "revoked"
    again = either("key", "rotate", made["id"])
    assert (again.status, again.out) == (1, "")
    assert "is revoked or replaced already" in again.err


def test_a_replaced_key_hands_on_its_name_models_and_end(either: Cli):
    either("account", "create", "rot")
    old = either.json("key", "create", "rot", "--name", "n", "--model", "m-*", "--expires", "1d")

    new = either.json("key", "rotate", old["id"])

    assert (new["replaces"], new["account"]) == (old["id"], "rot")
    assert [new[name] for name in ("name", "models", "expires_ms")] == ["n", ["m-*"], old["expires_ms"]]
    assert new["id"] != old["id"]
    assert [row[-2] for row in cells(either("key", "list", "rot").out)[1:]] == ["revoked", "in force"]


def test_a_replaced_key_stays_valid_for_an_overlap(cli: Cli):
    cli("account", "create", "kim")
    old = cli.json("key", "create", "kim")

    out = cli("key", "rotate", old["id"], "--overlap", "24h").out

    assert f"The old key {old['id']} stays valid until " in out
    (first, _) = cli.json("key", "list")
    assert first["revoked_ms"] - first["created_ms"] == pytest.approx(DAY_MS, abs=5000)
    assert cells(cli("key", "list").out)[1][-2].startswith("until ")
    assert cli("key", "revoke", old["id"]).status == 0
    assert cells(cli("key", "list").out)[1][-2] == "revoked"
    assert "is revoked." in cli("key", "rotate", cli.json("key", "create", "kim")["id"]).out


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("create", "nobody"), 1, "There is no account nobody."),
        (("create", "shut"), 1, "The account shut is closed"),
        (("create", "open", "--expires", "0s"), 2, "must be above zero"),
        (("create", "open", "--model", ""), 2, "Invalid value for '--model': it is empty."),
        (("revoke", ""), 2, "Invalid value for 'ID': it is empty."),
        (("create", "open", "--expires", "soon"), 2, "Invalid value for '--expires': 'soon' is no duration"),
        (("create", "open", "--expires", "5300w"), 2, "longer than 100 years"),
        (("create", "open", "--name", "n" * 65), 1, "at most 64 characters"),
        (("create", "open", *["--model", "m"] * 51), 1, "at most 50 model patterns"),
        (("create", "open", "--name", "\udcff"), 1, "not valid UTF-8"),
        (("list", "nobody"), 1, "There is no account nobody."),
        (("revoke", "nothing"), 1, "There is no key nothing."),
        (("rotate", "nothing"), 1, "There is no key nothing."),
        (("rotate", "nothing", "--overlap", "-1d"), 2, "'-1d' is no duration"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(either: Cli, arguments, status, told):
    either("account", "create", "open")
    either("account", "create", "shut")
    either("account", "close", "shut")

    outcome = either("key", *arguments)

    assert (outcome.status, outcome.out) == (status, "")
    assert told in outcome.err


def test_no_keys_are_said_to_be_none(cli: Cli):
    cli.begin()

    assert cli("key", "list").out == f"No keys yet. Make one: lumeproxy key create ACCOUNT --data {cli.data}\n"
    assert cli.json("key", "list") == []


def test_the_list_keeps_within_the_screen_and_ids_whole(cli: Cli):
    cli("account", "create", "a" * 64)
    made = cli.json("key", "create", "a" * 64, "--name", "n" * 64, "--model", "claude-*", "--model", "m" * 60)
    short = cli.json("key", "create", "a" * 64)

    head, long, plain = cells(cli("key", "list").out)

    assert head == ["id", "account", "name", "ends with", "created", "expires", "state", "models"]
    assert (long[0], long[3]) == (made["id"], "…" + made["key"][-4:])
    assert [long[i][-1] for i in (1, 2, 7)] == ["…"] * 3
    assert (plain[0], plain[2], plain[5:]) == (short["id"], "-", ["-", "in force", "all"])


@pytest.mark.parametrize(
    ("revoked_ms", "expires_ms", "status", "shown"),
    [
        (None, None, "active", "in force"),
        (None, START_MS + 1, "active", "in force"),
        (None, START_MS, "active", "expired"),
        (START_MS, None, "active", "revoked"),
        (START_MS - 1, START_MS - 5, "closed", "revoked"),
        (None, START_MS, "suspended", "expired"),
        (None, None, "suspended", "account suspended"),
        (START_MS + 1, None, "closed", "account closed"),
    ],
)
def test_a_keys_state_is_a_word_or_two(revoked_ms, expires_ms, status, shown):
    key = {"revoked_ms": revoked_ms, "expires_ms": expires_ms, "account_status": status}

    assert state(key, START_MS) == shown


def test_the_keys_of_a_suspended_account_are_listed_as_that(either: Cli):
    either("account", "create", "sus")
    either("key", "create", "sus")
    either("account", "suspend", "sus", "--reason", "unpaid")

    assert cells(either("key", "list", "sus").out)[1][-2] == "account suspended"
    assert cells(either("account", "show", "sus").out, 1)[1][-1] == "account suspended"


@pytest.mark.parametrize("command", ["revoke", "rotate"])
def test_a_whole_key_may_stand_for_its_id_and_is_not_shown(either: Cli, command):
    either("account", "create", "whole")
    made = either.json("key", "create", "whole")

    done = either("key", command, made["key"])
    wrong = either("key", command, "lume_abcdefgh" + made["key"][13:])

    assert done.status == 0
    assert made["key"][14:] not in done.out + done.err
    assert either.json("key", "list", "whole")[0]["revoked_ms"] is not None
    assert (wrong.status, wrong.err) == (1, "lumeproxy: There is no key abcdefgh.\n")


@pytest.mark.parametrize(
    "command",
    ["key list {}", "key create {}", "account show {}", "account create {}", "usage {}", "key list x {}", "{}"],
)
def test_a_key_in_a_names_place_is_not_quoted_whole(cli: Cli, command):
    cli("account", "create", "ann")
    key = cli.json("key", "create", "ann")["key"]

    outcome = cli(*command.format(key).split())

    assert outcome.status in (1, 2)
    assert key[:13] in outcome.err
    assert key[14:18] not in outcome.err


@pytest.mark.parametrize(
    ("server", "url", "note"),
    [
        ('port = 9000\nhost = "127.0.0.9"', "http://127.0.0.9:9000", "the address that its configuration names."),
        ("port = 0", "http://127.0.0.1:8787", "the default address"),
    ],
)
def test_without_a_server_the_address_is_the_configured_one(cli: Cli, tmp_path: Path, server, url, note):
    cli("account", "create", "kim")
    file = tmp_path / "lume.toml"
    file.write_text(f"[server]\n{server}\n")

    out = cli("key", "create", "kim", "--config", str(file)).out

    assert f"    export ANTHROPIC_BASE_URL={url}\n" in out
    assert note in out.splitlines()[-1]


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_key_that_cannot_be_shown_is_told_to_be_revoked(cli: Cli, monkeypatch, more):
    cli("account", "create", "kim")
    monkeypatch.setattr(sys, "stdout", None)

    outcome = cli("key", "create", "kim", *more)
    monkeypatch.undo()

    (key,) = cli.json("key", "list")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err == (
        f"lumeproxy: The key {key['id']} was made, but can't be shown (it is closed): revoke it with lumeproxy key revoke "
        f"{key['id']} --data {cli.data}, and make another.\n"
    )
