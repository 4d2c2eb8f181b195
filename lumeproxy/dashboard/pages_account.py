"""The account of whoever is signed in: password, sessions, all own data as a file, closing it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import msgspec
from aiohttp import web

from lumeproxy.dashboard import exports, tokens
from lumeproxy.dashboard.route import Access, Route
from lumeproxy.dashboard.tokens import SESSION_COOKIE
from lumeproxy.dashboard.visit import Visit
from lumeproxy.errors import RateLimited, Refused
from lumeproxy.store import accounts, actions, ledger, people, sessions
from lumeproxy.store.database import Tx
from lumeproxy.store.reports import Filter

PIECE_ENTRIES = 1000
MOST_ACTIONS = 10_000


async def show(visit: Visit) -> web.StreamResponse:
    """All of it on one page."""
    return await _page(visit)


async def set_password(visit: Visit) -> web.StreamResponse:
    """Set or change the password; an operator's not with an API key alone, and nobody's changed without the old one."""
    form, desk = visit.form, visit.desk
    try:
        if visit.me.is_admin and not visit.operates:
            raise Refused("An operator's password can't be set with an API key; sign in with a link.")
        await _check_password(visit, form.get("old", ""))
        if form.get("new") != form.get("again"):
            raise Refused("The two new passwords are not the same.")
        argon2id = await desk.passwords.make(form.get("new", ""), visit.me.name)
        await visit.run("account.password", name=visit.me.name, argon2id=argon2id, keep=_digest(visit))
    except (Refused, RateLimited) as error:
        return await _page(visit, error)
    return visit.to("/account", "password")


async def end_session(visit: Visit) -> web.StreamResponse:
    """Sign another browser out."""
    await visit.desk.database.write(sessions.end_by_handle, visit.me.account_id, visit.part("handle"))
    return visit.to("/account", "ended")


async def end_others(visit: Visit) -> web.StreamResponse:
    """Sign every other browser out."""
    assert visit.session is not None
    await visit.desk.database.write(sessions.end_all, visit.me.account_id, visit.session.sha256)
    return visit.to("/account", "ended-all")


async def export(visit: Visit) -> web.StreamResponse:
    """All data about the account as one JSON document."""
    me, now_ms = visit.me, visit.now_ms

    def about(tx: Tx) -> dict[str, Any]:
        account = accounts.get(tx, me.name)
        return {
            "account": {
                **{name: getattr(account, name) for name in ("name", "status", "reason", "created_ms")},
                **{name: getattr(account, name) for name in ("balance_nanousd", "held_nanousd")},
                **asdict(account.limits),
            },
            "role": me.role,
            "has_password": me.has_password,
            "terms": people.acceptances(tx, me.account_id),
            "sessions": [
                {
                    name: getattr(session, name)
                    for name in ("via", "created_ms", "seen_ms", "client_address", "user_agent")
                }
                for session in sessions.of_account(tx, me.account_id, now_ms)
            ],
            # Without who else did it, and without what operators note for themselves.
            "actions": [
                {**asdict(action), "actor": action.actor if action.actor == me.name else "operator"}
                for action in actions.find(tx, MOST_ACTIONS, None, me.account_id)
                if action.operation != "account.note"
            ],
        }

    found = await visit.read(about)
    found["keys"] = await visit.run("key.list", account=me.name)
    response = await exports.begin(visit, f"lumeproxy-{me.name}.json", "application/json")
    await response.write(msgspec.json.encode(found)[:-1] + b',\n"entries": ')
    await exports.write_list(response, _entries(visit))
    await response.write(b',\n"usage": ')
    await exports.write_list(response, exports.records(visit, Filter(account_id=me.account_id)))
    await response.write(b"}\n")
    await response.write_eof()
    return response


async def close(visit: Visit) -> web.StreamResponse:
    """Close the account for good; asks for its name, and the password where it has one."""
    try:
        if visit.form.get("name", "").strip().lower() != visit.me.name:
            raise Refused("Type the account's name to close it; nothing was changed.")
        if visit.me.is_admin:
            raise Refused("An operator's account can't be erased; make it a user's again first.")
        await _check_password(visit, visit.form.get("old", ""))
        await visit.run("account.erase", name=visit.me.name)
    except (Refused, RateLimited) as error:
        return await _page(visit, error)
    response = visit.to("/sign-in")
    tokens.drop(response, SESSION_COOKIE, secure=visit.desk.rules.secure)
    return response


# --- parts -------------------------------------------------------------------------------------------------------------


async def _page(visit: Visit, error: Refused | RateLimited | None = None) -> web.Response:
    account_id, now_ms = visit.me.account_id, visit.now_ms

    def gather(tx: Tx) -> dict[str, Any]:
        return {
            "person": people.get(tx, account_id),
            "sessions": sessions.of_account(tx, account_id, now_ms),
            "acceptances": people.acceptances(tx, account_id),
        }

    return visit.page(
        "account.html",
        status=200 if error is None else error.status,
        **await visit.read(gather),
        mine=_digest(visit)[: sessions.HANDLE_CHARS],
        least_chars=visit.desk.passwords.least_chars,
        problem="" if error is None else error.message,
    )


async def _check_password(visit: Visit, given: str) -> None:
    """The old password, where there is one. Wrong ones are counted by account."""
    counted = f"account {visit.me.name}"
    found = await visit.read(people.password, visit.me.name)
    if found is None:
        return
    if wait_s := visit.desk.guesses.wait_s(counted):
        raise RateLimited(f"Too many wrong tries; wait {wait_s} seconds, then try again.", retry_after_s=wait_s)
    if not await visit.desk.passwords.check(given, found[1]):
        visit.desk.guesses.failed(counted)
        raise Refused("That is not the password that is in force.")


async def _entries(visit: Visit) -> AsyncIterator[list[dict[str, Any]]]:
    before: int | None = None
    while True:
        found = await visit.read(ledger.entries, visit.me.name, PIECE_ENTRIES, before)
        if not found:
            return
        yield [asdict(entry) for entry in found]
        before = found[-1].id


def _digest(visit: Visit) -> str:
    assert visit.session is not None
    return visit.session.sha256.hex()


ROUTES = (
    Route("GET", "/account", Access.USER, show),
    Route("POST", "/account/password", Access.USER, set_password),
    Route("POST", "/account/sessions/{handle}/end", Access.USER, end_session),
    Route("POST", "/account/sessions/end", Access.USER, end_others),
    Route("GET", "/account/data.json", Access.USER, export),
    Route("POST", "/account/close", Access.USER, close),
)
