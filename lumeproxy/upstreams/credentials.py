"""The operator's secrets of an upstream, read from where its settings say. Shows none of them, also not in an error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lumeproxy.errors import ConfigError
from lumeproxy.settings import Upstream

PLACES = ("api_key", "api_key_env", "api_key_file")
NO_AUTH = "none"


def credentials(name: str, upstream: Upstream, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The credentials of an upstream in their order, none where it takes none.

    Raises ConfigError when there is none, more than one place, one twice, or one that can't be read; the sentence never
    holds a value.
    """
    given = [field for field in PLACES if getattr(upstream, field)]
    if upstream.auth == NO_AUTH:
        if given:
            raise ConfigError(f'upstreams.{name} has auth = "none" and {given[0]} all the same; leave one out.')
        return ()
    if len(given) != 1:
        told = "none" if not given else " and ".join(given)
        raise ConfigError(
            f"upstreams.{name} needs exactly one of api_key, api_key_env and api_key_file; it has {told}."
        )
    if upstream.api_key:
        found = [secret.get_secret_value() for secret in upstream.api_key]
    elif upstream.api_key_env:
        found = [_of_variable(name, variable, environ) for variable in upstream.api_key_env]
    else:
        found = [_of_file(name, file) for file in upstream.api_key_file]
    values = tuple(value.strip() for value in found)
    for value in values:
        if not value or not value.isascii() or not value.isprintable():
            raise ConfigError(f"The credential of upstreams.{name} is empty or not one line of printable ASCII.")
    if len(set(values)) < len(values):
        raise ConfigError(f"upstreams.{name} names the same credential twice.")
    return values


def _of_variable(name: str, variable: str, environ: Mapping[str, str]) -> str:
    value = environ.get(variable, "")
    if not value:
        raise ConfigError(f"upstreams.{name}.api_key_env names {variable}, which is not set.")
    return value


def _of_file(name: str, file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"upstreams.{name}.api_key_file: {file} can't be read: {reason}.") from None
