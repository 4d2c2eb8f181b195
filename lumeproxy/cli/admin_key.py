"""`lumeproxy admin-key`: credentials of the admin API, which are made here and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from lumeproxy.cli.key import DEFAULT_URL, state
from lumeproxy.cli.output import Duration, KeyId, emit_json, say_secret, table, when
from lumeproxy.cli.reach import Reach, data_options
from lumeproxy.clock import Clock
from lumeproxy.core import apikey
from lumeproxy.errors import LumeError


class AdminKeyId(KeyId):
    """An admin key's public id, or the whole key, of which the rest is neither kept nor shown."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The id; what can't be one is a usage error that does not quote it."""
        text = str(value)
        if text.startswith(apikey.ADMIN_PREFIX):
            text = apikey.id_in(text, apikey.ADMIN_PREFIX)
        return super().convert(text, param, ctx)


@click.group("admin-key")
def admin_key() -> None:
    """Keys of the admin API at /api/v1: create, list, revoke."""


@admin_key.command()
@click.option("--name", default="", help="What the key is for.")
@click.option("--read-only", is_flag=True, help="It may look, and change nothing.")
@click.option(
    "--expires", type=Duration(some=True), metavar="DURATION", help="How long it is valid: 30d, 12h [for ever]."
)
@data_options
def create(
    name: str, read_only: bool, expires: int | None, data: Path | None, config: Path | None, as_json: bool
) -> None:
    """Create an admin key; it is shown once. It makes no calls to models."""
    reach = Reach(data, config, as_json)
    expires_ms = None if expires is None else Clock().now_ms() + expires
    made = reach.run("admin_key.create", name=name, may_change=not read_only, expires_ms=expires_ms)
    try:
        if reach.as_json:
            say_secret(json.dumps(made, indent=2))
            return
        say_secret(f"Admin key {made['id']}, shown only now:\n\n    {made['key']}\n")
    except OSError as error:
        raise LumeError(
            f"The admin key {made['id']} was made, but can't be shown ({error.strerror or 'the output is closed'}): revoke "
            f"it with {reach.hint('admin-key revoke ' + made['id'])}, and make another."
        ) from None
    url = reach.server_url() or reach.configured_url() or DEFAULT_URL
    click.echo(f"The API and what it offers: {url}/api/v1/")


@admin_key.command("list")
@data_options
def list_(data: Path | None, config: Path | None, as_json: bool) -> None:
    """List admin keys."""
    reach = Reach(data, config, as_json)
    found = reach.run("admin_key.list")
    if reach.as_json:
        emit_json(found)
    elif not found:
        click.echo("No admin keys yet. Make one: " + reach.hint("admin-key create"))
    else:
        now_ms = Clock().now_ms()
        rows = [
            (
                k["id"],
                k["name"] or "-",
                "…" + k["last4"],
                "all" if k["may_change"] else "read only",
                when(k["created_ms"])[:10],
                when(k["expires_ms"])[:10],
                state({**k, "account_status": "active"}, now_ms),
            )
            for k in found
        ]
        click.echo(table(("id", "name", "ends with", "may", "created", "expires", "state"), rows, flexible=("name",)))


@admin_key.command()
@click.argument("id", type=AdminKeyId())
@data_options
def revoke(id: str, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Revoke an admin key; it opens nothing from now on."""
    reach = Reach(data, config, as_json)
    ended = reach.run("admin_key.revoke", id=id)
    if reach.as_json:
        emit_json(ended)
    else:
        click.echo(f"Admin key {ended['id']} is revoked.")
