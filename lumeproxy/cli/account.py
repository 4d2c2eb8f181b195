"""`lumeproxy account`: who pays."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import Any

import click

from lumeproxy.cli.export import write_export
from lumeproxy.cli.key import key_limits, state
from lumeproxy.cli.limits import USUAL, Threshold, arguments, rate_options, told
from lumeproxy.cli.output import Amount, NewName, Text, amounts, dollars, emit_json, say_secret, table, when
from lumeproxy.cli.reach import Reach, data_options
from lumeproxy.clock import Clock


@click.group(short_help="Accounts: create, list, show, limit, suspend and more.")
def account() -> None:
    """Accounts: create, list, show, limit, suspend, resume, close, export, erase; admin, link."""


@account.command()
@click.argument("name", type=NewName())
@click.option("--credit", type=Amount(), default=0, help="First credit in dollars.")
@data_options
def create(name: str, credit: int, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Create an account."""
    reach = Reach(data, config, as_json)
    made = reach.run("account.create", name=name, credit_nanousd=credit, idempotency_key=uuid.uuid4().hex)
    if reach.as_json:
        emit_json(made)
    else:
        click.echo(f"Account {made['account']} was made with {dollars(made['balance_nanousd'])}.")
        click.echo("Give it a key: " + reach.hint(f"key create {made['account']}"))


@account.command("list")
@data_options
def list_(data: Path | None, config: Path | None, as_json: bool) -> None:
    """List all accounts."""
    reach = Reach(data, config, as_json)
    found = reach.run("account.list")
    if reach.as_json:
        emit_json(found)
    elif not found:
        click.echo("No accounts yet. Make one: " + reach.hint("account create NAME --credit 10"))
    else:
        balances = amounts([a["balance_nanousd"] for a in found])
        held = amounts([a["held_nanousd"] for a in found])
        rows = [
            (a["account"], a["status"], balance, set_aside, when(a["created_ms"]), a["reason"])
            for a, balance, set_aside in zip(found, balances, held, strict=True)
        ]
        columns = ("account", "status", "balance", "held", "created", "reason")
        click.echo(table(columns, rows, right=("balance", "held"), flexible=("account", "reason")))


