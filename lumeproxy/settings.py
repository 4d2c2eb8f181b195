"""Settings: one frozen tree from TOML and the environment, and the sentence for whoever got a field wrong.

Order: command line, `LUMEPROXY_SECTION__FIELD`, TOML file, default. Unknown keys are errors. The only module that
imports pydantic; the layers below get the values they need, not this tree. Money arrives as Decimal, never as float:
the TOML reader is told so.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from lumeproxy.binding import check_binding
from lumeproxy.errors import ConfigError
from lumeproxy.folder import ENV_PREFIX, anchored, config_file, configures, data_folder
from lumeproxy.sections import Dashboard, Notices, Retention

# pydantic's kinds of faults in plain words; anything else is told in its own.
PLAIN_WORDS = {
    "int_parsing": "it must be a whole number",
    "int_type": "it must be a whole number",
    "int_from_float": "it must be a whole number",
    "decimal_parsing": "it must be a number",
    "decimal_type": "it must be a number",
    "string_type": "it must be a text, in quotes",
    "tuple_type": "it must be a list, in brackets",
    "dict_type": "it must be a table",
    "model_type": "it must be a table",
    "model_attributes_type": "it must be a table",
    "literal_error": "it must be {expected}",
    "greater_than": "it must be above {gt}",
    "greater_than_equal": "it must be at least {ge}",
    "less_than_equal": "it must be at most {le}",
    "too_short": "it must not be empty",
    "string_too_short": "it must not be empty",
}

PositiveInt = Annotated[int, Field(gt=0)]
NotNegativeInt = Annotated[int, Field(ge=0)]
# "" in a file is the same as a setting that is left out, so that the example can be enabled line by line.
OptionalText = Annotated[str | None, BeforeValidator(lambda value: None if value == "" else value)]
OptionalPath = Annotated[Path | None, BeforeValidator(lambda value: None if value == "" else value)]
PositiveDecimal = Annotated[Decimal, Field(ge=0)]


class _OneOrMore:
    """Marks a list that may be given as its only element; "" is none."""


def _as_list(value: Any) -> Any:
    return ((value,) if value else ()) if isinstance(value, str | Path) else value


OneOrMore = (BeforeValidator(_as_list), _OneOrMore())


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Server(_Section):
    """Where the process listens and keeps its data."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8787
    data: Path = Path()
    trusted_proxies: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    tls_certificate: OptionalPath = None
    tls_key: OptionalPath = None
    drain_s: Annotated[int, Field(ge=0, le=3600)] = 25

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            ipaddress.ip_network(entry, strict=False)
        return value


class ModelPrice(_Section):
    """Dollars per million tokens of a model or pattern; `web_search` is dollars per 1,000 uses."""

    input: PositiveDecimal
    output: PositiveDecimal
    cache_read: PositiveDecimal | None = None
    cache_write_5m: PositiveDecimal | None = None
    cache_write_1h: PositiveDecimal | None = None
    web_search: PositiveDecimal | None = None


