"""Where the data and the configuration file lie, found out without loading the settings: commands start in a blink."""

from __future__ import annotations

import contextlib
import ipaddress
import shlex
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs

from lumeproxy.errors import ConfigError

CONFIG_NAME = "config.toml"
ENV_PREFIX = "LUMEPROXY_"
PLAIN_VARIABLES = frozenset({"LUMEPROXY_DATA", "LUMEPROXY_CONFIG"})  # read before any section exists
OTHERS = stat.S_IRWXG | stat.S_IRWXO
# What is written for a server that asks for no key.
NO_KEYS = frozenset({"none", "-"})


def data_folder(data: Path | None, config: Path | None, environ: Mapping[str, str]) -> Path:
    """The data folder: `--data`, LUMEPROXY_DATA, LUMEPROXY_SERVER__DATA, `server.data` of the configuration file named
    by `--config` or LUMEPROXY_CONFIG, else the platform's user data folder. Absolute.

    Raises ConfigError when the file can't be read or the folder's name means nothing.
    """
    for value in (data, environ.get("LUMEPROXY_DATA"), environ.get("LUMEPROXY_SERVER__DATA")):
        if value:
            return _expanded(Path(value)).absolute()
    file = _named_file(config, environ)
    named = None if file is None else _data_of(file)
    if file is not None and named:
        return (file.parent / _expanded(Path(named))).absolute()
    return Path(platformdirs.user_data_path("lumeproxy", appauthor=False)).absolute()


def config_file(config: Path | None, folder: Path, environ: Mapping[str, str]) -> Path | None:
    """The configuration file in force: the one named, else `config.toml` in the data folder where there is one.

    Raises ConfigError for a data folder that this user may not look into.
    """
    file = _named_file(config, environ)
    try:
        if file is None and (folder / CONFIG_NAME).is_file():
            file = folder / CONFIG_NAME
    except PermissionError:
        raise ConfigError(
            f"The data folder {folder} is closed to this user; run lumeproxy as its owner or choose another with --data."
        ) from None
    return file


def configures(variable: str) -> bool:
    """Whether a variable of that name is a setting, or meant to be one."""
    return variable.startswith(ENV_PREFIX) and variable not in PLAIN_VARIABLES


def is_open_with_key(file: Path) -> bool:
    """Whether a configuration file holds an upstream's key itself and others than its owner can read it.

    Raises ConfigError when the file can't be read.
    """
    upstreams = _read(file).get("upstreams", {})
    tables = upstreams.values() if isinstance(upstreams, dict) else ()
    holds_key = any(isinstance(table, dict) and _is_secret(table) for table in tables)
    return holds_key and bool(file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def _is_secret(upstream: dict[str, Any]) -> bool:
    """Whether an upstream's table holds a key that is worth something: not a stand-in, nor for this machine only."""
    key, host = upstream.get("api_key"), ""
    with contextlib.suppress(ValueError):
        host = urlsplit(str(upstream.get("base_url", ""))).hostname or ""
    return bool(key) and str(key).lower() not in NO_KEYS and not _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def closing_command(*paths: Path) -> str | None:
    """The command that keeps others out of folders and files that they can enter or read, None where none can."""
    commands = []
    for path in paths:
        with contextlib.suppress(OSError):
            if path.stat().st_mode & OTHERS:
                commands.append(f"chmod {700 if path.is_dir() else 600} {shlex.quote(str(path))}")
    return " && ".join(commands) or None


def _named_file(config: Path | None, environ: Mapping[str, str]) -> Path | None:
    return config or (Path(environ["LUMEPROXY_CONFIG"]) if environ.get("LUMEPROXY_CONFIG") else None)


def _data_of(file: Path) -> str | None:
    server = _read(file).get("server", {})
    data = server.get("data") if isinstance(server, dict) else None
    if data is not None and not isinstance(data, str):
        raise ConfigError(f"The setting server.data in {file} is wrong: it must be the path of a folder, in quotes.")
    return data


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"The configuration file {file} can't be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}.") from None


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ConfigError(f"The data folder {path} names a user that does not exist; write out its path.") from None


def anchored(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The document with the paths of files that it names taken from its own folder, wherever the process was started."""
    server, upstreams = tree.get("server"), tree.get("upstreams")
    others = tree.get("dashboard"), tree.get("notices")
    tables = [server, *others, *(upstreams.values() if isinstance(upstreams, dict) else ())]
    for table in tables:
        for name in ("tls_certificate", "tls_key", "api_key_file", "webhook_secret_file", "terms_file", "privacy_file"):
            given = table.get(name) if isinstance(table, dict) else None
            if isinstance(given, str) and given:
                table[name] = folder / Path(given).expanduser()
            elif isinstance(given, list):
                table[name] = [folder / Path(one).expanduser() if isinstance(one, str) else one for one in given]
    return tree
