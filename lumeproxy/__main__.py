"""`python -m lumeproxy` and the script `lumeproxy`: one and the same."""

from __future__ import annotations

import io
import sys


def main() -> int:
    """Run the command line; the exit status."""
    from lumeproxy.cli.main import run

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character still gets its table
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
