"""What the files of users' tools say of where they go and with which key. Pure: bytes and variables in, findings out.

Reads only, and takes what it finds: a file that is broken is told, not raised. Files and their order as measured on Claude
Code 2.1, Codex 0.169 and opencode 1.18 (2026-11). Knows no server and no database: whether a tool points to this proxy, and
whether its key is in force, is for whoever asks. Credentials are in `Seen.key` only, which no text here repeats.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lumeproxy.clients.claude_code import SWITCHES, is_on
from lumeproxy.clients.codex import PROFILE
from lumeproxy.clients.jsonc import plain
from lumeproxy.core.apikey import PREFIX

CLAUDE_CODE, CODEX, OPENCODE = "claude-code", "codex", "opencode"
# Claude Code's settings that come from whoever manages the machine; nothing beats them.
MANAGED = (
    Path("/Library/Application Support/ClaudeCode/managed-settings.json")
    if sys.platform == "darwin"
    else Path("/etc/claude-code/managed-settings.json")
)
Files = Mapping[Path, bytes]


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What stands in the way of a tool that points here. `stops`: no call arrives, or none is let in."""

    text: str
    mend: str
    stops: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """A tool as its files and variables have it, in one of its ways of being started.

    `command` is its word for `lumeproxy setup`, `name` as people call it. `base_url` is "" where it goes to its own
    provider; `where` says which file or variable that comes from. `key` is what it sends, None where that can't be known;
    `key_where` as `where`. `chosen`: all of the tool's calls go there, not only those of a model that is picked. `broken`:
    what is wrong with a file, so that nothing else is known.
    """

    command: str
    name: str
    where: str = ""
    base_url: str = ""
    key: str | None = field(default=None, repr=False)
    key_where: str = ""
    chosen: bool = True
    obstacles: tuple[Obstacle, ...] = ()
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Around:
    """Where a person is: home, current folder, variables."""

    home: Path
    here: Path
    environ: Mapping[str, str]


def files(around: Around) -> tuple[Path, ...]:
    """The files that `seen` wants the bytes of, where they exist."""
    return (*_claude_files(around), *_codex_files(around), *_opencode_files(around))


def seen(contents: Files, around: Around) -> list[Seen]:
    """All tools that are there: one entry for each of their ways. `contents` holds the files that could be read."""
    return [*_claude(contents, around), *_codex(contents, around), *_opencode(contents, around)]


# --- Claude Code -------------------------------------------------------------------------------------------------------


def _claude_files(around: Around) -> tuple[Path, ...]:
    """The weakest first."""
    own = Path(around.environ.get("CLAUDE_CONFIG_DIR") or around.home / ".claude")
    project = around.here / ".claude"
    places = (own / "settings.json", project / "settings.json", project / "settings.local.json", MANAGED)
    return tuple(dict.fromkeys(places))


def _claude(contents: Files, around: Around) -> list[Seen]:
    # A variable of the settings beats the shell's.
    variables = {name: (value, "the environment") for name, value in around.environ.items()}
    obstacles: list[Obstacle] = []
    helper = ""
    there = False
    for file in _claude_files(around):
        if file not in contents:
            continue
        there = True
        tree, fault = _table(contents[file], json.loads)
        if fault:
            obstacles.append(Obstacle(f"{file} is no JSON, so that Claude Code ignores it", f"mend {file}", False))
        env = tree.get("env")
        if isinstance(env, dict):
            variables |= {name: (value, str(file)) for name, value in env.items() if isinstance(value, str)}
        helper = str(file) if tree.get("apiKeyHelper") else helper
    base_url, where = variables.get("ANTHROPIC_BASE_URL", ("", ""))
    found = Seen(CLAUDE_CODE, "Claude Code", where, base_url)
    if not base_url:
        return [found] if there else []
    for name in SWITCHES:
        value, place = variables.get(name, ("", ""))
        if is_on(value):
            obstacles.append(Obstacle(f"{name} in {place} sends it past the proxy", _unset(name, place), True))
    key, key_where = _claude_key(variables, obstacles)
    if helper and not (key or "").startswith(PREFIX):
        # Its key goes beside a token, in the other header (measured), so that a token of ours counts all the same.
        key, key_where = None, helper
        told = f"apiKeyHelper in {helper} makes the key, which can't be looked at without running it"
        obstacles.append(Obstacle(told, "", False))
    return [replace(found, key=key, key_where=key_where, obstacles=tuple(obstacles))]


