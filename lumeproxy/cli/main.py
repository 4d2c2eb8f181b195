"""The command tree, and how a command ends: 0 done, 1 refused or failed, 2 wrong usage or configuration.

Without a sub-command it serves. Server code is imported by the commands that need it, when they run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from lumeproxy import __version__
from lumeproxy.cli.account import account
from lumeproxy.cli.audit import audit
from lumeproxy.cli.backup import backup
from lumeproxy.cli.credit import credit
from lumeproxy.cli.key import key
from lumeproxy.cli.reach import data_options
from lumeproxy.cli.serve import serve, serve_options
from lumeproxy.cli.usage import usage
from lumeproxy.errors import ConfigError, LumeError


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
        return None
    status: int = context.invoke(serve, **{name: value for name, value in options.items() if name != "as_json"})
    return status


for command in (serve, account, key, credit, usage, audit, backup):
    tree.add_command(command)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; errors become one sentence on standard error."""
    try:
        status = tree.main(list(arguments), prog_name="lumeproxy", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("lumeproxy: stopped", err=True)
        return 1
    except click.ClickException as error:
        error.show()
        return 2
    except ConfigError as error:
        click.echo(f"lumeproxy: {error.message}", err=True)
        return 2
    except LumeError as error:
        click.echo(f"lumeproxy: {error.message}", err=True)
        return 1
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; that is how it is meant to end. Nothing may be flushed to it.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - lives until the process ends
        return 0
    return status if isinstance(status, int) else 0
