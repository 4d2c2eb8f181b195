"""Findings about the tools on this machine: whether they come here, and with a key that is in force. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from yarl import URL

from lumeproxy.clients.seen import Seen
from lumeproxy.core import apikey
from lumeproxy.doctor.finding import Finding, Hint, failed, ok, warning
from lumeproxy.store.keys import StoredKey

# Names under which a server on this machine is reached from it.
_HERE = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0", "::"})


@dataclass(frozen=True, slots=True)
class Home:
    """This proxy as tools see it: its addresses, the host names it answers to beyond those, and the keys in its database by
    id, None where it can't be read."""

    base_urls: tuple[str, ...]
    hosts: frozenset[str]
    keys: Mapping[str, StoredKey] | None
    now_ms: int


def tools(found: Sequence[Seen], home: Home, hint: Hint) -> list[Finding]:
    """One finding for each tool, and one for each thing that stands in its way."""
    findings: list[Finding] = []
    for command in dict.fromkeys(seen.command for seen in found):
        ways = [seen for seen in found if seen.command == command]
        here = [seen for seen in ways if seen.broken or _comes_here(seen, home)]
        for seen in here or ways:
            findings += _tool(seen, home, hint)
            if not (here or seen.chosen):
                break  # of providers to pick from, that none comes here is said once
    return findings


def _tool(seen: Seen, home: Home, hint: Hint) -> list[Finding]:
    check, setup = f"tool:{seen.command}", hint(f"setup {seen.command}")
    if seen.broken:
        return [failed(check, f"{seen.broken}.", f"mend {seen.where}")]
    if not seen.base_url or not (seen.chosen or _comes_here(seen, home)):
        name = seen.name if seen.chosen else seen.command
        return [ok(check, f"{name} is there, and not set up for lumeproxy.", setup)]
    if not _comes_here(seen, home):
        text = f"{seen.name} goes to {_shown(seen.base_url)} ({seen.where}), this proxy is at {home.base_urls[0]}."
        return [warning(check, text, setup)]
    found = [_credential(check, seen, home, hint)]
    if _scheme(seen.base_url) not in {_scheme(url) for url in home.base_urls}:
        wanted = _scheme(home.base_urls[0])
        found.append(failed(check, f"{seen.name} speaks {_scheme(seen.base_url)} and the proxy {wanted}.", setup))
    for obstacle in seen.obstacles:
        make = failed if obstacle.stops else warning
        found.append(make(check, f"{seen.name}: {obstacle.text}.", obstacle.mend or None))
    return found


def _credential(check: str, seen: Seen, home: Home, hint: Hint) -> Finding:
    """Whether its key opens the door here."""
    setup = hint(f"setup {seen.command}")
    if seen.key is None:
        if seen.obstacles:
            return warning(check, f"{seen.name} comes here ({seen.where}); its key can't be looked at.")
        text = f"{seen.name} comes here ({seen.where}) without a key of this proxy, and may send its own login."
        return failed(check, text, setup)
    at_fault = f"{seen.name} comes here, but its key ({seen.key_where})"
    if not seen.key.startswith(apikey.PREFIX):
        return failed(check, f"{at_fault} is none of lumeproxy.", setup)
    key_id = apikey.parse(seen.key)
    if key_id is None:
        return failed(check, f"{at_fault} is not whole: a character is missing or wrong.", setup)
    if home.keys is None:
        return warning(check, f"{seen.name} comes here with key {key_id}, which can't be looked up now.")
    stored = home.keys.get(key_id)
    if stored is None or not apikey.verify(seen.key, stored.sha256):
        return failed(check, f"{at_fault}, {key_id}, is not in this database.", setup)
    ended = _ended(stored, home.now_ms)
    if ended:
        mend = hint(
            f"account show {stored.account_name}" if "account" in ended else f"key create {stored.account_name}"
        )
        return failed(check, f"{at_fault}, {key_id} of {stored.account_name}, {ended}.", mend)
    return ok(check, f"{seen.name} comes here ({seen.where}) with key {key_id} of {stored.account_name}.")


def _ended(key: StoredKey, now_ms: int) -> str:
    """Why a key opens nothing, "" for one that does."""
    if key.revoked_ms is not None and key.revoked_ms <= now_ms:
        return "is revoked"
    if key.expires_ms is not None and key.expires_ms <= now_ms:
        return "has expired"
    return "" if key.account_status == "active" else f"is of an account that is {key.account_status}"


def _comes_here(seen: Seen, home: Home) -> bool:
    place = _place(seen.base_url)
    if place is None:
        return False
    if place[0] in home.hosts or place in {_place(url) for url in home.base_urls}:
        return True
    # By another name, through a reverse proxy for one: a key of ours says so.
    key_id = apikey.parse(seen.key) if seen.key and home.keys else None
    stored = home.keys.get(key_id) if key_id and home.keys else None
    return place[0] not in _HERE and stored is not None and apikey.verify(seen.key or "", stored.sha256)


def _place(url: str) -> tuple[str, int | None] | None:
    """Host and port, all names of this machine as one; None for what is no address."""
    try:
        parsed = URL(url)
        host = (parsed.host or "").lower()
    except ValueError:
        return None
    return ("localhost" if host in _HERE else host, parsed.port) if host else None


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower()


def _shown(url: str) -> str:
    """An address without a user and a query, which may hold a secret."""
    try:
        return str(URL(url).origin())
    except ValueError:
        return "what is no address"