def _claude_key(variables: Mapping[str, tuple[str, str]], obstacles: list[Obstacle]) -> tuple[str | None, str]:
    """What it sends that counts here: of two credentials, the proxy takes the one that is its own."""
    names = ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY")
    given = [(name, *variables[name]) for name in names if variables.get(name, ("", ""))[0]]
    ours = [one for one in given if one[1].startswith(PREFIX)]
    for name, value, place in given:
        if name == "ANTHROPIC_API_KEY" and ours and not value.startswith(PREFIX):
            told = f"{name} in {place} is another key, which Claude Code asks about and sends along"
            obstacles.append(Obstacle(told, _unset(name, place), False))
    for name, value, place in [*ours, *given]:
        return value, f"{name} in {place}"
    return None, ""


def _unset(name: str, place: str) -> str:
    return f"unset {name}" if place == "the environment" else f"remove {name} from {place}"


# --- Codex -------------------------------------------------------------------------------------------------------------


def _codex_files(around: Around) -> tuple[Path, Path]:
    folder = Path(around.environ.get("CODEX_HOME") or around.home / ".codex")
    return folder / "config.toml", folder / f"{PROFILE}.config.toml"


def _codex(contents: Files, around: Around) -> list[Seen]:
    """Codex as it starts by itself, and with `-p lume`, whose file lies over the other."""
    own, profile = _codex_files(around)
    trees: list[tuple[Path, dict[str, Any]]] = []
    found = []
    for file, name in ((own, "Codex"), (profile, f"Codex with -p {PROFILE}")):
        if file not in contents:
            continue
        tree, fault = _table(contents[file], lambda data: tomllib.loads(data.decode()))
        if fault:
            broken = f"{file} is not valid TOML, with which Codex does not start"
            found.append(Seen(CODEX, name, str(file), broken=broken))
            continue
        trees.append((file, tree))
        found.append(_codex_way(Seen(CODEX, name), trees, around))
    if len(found) > 1 and not (found[0].base_url or found[0].broken):
        return found[1:]  # by itself it goes to its provider, as is meant
    return found


def _codex_way(found: Seen, trees: list[tuple[Path, dict[str, Any]]], around: Around) -> Seen:
    def last(name: str) -> tuple[Any, str]:
        return next(((tree[name], str(file)) for file, tree in reversed(trees) if name in tree), (None, ""))

    obstacles = []
    profiles = trees[0][1].get("profiles")
    if len(trees) > 1 and isinstance(profiles, dict) and PROFILE in profiles:
        told = f"[profiles.{PROFILE}] in {trees[0][0]} makes -p {PROFILE} an error"
        obstacles.append(Obstacle(told, f"remove [profiles.{PROFILE}] from {trees[0][0]}", True))
    provider, where = last("model_provider")
    if provider in (None, "openai"):
        base_url, where = last("openai_base_url")
        if base_url:
            told = "openai_base_url brings along the login to OpenAI; a provider of its own does not"
            obstacles.append(Obstacle(told, f"remove openai_base_url from {where}", False))
        return replace(
            found, base_url=str(base_url or ""), where=where, key_where="auth.json", obstacles=tuple(obstacles)
        )
    table: dict[str, Any] = {}
    for _, tree in trees:  # the stronger one field by field
        known = tree.get("model_providers")
        given = known.get(str(provider)) if isinstance(known, dict) else None
        table |= given if isinstance(given, dict) else {}
    if not table:
        return replace(
            found, where=where, broken=f"model_provider in {where} names {provider!r}, which it does not have"
        )
    found = replace(found, base_url=str(table.get("base_url", "")), where=where)
    if table.get("wire_api", "responses") != "responses":
        obstacles.append(
            Obstacle(
                f'wire_api in {where} is not "responses", which Codex refuses',
                f'set wire_api = "responses" in {where}',
                True,
            )
        )
    obstacles += _versioned(found)
    return _codex_key(replace(found, obstacles=tuple(obstacles)), table, around)


