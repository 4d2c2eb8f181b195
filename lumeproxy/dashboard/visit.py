"""One request to the pages: who asks, what they sent, and how they are answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, TypeVarTuple

from aiohttp import web
from structlog.typing import FilteringBoundLogger

from lumeproxy.clock import Clock
from lumeproxy.core.pricing import Price
from lumeproxy.dashboard import tokens
from lumeproxy.dashboard.operations import Operations
from lumeproxy.dashboard.passwords import Passwords
from lumeproxy.dashboard.recorded import Actor
from lumeproxy.dashboard.render import Renderer
from lumeproxy.dashboard.texts import Texts
from lumeproxy.store.database import Database, Tx
from lumeproxy.store.people import Person
from lumeproxy.store.sessions import Session

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# What a page may say after a form was carried out; named in the address, so that no text of a stranger is ever shown.
SAID = {
    "revoked": "The key is revoked. Its running calls end within a second.",
    "limited": "The limits are in force.",
    "redeemed": "The code was redeemed; its credit is yours.",
    "password": "The new password is in force. Every other browser was signed out.",
    "ended": "That session has ended.",
    "ended-all": "Every other browser was signed out.",
    "granted": "The credit was given.",
    "suspended": "The account is suspended. Its running calls end within a second.",
    "resumed": "The account may make calls again.",
    "noted": "The note is kept.",
    "withdrawn": "What was not redeemed of the batch can't be any more.",
    "created": "The account was made.",
    "disabled": "The upstream gets no more calls; those that run go on.",
    "enabled": "The upstream gets calls again.",
}


HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # `no-referrer` would have browsers send the origin "null" with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Throttle(Protocol):
    """Counts failures by a name, and says how long that name has to wait."""

    def wait_s(self, address: str) -> int:
        """Whole seconds to wait, 0 for none."""
        ...

    def failed(self, address: str) -> bool:
        """Count one; True when that blocks the name."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator set for the pages; `secure` for TLS here or in front."""

    secure: bool
    registration: str
    session_ms: int
    keys_of_account: int
    streams_of_account: int


@dataclass(frozen=True, slots=True)
class Priced:
    """A model, or a pattern of which none is known, where it is served, and its price; None: its calls are refused."""

    model: str
    upstreams: tuple[str, ...]
    price: Price | None


@dataclass(frozen=True, slots=True)
class House:
    """What the operator sees of the process: how many calls run, where the data is, what is served at which price."""

    running: Callable[[], int]
    folder: Path
    prices: Callable[[], list[Priced]]


@dataclass(frozen=True, slots=True)
class Desk:
    """What serves every page. `address` tells a client's address, `url` ours as the client wrote it; `waiting` counts
    the pages of each account that wait for a call, which `ending` ends."""

    database: Database
    operations: Operations
    clock: Clock
    log: FilteringBoundLogger
    renderer: Renderer
    passwords: Passwords
    texts: Texts
    guesses: Throttle
    registrations: Throttle
    rules: Rules
    address: Callable[[web.BaseRequest], str]
    url: Callable[[web.BaseRequest], str]
    house: House
    ending: asyncio.Event
    waiting: Counter[int]


@dataclass(slots=True)
class Visit:
    """A request to a page. `token` is the browser's, from the session's cookie or the visit's."""

    desk: Desk
    request: web.Request
    token: str
    session: Session | None = None
    person: Person | None = None
    form: dict[str, str] = field(default_factory=dict)

    @property
    def me(self) -> Person:
        """Whoever is signed in, where the route has made sure of that."""
        assert self.person is not None
        return self.person

    @property
    def operates(self) -> bool:
        """Whether the operator's pages are open to this session: an API key, which lies in the files of tools, is not
        enough for them."""
        return (
            self.person is not None and self.person.is_admin and self.session is not None and self.session.via != "key"
        )

    @property
    def address(self) -> str:
        """The client's address."""
        return self.desk.address(self.request)

    @property
    def base_url(self) -> str:
        """Where this browser reaches the server, which is what its owner's tools should be told."""
        return self.desk.url(self.request)

    @property
    def now_ms(self) -> int:
        """The time."""
        return self.desk.clock.now_ms()

    def asked(self, name: str) -> str:
        """A parameter of the address, "" without one."""
        return self.request.query.get(name, "")

    def part(self, name: str) -> str:
        """A variable part of the path."""
        return self.request.match_info[name]

    async def read(self, fn: Callable[[Tx, *Ts], T], *args: *Ts) -> T:
        """Read from the database."""
        return await self.desk.database.read(fn, *args)

    async def run(self, operation: str, **arguments: Any) -> Any:
        """Carry out an operation as whoever is signed in."""
        account_id = None if self.person is None else self.person.account_id
        return await self.desk.operations.run(operation, arguments, Actor("page", account_id))

    def page(self, template: str, status: int = 200, **context: Any) -> web.Response:
        """A page of HTML."""
        text = self.desk.renderer.page(
            template,
            me=self.person,
            operates=self.operates,
            token=tokens.form_token(self.token),
            path=self.request.path,
            said=SAID.get(self.asked("said"), ""),
            registration=self.desk.rules.registration,
            **context,
        )
        return web.Response(status=status, text=text, content_type="text/html")

    def harden(self, response: web.StreamResponse) -> None:
        """Give an answer the headers of every page; needed by hand only for one that is sent piece by piece."""
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)

    def to(self, path: str, said: str = "") -> web.Response:
        """Send the browser on to a page, which says what was done."""
        mark = "&" if "?" in path else "?"
        return web.Response(status=303, headers={"Location": path + (f"{mark}said={said}" if said else "")})
