"""One real call, to see that a call works: through the running server, or through one of our own where none runs.

It asks the built-in echo, which costs nothing anywhere. Through the running server it needs a key and credit: a key that
is made for it, good for that model only and revoked right after, of an account of its own, `lumeproxy-doctor`, which is
given a cent when it has none left. So no user's balance, limit or record is touched, and all of it stands in the books like
any call. Where no server runs, one is started on a free port of 127.0.0.1 with the same configuration and a fresh database
in a temporary folder; its books go with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from lumeproxy import logs
from lumeproxy.app import running
from lumeproxy.clock import Clock
from lumeproxy.core.money import NANOUSD_PER_USD, format_usd, parse_usd
from lumeproxy.dashboard.control import NotRunning, call
from lumeproxy.doctor.finding import Finding, Hint, failed, ok, warning
from lumeproxy.errors import LumeError, Missing, Refused
from lumeproxy.settings import Settings

ACCOUNT = "lumeproxy-doctor"
MODEL = "claude-echo"
PATH = "/v1/messages"
QUESTION = {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}
GRANT_NANOUSD = NANOUSD_PER_USD // 100
# A call holds less than a twentieth of a cent at the echo's price; both amounts grow with the operator's multiplier.
LEAST_NANOUSD = NANOUSD_PER_USD // 1000
KEY_MS = 120_000  # how long the key would live if it could not be revoked
START_S = 30  # for a server of our own to start; it takes a second
ANSWER_BYTES = 65_536
SAID_CHARS = 300
CHECK = "call"


class _Message(msgspec.Struct):
    message: str


class _Refusal(msgspec.Struct):
    error: _Message


@dataclass(frozen=True, slots=True)
class Way:
    """How to reach a server: `host` is the Host header that it answers to, None for its address's own; `certificate` the
    DER that it serves, None for http; `timeout_ms` for the whole answer."""

    base_url: str
    host: str | None
    certificate: bytes | None
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `charge` is what the call cost as the server says it, "" where it does not; `said` is the sentence
    of our own server's that refuses the call; `error` is a clause, "" for an answer."""

    status: int = 0
    charge: str = ""
    said: str = ""
    duration_ms: int = 0
    error: str = ""


async def ask(way: Way, key: str, clock: Clock) -> Reply:
    """Make the call. Never raises for what the server does."""
    pinned: aiohttp.Fingerprint | bool = True
    if way.certificate is not None:
        # By the file, not by a name: the address is this machine's own.
        pinned = aiohttp.Fingerprint(hashlib.sha256(way.certificate).digest())
    headers = {"authorization": f"Bearer {key}", **({"host": way.host} if way.host else {})}
    began_ms = clock.monotonic_ms()
    try:
        async with (
            asyncio.timeout(way.timeout_ms / 1000),
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session,
            session.post(
                way.base_url + PATH, json=QUESTION, headers=headers, ssl=pinned, allow_redirects=False
            ) as response,
        ):
            body = await response.content.read(ANSWER_BYTES)
            charge = response.headers.get("x-lume-charge", "")
            said = _said(body) if response.status != 200 else ""
            return Reply(response.status, charge, said, clock.monotonic_ms() - began_ms)
    except aiohttp.ServerFingerprintMismatch:
        return Reply(error="it serves another certificate than the file that is configured")
    except TimeoutError:
        return Reply(error=f"no answer within {way.timeout_ms / 1000:g} s")
    except (aiohttp.ClientError, OSError):
        return Reply(error="the connection failed")


def _said(body: bytes) -> str:
    """The sentence in an error's body, "" where there is none."""
    try:
        message = msgspec.json.decode(body, type=_Refusal).error.message
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    return message[:SAID_CHARS] if message.isprintable() else ""


async def through_running(folder: Path, way: Way, multiplier: int, clock: Clock, hint: Hint) -> Finding:
    """The call through the server that serves `folder`; `multiplier` is the operator's, rounded up and at least 1."""
    try:
        if not await _funded(folder, multiplier):
            text = f"No call was made: the account {ACCOUNT}, which pays for it, is not active."
            return warning(CHECK, text, hint(f"account resume {ACCOUNT}"))
        expires_ms = clock.now_ms() + KEY_MS
        given = {"account": ACCOUNT, "name": "one check", "expires_ms": expires_ms, "models": [MODEL]}
        made = await call(folder, "key.create", given)
        try:
            reply = await ask(way, made["key"], clock)
        finally:
            await call(folder, "key.revoke", {"id": made["id"]})
    except NotRunning:
        return warning(CHECK, "No call was made: the server has just stopped.", hint("doctor"))
    except LumeError as error:
        return failed(CHECK, f"No call could be made: {error.message}")
    return judged(reply, f"the server at {way.base_url}", f"paid by the account {ACCOUNT}")


async def _funded(folder: Path, multiplier: int) -> bool:
    """See to it that the account is there and has credit; whether it may call."""
    once: dict[str, Any] = {"idempotency_key": uuid.uuid4().hex}
    try:
        shown = await call(folder, "account.show", {"name": ACCOUNT})
    except Missing:
        given = {"name": ACCOUNT, "credit_nanousd": GRANT_NANOUSD * multiplier, **once}
        try:
            shown = await call(folder, "account.create", given)
        except Refused:  # by another doctor just now
            shown = await call(folder, "account.show", {"name": ACCOUNT})
    if shown["status"] != "active":
        return False
    if shown["available_nanousd"] < LEAST_NANOUSD * multiplier:
        given = {"account": ACCOUNT, "amount_nanousd": GRANT_NANOUSD * multiplier, "note": "for checks", **once}
        await call(folder, "credit.grant", given)
    return True


async def through_own(settings: Settings, environ: Mapping[str, str], way: Way, clock: Clock) -> Finding:
    """The call through a server of our own, with these settings but for where it listens and keeps its data. `way` is how,
    but for the address."""
    log = logs.make(level="error", style="json", clock=clock, stream=io.StringIO())
    with tempfile.TemporaryDirectory(prefix="lumeproxy-doctor-") as folder:
        place = {"data": Path(folder) / "data", "host": "127.0.0.1", "port": 0}
        moved = settings.model_copy(update={"server": settings.server.model_copy(update=place)})
        try:
            async with asyncio.timeout(START_S), running(moved, environ, clock, log) as server:
                assert server.first_key is not None
                reply = await ask(
                    Way(server.base_url, way.host, way.certificate, way.timeout_ms), server.first_key, clock
                )
        except LumeError as error:
            return failed(CHECK, f"A server with this configuration does not start: {error.message}")
        except TimeoutError:
            return failed(CHECK, f"A server with this configuration does not start within {START_S} s.")
    return judged(reply, "a server of its own with this configuration", "in books that are gone again")


def judged(reply: Reply, server: str, paid: str) -> Finding:
    """What the call's outcome means; `paid` says by whom or where."""
    if "certificate" in reply.error:
        return warning(CHECK, f"No call was made through {server}: {reply.error}.", "restart the server")
    if reply.error:
        return failed(CHECK, f"A call through {server} got no answer: {reply.error}.", "look at the server's log")
    if reply.status != 200:
        because = f": {reply.said}" if reply.said else "."
        text = f"A call of {MODEL} through {server} was answered {reply.status}{because}"
        return failed(CHECK, text, "look at the server's log")
    cost = format_usd(parse_usd(reply.charge or 0))
    return ok(CHECK, f"{MODEL} answered in {reply.duration_ms:,} ms through {server}; it cost {cost}, {paid}.")
