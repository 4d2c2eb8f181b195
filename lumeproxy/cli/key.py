"""`lumeproxy key`: credentials of an account."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lumeproxy.cli.output import duration_ms, emit_json, table, when
from lumeproxy.cli.reach import Reach, data_options
from lumeproxy.clock import Clock


@click.group()
def key() -> None:
    """API keys: create, list, revoke, rotate."""


@key.command()
@click.argument("account")
@click.option("--name", default="", help="What the key is for.")
@click.option("--expires", help="When it ends: 30d, 12h.")
@click.option("--model", "models", multiple=True, help="Model or pattern that it may use; repeatable.")
@data_options
def create(
    account: str,
    name: str,
    expires: str | None,
    models: tuple[str, ...],
    data: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Create a key; it is shown once."""
    reach = Reach(data, config, as_json)
    expires_ms = None if expires is None else Clock().now_ms() + duration_ms(expires)
    made = reach.run("key.create", account=account, name=name, expires_ms=expires_ms, models=list(models))
    _show_new(reach, made)


@key.command("list")
@click.argument("account", required=False)
@data_options
def list_(account: str | None, data: Path | None, config: Path | None, as_json: bool) -> None:
    """List keys, of one account or all."""
    reach = Reach(data, config, as_json)
    found = reach.run("key.list", account=account)
    if reach.as_json:
        emit_json(found)
    elif not found:
        click.echo("No keys yet. Make one: lumeproxy key create ACCOUNT")
    else:
        columns = ("id", "account", "name", "ends with", "created", "expires", "state", "models")
        rows = [
            (
                k["id"],
                k["account"],
                k["name"] or "-",
                "…" + k["last4"],
                when(k["created_ms"])[:10],
                when(k["expires_ms"])[:10],
                "revoked" if k["revoked_ms"] else "in force",
                ", ".join(k["models"]) or "all",
            )
            for k in found
        ]
        click.echo(table(columns, rows, flexible="models"))


@key.command()
@click.argument("id")
@data_options
def revoke(id: str, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Revoke a key at once."""
    reach = Reach(data, config, as_json)
    ended = reach.run("key.revoke", id=id)
    if reach.as_json:
        emit_json(ended)
    else:
        click.echo(f"Key {ended['id']} of {ended['account']} is revoked.")


@key.command()
@click.argument("id")
@click.option("--overlap", default="0s", show_default=True, help="How long the old key stays valid: 24h, 7d.")
@data_options
def rotate(id: str, overlap: str, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Replace a key by a new one with the same name, models and expiry."""
    reach = Reach(data, config, as_json)
    made = reach.run("key.rotate", id=id, overlap_ms=duration_ms(overlap))
    _show_new(reach, made)


def _show_new(reach: Reach, made: dict[str, Any]) -> None:
    if reach.as_json:
        emit_json(made)
        return
    click.echo(f"Key {made['id']} of {made['account']}, shown only now:\n\n    {made['key']}\n")
    click.echo("Connect Claude Code:\n")
    click.echo(f"    export ANTHROPIC_BASE_URL=http://127.0.0.1:8787 ANTHROPIC_AUTH_TOKEN={made['key']}\n")
    click.echo("OpenAI clients: base URL http://127.0.0.1:8787/v1 and this key (use your server's own address).")