def _codex_key(found: Seen, table: dict[str, Any], around: Around) -> Seen:
    variable, bearer = table.get("env_key"), table.get("experimental_bearer_token")
    if isinstance(bearer, str) and bearer:
        return replace(found, key=bearer, key_where=f"experimental_bearer_token in {found.where}")
    if isinstance(variable, str) and variable:
        return _from_variable(found, variable, around)
    if table.get("auth"):
        told = f"a command in {found.where} makes the key, which can't be looked at without running it"
        return replace(found, obstacles=(*found.obstacles, Obstacle(told, "", False)))
    return found


def _from_variable(found: Seen, variable: str, around: Around) -> Seen:
    """With the key that a variable holds; in another shell it may be set."""
    value = around.environ.get(variable)
    if value:
        return replace(found, key=value, key_where=f"{variable} in the environment")
    told = f"its key is to come from {variable}, which is not set in this shell"
    missing = Obstacle(told, f"export {variable}={PREFIX}…", False)
    return replace(found, obstacles=(*found.obstacles, missing))


def _versioned(found: Seen) -> list[Obstacle]:
    """OpenAI's clients append their paths to a base URL that must hold the version."""
    if not found.base_url or found.base_url.rstrip("/").endswith("/v1"):
        return []
    wanted = found.base_url.rstrip("/") + "/v1"
    return [
        Obstacle(
            "its base URL lacks /v1, so that every call is answered 404", f"set it to {wanted} in {found.where}", True
        )
    ]


# --- opencode ----------------------------------------------------------------------------------------------------------


def _opencode_files(around: Around) -> tuple[Path, ...]:
    """The weakest first."""
    config = Path(around.environ.get("XDG_CONFIG_HOME") or around.home / ".config") / "opencode"
    places = [config / "opencode.json", config / "opencode.jsonc"]
    if named := around.environ.get("OPENCODE_CONFIG"):
        places.append(Path(named))
    places += [around.here / "opencode.json", around.here / "opencode.jsonc"]
    return tuple(dict.fromkeys(places))


def _opencode(contents: Files, around: Around) -> list[Seen]:
    found: dict[str, Seen] = {}
    there = False
    for file in _opencode_files(around):
        if file not in contents:
            continue
        there = True
        tree, fault = _table(contents[file], lambda data: json.loads(plain(data.decode())))
        if fault:
            return [
                Seen(OPENCODE, "opencode", str(file), broken=f"{file} is no JSON, with which opencode does not start")
            ]
        providers = tree.get("provider")
        for name, provider in providers.items() if isinstance(providers, dict) else ():
            options = provider.get("options") if isinstance(provider, dict) else None
            if isinstance(options, dict) and isinstance(options.get("baseURL"), str) and options["baseURL"]:
                found[name] = _opencode_way(name, options, file, around)
    return list(found.values()) or ([Seen(OPENCODE, "opencode")] if there else [])


def _opencode_way(name: str, options: dict[str, Any], file: Path, around: Around) -> Seen:
    found = Seen(OPENCODE, f"opencode's provider {name}", str(file), options["baseURL"], chosen=False)
    found = replace(found, obstacles=tuple(_versioned(found)))
    given = options.get("apiKey")
    if not isinstance(given, str) or not given:
        return found
    if given.startswith("{env:") and given.endswith("}"):
        return _from_variable(found, given[5:-1], around)
    if given.startswith("{file:"):
        told = f"its key comes from a file that {file} names, which is not looked at"
        return replace(found, obstacles=(*found.obstacles, Obstacle(told, "", False)))
    return replace(found, key=given, key_where=f"apiKey in {file}")


def _table(data: bytes, read: Callable[[bytes], Any]) -> tuple[dict[str, Any], bool]:
    """A document that is a table, and whether it is none."""
    try:
        tree = read(data)
    except (ValueError, RecursionError):  # also what is no TOML, no JSON, no UTF-8
        return {}, True
    return (tree, False) if isinstance(tree, dict) else ({}, True)
