"""`lumeproxy upstream`, without a server and before a running one."""

from __future__ import annotations

from typing import Any

from lumeproxy.cli import upstream as module
from tests.cli.support import cells, started

TEXT = """
[upstreams.main]
kind = "anthropic"
base_url = "http://127.0.0.1:1"
api_key = ["secret-one", "secret-two"]
"""


def test_without_a_server_the_configured_ones_are_listed_and_switched(cli):
    cli.begin()
    (cli.data / "config.toml").write_text(TEXT)
    (cli.data / "config.toml").chmod(0o600)

    assert cells(cli("upstream", "list").out) == [
        ["name", "kind", "address", "state", "credentials", "first byte", "running"],
        ["main", "anthropic", "http://127.0.0.1:1", "unknown", "2", "-", "-"],
        ["echo", "echo", "built in", "unknown", "1", "-", "-"],
    ]
    assert cli("upstream", "disable", "main").out == "The upstream main is switched off until it is enabled.\n"
    (main, _) = cli.json("upstream", "list")
    assert (main["state"], [one["state"] for one in main["credentials"]]) == ("disabled", ["unknown", "unknown"])
    assert "off since" in cli("upstream", "list").out
    assert cli("upstream", "enable", "main").out == "The upstream main gets calls.\n"
    assert cli.json("upstream", "list")[0]["disabled_since_ms"] is None


def test_one_that_can_not_be_reached_ends_with_one_and_says_why(cli):
    cli.begin()
    (cli.data / "config.toml").write_text(TEXT)
    (cli.data / "config.toml").chmod(0o600)

    outcome = cli("upstream", "test", "main")
    assert (outcome.status, outcome.err) == (1, "")
    first, *lines = outcome.out.splitlines()
    assert first == "main (http://127.0.0.1:1)"
    assert lines == [f"  credential {number}: can't connect: Connection refused" for number in (1, 2)]
    assert cli("upstream", "test", "echo").status == 0
    found = cli("upstream", "test", "main", "--json")
    assert (found.status, found.json["ok"]) == (1, False)


def test_what_came_of_asking_is_said_in_words():
    asked = {"reachable": True, "status": 200, "accepted": True, "latency_ms": 1234, "models": 2, "error": ""}

    assert module.said(asked) == "accepted, 1,234 ms, 2 models"
    assert module.said({**asked, "accepted": None, "models": None, "error": "it answers 404"}) == (
        "not checked, 1,234 ms, it answers 404"
    )
    refused = {**asked, "accepted": False, "status": 401, "models": None, "error": "it answers 401"}
    assert module.said(refused) == "refused (401), 1,234 ms"


def test_an_unknown_name_ends_with_one(cli):
    cli.begin()
    outcome = cli("upstream", "disable", "nowhere")

    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err == "lumeproxy: There is no upstream nowhere; there are echo.\n"


def test_a_running_server_takes_the_switch_and_knows_the_health(cli, tmp_path):
    config = tmp_path / "own.toml"
    config.write_text(TEXT)
    config.chmod(0o600)
    with started(tmp_path, "--config", str(config)) as server:
        cli.data = server.data
        assert cli("upstream", "disable", "echo").status == 0
        assert cells(cli("upstream", "list").out)[1] == ["main", "anthropic", "http://127.0.0.1:1", "up", "2", "-", "0"]
        assert cli.json("upstream", "list")[1]["state"] == "disabled"


def test_what_is_wrong_with_a_credential_is_said_by_its_number():
    up: dict[str, Any] = {"state": "up", "status": None, "rest_ms": 0}
    resting: dict[str, Any] = {"state": "resting", "status": None, "rest_ms": 29_001}
    refused: dict[str, Any] = {"state": "refused", "status": 401, "rest_ms": 5}
    trial: dict[str, Any] = {"state": "on trial", "status": None, "rest_ms": 0}
    found = [{"credential": number, **one} for number, one in enumerate((up, resting, refused, trial), 1)]

    assert module.credentials(found) == "4, no. 2 resting 30 s, no. 3 refused (401), no. 4 on trial"
    assert module.credentials(found[:1]) == "1"
    assert module.state({"disabled_since_ms": None, "state": "resting", "rest_ms": 1_001}) == "resting 2 s"
