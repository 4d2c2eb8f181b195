"""API keys of the one who is signed in: made, shown once, limited, replaced, revoked."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from lumeproxy.core.limits import PERIODS, day_of
from lumeproxy.core.money import NANOUSD_PER_USD, parse_usd
from lumeproxy.dashboard.route import Access, Route
from lumeproxy.dashboard.visit import Visit
from lumeproxy.errors import NotFound, Refused
from lumeproxy.store import keys, reports
from lumeproxy.store.database import Tx

DAY_MS = 86_400_000
EXPIRIES = {"": "never", "7": "in 7 days", "30": "in 30 days", "90": "in 90 days", "365": "in a year"}
OVERLAPS = {"0": "ends at once", "60": "works for another hour", "1440": "works for another day"}
MINUTE_MS = 60_000
RECENT_MS = 30 * DAY_MS  # for how long a key that has ended is still shown


async def show(visit: Visit) -> web.StreamResponse:
    """All keys, and the form for a new one."""
    return await _list(visit)


async def create(visit: Visit) -> web.StreamResponse:
    """Make a key and show it, this once."""
    form = visit.form
    try:
        if await _in_force(visit) >= visit.desk.rules.keys_of_account:
            most = visit.desk.rules.keys_of_account
            raise Refused(f"An account has at most {most} keys in force; revoke one that is not needed any more.")
        days = _choice(form.get("expires", ""), EXPIRIES)
        made = await visit.run(
            "key.create",
            account=visit.me.name,
            name=form.get("name", "").strip(),
            expires_ms=visit.now_ms + int(days) * DAY_MS if days else None,
            models=form.get("models", "").replace(",", " ").split(),
            **_budget(form),
        )
    except Refused as error:
        return await _list(visit, error.message, error.status)
    return visit.page("key_made.html", made=made, base_url=visit.base_url, replaces=None)


async def show_one(visit: Visit) -> web.StreamResponse:
    """A key with its limits and what can be done with it."""
    return await _one(visit, visit.part("id"))


async def limit(visit: Visit) -> web.StreamResponse:
    """Set a key's budget."""
    key = await _mine(visit, visit.part("id"))
    try:
        await visit.run("key.limit", id=key["id"], **_budget(visit.form))
    except Refused as error:
        return await _one(visit, key["id"], error.message, error.status)
    return visit.to(f"/keys/{key['id']}", "limited")


async def revoke(visit: Visit) -> web.StreamResponse:
    """End a key."""
    key = await _mine(visit, visit.part("id"))
    await visit.run("key.revoke", id=key["id"])
    return visit.to("/keys", "revoked")


async def rotate(visit: Visit) -> web.StreamResponse:
    """Replace a key by a new one of the same limits, shown this once."""
    key = await _mine(visit, visit.part("id"))
    try:
        overlap = _choice(visit.form.get("overlap", "0"), OVERLAPS)
        made = await visit.run("key.rotate", id=key["id"], overlap_ms=int(overlap) * MINUTE_MS)
    except Refused as error:
        return await _one(visit, key["id"], error.message, error.status)
    return visit.page("key_made.html", made=made, base_url=visit.base_url, replaces=key["id"])


# --- parts -------------------------------------------------------------------------------------------------------------


async def _in_force(visit: Visit) -> int:
    listed = await visit.run("key.list", account=visit.me.name)
    return sum(state(key, visit.now_ms) == "in force" for key in listed)


async def _list(visit: Visit, problem: str = "", status: int = 200) -> web.Response:
    now_ms = visit.now_ms
    listed = await visit.run("key.list", account=visit.me.name)
    shown = [key for key in reversed(listed) if now_ms - (_ended(key, now_ms) or now_ms) < RECENT_MS]

    def last_days(tx: Tx) -> dict[str, int | None]:
        return {key["id"]: reports.last_day_of_key(tx, key["id"]) for key in shown}

    return visit.page(
        "keys.html",
        status=status,
        keys=shown,
        last=await visit.read(last_days),
        today=day_of(now_ms),
        state=lambda key: state(key, now_ms),
        expiries=EXPIRIES,
        problem=problem,
        form=visit.form,
        name_chars=keys.NAME_CHARS,
    )


async def _one(visit: Visit, key_id: str, problem: str = "", status: int = 200) -> web.Response:
    key = await _mine(visit, key_id)
    return visit.page(
        "key.html",
        status=status,
        key=key,
        state=state(key, visit.now_ms),
        last=await visit.read(reports.last_day_of_key, key["id"]),
        today=day_of(visit.now_ms),
        budget={period: _dollars(key[f"budget_{period}_nanousd"]) for period in PERIODS},
        overlaps=OVERLAPS,
        problem=problem,
    )


async def _mine(visit: Visit, key_id: str) -> dict[str, Any]:
    """A key of whoever is signed in; anybody else's is not there for them."""
    for key in await visit.run("key.list", account=visit.me.name):
        if key["id"] == key_id:
            found: dict[str, Any] = key
            return found
    raise NotFound("You have no such key.")


def state(key: dict[str, Any], now_ms: int) -> str:
    """A key's state in a word or two."""
    if key["revoked_ms"] is not None:
        return "revoked" if key["revoked_ms"] <= now_ms else "being replaced"
    if key["expires_ms"] is not None and key["expires_ms"] <= now_ms:
        return "expired"
    return "in force"


def _ended(key: dict[str, Any], now_ms: int) -> int | None:
    ends = [at for at in (key["revoked_ms"], key["expires_ms"]) if at is not None and at <= now_ms]
    return min(ends, default=None)


def _choice(given: str, offered: dict[str, str]) -> str:
    if given not in offered:
        raise Refused("Choose one of what is offered.")
    return given


def _budget(form: dict[str, str]) -> dict[str, int | None]:
    """The budget's fields of a form: an empty one is no limit."""
    found: dict[str, int | None] = {}
    for period in PERIODS:
        text = form.get(f"budget_{period}", "").strip().removeprefix("$").replace(",", "")
        try:
            found[f"budget_{period}_nanousd"] = parse_usd(text) if text else None
        except ValueError as error:
            raise Refused(f"The budget of a {period} is wrong: {error}.") from None
    return found


def _dollars(nanousd: int | None) -> str:
    """An amount as it stands in a field of a form."""
    if nanousd is None:
        return ""
    whole, part = divmod(nanousd, NANOUSD_PER_USD)
    return f"{whole}.{part:09}".rstrip("0").rstrip(".")


ROUTES = (
    Route("GET", "/keys", Access.USER, show),
    Route("POST", "/keys", Access.USER, create),
    Route("GET", "/keys/{id}", Access.USER, show_one),
    Route("POST", "/keys/{id}/limit", Access.USER, limit),
    Route("POST", "/keys/{id}/revoke", Access.USER, revoke),
    Route("POST", "/keys/{id}/rotate", Access.USER, rotate),
)
