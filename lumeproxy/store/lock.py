"""One process on a data folder: a lock on a file of its own, held for as long as its descriptor is open.

On a file of its own, because closing any descriptor of a database file drops SQLite's locks; by `flock`, because that lock
goes with the process, however it ends.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from lumeproxy.errors import ConfigError

LOCK_NAME = "lumeproxy.lock"


class Locked(ConfigError):
    """Another process uses the data folder."""


def locked(folder: Path) -> int:
    """The data folder's lock, held by the descriptor that comes back; the folder is made if need be.

    Raises Locked, which names the process that has it, and ConfigError where the folder can't be written.
    """
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, mode=0o700)
            folder.chmod(0o700)
        lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"The data folder {folder} can't be made: there is a file in its place; choose another "
                          "with --data.") from None  # fmt: skip
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
        os.close(lock)
        raise Locked(
            f"Another lumeproxy (process {holder or 'unknown'}) uses the data folder {folder}; stop that one or choose "
            "another folder with --data."
        ) from None
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
    except OSError as error:
        os.close(lock)
        raise _unwritable(folder, error) from None
    return lock


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"The data folder {folder} can't be written ({error.strerror}); give this user access to it or choose "
        "another with --data."
    )
