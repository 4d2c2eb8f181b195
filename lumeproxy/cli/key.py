"""`lumeproxy key`: credentials of an account."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from lumeproxy.cli.limits import arguments, budget_option, rate_options, told
from lumeproxy.cli.output import Duration, KeyId, Text, emit_json, say_secret, table, when
from lumeproxy.cli.reach import Reach, data_options
from lumeproxy.clock import Clock
from lumeproxy.errors import LumeError

# Where a server listens that nobody told otherwise; for the instructions when none runs.
DEFAULT_URL = "http://127.0.0.1:8787"


@click.group()
def key() -> None:
    """API keys: create, list, limit, revoke, rotate."""


@key.command()
@click.argument("account")
@click.option("--name", default="", help="What the key is for.")
@click.option(
    "--expires", type=Duration(some=True), metavar="DURATION", help="How long it is valid: 30d, 12h [for ever]."
)
@click.option(
    "--model", "models", multiple=True, type=Text(), metavar="PATTERN", help="What it may use; repeatable [all models]."
)
@budget_option
@rate_options
@data_options
def create(
    account: str,
    name: str,
    expires: int | None,
    models: tuple[str, ...],
    budgets: tuple[tuple[str, int | None], ...],
    calls_per_minute: tuple[int | None] | None,
    concurrent_calls: tuple[int | None] | None,
    data: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Create a key; it is shown once."""
    reach = Reach(data, config, as_json)
    expires_ms = None if expires is None else Clock().now_ms() + expires
    limits = arguments(calls_per_minute, concurrent_calls, budgets)
    made = reach.run("key.create", account=account, name=name, expires_ms=expires_ms, models=list(models), **limits)
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
        click.echo("No keys yet. Make one: " + reach.hint(f"key create {account or 'ACCOUNT'}"))
    else:
        now_ms = Clock().now_ms()
        columns = ("id", "account", "name", "ends with", "created", "expires", "state", "models")
        rows = [
            (
                k["id"],
                k["account"],
                k["name"] or "-",
                "…" + k["last4"],
                when(k["created_ms"])[:10],
                when(k["expires_ms"])[:10],
                state(k, now_ms),
                ", ".join(k["models"]) or "all",
            )
            for k in found
        ]
        click.echo(table(columns, rows, flexible=("account", "name", "models")))
        if limited := key_limits(found):
            click.echo("\n" + limited)


@key.command(short_help="Set what a key may use at most.")
@click.argument("id", type=KeyId())
@budget_option
@rate_options
@data_options
def limit(
    id: str,
    budgets: tuple[tuple[str, int | None], ...],
    calls_per_minute: tuple[int | None] | None,
    concurrent_calls: tuple[int | None] | None,
    data: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Set what a key may use at most, running calls included; what is not named stays."""
    reach = Reach(data, config, as_json)
    limits = arguments(calls_per_minute, concurrent_calls, budgets)
    if not limits:
        raise click.UsageError("Name a limit: --budget, --calls-per-minute or --concurrent-calls.")
    changed = reach.run("key.limit", id=id, **limits)
    if reach.as_json:
        emit_json(changed)
    else:
        click.echo(f"Key {changed['id']} of {changed['account']} may use {told(changed) or 'what is usual'}.")


@key.command()
@click.argument("id", type=KeyId())
@data_options
def revoke(id: str, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Revoke a key; its running calls end within a second."""
    reach = Reach(data, config, as_json)
    ended = reach.run("key.revoke", id=id)
    if reach.as_json:
        emit_json(ended)
    else:
        click.echo(f"Key {ended['id']} of {ended['account']} is revoked.")


@key.command(short_help="Replace a key by a new one that may do the same.")
@click.argument("id", type=KeyId())
@click.option("--overlap", type=Duration(), default=0, metavar="DURATION",
              help="How long the old key stays valid: 24h, 7d [it ends at once].")  # fmt: skip
@data_options
def rotate(id: str, overlap: int, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Replace a key by a new one with the same name, models, limits and expiry."""
    reach = Reach(data, config, as_json)
    made = reach.run("key.rotate", id=id, overlap_ms=overlap)
    _show_new(reach, made)
    if not reach.as_json:
        end = f"stays valid until {when(Clock().now_ms() + overlap)}" if overlap else "is revoked"
        click.echo(f"The old key {id} {end}.")


def state(shown: dict[str, Any], now_ms: int) -> str:
    """Whether a key can be used, in a word or two."""
    revoked_ms, expires_ms = shown["revoked_ms"], shown["expires_ms"]
    if revoked_ms is not None and revoked_ms <= now_ms:
        return "revoked"
    if expires_ms is not None and expires_ms <= now_ms:
        return "expired"
    if shown["account_status"] != "active":
        return f"account {shown['account_status']}"
    return "in force" if revoked_ms is None else f"until {when(revoked_ms)[5:]}"


def key_limits(keys: list[dict[str, Any]]) -> str:
    """A line for each key that has limits of its own."""
    return "\n".join(f"{k['id']} may use {limits}." for k in keys if (limits := told(k)))


def _show_new(reach: Reach, made: dict[str, Any]) -> None:
    try:
        if reach.as_json:
            say_secret(json.dumps(made, indent=2))
        else:
            _print_new(reach, made)
    except OSError as error:
        raise LumeError(
            f"The key {made['id']} was made, but can't be shown ({error.strerror or 'the output is closed'}): revoke it "
            f"with {reach.hint('key revoke ' + made['id'])}, and make another."
        ) from None


def _print_new(reach: Reach, made: dict[str, Any]) -> None:
    running, configured = reach.server_url(), reach.configured_url()
    url = running or configured or DEFAULT_URL
    say_secret(f"Key {made['id']} of {made['account']}, shown only now:\n\n    {made['key']}\n")
    click.echo("Connect Claude Code:\n")
    click.echo(f"    export ANTHROPIC_BASE_URL={url}")
    click.echo(f"    export ANTHROPIC_AUTH_TOKEN={made['key']}\n")
    click.echo(f"OpenAI clients: base URL {url}/v1 and this key.")
    click.echo(f"Where a tool runs: curl -fsS {url}/setup/claude-code.sh | sh (or codex, opencode)")
    if running is None and configured is not None:
        click.echo("No server runs here now; this is the address that its configuration names.")
    elif running is None:
        click.echo("No server runs here now, so this is the default address; use your server's own if it differs.")
