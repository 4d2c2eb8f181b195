"""`lumeproxy admin-key`: made by commands, shown once, for the API of the running server."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from tests.cli.support import Cli, Started, cells


def test_a_key_opens_the_running_servers_api_until_it_is_revoked(remote: Cli, server: Started):
    made = remote.json("admin-key", "create", "--name", "ci", "--read-only", "--expires", "30d")
    request = urllib.request.Request(
        server.url + "/api/v1/accounts", headers={"Authorization": f"Bearer {made['key']}"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        assert b'"account":"me"' in response.read()

    assert (made["name"], made["may_change"], made["last4"]) == ("ci", False, made["key"][-4:])
    assert remote("admin-key", "revoke", made["key"]).out == f"Admin key {made['id']} is revoked.\n"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert refused.value.code == 401
    refused.value.close()


def test_keys_are_listed_without_their_secrets(either: Cli):
    either("account", "create", "owner")
    out = either("admin-key", "create", "--name", "ops").out
    key = out.split()[6]
    found = [row for row in either.json("admin-key", "list") if row["name"] == "ops"]

    assert key.startswith("lume_admin_")
    assert out.startswith(
        f"Admin key {found[0]['id']}, shown only now:\n\n    {key}\n\nThe API and what it offers: http://"
    )
    assert out.endswith("/api/v1/\n")
    head, *rows = cells(either("admin-key", "list").out)
    assert head == ["id", "name", "ends with", "may", "created", "expires", "state"]
    assert [[row[3], *row[5:]] for row in rows if row[1] == "ops"] == [["all", "-", "in force"]]
    assert key not in either("admin-key", "list").out
    either("admin-key", "revoke", found[0]["id"])
    assert [row[-1] for row in cells(either("admin-key", "list").out)[1:] if row[0] == found[0]["id"]] == ["revoked"]


def test_without_any_the_list_says_how_to_make_one(cli: Cli):
    cli.begin()

    assert cli("admin-key", "list").out.startswith("No admin keys yet. Make one: ")
    outcome = cli("admin-key", "revoke", "nobody00")
    assert (outcome.status, outcome.err) == (1, "lumeproxy: There is no admin key nobody00.\n")
    secret = "lume_admin_abcdefgh_" + "s" * 50
    assert "sss" not in cli("admin-key", "revoke", secret + "!").err
