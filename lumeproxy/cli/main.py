"""The command tree, and how a command ends: 0 done, 1 refused or failed, 2 wrong usage or configuration.

Without a sub-command it serves. Server code is imported by the commands that need it, when they run.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence

import click

from lumeproxy import __version__
from lumeproxy.cli.account import account
from lumeproxy.cli.admin_key import admin_key
from lumeproxy.cli.audit import audit
from lumeproxy.cli.backup import backup
from lumeproxy.cli.credit import credit
from lumeproxy.cli.doctor import doctor
from lumeproxy.cli.key import key
from lumeproxy.cli.program import program
from lumeproxy.cli.reach import data_options
from lumeproxy.cli.serve import serve, serve_options
from lumeproxy.cli.setup import setup
from lumeproxy.cli.upstream import upstream
from lumeproxy.cli.usage import usage
from lumeproxy.errors import ConfigError, LumeError

# What a full disk and the like say of standard output; errors of a file carry its name.
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="lumeproxy")
@serve_options
@data_options
@click.pass_context
def tree(context: click.Context, /, **options: object) -> int | None:
    """Keys, prepaid credit and exact metering between coding agents and model providers.

    Without a command it serves, as `lumeproxy serve` does.
    """
    if context.invoked_subcommand is not None:
        if options["as_json"] and context.invoked_subcommand == serve.name:
            raise click.UsageError("serve takes no --json.")
        return None
    if options["as_json"]:
        raise click.UsageError("--json needs a command; see --help.")
    status: int = context.invoke(serve, **{name: value for name, value in options.items() if name != "as_json"})
    return status


for command in (serve, account, key, credit, usage, upstream, audit, backup, doctor, setup, admin_key):
    tree.add_command(command)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; errors become one sentence on standard error."""
    status = _run(arguments)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        _give_up_output()  # what could not be written has been told; the interpreter must not try again at its end
    return status


def _run(arguments: Sequence[str]) -> int:
    try:
        status = tree.main(list(arguments), prog_name=program(), standalone_mode=False)
    except click.exceptions.Abort:
        _complain("stopped")
        return 1
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        click.echo(_masked(shown.getvalue()), nl=False, err=True)
        return 2
    except ConfigError as error:
        _complain(error.message)
        return 2
    except LumeError as error:
        _complain(error.message)
        return 1
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; that is how it is meant to end. Nothing may be flushed to it.
        _give_up_output()
        return 0
    except SystemExit:
        return 0  # the same, as click ends it where a real pipe has broken; it has put a stand-in for the output
    except OSError as error:
        if error.errno not in UNWRITABLE or error.filename is not None:
            raise
        _complain(f"The output can't be written: {error.strerror}.")
        return 1
    return status if isinstance(status, int) else 0


def _complain(sentence: str) -> None:
    click.echo(f"lumeproxy: {_masked(sentence)}", err=True)


def _masked(sentence: str) -> str:
    """The sentence, which may quote an argument, without the secret of a key that was put in a name's place."""
    from lumeproxy.logs import masked

    return masked(sentence)


def _give_up_output() -> None:
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - lives until the process ends