class Upstream(_Section):
    """A provider endpoint and its credentials, which come from exactly one of three places."""

    kind: Literal["anthropic", "openai", "echo"]
    base_url: str = ""
    api_key: Annotated[tuple[SecretStr, ...], *OneOrMore] = ()
    api_key_env: Annotated[tuple[str, ...], *OneOrMore] = ()
    api_key_file: Annotated[tuple[Path, ...], *OneOrMore] = ()
    auth: Literal["", "x-api-key", "bearer", "none"] = ""
    path_prefix: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~/-]*)?$")] = ""
    headers: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")], SecretStr] = {}
    dialects: tuple[Literal["anthropic_messages", "openai_responses", "openai_chat"], ...] = ()
    websocket: bool = False
    models: Annotated[tuple[str, ...], *OneOrMore] = ()
    concurrent_calls: NotNegativeInt = 0
    prices: dict[str, ModelPrice] = {}

    @field_validator("base_url")
    @classmethod
    def _url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/")

    @field_validator("headers")
    @classmethod
    def _one_line(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in value.items():
            if not secret.get_secret_value().isascii() or not secret.get_secret_value().isprintable():
                raise ValueError(f"the value of {name} must be one line of printable ASCII")
        return value


class RouteUpstream(_Section):
    """One upstream of a route: by its name alone, or with the model it is asked for and its share of the calls."""

    name: str
    model: OptionalText = None
    weight: PositiveInt | None = None


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class Route(_Section):
    """Which upstreams serve a model name or pattern: in the order in which they are tried, or by weight."""

    model: Annotated[str, Field(min_length=1)]
    upstreams: Annotated[tuple[Annotated[RouteUpstream, BeforeValidator(_named)], ...], Field(min_length=1)]
    upstream_model: OptionalText = None


class Billing(_Section):
    """How a call is held and charged."""

    multiplier: Annotated[Decimal, Field(ge=0, le=1000)] = Decimal(1)
    hold_output_tokens: PositiveInt = 4096
    hold_least_output_tokens: PositiveInt = 256
    drain_ms: Annotated[int, Field(ge=0, le=600_000)] = 15_000
    bound_input_tokens: PositiveInt = 32_768
    bound_referred_tokens: PositiveInt = 10_000_000
    bound_reasoning_tokens: PositiveInt = 131_072
    first_credit: Annotated[Decimal, Field(gt=0, le=1_000_000)] = Decimal(10)


class Failover(_Section):
    """When a call is tried elsewhere, and when an upstream is left alone."""

    attempts: PositiveInt = 3
    budget_ms: PositiveInt = 30_000
    brief_wait_ms: NotNegativeInt = 5_000
    slow_ms: NotNegativeInt = 0
    failures: PositiveInt = 5
    rest_ms: PositiveInt = 30_000
    longest_rest_ms: PositiveInt = 300_000
    set_aside_ms: PositiveInt = 600_000
    repeat_percent: Annotated[int, Field(ge=0, le=100)] = 20
    repeat_burst: NotNegativeInt = 200
    queue_ms: NotNegativeInt = 2_000
    queue_calls: NotNegativeInt = 64
    discover_s: PositiveInt = 3_600


class Limits(_Section):
    """Everything has a limit."""

    body_bytes: PositiveInt = 32 * 1024 * 1024
    body_idle_ms: PositiveInt = 30_000
    body_bytes_per_s: PositiveInt = 1_024
    head_ms: PositiveInt = 15_000
    header_bytes: PositiveInt = 32_768
    connect_ms: PositiveInt = 5_000
    first_byte_ms: PositiveInt = 600_000
    count_ms: PositiveInt = 30_000
    stream_idle_ms: PositiveInt = 300_000
    client_stall_ms: PositiveInt = 60_000
    call_ms: PositiveInt = 7_200_000
    failed_keys_per_minute: NotNegativeInt = 10
    key_calls_per_minute: NotNegativeInt = 0
    key_concurrent_calls: NotNegativeInt = 0
    account_calls_per_minute: NotNegativeInt = 0
    account_concurrent_calls: NotNegativeInt = 2_000
    address_calls_per_minute: NotNegativeInt = 0
    address_concurrent_calls: NotNegativeInt = 0
    event_bytes: PositiveInt = 131_072
    json_reply_bytes: PositiveInt = 32 * 1024 * 1024
    json_buffer_bytes: PositiveInt = 262_144
    send_buffer_bytes: PositiveInt = 65_536
    receive_buffer_bytes: PositiveInt = 131_072
    write_queue: PositiveInt = 4096
    admin_body_bytes: PositiveInt = 65_536
    checkpoint_ms: PositiveInt = 2_000
    probe_ms: PositiveInt = 10_000
    probe_bytes: PositiveInt = 8 * 1024 * 1024
    websocket_connect_ms: PositiveInt = 10_000
    websocket_message_bytes: PositiveInt = 32 * 1024 * 1024
    websocket_idle_ms: PositiveInt = 900_000
    websocket_open_ms: PositiveInt = 3_300_000
    websockets_per_account: NotNegativeInt = 200


class Log(_Section):
    """What is written to standard error; never content, never a key."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class Settings(BaseSettings):
    """The whole tree; frozen once loaded."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, env_nested_delimiter="__", case_sensitive=False
    )

    server: Server = Server()
    upstreams: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")], Upstream] = {}
    routes: tuple[Route, ...] = ()
    aliases: dict[str, str] = {}
    failover: Failover = Failover()
    prices: dict[str, ModelPrice] = {}
    billing: Billing = Billing()
    limits: Limits = Limits()
    dashboard: Dashboard = Dashboard()
    notices: Notices = Notices()
    retention: Retention = Retention()
    log: Log = Log()


