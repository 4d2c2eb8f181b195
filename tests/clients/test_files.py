"""A person's files: followed, kept in mode and place, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lumeproxy.clients import files
from lumeproxy.errors import Refused


def test_a_file_is_found_where_it_really_lies(tmp_path: Path):
    (tmp_path / "dotfiles").mkdir()
    real = tmp_path / "dotfiles" / "s.json"
    real.write_bytes(b"\xc3\xbc\r\n")
    real.chmod(0o640)
    (tmp_path / "link").symlink_to("dotfiles/s.json")

    assert files.look(tmp_path / "link") == files.Found(real, "ü\r\n", 0o640)
    assert files.look(tmp_path / "none").text is None
    (tmp_path / "dangling").symlink_to(tmp_path / "dotfiles" / "new.json")
    assert files.look(tmp_path / "dangling") == files.Found(tmp_path / "dotfiles" / "new.json", None, 0o600)


def test_a_write_keeps_the_mode_and_leaves_nothing_beside(tmp_path: Path):
    file = tmp_path / "s.json"
    file.write_text("old")
    (tmp_path / ("s.json" + files.SUFFIX)).write_text("left by a crash")

    files.write(file, "new ü\r\n", 0o640)

    assert file.read_bytes() == "new ü\r\n".encode()
    assert file.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside(tmp_path: Path, monkeypatch):
    file = tmp_path / "s.json"
    file.write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write(file, "new", 0o600)

    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]


def test_folders_are_made_for_their_owner_and_go_when_they_are_empty(tmp_path: Path):
    made = files.make_folders(tmp_path / "a" / "b" / "c")

    assert made == [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"]
    assert {path.stat().st_mode & 0o777 for path in made} == {0o700}
    assert files.make_folders(tmp_path / "a" / "b") == []
    (tmp_path / "a" / "theirs").write_text("")
    files.remove_folders(tuple(map(str, made)))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["theirs"]


def test_what_could_not_be_written_back_as_it_was_is_refused(tmp_path: Path):
    (tmp_path / "s.json").write_text("{}")
    (tmp_path / "other.json").hardlink_to(tmp_path / "s.json")
    with pytest.raises(Refused, match="2 names"):
        files.check_writable(tmp_path / "s.json", files.look(tmp_path / "s.json"))
    (tmp_path / "other.json").unlink()
    files.check_writable(tmp_path / "s.json", files.look(tmp_path / "s.json"))
    (tmp_path / "s.json").chmod(0o444)
    with pytest.raises(Refused, match="read-only"):
        files.check_writable(tmp_path / "s.json", files.look(tmp_path / "s.json"))
    below_a_file = tmp_path / "s.json" / "sub" / "x"
    with pytest.raises(Refused, match="no folder that can be written to"):
        files.check_writable(below_a_file, files.Found(below_a_file, None, 0o600))
