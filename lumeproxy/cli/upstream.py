"""`lumeproxy upstream`: the providers, their health, and what is switched off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lumeproxy.cli.output import emit_json, plural, table, when
from lumeproxy.cli.reach import Reach, data_options

RESTING = "resting"


@click.group()
def upstream() -> None:
    """Upstreams: list, test, switch off and on."""


@upstream.command("list", short_help="List the upstreams and how they are.")
@data_options
def list_(data: Path | None, config: Path | None, as_json: bool) -> None:
    """List the upstreams, with the health of each and of its credentials."""
    reach = Reach(data, config, as_json)
    found = reach.run("upstream.list")
    if reach.as_json:
        emit_json(found)
        return
    columns = ("name", "kind", "address", "state", "credentials", "first byte", "running")
    rows = [
        (
            one["name"],
            one["kind"],
            one["address"],
            state(one),
            credentials(one["credentials"]),
            "-" if one["ttfb_ms"] is None else f"{one['ttfb_ms']:,} ms",
            "-" if one["running_calls"] is None else _running(one),
        )
        for one in found
    ]
    click.echo(table(columns, rows, right=("first byte", "running"), flexible=("address", "credentials")))
    if all(one["running_calls"] is None for one in found):
        click.echo("\nNo server runs here now; only a running one knows the health of its upstreams.")


@upstream.command(short_help="Send an upstream no more calls.")
@click.argument("name")
@data_options
def disable(name: str, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Send an upstream no more calls; those that are running end as they would."""
    _changed(Reach(data, config, as_json), "upstream.disable", name, "is switched off until it is enabled")


@upstream.command(short_help="Send an upstream calls again.")
@click.argument("name")
@data_options
def enable(name: str, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Send an upstream calls again, and forget what spoke against it and its credentials."""
    _changed(Reach(data, config, as_json), "upstream.enable", name, "gets calls")


@upstream.command(short_help="Ask an upstream for its models, which costs nothing.")
@click.argument("name")
@data_options
def test(name: str, data: Path | None, config: Path | None, as_json: bool) -> int:
    """Ask an upstream for its models, with each of its credentials: costs nothing. Ends with 1 where one does not work."""
    reach = Reach(data, config, as_json)
    found = reach.run("upstream.test", name=name)
    if reach.as_json:
        emit_json(found)
    else:
        click.echo(f"{found['name']} ({found['address']})")
        for one in found["credentials"]:
            click.echo(f"  credential {one['credential']}: {said(one)}")
    return 0 if found["ok"] else 1


def said(one: dict[str, Any]) -> str:
    """What came of asking with a credential."""
    if not one["reachable"]:
        return str(one["error"])
    words = {True: "accepted", False: f"refused ({one['status']})", None: "not checked"}
    parts = [words[one["accepted"]], f"{one['latency_ms']:,} ms"]
    if one["models"] is not None:
        parts.append(plural(one["models"], "model"))
    elif one["error"] and one["accepted"] is not False:
        parts.append(one["error"])
    return ", ".join(parts)


def _changed(reach: Reach, operation: str, name: str, said: str) -> None:
    shown = reach.run(operation, name=name)
    if reach.as_json:
        emit_json(shown)
    else:
        click.echo(f"The upstream {shown['name']} {said}.")


def state(one: dict[str, Any]) -> str:
    """How an upstream is, in a word or two."""
    if one["disabled_since_ms"] is not None:
        return f"off since {when(one['disabled_since_ms'])[5:]}"
    return f"resting {seconds(one['rest_ms'])}" if one["state"] == RESTING else str(one["state"])


def credentials(found: list[dict[str, Any]]) -> str:
    """How many there are, and which of them are not up."""
    troubled = [
        f"no. {one['credential']} " + (f"refused ({one['status']})" if one["status"] else _rest(one))
        for one in found
        if one["state"] not in ("up", "unknown")
    ]
    return ", ".join([plural(len(found), "credential").split()[0], *troubled])


def seconds(ms: int) -> str:
    """A rest, rounded up."""
    return f"{-(-ms // 1000):,} s"


def _rest(one: dict[str, Any]) -> str:
    return f"resting {seconds(one['rest_ms'])}" if one["state"] == RESTING else str(one["state"])


def _running(one: dict[str, Any]) -> str:
    return f"{one['running_calls']:,}" + (f" (+{one['waiting_calls']:,})" if one["waiting_calls"] else "")
