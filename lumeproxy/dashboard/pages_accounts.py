"""The operator's pages of accounts: found, made, given credit, limited, suspended with a reason, resumed; what was done."""

from __future__ import annotations

import os
from typing import Any

from aiohttp import web

from lumeproxy.core.limits import day_of
from lumeproxy.core.money import parse_usd
from lumeproxy.dashboard.pages_keys import state
from lumeproxy.dashboard.route import Access, Route
from lumeproxy.dashboard.visit import Visit
from lumeproxy.errors import Refused
from lumeproxy.store import accounts, actions, ledger, people, reports
from lumeproxy.store.database import Tx

PAGE_ACCOUNTS = 50
PAGE_ACTIONS = 100
SHOWN_DAYS = 30
SHOWN_ENTRIES = 10
KEY_CHARS = 64


async def show(visit: Visit) -> web.StreamResponse:
    """Accounts by name, with what they have and spend."""
    return await _list(visit)


async def create(visit: Visit) -> web.StreamResponse:
    """Make an account; the form carries a mark of its own, so that a reload gives no second credit."""
    name = visit.form.get("name", "").strip()
    try:
        credit = _amount(visit.form.get("credit", ""), "The first credit") or 0
        mark = visit.form.get("mark", "")[:KEY_CHARS]
        made = await visit.run("account.create", name=name, credit_nanousd=credit, idempotency_key=f"page:{mark}")
    except Refused as error:
        return await _list(visit, error.message, error.status)
    return visit.to(f"/operator/accounts/{made['account']}", "created")


async def show_one(visit: Visit) -> web.StreamResponse:
    """An account with all that can be done to it."""
    return await _one(visit)


async def grant(visit: Visit) -> web.StreamResponse:
    """Give credit, once for each time that the form was shown."""
    try:
        amount = _amount(visit.form.get("amount", ""), "The amount")
        if amount is None:
            raise Refused("Say how much.")
        mark = visit.form.get("mark", "")[:KEY_CHARS]
        note = visit.form.get("note", "").strip()
        await visit.run(
            "credit.grant", account=visit.part("name"), amount_nanousd=amount, note=note, idempotency_key=f"page:{mark}"
        )
    except Refused as error:
        return await _one(visit, error)
    return visit.to(_path(visit), "granted")


async def limit(visit: Visit) -> web.StreamResponse:
    """Set how fast and how often at once an account may call."""
    try:
        limits = {name: _count(visit.form.get(name, "")) for name in ("calls_per_minute", "concurrent_calls")}
        await visit.run("account.limit", name=visit.part("name"), **limits)
    except Refused as error:
        return await _one(visit, error)
    return visit.to(_path(visit), "limited")


async def suspend(visit: Visit) -> web.StreamResponse:
    """Suspend an account, with a reason that its owner is told."""
    return await _changed(visit, "account.suspend", "suspended", reason=visit.form.get("reason", ""))


async def resume(visit: Visit) -> web.StreamResponse:
    """Let an account make calls again."""
    return await _changed(visit, "account.resume", "resumed")


async def note(visit: Visit) -> web.StreamResponse:
    """Keep a note that only operators see."""
    return await _changed(visit, "account.note", "noted", note=visit.form.get("note", ""))


async def end_sessions(visit: Visit) -> web.StreamResponse:
    """Sign an account out everywhere."""
    return await _changed(visit, "session.end", "ended-all")


async def link(visit: Visit) -> web.StreamResponse:
    """A link that signs the account in once; shown this once."""
    try:
        made = await visit.run("account.link", name=visit.part("name"))
    except Refused as error:
        return await _one(visit, error)
    path = "/" + made["url"].split("/", 3)[3] if "://" in made["url"] else made["url"]
    return visit.page(
        "account_link.html", name=made["account"], url=visit.base_url + path, expires_ms=made["expires_ms"]
    )


