"""What an upstream is: a place that takes a request and gives a reply. Addresses and credentials live here, wire formats
don't. The request comes with everything decided; the reply hands out bytes as they arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lumeproxy.core.types import Asked
from lumeproxy.errors import Unreachable

Take = Callable[[bytes], bool]


class CutShort(Exception):
    """The reply ended before its announced end, or the connection broke. What came before stays valid."""


class NotReached(Unreachable):
    """The upstream gave no reply. `sent` says whether the request may have arrived: if so it is not sent again."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message, retry_after_s=5)
        self.sent = sent


class Echoer(Protocol):
    """What the echo upstream needs of a dialect; the dialect itself is not known here."""

    def echo(self, body: bytes, asked: Asked, answer_id: str, created_s: int, path: str) -> Any:
        """Compose the stand-in's answer."""
        ...


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One request as it goes upstream.

    `path` is the dialect's, without `/v1` and query; `query` is raw, without "?"; `headers` are already filtered and
    name the body's content-encoding, if it has one.
    """

    dialect: Echoer
    asked: Asked
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    call_id: str
    created_s: int


class Reply(Protocol):
    """An upstream's reply, headers first. `encoding` is its content-encoding in lower case, "" for none."""

    status: int
    headers: Sequence[tuple[str, str]]
    content_type: str
    content_length: int | None
    encoding: str

    async def read(self) -> bytes:
        """The next bytes as soon as there are any, b"" at the end. Raises CutShort."""
        ...

    async def flow(self, take: Take) -> bool:
        """Hand bytes to `take` in the very callback in which they come, for as long as it returns True. Whether `take`
        had enough; else the reply has ended, is broken, or can't be handed on like this, and `read` tells which."""
        ...

    def pause(self) -> None:
        """Take nothing from the upstream until the next `read` or `flow`: the client takes nothing either."""
        ...

    def close(self) -> None:
        """Let go of the reply; unread bytes are lost and the upstream notices at once."""
        ...


@dataclass(frozen=True, slots=True)
class Access:
    """How an upstream is called: where, and with which of the operator's secrets.

    `credentials` are its keys, used one a session; `auth` says in which header they go ("" for the kind's own way, "none"
    for an upstream that wants none). `path_prefix` stands between the address and an API's own path ("" for `/v1`, unless
    the address ends in a version). `headers` are added to every request, in the place of the client's of the same name.
    """

    base_url: str = ""
    credentials: tuple[str, ...] = ()
    auth: str = ""
    path_prefix: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a WebSocket, whole."""

    data: bytes
    binary: bool = False


class Socket(Protocol):
    """An open WebSocket to an upstream. `headers` are those of its handshake."""

    headers: Sequence[tuple[str, str]]

    async def send(self, data: bytes) -> None:
        """Send a text message. Raises NotReached where the connection is gone."""
        ...

    async def receive(self) -> Message:
        """The next message. Raises CutShort when the connection is closed or broken, or the message is none."""
        ...

    def arrival(self, readers: asyncio.TaskGroup) -> asyncio.Future[Any]:
        """Done when `receive` has something to say at once, by a task of the group that ends when the connection is
        closed. Not to be cancelled."""
        ...

    async def close(self) -> None:
        """Say that it is over, and let go of the connection; harmless to repeat."""
        ...


class Dialer(Protocol):
    """Opens WebSockets to an upstream."""

    async def dial(self, headers: Sequence[tuple[str, str]], path: str, query: str) -> Socket:
        """Open one; `headers`, `path` and `query` as in Outgoing. Raises NotReached, also where it is refused."""
        ...


class Upstream(Protocol):
    """A provider endpoint. `dialects` are the names it speaks; `provider` the price list's word for it, None
    unknown; `takes_encoded`: whether a compressed request body may be passed on as it is; `websocket` opens WebSockets,
    None where it is not to be asked for any. `address` is where it is, for people. `identities`: one text for each
    credential, which changes with the credential or the address, and tells neither."""

    name: str
    kind: str
    address: str
    dialects: frozenset[str]
    provider: str | None
    takes_encoded: bool
    identities: tuple[str, ...]
    websocket: Dialer | None

    async def send(self, outgoing: Outgoing, credential: int = 1) -> Reply:
        """Send with the credential of that number, from 1, and wait for the reply's headers. Raises NotReached."""
        ...
