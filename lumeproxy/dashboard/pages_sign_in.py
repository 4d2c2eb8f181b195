"""Signing in and out: with an API key, a name and password, or a link that works once; registering; the terms."""

from __future__ import annotations

import hashlib
import os
import re

from aiohttp import web

from lumeproxy.core import apikey, redeem
from lumeproxy.core.limits import USUAL
from lumeproxy.dashboard import tokens
from lumeproxy.dashboard.route import Access, Route
from lumeproxy.dashboard.tokens import SESSION_COOKIE
from lumeproxy.dashboard.visit import Visit
from lumeproxy.errors import AccountSuspended, CallerError, NotFound, RateLimited, Refused, Unauthorized
from lumeproxy.store import keys, people, sessions
from lumeproxy.store.keys import StoredKey
from lumeproxy.store.people import Person
from lumeproxy.store.sessions import Session

AGENT_CHARS = 200
# Where a browser may be sent on to after signing in: a path of ours, never another host.
_OWN_PATH = re.compile(r"/(?:[A-Za-z0-9_.~-][A-Za-z0-9_.~/-]*)?(?:\?[A-Za-z0-9_.~=&%*/:-]*)?")
_WRONG = "The name and password do not belong together."
_WRONG_KEY = "This API key is not valid here: it is unknown, expired or revoked."
_LIMITED_KEY = (
    "A key with an end, model patterns, limits or a budget can't sign in, since it could make one without. Use "
    "another key, or ask your operator for a link."
)
_USED_LINK = "This link is used up or has expired. Ask your operator for a new one."


async def show_sign_in(visit: Visit) -> web.StreamResponse:
    """The forms to sign in by."""
    if visit.person is not None and visit.person.status == "active":
        return visit.to(own_path(visit.asked("next")))
    return visit.page("sign_in.html", next=own_path(visit.asked("next")), problem="", name="")


async def sign_in(visit: Visit) -> web.StreamResponse:
    """Check what was given; wrong tries are counted by address and by name."""
    name, password, key = (visit.form.get(field, "").strip() for field in ("name", "password", "key"))
    after = own_path(visit.form.get("next", ""))
    try:
        if key or password.startswith(apikey.PREFIX):
            stored = await _checked_key(visit, key or password)
            person = await visit.read(people.get, stored.account_id)
            return await _begin(visit, _active(person), "key", after, stored.id)
        person = await _checked_password(visit, name, visit.form.get("password", ""))
        return await _begin(visit, _active(person), "password", after)
    except CallerError as error:
        page = visit.page("sign_in.html", status=error.status, next=after, problem=error.message, name=name[:64])
        if error.retry_after_s is not None:
            page.headers["Retry-After"] = str(error.retry_after_s)
        return page


async def show_link(visit: Visit) -> web.StreamResponse:
    """Whom the link would sign in. To look uses nothing up: mail programs open links by themselves."""
    person = await visit.read(sessions.link, _digest(visit.asked("token")), visit.now_ms)
    if person is None:
        raise NotFound(_USED_LINK)
    return visit.page("link.html", name=person.name, secret=visit.asked("token"))


async def use_link(visit: Visit) -> web.StreamResponse:
    """Sign in by a link, once."""
    _wait(visit, visit.address)
    token = visit.form.get("link", "")
    person = await visit.desk.database.write(sessions.use_link, _digest(token), visit.now_ms)
    if person is None:
        visit.desk.guesses.failed(visit.address)
        raise NotFound(_USED_LINK)
    return await _begin(visit, _active(person), "link", "/")


async def sign_out(visit: Visit) -> web.StreamResponse:
    """End this browser's session."""
    assert visit.session is not None
    await visit.desk.database.write(sessions.end, visit.session.sha256)
    response = visit.to("/sign-in")
    tokens.drop(response, SESSION_COOKIE, secure=visit.desk.rules.secure)
    return response


async def show_terms(visit: Visit) -> web.StreamResponse:
    """The operator's terms."""
    return visit.page("text.html", title="Terms", text=visit.desk.texts.terms, terms_version=visit.desk.texts.version)


async def show_privacy(visit: Visit) -> web.StreamResponse:
    """What is kept about users."""
    return visit.page("text.html", title="Privacy", text=visit.desk.texts.privacy, terms_version="")


async def show_accept(visit: Visit) -> web.StreamResponse:
    """Ask for the terms' acceptance."""
    texts = visit.desk.texts
    if visit.me.accepted == texts.version:
        return visit.to("/")
    return visit.page(
        "accept.html", terms=texts.terms, terms_version=texts.version, before=visit.me.accepted, problem=""
    )


async def accept(visit: Visit) -> web.StreamResponse:
    """Keep that the terms were accepted, in the version that was shown."""
    texts = visit.desk.texts
    if visit.form.get("version") != texts.version or visit.form.get("accepted") != "yes":
        return visit.page(
            "accept.html",
            status=400,
            terms=texts.terms,
            terms_version=texts.version,
            before=visit.me.accepted,
            problem="Tick the box if you agree; without that, the pages stay closed.",
        )
    await visit.run("terms.accept", name=visit.me.name, version=texts.version)
    return visit.to("/")


async def show_register(visit: Visit) -> web.StreamResponse:
    """The form to register by, where the operator lets people."""
    _may_register(visit)
    return _register_page(visit, "")


