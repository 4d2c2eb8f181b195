"""A person's settings files: read whole or refused, written whole or not at all.

A symlink is followed, so that a dotfile stays where its owner keeps it; mode bits stay; what is read-only stays as it is.
Must not know what is in them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lumeproxy.errors import Refused

MAX_BYTES = 16 * 1024 * 1024  # Claude Code's own file grows to a few MB; what is larger is no settings file
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
SUFFIX = ".lumeproxy-new"


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it was found: where it really lies, its text (None where there is none) and mode bits."""

    real: Path
    text: str | None
    mode: int


def look(file: Path) -> Found:
    """Read a file. Raises Refused for whatever can't be read, or could not be written back as it was."""
    try:
        real = Path(os.path.realpath(file, strict=False))
        if not os.path.lexists(file) or not os.path.lexists(real):
            if real.is_symlink():  # a loop of links is left unresolved
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            return Found(real, None, PRIVATE_FILE)
        about = real.stat()
        if not stat.S_ISREG(about.st_mode):
            raise Refused(f"{file} is no file. Nothing was changed.")
        if about.st_size > MAX_BYTES:
            raise Refused(f"{file} is larger than {MAX_BYTES >> 20} MiB. Nothing was changed.")
        text = real.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(f"{file} is not UTF-8 text (byte {error.start}). Nothing was changed.") from None
    except (OSError, ValueError) as error:
        raise Refused(f"{file} can't be read: {_reason(error)}. Nothing was changed.") from None
    return Found(real, text, stat.S_IMODE(about.st_mode))


def check_writable(file: Path, found: Found) -> None:
    """Raise Refused where writing the file would fail, or would go against its owner's will."""
    try:
        if found.text is not None:
            about = found.real.stat()
            if not about.st_mode & stat.S_IWUSR or not os.access(found.real, os.W_OK):
                raise Refused(f"{file} is read-only. Nothing was changed.")
            if about.st_nlink > 1:
                raise Refused(
                    f"{file} has {about.st_nlink} names (hard links), of which a new file would keep one. "
                    "Nothing was changed."
                )
        folder = _nearest(found.real.parent)
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise Refused(
                f"{file} can't be written: {folder} is no folder that can be written to. Nothing was changed."
            )
    except OSError as error:
        raise Refused(f"{file} can't be written: {_reason(error)}. Nothing was changed.") from None


def make_folders(folder: Path) -> list[Path]:
    """Make a folder for its owner only, with all above it that are missing; those that were made, outermost first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for made in reversed(missing):
        made.mkdir(PRIVATE_FOLDER)
    return missing[::-1]


def write(file: Path, text: str, mode: int) -> None:
    """Put a file with this text in the place of the old one, in one step. Raises OSError; the old one then stands."""
    # Beside the real file, since a rename works within one file system only; its name is fixed, so that what a crash
    # leaves behind is overwritten by the next one.
    draft = file.with_name(file.name + SUFFIX)
    with _removed_on_failure(draft):
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
        with os.fdopen(descriptor, "wb") as output:
            output.write(text.encode("utf-8", "surrogatepass"))
            output.flush()
            os.fsync(output.fileno())
        draft.chmod(mode)
        if file.exists() and hasattr(os, "chown"):
            about = file.stat()
            os.chown(draft, about.st_uid, about.st_gid)
        draft.replace(file)
    _sync_folder(file.parent)


def remove_folders(folders: tuple[str, ...]) -> None:
    """Remove those of the folders that are empty, innermost first; one that is in use stays."""
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()


def _nearest(folder: Path) -> Path:
    """The folder, or the first one above it that is there."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


@contextlib.contextmanager
def _removed_on_failure(draft: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Have the rename itself on the disk; where folders can't be opened (Windows), it is by itself."""
    with contextlib.suppress(PermissionError, IsADirectoryError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
