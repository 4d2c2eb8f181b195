"""`lumeproxy credit`: grants, balances, entries."""

from __future__ import annotations

import uuid
from pathlib import Path

import click

from lumeproxy.cli.output import Amount, amounts, dollars, emit_json, table, when
from lumeproxy.cli.reach import Reach, data_options


@click.group()
def credit() -> None:
    """Credit: grant, balance, entries."""


@credit.command()
@click.argument("account")
@click.argument("amount", type=Amount(some=True))
@click.option("--note", default="", help="What for; shown among the entries.")
@data_options
def grant(account: str, amount: int, note: str, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Give an account credit, in dollars."""
    reach = Reach(data, config, as_json)
    after = reach.run(
        "credit.grant", account=account, amount_nanousd=amount, note=note, idempotency_key=uuid.uuid4().hex
    )
    if reach.as_json:
        emit_json(after)
    else:
        click.echo(f"{dollars(amount)} for {after['account']}; the balance is {dollars(after['balance_nanousd'])}.")


@credit.command()
@click.argument("account")
@data_options
def balance(account: str, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Show what an account has."""
    reach = Reach(data, config, as_json)
    found = reach.run("credit.balance", account=account)
    if reach.as_json:
        emit_json(found)
        return
    click.echo(f"{found['account']} has {dollars(found['balance_nanousd'])}.")
    if found["held_nanousd"]:
        held, left = dollars(found["held_nanousd"]), dollars(found["available_nanousd"])
        click.echo(f"{held} is held by running calls, {left} is available.")


@credit.command()
@click.argument("account")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, metavar="N", help="How many [100].")
@data_options
def entries(account: str, limit: int, data: Path | None, config: Path | None, as_json: bool) -> None:
    """List an account's entries, newest first."""
    reach = Reach(data, config, as_json)
    found = reach.run("credit.entries", account=account, limit=limit)
    if reach.as_json:
        emit_json(found)
    elif not found:
        click.echo("No entries yet.")
    else:
        moved = amounts([e["amount_nanousd"] for e in found])
        rows = [
            (when(e["time_ms"]), e["kind"], amount, e["call_id"] or "-", e["note"])
            for e, amount in zip(found, moved, strict=True)
        ]
        click.echo(table(("time", "kind", "amount", "call", "note"), rows, right=("amount",), flexible=("note",)))