async def show_log(visit: Visit) -> web.StreamResponse:
    """What was done, by whom, newest first."""
    before = visit.asked("before")
    before_id = int(before) if before.isascii() and before.isdigit() and len(before) < 18 else None
    found = await visit.read(actions.find, PAGE_ACTIONS + 1, before_id, None)
    older = found[PAGE_ACTIONS - 1].id if len(found) > PAGE_ACTIONS else None
    return visit.page("log.html", actions=found[:PAGE_ACTIONS], older=older)


# --- parts -------------------------------------------------------------------------------------------------------------


async def _list(visit: Visit, problem: str = "", status: int = 200) -> web.Response:
    text, after = visit.asked("q")[:KEY_CHARS], visit.asked("after")[:KEY_CHARS]
    first_day = day_of(visit.now_ms) - SHOWN_DAYS + 1

    def gather(tx: Tx) -> dict[str, Any]:
        found = accounts.search(tx, text, PAGE_ACCOUNTS + 1, after)
        return {"found": found, "spent": reports.by_account(tx, [account.id for account in found], first_day)}

    gathered = await visit.read(gather)
    found = gathered["found"]
    return visit.page(
        "accounts.html",
        status=status,
        accounts=found[:PAGE_ACCOUNTS],
        spent=gathered["spent"],
        following=found[PAGE_ACCOUNTS - 1].name if len(found) > PAGE_ACCOUNTS else "",
        q=text,
        problem=problem,
        form=visit.form,
        mark=_mark(),
    )


async def _one(visit: Visit, error: Refused | None = None) -> web.Response:
    name = visit.part("name")
    first_day = day_of(visit.now_ms) - SHOWN_DAYS + 1

    def gather(tx: Tx) -> dict[str, Any]:
        account = accounts.get(tx, name)
        return {
            "account": account,
            "person": people.get(tx, account.id),
            "spent": reports.by_account(tx, [account.id], first_day)[account.id],
            "entries": [entry for entry in ledger.entries(tx, name, 200) if entry.kind != "charge"][:SHOWN_ENTRIES],
            "actions": actions.find(tx, SHOWN_ENTRIES, None, account.id),
        }

    found = await visit.read(gather)
    return visit.page(
        "account_of.html",
        status=200 if error is None else error.status,
        **found,
        keys=await visit.run("key.list", account=name),
        state=lambda key: state(key, visit.now_ms),
        problem="" if error is None else error.message,
        mark=_mark(),
    )


async def _changed(visit: Visit, operation: str, said: str, **given: Any) -> web.StreamResponse:
    try:
        await visit.run(operation, name=visit.part("name"), **given)
    except Refused as error:
        return await _one(visit, error)
    return visit.to(_path(visit), said)


def _path(visit: Visit) -> str:
    return f"/operator/accounts/{visit.part('name')}"


def _mark() -> str:
    """What makes a form's second sending the same as its first."""
    return os.urandom(12).hex()


def _amount(text: str, what: str) -> int | None:
    text = text.strip().removeprefix("$").replace(",", "")
    try:
        return parse_usd(text) if text else None
    except ValueError as error:
        raise Refused(f"{what} is wrong: {error}.") from None


def _count(text: str) -> int | None:
    text = text.strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Refused("A limit is a whole number; 0 for no limit, empty for what is usual here.")
    return int(text)


ROUTES = (
    Route("GET", "/operator/accounts", Access.OPERATOR, show),
    Route("POST", "/operator/accounts", Access.OPERATOR, create),
    Route("GET", "/operator/accounts/{name}", Access.OPERATOR, show_one),
    Route("POST", "/operator/accounts/{name}/grant", Access.OPERATOR, grant),
    Route("POST", "/operator/accounts/{name}/limit", Access.OPERATOR, limit),
    Route("POST", "/operator/accounts/{name}/suspend", Access.OPERATOR, suspend),
    Route("POST", "/operator/accounts/{name}/resume", Access.OPERATOR, resume),
    Route("POST", "/operator/accounts/{name}/note", Access.OPERATOR, note),
    Route("POST", "/operator/accounts/{name}/sessions", Access.OPERATOR, end_sessions),
    Route("POST", "/operator/accounts/{name}/link", Access.OPERATOR, link),
    Route("GET", "/operator/log", Access.OPERATOR, show_log),
)
