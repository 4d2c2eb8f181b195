"""The socket's address, also in a folder with a long path."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lumeproxy.dashboard.socketpath import ADDRESS_BYTES, SOCKET_NAME, address


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_short_path_is_the_address_itself(tmp_path: Path):
    folder = Path("/tmp")

    with address(folder) as path:
        assert path == str(folder / SOCKET_NAME)


def test_a_long_path_is_reached_through_a_descriptor_that_is_given_back(tmp_path: Path):
    folder = tmp_path / ("x" * ADDRESS_BYTES)
    folder.mkdir()
    before = descriptors()

    with address(folder) as path, socket.socket(socket.AF_UNIX) as listener:
        assert len(path) <= ADDRESS_BYTES
        listener.bind(path)

    assert (folder / SOCKET_NAME).is_socket()
    assert descriptors() == before


def test_where_descriptors_have_no_paths_the_long_path_is_all_there_is(tmp_path: Path, monkeypatch):
    folder = tmp_path / ("x" * ADDRESS_BYTES)
    monkeypatch.setattr(Path, "is_dir", lambda _: False)

    with address(folder) as path:
        assert path == str(folder / SOCKET_NAME)


def test_a_folder_that_is_none_is_an_error_of_the_system(tmp_path: Path):
    with pytest.raises(FileNotFoundError), address(tmp_path / ("x" * ADDRESS_BYTES)):
        pass
