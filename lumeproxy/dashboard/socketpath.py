"""A Unix socket in a folder whose path is longer than a socket address may be (107 bytes on Linux)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

SOCKET_NAME = "lumeproxy.sock"
ADDRESS_BYTES = 100  # sun_path has 108 on Linux and 104 on macOS, its end included


@contextlib.contextmanager
def address(folder: Path) -> Iterator[str]:
    """The socket's address, valid inside the block: its path, or a short one through the folder's descriptor."""
    path = str(folder / SOCKET_NAME)
    if len(os.fsencode(path)) <= ADDRESS_BYTES or not Path("/proc/self/fd").is_dir():
        yield path
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)
