"""A terminal that a program believes in: it answers what programs ask one, and keeps what they show."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping
from pathlib import Path

ROWS, COLUMNS = 50, 140
END_S = 5
# Cursor position, attributes, colours: what is asked, and an answer. Without one, Codex ends.
ANSWERS = {b"\x1b[6n": b"\x1b[1;1R", b"\x1b[c": b"\x1b[?62;22c", b"\x1b]11;?": b"\x1b]11;rgb:0000/0000/0000\x1b\\"}
CONTROL = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[\[?>=<][0-9;:?>=<$\"' ]*[A-Za-z@`~]|\x1b[()][A-Z0-9]|\x1b.|\r"
)


def shown(command: list[str], environ: Mapping[str, str], folder: Path, until: str, timeout_s: float) -> str:
    """What a program has shown on its terminal when the pattern appeared, or the time was over; then it is ended. Blanks
    are left out, since programs move the cursor in their place."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=dict(environ), cwd=folder,
                               start_new_session=True)  # fmt: skip
    os.close(slave)
    seen, deadline, pattern = b"", time.monotonic() + timeout_s, re.compile(re.sub(r"\s", "", until))
    try:
        while time.monotonic() < deadline and not pattern.search(_plain(seen)):
            ready, _, _ = select.select([master], [], [], 0.2)
            if not ready:
                continue
            try:
                piece = os.read(master, 65536)
            except OSError:  # the program has closed its end
                break
            seen += piece
            for question, answer in ANSWERS.items():
                if question in piece:
                    os.write(master, answer)
        return _plain(seen)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(END_S)
        os.close(master)


def _plain(seen: bytes) -> str:
    return re.sub(r"\s", "", CONTROL.sub("", seen.decode("utf-8", "replace")))
