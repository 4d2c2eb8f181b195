"""The command tree: help, exit codes, and that no command serves."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Iterator

import click
import pytest

from lumeproxy import __version__
from lumeproxy.cli import main
from lumeproxy.cli.main import run, tree
from lumeproxy.errors import ConfigError, Refused
from tests.cli.support import Cli


def every_command(command: click.Command = tree, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from every_command(child, (*path, name))


def test_the_commands_are_those_that_are_promised():
    assert set(every_command()) >= {
        ("serve",), ("audit",), ("backup",), ("usage",), ("doctor",),
        *(("account", name) for name in ("create", "list", "show", "suspend", "resume", "close")),
        *(("key", name) for name in ("create", "list", "revoke", "rotate")),
        *(("credit", name) for name in ("grant", "balance", "entries")),
    }  # fmt: skip


@pytest.mark.parametrize("path", list(every_command()), ids=" ".join)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_explains_itself_within_the_screen(path, flag, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")

    assert run([*path, flag]) == 0

    out, err = capsys.readouterr()
    assert out.startswith("Usage: " + " ".join(("lumeproxy", *path)))
    assert max(map(len, out.splitlines())) <= 100
    assert err == ""
    if len(path) == 2 or path in (("usage",), ("audit",), ("backup",), ("doctor",)):
        assert all(option in out for option in ("--data", "--config", "--json"))


@pytest.mark.parametrize("path", [(), ("account",), ("key",), ("credit",), ("upstream",), ("admin-key",)], ids=" ".join)
def test_a_list_of_commands_cuts_no_sentence_off(path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    assert run([*path, "--help"]) == 0

    assert "..." not in capsys.readouterr().out.partition("Commands:")[2]


def test_the_version_is_told(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"lumeproxy, version {__version__}\n"


@pytest.mark.parametrize(
    ("raised", "status", "told"),
    [
        (Refused("It can't be."), 1, "lumeproxy: It can't be.\n"),
        (ConfigError("The field x is wrong."), 2, "lumeproxy: The field x is wrong.\n"),
        (KeyboardInterrupt(), 1, "lumeproxy: stopped\n"),
        (click.UsageError("Not so."), 2, "Error: Not so.\n"),
    ],
)
def test_an_error_is_one_sentence_and_an_exit_code(raised, status, told, capsys, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("lumeproxy.cli.reach.Reach.run", fail)

    assert run(["audit"]) == status

    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines(keepends=True)[-1] == told


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(capsys, monkeypatch):
    def closed(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("lumeproxy.cli.reach.Reach.run", closed)
    monkeypatch.setattr(sys, "stdout", sys.stdout)

    assert run(["audit"]) == 0

    print("nothing that is printed later reaches the closed pipe")  # noqa: T201
    sys.stdout.close()
    assert capsys.readouterr() == ("", "")


def test_a_pipe_that_breaks_in_clicks_own_hands_is_no_failure_either(monkeypatch):
    def closed(*_: object, **__: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("lumeproxy.cli.reach.Reach.run", closed)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)

    assert run(["audit"]) == 0


class Full(io.StringIO):
    """An output on a full disk."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("arguments", [["--help"], ["account", "list"], ["account", "list", "--json"]])
def test_a_full_disk_behind_the_output_is_one_sentence(arguments, cli: Cli, capsys, monkeypatch):
    cli.begin()
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdout", Full())

    assert run([*arguments, "--data", str(cli.data)]) == 1

    assert sys.stdout.name == os.devnull
    sys.stdout.close()
    assert capsys.readouterr().err == "lumeproxy: The output can't be written: No space left on device.\n"


def test_an_error_of_a_file_is_not_taken_for_one_of_the_output(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error", "/some/file")

    monkeypatch.setattr("lumeproxy.cli.reach.Reach.run", fail)
    monkeypatch.setattr("lumeproxy.cli.reach.Reach._loaded", lambda _: None)

    with pytest.raises(OSError, match="/some/file"):
        run(["audit"])


@pytest.mark.parametrize(
    ("arguments", "told"), [(["--json"], "--json needs a command"), (["--json", "serve"], "serve takes no --json")]
)
def test_serving_has_no_json(arguments, told, capsys):
    assert run(arguments) == 2

    out, err = capsys.readouterr()
    assert (out, told in err) == ("", True)


@pytest.mark.parametrize("path", [p for p in every_command() if len(p) == 2], ids=" ".join)
def test_the_units_of_json_are_told(path, capsys):
    assert run([*path, "--help"]) == 0
    assert "amounts in nano-USD (1e-9 $), times in ms." in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("arguments", [[], ["serve"]])
def test_without_a_command_it_serves_and_hands_back_how_that_ended(arguments, tmp_path, monkeypatch):
    said: list[str] = []

    def echo(text: str) -> None:
        said.append(text)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("lumeproxy.cli.output.click.echo", echo)

    assert run(["--data", str(tmp_path / "data"), "--port", "0", *arguments]) == 0

    assert said[0].startswith(f"lumeproxy {__version__} serves on http://127.0.0.1:")


def test_the_status_of_serving_is_the_status_of_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr("lumeproxy.app.serve", lambda *_, **__: 7)

    assert main.run(["--data", str(tmp_path)]) == main.run(["serve", "--data", str(tmp_path)]) == 7
