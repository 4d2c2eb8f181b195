"""`python -m lumeproxy` and the script `lumeproxy`: one and the same."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; the exit status."""
    from lumeproxy.cli.main import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
