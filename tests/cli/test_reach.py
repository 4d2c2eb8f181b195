"""How a command reaches the data: through the server, else alone under the lock."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lumeproxy.cli import reach
from lumeproxy.cli.main import run
from lumeproxy.dashboard import control
from lumeproxy.errors import Missing
from lumeproxy.store.database import Database
from lumeproxy.store.lock import LOCK_NAME
from tests.cli.support import Cli, Started


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """The data folder as another process has it that answers nothing."""
    folder.mkdir(exist_ok=True)
    lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT)
    os.pwrite(lock, b"4711", 0)
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield lock


def test_a_command_without_a_server_makes_the_folder_for_its_owner_only(cli: Cli):
    assert cli("account", "create", "ann").status == 0

    assert cli.data.stat().st_mode & 0o777 == 0o700
    assert (cli.data / "lumeproxy.db").stat().st_mode & 0o777 == 0o600
    assert not (cli.data / "lumeproxy.sock").exists()


def test_the_folder_may_be_named_before_the_command_and_after(cli: Cli, capsys, tmp_path):
    cli("account", "create", "ann")

    assert run(["--data", str(cli.data), "--json", "account", "list"]) == 0
    assert '"ann"' in capsys.readouterr().out
    assert run(["--data", str(tmp_path / "other"), "account", "list", "--data", str(cli.data)]) == 0
    assert "ann" in capsys.readouterr().out
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "command",
    ["account list", "account show a", "account suspend a --reason r", "key list", "key create a", "key revoke abcdefgh",
     "credit balance a", "credit entries a", "credit grant a 1", "usage", "usage --by day", "audit", "backup x"],
)  # fmt: skip
@pytest.mark.parametrize("folder", [True, False])
def test_only_the_first_account_begins_a_database(cli: Cli, command, folder):
    if folder:
        cli.data.mkdir()

    outcome = cli(*command.split())

    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err == (
        f"lumeproxy: There is no lumeproxy database in {cli.data}; start the server once, or check --data.\n"
    )
    assert cli.data.exists() is folder
    assert not folder or list(cli.data.iterdir()) == []


def test_whether_a_database_is_there_is_left_to_the_opening_where_it_cannot_be_seen(monkeypatch):
    def closed(_path: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr(Path, "exists", closed)

    assert reach._is_there(Path("x")) is True


@pytest.mark.parametrize(
    ("config", "variables", "told"),
    [
        ("[server]\nprot = 1", {}, "Unknown setting server.prot in "),
        ("[severs]", {}, "Unknown setting severs in "),
        ("[server]\nport = 70000", {}, "The setting server.port in "),
        ("", {"LUMEPROXY_SERVR__PORT": "1"}, "The variable LUMEPROXY_SERVR__PORT names no section"),
        (None, {"LUMEPROXY_SERVER__PORT": "x"}, "The setting server.port is wrong"),
    ],
)
@pytest.mark.parametrize("command", ["account list", "audit", "key create ann"])
def test_settings_that_serving_refuses_every_command_refuses(cli: Cli, monkeypatch, config, variables, told, command):
    cli("account", "create", "ann")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if config is not None:
        (cli.data / "config.toml").write_text(config)

    outcome = cli(*command.split())

    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith("lumeproxy: " + told)


def test_settings_are_not_loaded_where_there_are_none(cli: Cli, monkeypatch):
    def load(**_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("lumeproxy.settings.load", load)
    monkeypatch.setenv("LUMEPROXY_DATA", str(cli.data))

    assert cli("account", "create", "ann").status == 0


@pytest.mark.parametrize("how", ["LUMEPROXY_DATA", "LUMEPROXY_CONFIG", "--config"])
def test_the_folder_comes_from_the_environment_or_the_configuration(how, cli: Cli, capsys, tmp_path, monkeypatch):
    cli("account", "create", "ann")
    capsys.readouterr()
    file = tmp_path / "lume.toml"
    file.write_text('[server]\ndata = "data"')
    if how != "--config":
        monkeypatch.setenv(how, str(cli.data if how == "LUMEPROXY_DATA" else file))

    assert run(["account", "list", *(["--config", str(file)] if how == "--config" else [])]) == 0

    assert "ann" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--data", "~nobody-of-that-name/x"), "names a user that does not exist"),
        (("--data", "{file}/x"), "{file}/x can't be made: there is a file in its place"),
        (("--data", "/proc/x"), "The data folder /proc/x can't be written"),
        (("--data", ""), "Invalid value for '--data': it is empty."),
        (("--config", ""), "Invalid value for '--config': it is empty."),
        (("--config", "/no/such/file"), "The configuration file /no/such/file can't be read"),
        (("--config", "{file}"), "{file} is not valid TOML"),
        (("--config", "{folder}"), "is a directory"),
    ],
)
def test_a_place_that_is_none_is_wrong_configuration(arguments, told, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("no = toml = at all")

    assert run(["account", "create", "ann", *(a.format(file=file, folder=tmp_path) for a in arguments)]) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert told.format(file=file) in err


def test_a_holder_of_the_lock_that_does_not_answer_is_waited_for_and_then_named(cli: Cli, monkeypatch):
    monkeypatch.setattr(reach, "PATIENCE_S", 0)
    monkeypatch.setattr(reach, "PAUSE_S", 0)
    with locked(cli.data) as lock:
        outcome = cli("account", "create", "ann")
        os.close(lock)

    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == (
        f"lumeproxy: Another lumeproxy (process 4711) uses the data folder {cli.data} and does not answer; wait until it "
        "runs or end it.\n"
    )


def test_a_lock_that_is_given_up_meanwhile_is_taken(cli: Cli, monkeypatch):
    real, tries = Database.open, []

    async def open_and_let_go(folder: Path) -> Database:
        tries.append(folder)
        if len(tries) == 2:
            os.close(lock)
        return await real(folder)

    monkeypatch.setattr(reach, "PAUSE_S", 0)
    monkeypatch.setattr(Database, "open", open_and_let_go)
    with locked(cli.data) as lock:
        assert cli("account", "create", "ann").status == 0

    assert len(tries) == 2


def test_the_running_server_does_what_the_command_asks(remote: Cli, server: Started):
    remote("account", "create", "seen", "--credit", "1")

    assert server.process.poll() is None
    assert '"event":"operation","name":"account.create"' in server.log.read_text()
    assert "seen" not in server.log.read_text()
    assert (remote.data / "lumeproxy.sock").stat().st_mode & 0o777 == 0o600


def test_a_servers_address_is_known_only_from_itself(remote: Cli, server: Started, cli: Cli, monkeypatch):
    assert reach.Reach(server.data, None, False).server_url() == server.url
    assert reach.Reach(cli.data, None, False).server_url() is None

    async def older(*_: object) -> None:
        raise Missing("There is no operation server.show.")

    monkeypatch.setattr(control, "call", older)
    assert reach.Reach(server.data, None, False).server_url() is None
