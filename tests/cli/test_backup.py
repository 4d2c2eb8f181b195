"""`lumeproxy backup`: a checked copy, also while the server runs."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.cli.support import Cli


def test_a_backup_is_a_database_to_go_on_with(either: Cli, tmp_path: Path):
    either("account", "create", "kept", "--credit", "7")
    copy = tmp_path / "copy" / "lumeproxy.db"
    copy.parent.mkdir()

    outcome = either("backup", str(copy))

    assert outcome.out == f"The backup {copy} is written and sound.\n"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    restored = Cli(copy.parent, either.capture)
    assert restored.json("credit", "balance", "kept")["balance_nanousd"] == 7 * 10**9


def test_a_relative_file_is_taken_from_where_the_command_runs(remote: Cli, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert remote.json("backup", "here.db") == {"file": str(tmp_path / "here.db"), "ok": True}
    assert (tmp_path / "here.db").is_file()


@pytest.mark.parametrize(("name", "status"), [("there.db", 1), ("no/folder/x.db", 1), ("", 2)])
def test_a_backup_never_overwrites_and_says_what_is_wrong(either: Cli, tmp_path: Path, name, status):
    (tmp_path / "there.db").write_text("precious")

    outcome = either("backup", str(tmp_path / name))

    assert (outcome.status, outcome.out) == (status, "")
    assert len(outcome.err.splitlines()[-1]) > 20
    assert (tmp_path / "there.db").read_text() == "precious"
