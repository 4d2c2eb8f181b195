"""Where the data and the configuration file lie, found out without loading the settings: commands start in a blink."""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from lumeproxy.errors import ConfigError

CONFIG_NAME = "config.toml"


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
    """The configuration file in force: the one named, else `config.toml` in the data folder where there is one."""
    file = _named_file(config, environ)
    if file is None and (folder / CONFIG_NAME).is_file():
        file = folder / CONFIG_NAME
    return file


def is_open_with_key(file: Path) -> bool:
    """Whether a configuration file holds an upstream's key itself and others than its owner can read it.

    Raises ConfigError when the file can't be read.
    """
    upstreams = _read(file).get("upstreams", {})
    tables = upstreams.values() if isinstance(upstreams, dict) else ()
    holds_key = any(isinstance(table, dict) and table.get("api_key") for table in tables)
    return holds_key and bool(file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


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
