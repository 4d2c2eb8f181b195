"""What a person is told at the start: where the server is and what is in force, on the first run the key and how to use it,
and what deserves a warning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from lumeproxy import __version__
from lumeproxy.compose import Names, serves_claude, warn_unpriced
from lumeproxy.core.money import NANOUSD_PER_USD, format_usd
from lumeproxy.core.patterns import is_pattern
from lumeproxy.dashboard.operations import Operations
from lumeproxy.errors import LumeError
from lumeproxy.folder import closing_command, is_open_with_key
from lumeproxy.proxy.admission import Admission
from lumeproxy.settings import Settings
from lumeproxy.store import accounts, keys
from lumeproxy.store.database import FILE_NAME, Database
from lumeproxy.upstreams.base import Upstream

FIRST_ACCOUNT = "me"
SHOWN_UPSTREAMS = 5
Hint = Callable[[str], str]  # a command as the user would have to type it here


@dataclass(frozen=True, slots=True)
class Offer:
    """What the upstreams serve, in words; `to_claude_code`: another one than the echo answers Claude Code."""

    upstreams: tuple[str, ...]
    to_claude_code: bool


@dataclass(frozen=True, slots=True)
class Start:
    """What the greeting says."""

    base_url: str
    data: Path
    config: Path | None
    offer: Offer
    accounts: int
    keys: int
    first_key: str | None
    first_credit_nanousd: int


def greeting(start: Start, hint: Hint) -> str:
    """A start's text: address, data and what is in force; on the very first run the key and how to use it."""
    lines = [f"lumeproxy {__version__} serves on {start.base_url}", f"  data folder: {start.data}"]
    if start.config is not None:
        lines.append(f"  configuration: {start.config.absolute()}")
    shown = start.offer.upstreams[:SHOWN_UPSTREAMS]
    more = len(start.offer.upstreams) - len(shown)
    lines.append(f"  upstreams: {', '.join(shown)}{f' and {more} more' if more else ''}")
    if start.first_key is not None:
        lines += _first_run(start, start.first_key, hint)
    elif start.keys:
        lines.append(f"  {_count(start.accounts, 'account')}, {_count(start.keys, 'key')} in force")
    else:
        name = FIRST_ACCOUNT if start.accounts == 1 else "ACCOUNT"
        lines.append(f"  {_count(start.accounts, 'account')}, no key in force; make one: {hint(f'key create {name}')}")
    return "\n".join(lines)


def _first_run(start: Start, key: str, hint: Hint) -> list[str]:
    base, model = start.base_url, "" if start.offer.to_claude_code else " --model claude-echo"
    credit = format_usd(start.first_credit_nanousd).removesuffix(".00")
    return [
        f"  account '{FIRST_ACCOUNT}' was made with {credit} of credit. Its key, shown only now:",
        "",
        f"    {key}",
        "",
        "  Connect Claude Code:",
        "",
        f"    ANTHROPIC_BASE_URL={base} ANTHROPIC_AUTH_TOKEN={key} claude{model}",
        "",
        f"  Or for good, with a way back: {hint('setup claude-code')} (or codex, opencode).",
        "",
        "  For curl and other tools, as in the README:",
        "",
        f"    export LUME_KEY={key}",
        "",
        f"  Other clients: base URL {base} (Anthropic SDKs)",
        f"                       or {base}/v1 (OpenAI SDKs, Codex).",
        f"  What it costs: open {base} in a browser and sign in with the key.",
        "  The models claude-echo and gpt-echo answer without a provider, to try it out.",
    ]


async def greet(start: Start, say: Callable[[str], object], hint: Hint, log: FilteringBoundLogger) -> None:
    """Say the greeting. A server whose greeting can't be written serves all the same, but not on the first run: raises
    LumeError, for a key that nobody has seen is lost."""
    try:
        say(greeting(start, hint))
    except OSError as error:
        reason = error.strerror or "it is closed"
        if start.first_key is None:
            log.warning("greeting", note=f"can't be written to standard output: {reason}")
            return
        raise LumeError(
            f"The greeting with the key of the account '{FIRST_ACCOUNT}' can't be written to standard output ({reason}). "
            f"Make another key: {hint(f'key create {FIRST_ACCOUNT}')}"
        ) from None


def tell_stop(log: FilteringBoundLogger, running_calls: int, drain_s: int) -> None:
    """Say that the server stops, and what it waits for."""
    calls, them = _count(running_calls, "call"), "it" if running_calls == 1 else "them"
    note = f"waiting up to {drain_s} s for {calls}; again to cut {them}"
    log.info("stopping", running_calls=running_calls, **({"note": note} if running_calls else {}))


async def make_start(
    settings: Settings,
    base_url: str,
    config: Path | None,
    offer: Offer,
    database: Database,
    first_key: str | None,
    now_ms: int,
) -> Start:
    """What the greeting of a server says that has just begun."""
    return Start(
        base_url=base_url,
        data=settings.server.data,
        config=config,
        offer=offer,
        accounts=await database.read(accounts.count),
        keys=await database.read(keys.count_in_force, now_ms),
        first_key=first_key,
        first_credit_nanousd=_first_credit(settings),
    )


def _first_credit(settings: Settings) -> int:
    return int(settings.billing.first_credit * NANOUSD_PER_USD)


async def first_account(settings: Settings, database: Database, operations: Operations) -> str | None:
    """On an empty database, the first account with credit and a key; the key's text, else None."""
    if await database.read(accounts.count):
        return None
    return await operations.first(FIRST_ACCOUNT, _first_credit(settings))


def make_offer(admission: Admission, names: Names, upstreams: Mapping[str, Upstream], now_ms: int) -> Offer:
    """What each upstream serves: the number of models that GET /v1/models lists, or the patterns where none is known."""
    models: dict[str, set[str]] = {name: set() for name in upstreams}
    patterns: dict[str, list[str]] = {name: [] for name in upstreams}
    for route in admission.routing.routes:
        known = names.models(route.pattern) if is_pattern(route.pattern) else [route.pattern]
        listed = {name for name in known if admission.routing.find(name) is route and admission.is_priced(name, now_ms)}
        for name in route.upstreams:
            models[name] |= listed
            if not known:
                patterns[name].append(route.pattern)
    told = []
    for name in upstreams:
        count = [_count(len(models[name]), "model")] if models[name] or not patterns[name] else []
        told.append(f"{name} ({', '.join([*count, *patterns[name]])})")
    return Offer(tuple(told), serves_claude(upstreams))


def warn(
    log: FilteringBoundLogger, settings: Settings, admission: Admission, names: Names, config: Path | None, now_ms: int
) -> None:
    """One line each: a key that others can read, a data folder that they can enter, routes without a price."""
    if config is not None and is_open_with_key(config):
        log.warning("open_config", file=str(config), note=f"others can read its api_key: chmod 600 {config}")
    data = settings.server.data
    mend = closing_command(data, data / FILE_NAME)
    if mend is not None:
        log.warning("open_data", folder=str(data), note=f"others can get at the database: {mend}")
    warn_unpriced(log, settings, admission, names, now_ms)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
