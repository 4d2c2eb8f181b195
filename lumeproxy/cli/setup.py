"""`lumeproxy setup`: connects a tool on this machine to a proxy, and takes it back. Loads nothing of a server.

Beside a running server it finds the address and makes a key; elsewhere it is told both. What it will do is shown as a diff
before it is done, and proved by one call afterwards.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import click

from lumeproxy.cli.output import emit_json
from lumeproxy.cli.program import program
from lumeproxy.cli.reach import Reach, data_options, inherited
from lumeproxy.clients import apply, plan
from lumeproxy.clients.address import ccswitch_link, checked_url, is_near
from lumeproxy.clients.apply import Plan
from lumeproxy.clients.base import Machine, Target, Tool
from lumeproxy.clients.registry import TOOLS, tool
from lumeproxy.core import apikey
from lumeproxy.errors import LumeError, Refused
from lumeproxy.folder import closing_command, data_folder

KEY_VARIABLE = "LUME_KEY"
OWN_ACCOUNT = "me"  # the one that the first start of a server makes


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a set-up is to go about it."""

    as_json: bool
    dry_run: bool
    yes: bool
    default: bool

    def say(self, text: str) -> None:
        """Something for a person: beside the JSON document, not in it."""
        click.echo(text, err=self.as_json)


@click.command(short_help="Connect claude-code, codex or opencode on this machine.")
@click.argument("tool_name", metavar="TOOL", type=click.Choice([known.name for known in TOOLS]))
@click.option("--url", metavar="URL", help="Address of the proxy [the server that runs here].")
@click.option("--key", metavar="KEY", help=f"API key [{KEY_VARIABLE}, else asked for; made where the server runs].")
@click.option("--default", is_flag=True, help="Codex: use the proxy without -p too, by way of its config.toml.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--undo", is_flag=True, help="Take the set-up back.")
@data_options
def setup(
    tool_name: str,
    url: str | None,
    key: str | None,
    default: bool,
    dry_run: bool,
    yes: bool,
    undo: bool,
    data: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Connect claude-code, codex or opencode on this machine, or take that back.

    Its settings are merged key by key; --undo restores what was there.
    """
    chosen = tool(tool_name)
    wanted = Wanted(bool(inherited("as_json", as_json or None)), dry_run, yes, default)
    if default and chosen.name != "codex":
        raise click.UsageError("--default is for codex only.")
    machine = Machine(sys.platform, os.environ, Path.home(), Path.cwd())
    if undo:
        if url or key or default:
            raise click.UsageError("--undo takes no --url, --key or --default.")
        _take_back(chosen, machine, wanted)
        return
    with _credentials(chosen, url, key, data, config, wanted) as (address, given):
        _connect(chosen, machine, address, given, wanted)


def _connect(chosen: Tool, machine: Machine, address: str, key: str, wanted: Wanted) -> None:
    from lumeproxy.clients import ask

    url, warnings = checked_url(address)
    target = Target(url, key, ask.models(url, key), wanted.default)
    made = apply.plan(chosen.name, url, chosen.wishes(machine, target), machine.state)
    warnings += [*chosen.warnings(machine, target), *_open_files(made)]
    _show(made, machine, warnings, wanted)
    if wanted.dry_run:
        if wanted.as_json:
            emit_json(_told(chosen, url, made, warnings, applied=False))
        return
    if not made.is_none:
        if not wanted.yes:
            click.confirm(f"Set up {chosen.title} so?", default=True, abort=True, err=wanted.as_json)
        apply.apply(made)
    try:
        proof = ask.prove(url, key, chosen.trial(machine, target))
    except Refused as error:
        raise Refused(
            f"{chosen.title} is set up, but a call through the proxy failed: {error.message} To take the set-up back: "
            f"{program()} setup {chosen.name} --undo"
        ) from None
    command, *more = chosen.next_steps(machine, target)
    link = ccswitch_link(chosen.link_app, url if chosen.name == "claude-code" else f"{url}/v1", key, None)
    if wanted.as_json:
        call = {"model": proof.model, "call_id": proof.call_id, "cost_usd": proof.cost_usd}
        told = _told(chosen, url, made, warnings, applied=True)
        emit_json({**told, "call": call, "next": command, "ccswitch_link": link})
        return
    cost = f", for ${proof.cost_usd.rstrip('0').rstrip('.')}" if proof.cost_usd else ""
    wanted.say(f"{chosen.title} is set up: a call of {proof.model} through {url} was answered{cost}.\n")
    wanted.say(f"Start it:\n\n    {command}\n")
    for line in more:
        wanted.say(line)
    wanted.say(f"Take it back: {program()} setup {chosen.name} --undo")
    wanted.say(f"CC Switch takes it over by this link, which holds the key:\n\n    {link}")


def _take_back(chosen: Tool, machine: Machine, wanted: Wanted) -> None:
    made = apply.plan_undo(chosen.name, machine.state)
    kept = [(change.file, ".".join(path)) for change in made.changes for path in change.kept]
    warnings = [f"{name} in {file} was changed since, and stays as it is." for file, name in kept]
    warnings += [
        f"{'.'.join(path)} in {change.file} was changed since, and goes all the same: address and key go together."
        for change in made.changes
        for path in change.along
    ]
    _show(made, machine, warnings, wanted)
    if not wanted.dry_run:
        apply.apply_undo(made)
    if wanted.as_json:
        files = [str(change.file) for change in made.changes if not change.is_none]
        emit_json(
            {"tool": chosen.name, "files": files, "kept": [name for _, name in kept], "applied": not wanted.dry_run}
        )
    elif not wanted.dry_run:
        gone = {key_id for change in made.changes for key_id in _keys_in(change.now) - _keys_in(change.after)}
        for key_id in sorted(gone):
            wanted.say(
                f"The key {key_id} stays in force. To end it, where the server runs: lumeproxy key revoke {key_id}"
            )
        wanted.say(f"{chosen.title} is as it was before.")


def _show(made: Plan, machine: Machine, warnings: list[str], wanted: Wanted) -> None:
    if not wanted.as_json:
        wanted.say(plan.shown(made.changes, machine.home) or "Nothing has to change.\n")
    for warning in warnings:
        click.echo(f"Warning: {warning}", err=True)


def _told(chosen: Tool, url: str, made: Plan, warnings: list[str], *, applied: bool) -> dict[str, Any]:
    files = [
        {"file": str(change.file), "keys": plan.changed_keys(change)} for change in made.changes if not change.is_none
    ]
    return {"tool": chosen.name, "url": url, "files": files, "warnings": warnings, "applied": applied}


def _open_files(made: Plan) -> Iterator[str]:
    """Mode bits stay as they are; that others can read the key is said."""
    for change, found in zip(made.changes, made.found, strict=True):
        holds_key = change.record is not None and any(leaf.paired for leaf in change.record.leaves)
        command = closing_command(found.real) if holds_key and sys.platform != "win32" else None
        if command is not None:
            yield f"Others can read {change.file}, in which the key is put: {command}"


# --- address and key ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _credentials(
    chosen: Tool, url: str | None, key: str | None, data: Path | None, config: Path | None, wanted: Wanted
) -> Iterator[tuple[str, str]]:
    """The proxy's address and a key for it. A key that was made for this is revoked where nothing comes of it."""
    key = key or os.environ.get(KEY_VARIABLE) or None
    if key is not None:
        _check_key(key)
    beside = _beside(url, key, data, config, wanted)
    address = url or (_reachable(beside.server_url()) if beside is not None else None)
    if address is None:
        raise click.UsageError("No server runs here: give the address of the proxy with --url.")
    if key is not None:
        yield address, key
        return
    checked_url(address)
    if beside is None or wanted.dry_run or (url is not None and checked_url(url)[0] != _reachable(beside.server_url())):
        yield address, _asked_key(wanted)
        return
    made = beside.run("key.create", account=_account(beside), name=f"{chosen.name} on {platform.node()}"[:60])
    wanted.say(f"The key {made['id']} of {made['account']} was made for it.\n")
    try:
        yield address, made["key"]
    except BaseException:
        if not _is_in_use(chosen, made["id"]):
            beside.run("key.revoke", id=made["id"])
            click.echo(f"The key {made['id']} was not used, and is revoked again.", err=True)
        raise


def _beside(url: str | None, key: str | None, data: Path | None, config: Path | None, wanted: Wanted) -> Reach | None:
    """The server that runs on this machine's data folder, None where none does or none is needed."""
    from lumeproxy.dashboard.socketpath import SOCKET_NAME

    if url is not None and (key is not None or not is_near(_host(url))):
        return None
    folder = data_folder(inherited("data", data), inherited("config", config), os.environ)
    if not os.path.lexists(folder / SOCKET_NAME):
        return None
    reach = Reach(data, config, wanted.as_json)
    return reach if reach.server_url() is not None else None


def _reachable(url: str | None) -> str | None:
    """The address of a server on this machine; one that listens on all addresses is reached by loopback."""
    return url and url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def _host(url: str) -> str:
    from urllib.parse import urlsplit

    return urlsplit(checked_url(url)[0]).hostname or ""


def _asked_key(wanted: Wanted) -> str:
    """The key from the keyboard, unseen. Raises Refused where nobody is there to type it."""
    try:
        with catch_warnings():
            # Without a terminal getpass warns and reads what comes, with the key on the screen.
            simplefilter("error", getpass.GetPassWarning)
            asked: str = click.prompt("API key", hide_input=True, err=wanted.as_json)
    except getpass.GetPassWarning:
        raise Refused(
            f"There is nobody to ask for the key: give it with --key, or put it into {KEY_VARIABLE}."
        ) from None
    _check_key(asked)
    return asked


def _check_key(key: str) -> None:
    if apikey.parse(key) is None:
        raise Refused(
            f"That is no key of a lumeproxy: one begins with {apikey.PREFIX} and has {apikey.LENGTH} characters. It was "
            "sent nowhere."
        )


def _account(beside: Reach) -> str:
    """Whose key it is to be where nobody says: the first account's, or the only one's."""
    names = [known["account"] for known in beside.run("account.list") if known["status"] == "active"]
    if OWN_ACCOUNT in names:
        return OWN_ACCOUNT
    if len(names) == 1:
        return str(names[0])
    hint = beside.hint("key create ACCOUNT")
    raise Refused(f"There are {len(names)} accounts here; make a key for one of them ({hint}) and give it with --key.")


def _keys_in(text: str | None) -> set[str]:
    """The ids of the keys in a file."""
    found = re.findall(rf"{apikey.PREFIX}[0-9A-Za-z]+_[0-9A-Za-z]+", text or "")
    return {key_id for key in found if (key_id := apikey.parse(key)) is not None}


def _is_in_use(chosen: Tool, key_id: str) -> bool:
    """Whether the settings that were written hold the key; then it stays valid although the rest failed."""
    machine = Machine(sys.platform, os.environ, Path.home(), Path.cwd())
    with contextlib.suppress(LumeError):
        for change in apply.plan_undo(chosen.name, machine.state).changes:
            if change.now is not None and f"lume_{key_id}_" in change.now:
                return True
    return False
