"""One process on a data folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lumeproxy.errors import ConfigError
from lumeproxy.store.lock import LOCK_NAME, Locked, locked


def test_the_lock_is_held_until_it_is_closed_and_names_its_holder(tmp_path: Path):
    lock = locked(tmp_path / "new" / "data")

    with pytest.raises(Locked, match=f"process {os.getpid()}.*stop that one or choose another folder with --data"):
        locked(tmp_path / "new" / "data")
    os.close(lock)
    os.close(locked(tmp_path / "new" / "data"))


def test_folder_and_file_are_for_this_user_only(tmp_path: Path):
    os.close(locked(tmp_path / "data"))

    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "data" / LOCK_NAME).stat().st_mode) == 0o600


@pytest.mark.parametrize("below", ["", "sub", "sub/sub"])
def test_a_file_in_the_folders_place_is_named_as_such(tmp_path: Path, below: str):
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="there is a file in its place; choose another with --data"):
        locked(tmp_path / "file" / below)


def test_a_folder_that_cannot_be_written_is_said_with_the_reason():
    with pytest.raises(ConfigError, match=r"/proc/nothing can't be written \(.+\); give this user access"):
        locked(Path("/proc/nothing"))