def load(
    *,
    config: Path | None = None,
    data: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    environ: Mapping[str, str],
) -> Settings:
    """Read all sources into Settings with `server.data` resolved.

    `config` is the file named on the command line; without one, LUMEPROXY_CONFIG, else `config.toml` in the data
    folder where it exists. Raises ConfigError with one sentence that names the field and the mend.
    """
    folder = data_folder(data, config, environ)
    file = config_file(config, folder, environ)
    tree = anchored(_read_toml(file), file.parent.absolute()) if file is not None else {}
    _refuse_unknown_variables(environ)
    if not isinstance(tree.get("server", {}), dict):  # the data folder is put into it
        raise ConfigError(f"The setting server in {file} is wrong: {PLAIN_WORDS['dict_type']}.")
    try:
        settings = _build(tree, {"data": folder}, environ)
    except ValidationError as error:
        raise ConfigError(_sentence(error, file)) from None
    except ValueError as error:  # the environment source's own: a variable that is not JSON where it must be
        raise ConfigError(f"A LUMEPROXY_ variable can't be read: {error}") from None
    # Only now, so that a wrong value is told even where an option comes before it.
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = settings.model_copy(update={"server": settings.server.model_copy(update=given)})
    check_binding(settings.server)
    return settings


def _build(tree: dict[str, Any], server: dict[str, Any], environ: Mapping[str, str]) -> Settings:
    """Merge the three sources; the environment is the one passed in, so that tests need not change the process's."""

    class Sources(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings, _Environment(settings_cls, environ), _Toml(settings_cls, tree))

    return Sources(server=server)  # type: ignore[arg-type]


class _Environment(EnvSettingsSource):
    """The given variables instead of the process's own."""

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(settings_cls)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        # Case is folded as the base class would do; the prefix alone selects what is ours.
        return {k.lower(): v for k, v in self._environ.items() if k.upper().startswith(ENV_PREFIX)}

    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
        """A variable's JSON; the only element of a list may stand by itself."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            if not any(isinstance(mark, _OneOrMore) for mark in getattr(field, "metadata", ())):
                raise
            return value


class _Toml(PydanticBaseSettingsSource):
    """A parsed TOML document."""

    def __init__(self, settings_cls: type[BaseSettings], tree: dict[str, Any]) -> None:
        self._tree = tree
        super().__init__(settings_cls)

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """Unused: the whole document is given at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._tree


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"), parse_float=Decimal)
    except OSError as error:
        raise ConfigError(f"The configuration file {file} can't be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}.") from None


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    """A misspelt section would be ignored in silence; say it instead."""
    sections = {name.upper() for name in Settings.model_fields}
    for name in environ:
        if not configures(name):
            continue
        section = name.removeprefix(ENV_PREFIX).split("__")[0]
        if section not in sections:
            known = ", ".join(sorted(s.lower() for s in sections))
            raise ConfigError(f"The variable {name} names no section; sections are {known}.")


def _sentence(error: ValidationError, file: Path | None) -> str:
    """The first problem as one sentence with the field's dotted name."""
    first = error.errors(include_url=False, include_input=False)[0]
    field = _field(first["loc"])
    where = f" in {file}" if file is not None else ""
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] in PLAIN_WORDS:
        reason = PLAIN_WORDS[first["type"]].format_map(first.get("ctx", {}))
    if first["type"] == "string_pattern_mismatch":
        return f"The upstream name {first['loc'][1]!r}{where} is wrong: use up to 64 small letters, digits, - and _."
    if first["type"] == "extra_forbidden":
        return f"Unknown setting {field}{where}; see config.example.toml for all that exist."
    if first["type"] == "missing":
        return f"The setting {field}{where} is missing."
    return f"The setting {field}{where} is wrong: {reason[0].lower()}{reason[1:]}."


def _field(place: tuple[int | str, ...]) -> str:
    """A field's dotted name; routes have no names, so they are counted as a person does."""
    parts = [str(part) for part in place if part != "[key]"]
    if place[0] == "routes" and len(place) > 1:
        number = f"route {int(place[1]) + 1}"
        return f"{'.'.join(parts[2:])} of {number}" if parts[2:] else number
    return ".".join(parts)


def process_environment() -> Mapping[str, str]:
    """The process's variables, read once at the edge."""
    return dict(os.environ)
