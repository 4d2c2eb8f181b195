"""Where the data lives, found out without loading the settings: commands start in a blink."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from lumeproxy.errors import ConfigError

CONFIG_NAME = "config.toml"


def data_folder(data: Path | None, config: Path | None, environ: Mapping[str, str]) -> Path:
    """The data folder: `--data`, LUMEPROXY_DATA, LUMEPROXY_SERVER__DATA, `server.data` of the configuration file named
    by `--config` or LUMEPROXY_CONFIG, else the platform's user data folder. Absolute.

    Raises ConfigError when the file can't be read.
    """
    for value in (data, environ.get("LUMEPROXY_DATA"), environ.get("LUMEPROXY_SERVER__DATA")):
        if value:
            return Path(value).expanduser().absolute()
    file = config or (Path(environ["LUMEPROXY_CONFIG"]) if environ.get("LUMEPROXY_CONFIG") else None)
    if file is not None:
        named = _data_of(file)
        if named is not None:
            return (file.parent / Path(named).expanduser()).absolute()
    return Path(platformdirs.user_data_path("lumeproxy", appauthor=False))


def _data_of(file: Path) -> str | None:
    try:
        server = tomllib.loads(file.read_text("utf-8")).get("server", {})
    except OSError as error:
        raise ConfigError(f"The configuration file {file} can't be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}.") from None
    data = server.get("data") if isinstance(server, dict) else None
    return data if isinstance(data, str) else None