async def register(visit: Visit) -> web.StreamResponse:
    """Make an account by its owner's own hand."""
    _may_register(visit)
    form, desk = visit.form, visit.desk
    name = form.get("name", "").strip().lower()
    invite = desk.rules.registration == "invite"
    try:
        if form.get("accepted") != "yes" or form.get("version") != desk.texts.version:
            raise Refused("Read the terms, and tick the box if you agree.")
        if form.get("password") != form.get("again"):
            raise Refused("The two passwords are not the same.")
        _wait(visit, visit.address)
        if wait_s := desk.registrations.wait_s(visit.address):
            raise RateLimited("Too many accounts were made from this address; please wait.", retry_after_s=wait_s)
        argon2id = await desk.passwords.make(form.get("password", ""), name)
        code = redeem.digest(form.get("code", "")).hex() if invite else ""
        desk.registrations.failed(visit.address)
        await visit.run("account.register", name=name, argon2id=argon2id, version=desk.texts.version, sha256=code)
    except (Refused, RateLimited) as error:
        return _register_page(visit, error.message, error.status)
    return await _begin(visit, await visit.read(people.of, name), "password", "/")


# --- parts -------------------------------------------------------------------------------------------------------------


def own_path(path: str) -> str:
    """The path if it is one of ours, else the first page."""
    return path if _OWN_PATH.fullmatch(path) and not path.startswith("/sign-") else "/"


async def _checked_key(visit: Visit, text: str) -> StoredKey:
    _wait(visit, visit.address)
    key_id = apikey.parse(text)
    key = await visit.read(keys.find, key_id) if key_id is not None else None
    ends = [] if key is None else [at for at in (key.revoked_ms, key.expires_ms) if at is not None]
    if key is None or not apikey.verify(text, key.sha256) or any(at <= visit.now_ms for at in ends):
        visit.desk.guesses.failed(visit.address)
        raise Unauthorized(_WRONG_KEY)
    if key.has_end or key.models or key.budget or key.limits != USUAL:
        raise Unauthorized(_LIMITED_KEY)
    return key


async def _checked_password(visit: Visit, name: str, password: str) -> Person:
    by_name = f"account {name.lower()[:64]}"
    _wait(visit, visit.address)
    _wait(visit, by_name)
    found = await visit.read(people.password, name)
    if not await visit.desk.passwords.check(password, None if found is None else found[1]) or found is None:
        for counted in (visit.address, by_name):
            if visit.desk.guesses.failed(counted):
                visit.desk.log.warning("guessing", address=visit.address)
        raise Unauthorized(_WRONG)
    return await visit.read(people.get, found[0])


def _wait(visit: Visit, counted: str) -> None:
    wait_s = visit.desk.guesses.wait_s(counted)
    if wait_s:
        raise RateLimited(f"Too many wrong tries; wait {wait_s} seconds, then try again.", retry_after_s=wait_s)


def _active(person: Person) -> Person:
    if person.status != "active":
        reason = f": {person.reason}" if person.reason else "."
        raise AccountSuspended(f"This account is {person.status}{reason}")
    return person


async def _begin(visit: Visit, person: Person, via: str, path: str, key_id: str | None = None) -> web.Response:
    """Sign in: a new token, whatever the browser had before."""
    rules, now_ms = visit.desk.rules, visit.now_ms
    token = os.urandom(tokens.TOKEN_BYTES).hex()
    agent = "".join(char for char in visit.request.headers.get("User-Agent", "") if char.isprintable())[:AGENT_CHARS]
    session = Session(
        tokens.digest(token), person.account_id, via, now_ms, now_ms, now_ms + rules.session_ms, visit.address, agent
    )
    await visit.desk.database.write(sessions.begin, session, key_id)
    response = visit.to(path)
    tokens.put(response, SESSION_COOKIE, token, secure=rules.secure, seconds=rules.session_ms // 1000)
    return response


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def _may_register(visit: Visit) -> None:
    if visit.desk.rules.registration == "closed":
        raise NotFound("Accounts are made by the operator here.")


def _register_page(visit: Visit, problem: str, status: int = 200) -> web.Response:
    return visit.page(
        "register.html",
        status=status,
        problem=problem,
        invite=visit.desk.rules.registration == "invite",
        name=visit.form.get("name", "")[:64],
        least_chars=visit.desk.passwords.least_chars,
        terms_version=visit.desk.texts.version,
    )


ROUTES = (
    Route("GET", "/sign-in", Access.OPEN, show_sign_in),
    Route("POST", "/sign-in", Access.OPEN, sign_in),
    Route("GET", "/sign-in/link", Access.OPEN, show_link),
    Route("POST", "/sign-in/link", Access.OPEN, use_link),
    Route("POST", "/sign-out", Access.SIGNED_IN, sign_out),
    Route("GET", "/terms", Access.OPEN, show_terms),
    Route("GET", "/privacy", Access.OPEN, show_privacy),
    Route("GET", "/accept", Access.SIGNED_IN, show_accept),
    Route("POST", "/accept", Access.SIGNED_IN, accept),
    Route("GET", "/register", Access.OPEN, show_register),
    Route("POST", "/register", Access.OPEN, register),
)
