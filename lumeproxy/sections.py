"""Sections of the settings that belong to the pages, notices and retention; `settings` puts them into the tree.

Part of the settings layer: only these two modules know pydantic. Money arrives as Decimal, never as float.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator

from lumeproxy.errors import ConfigError

# "" in a file is the same as a setting that is left out.
OptionalText = Annotated[str | None, BeforeValidator(lambda value: None if value == "" else value)]
OptionalPath = Annotated[Path | None, BeforeValidator(lambda value: None if value == "" else value)]
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(lambda value: None if value == "" else value)]
Days = Annotated[int, Field(ge=0, le=36_500)]

SECRET_PREFIX = "whsec_"
SECRET_BYTES = range(24, 65)  # as Standard Webhooks recommends


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Notices(_Section):
    """Who is told of a low balance, and below which one."""

    low_balance: Annotated[Decimal, Field(ge=0, le=1_000_000)] = Decimal(0)
    webhook_url: OptionalText = None
    webhook_secret: OptionalSecret = None
    webhook_secret_env: OptionalText = None
    webhook_secret_file: OptionalPath = None
    timeout_ms: Annotated[int, Field(gt=0, le=60_000)] = 10_000
    give_up_h: Annotated[int, Field(gt=0, le=24 * 30)] = 72

    @field_validator("webhook_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value


class Retention(_Section):
    """What is kept how long."""

    address_days: Days = 30
    usage_days: Days = 400
    answer_days: Annotated[int, Field(ge=1, le=36_500)] = 7


class Dashboard(_Section):
    """The web pages: who may make an account there, how long one stays signed in, and the operator's own texts."""

    registration: Literal["closed", "invite", "open"] = "closed"
    registrations_per_minute: Annotated[int, Field(ge=0)] = 3
    session_hours: Annotated[int, Field(gt=0, le=8760)] = 720
    password_chars: Annotated[int, Field(ge=8, le=64)] = 10
    keys_of_account: Annotated[int, Field(gt=0)] = 50
    streams_of_account: Annotated[int, Field(gt=0)] = 4
    terms_file: OptionalPath = None
    privacy_file: OptionalPath = None
    terms_version: Annotated[str, Field(min_length=1, max_length=64)] = "1"
    terms_required: bool = False


def webhook_secret(notices: Notices, environ: Mapping[str, str]) -> bytes:
    """The key that notices are signed with. Raises ConfigError when there is none, more than one, or it can't be used; the
    sentence never holds the value."""
    fields = ("webhook_secret", "webhook_secret_env", "webhook_secret_file")
    given = [field for field in fields if getattr(notices, field) is not None]
    if len(given) != 1:
        told = "none" if not given else " and ".join(given)
        raise ConfigError(f"notices.webhook_url needs exactly one of {', '.join(fields)}; it has {told}.")
    if notices.webhook_secret is not None:
        text = notices.webhook_secret.get_secret_value()
    elif notices.webhook_secret_env is not None:
        text = environ.get(notices.webhook_secret_env, "")
        if not text:
            raise ConfigError(f"notices.webhook_secret_env names {notices.webhook_secret_env}, which is not set.")
    else:
        assert notices.webhook_secret_file is not None
        try:
            text = notices.webhook_secret_file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ConfigError(
                f"notices.webhook_secret_file: {notices.webhook_secret_file} can't be read: {reason}."
            ) from None
    try:
        secret = base64.b64decode(text.strip().removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) not in SECRET_BYTES or not text.strip().startswith(SECRET_PREFIX):
        raise ConfigError(
            f"The secret of notices.webhook_url is not {SECRET_PREFIX} and 24 to 64 bytes in base64; make one with: "
            'echo "whsec_$(openssl rand -base64 32)"'
        )
    return secret