@account.command()
@click.argument("name")
@data_options
def show(name: str, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Show an account with its keys."""
    reach = Reach(data, config, as_json)
    found = reach.run("account.show", name=name)
    if reach.as_json:
        emit_json(found)
        return
    _print(found)
    if not found["keys"]:
        if found["status"] != "closed":
            click.echo("\nNo keys yet. Make one: " + reach.hint(f"key create {found['account']}"))
        return
    now_ms = Clock().now_ms()
    rows = [(k["id"], k["name"] or "-", when(k["expires_ms"]), state(k, now_ms)) for k in found["keys"]]
    click.echo("\n" + table(("key", "name", "expires", "state"), rows, flexible=("name",)))
    if limited := key_limits(found["keys"]):
        click.echo("\n" + limited)


@account.command(short_help="Set an account's limits, and which balance is low.")
@click.argument("name")
@click.option(
    "--low-balance",
    type=Threshold(),
    metavar="USD",
    help=f"Tell when the balance falls below this; 0: never, {USUAL}: as the settings say.",
)
@rate_options
@data_options
def limit(
    name: str,
    low_balance: tuple[int | None] | None,
    calls_per_minute: tuple[int | None] | None,
    concurrent_calls: tuple[int | None] | None,
    data: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Set how fast and how often at once an account may call with all its keys, and which balance is low; what is not
    named stays."""
    limits = arguments(calls_per_minute, concurrent_calls)
    if low_balance is not None:
        limits["low_balance_nanousd"] = low_balance[0]
    if not limits:
        raise click.UsageError("Name a limit: --low-balance, --calls-per-minute or --concurrent-calls.")
    _change("account.limit", Reach(data, config, as_json), name=name, **limits)


@account.command()
@click.argument("name")
@click.option("--reason", required=True, type=Text(), help="Why; kept with the account.")
@data_options
def suspend(name: str, reason: str, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Suspend an account; its running calls end within a second."""
    _change("account.suspend", Reach(data, config, as_json), name=name, reason=reason)


@account.command()
@click.argument("name")
@data_options
def resume(name: str, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Let a suspended account make calls again."""
    _change("account.resume", Reach(data, config, as_json), name=name)


@account.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Don't ask; nobody is asked where there is no terminal.")
@data_options
def close(name: str, yes: bool, data: Path | None, config: Path | None, as_json: bool) -> int:
    """Close an account for good; its records and balance stay."""
    reach = Reach(data, config, as_json)
    if not (yes or reach.as_json) and on_terminal():
        found = reach.run("account.show", name=name)
        if found["status"] != "closed":
            left = dollars(found["balance_nanousd"])
            click.echo(f"Closing {found['account']} is for good: its keys end, and its balance of {left} stays unused.")
            if not click.confirm("Close it?"):
                click.echo("Nothing was changed.")
                return 1
    _change("account.close", reach, name=name)
    return 0


@account.command(short_help="Print all that is stored of an account.")
@click.argument("name")
@data_options
def export(name: str, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Print all that is stored of an account, always as one JSON document."""
    write_export(Reach(data, config, as_json), name)


@account.command(short_help="Close an account for good, and forget who it was.")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Don't ask; nobody is asked where there is no terminal.")
@data_options
def erase(name: str, yes: bool, data: Path | None, config: Path | None, as_json: bool) -> int:
    """Close an account for good and erase its name, its keys, and all addresses, user agents and sessions of its calls; the
    ledger stays, under a number."""
    reach = Reach(data, config, as_json)
    if not (yes or reach.as_json) and on_terminal():
        found = reach.run("account.show", name=name)
        click.echo(f"Erasing {found['account']} can't be undone. Export it first with: ", nl=False)
        click.echo(reach.hint(f"account export {found['account']}"))
        if not click.confirm("Erase it?"):
            click.echo("Nothing was changed.")
            return 1
    erased = reach.run("account.erase", name=name)
    if reach.as_json:
        emit_json(erased)
    else:
        click.echo(f"The account is erased. Its entries are kept as {erased['account']}, with the notes of its grants.")
    return 0


@account.command(short_help="Let an account see and change all others.")
@click.argument("name")
@click.option("--revoke", is_flag=True, help="Make it a user's account again.")
@data_options
def admin(name: str, revoke: bool, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Let an account see and change all others on the pages; it signs in there by a password or a link."""
    reach = Reach(data, config, as_json)
    changed = reach.run("account.admin", name=name, admin=not revoke)
    if reach.as_json:
        emit_json(changed)
    elif revoke:
        click.echo(f"Account {changed['account']} is a user's.")
    else:
        click.echo(f"Account {changed['account']} is an operator's. Sign in: " + reach.hint(f"account link {name}"))


@account.command(short_help="Print a link that signs an account in once.")
@click.argument("name")
@data_options
def link(name: str, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Print a link that signs an account in on the pages, once, within a day."""
    reach = Reach(data, config, as_json)
    made = reach.run("account.link", name=name)
    if made["url"].startswith("/"):  # no server runs that could say where it is reached
        made["url"] = (reach.configured_url() or "http://127.0.0.1:8787") + made["url"]
    if reach.as_json:
        emit_json(made)
    else:
        say_secret(made["url"])


def on_terminal() -> bool:
    """Whether somebody is there to be asked."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def _change(operation: str, reach: Reach, **arguments: Any) -> None:
    changed = reach.run(operation, **arguments)
    if reach.as_json:
        emit_json(changed)
    else:
        _print(changed)


def _print(found: dict[str, Any]) -> None:
    because = f": {found['reason']}" if found["status"] == "suspended" else ""
    click.echo(f"Account {found['account']} is {found['status']}{because}.")
    held = f", {dollars(found['held_nanousd'])} of it held by running calls" if found["held_nanousd"] else ""
    stays = ", which stays with it" if found["status"] == "closed" and found["balance_nanousd"] else ""
    click.echo(f"Balance {dollars(found['balance_nanousd'])}{stays}{held}.")
    if threshold := found["low_balance_nanousd"]:
        below = "It is" if found["balance_nanousd"] < threshold else "Somebody is told when it falls"
        click.echo(f"{below} below {dollars(threshold)}.")
    if limits := told(found):
        click.echo(f"It may use {limits}.")
