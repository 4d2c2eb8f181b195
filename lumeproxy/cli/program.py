"""How the user starts lumeproxy, so that a command that is shown on screen can be typed as it stands."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

NAME = "lumeproxy"


def program() -> str:
    """The start of a command line: `lumeproxy` where that is on the PATH, else the script's path or the module."""
    script = Path(sys.argv[0])
    if (script.name, script.parent.name) == ("__main__.py", NAME):
        return f"{shlex.quote(sys.orig_argv[0])} -m {NAME}"
    if script.name != NAME:  # embedded in another program
        return NAME
    found = shutil.which(NAME)
    return NAME if found and Path(found).resolve() == script.resolve() else shlex.quote(sys.argv[0])


def hint(command: str, data: Path | None, config: Path | None) -> str:
    """A command that the user may type next, on the data that this command line is about."""
    place = ""
    if data is not None:
        place = f" --data {shlex.quote(str(data))}"
    elif config is not None:
        place = f" --config {shlex.quote(str(config))}"
    return f"{program()} {command}{place}"
