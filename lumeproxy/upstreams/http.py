"""An upstream over HTTP: one request, one reply, nothing followed, nothing decoded.

aiohttp's defaults that are wrong for a proxy are set where the session is made (app.py) and here: no redirects, no
cookies, no environment proxies, no total timeout, no automatic headers. Errors of aiohttp become ours at this seam.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
from collections.abc import Callable, Sequence

import aiohttp
from yarl import URL

from lumeproxy.errors import ConfigError
from lumeproxy.upstreams.base import Access, CutShort, Dialer, NotReached, Outgoing, Reply, Take
from lumeproxy.upstreams.post import Answer, Poster
from lumeproxy.upstreams.tap import Tap, tappable

# A body below this size is written at once; of a larger one, pieces as they are taken.
LARGE_BODY_BYTES = 1 << 20
# aiohttp's parser lets these through in a reply's headers, its writer refuses them: the answer would be lost on its way.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
AUTOMATIC = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
# A value of an extra header that is shorter is no secret, and might stand in any answer.
SECRET_CHARS = 8
# How a credential is sent, by the word in the configuration.
AUTHS: dict[str, Callable[[str], tuple[tuple[str, str], ...]]] = {
    "x-api-key": lambda secret: (("x-api-key", secret),),
    "bearer": lambda secret: (("Authorization", "Bearer " + secret),),
    "none": lambda _: (),
}
_VERSIONED = re.compile(r"/v\d+[a-z0-9]*$")


def endpoint(base_url: str, path_prefix: str = "") -> str:
    """The URL to which a dialect's path (`/messages`) is appended.

    Providers are written with and without their version (`https://api.openai.com/v1`, `https://api.anthropic.com`):
    one that ends in a version is taken as it is, else `/v1` is added. A `path_prefix` is added instead, whatever there
    is; "/" is none.
    """
    base = base_url.rstrip("/")
    if path_prefix:
        return (base + "/" + path_prefix.strip("/")).rstrip("/")
    return base if _VERSIONED.search(base) else base + "/v1"


def _checked(name: str, base_url: str) -> str:
    """The base URL of an upstream. Raises ConfigError for what is none, or has parts that would go astray."""
    try:
        url = URL(base_url)
        good = url.scheme in ("http", "https") and url.host and not (url.query_string or url.fragment or url.user)
    except ValueError:
        good = False
    if not good:
        raise ConfigError(
            f"upstreams.{name}.base_url is no address of a server: write it as https://host/path, without a user, a "
            "query or a fragment."
        )
    return base_url


class HttpReply:
    """A reply whose bytes are handed out as aiohttp reads them.

    A header that holds one of `secrets` is dropped (an upstream may send back what it got), and so is one with control
    characters, which no client could be sent.
    """

    __slots__ = ("_closed", "_content", "_held", "_response", "content_length", "content_type", "encoding", "headers",
                 "status")  # fmt: skip

    def __init__(self, response: aiohttp.ClientResponse | Answer, secrets: Sequence[str]) -> None:
        self._response = response
        self._content = response.content
        self._held: asyncio.Transport | None = None  # what we have paused
        self.status = response.status
        self.headers: Sequence[tuple[str, str]] = safe(tuple(response.headers.items()), secrets)
        self.content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        self.content_length = response.content_length
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        self.encoding = "" if encoding == "identity" else encoding
        self._closed = _closing(response)
        if self._closed is not None:
            self._closed.add_done_callback(self._lost)

    def _lost(self, _closed: object) -> None:
        """The connection is gone. aiohttp tells its reader, but not where a chunk's framing was at fault."""
        if not self._content.is_eof() and self._content.exception() is None:
            self._content.set_exception(aiohttp.ClientPayloadError("broken framing"))

    async def read(self) -> bytes:
        """The next bytes, b"" at the end. Raises CutShort when the connection broke or the framing says so."""
        self._resume()
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise CutShort(type(error).__name__) from None
        except RuntimeError:
            # aiohttp's word where the connection was lost a moment ago: its reader is told a turn later, see `_lost`.
            connection = self._response.connection
            if connection is not None and connection.transport is not None:
                raise
            raise CutShort("ConnectionLost") from None

    async def flow(self, take: Take) -> bool:
        """See the protocol; `tap` says how."""
        self._resume()
        content, connection = self._content, self._response.connection
        transport = None if connection is None else connection.transport
        if transport is None or not tappable(content):
            return False
        # Again and again: a read lets a parser that was held back go on, and that may fill the reader up at once.
        while waiting := content.read_nowait():
            if not take(waiting):
                return True
            if not tappable(content):
                return False
        tap = Tap(content, transport, take)
        await tap.ended()
        return tap.enough

    def pause(self) -> None:
        """See the protocol. aiohttp would read on until its reader is full, which is memory. Its own `pause_reading` is not
        for outsiders: it has the parser keep back what it is given next."""
        connection = self._response.connection
        transport = None if connection is None else connection.transport
        if transport is not None and transport.is_reading():  # else aiohttp has paused it, and will resume it
            self._held = transport
            transport.pause_reading()

    def _resume(self) -> None:
        held, self._held = self._held, None
        if held is not None and not held.is_closing():
            held.resume_reading()

    def close(self) -> None:
        """Close the connection if bytes are left, else give it back to the pool."""
        self._resume()
        if self._closed is not None:
            self._closed.remove_done_callback(self._lost)
        if self._content.at_eof():
            self._response.release()
        else:
            self._response.close()


def safe(headers: tuple[tuple[str, str], ...], secrets: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The headers without those that are not to be passed on; all values are looked through at once, for nearly always
    there is none."""
    values = " ".join([value for _, value in headers])
    if _CONTROL.search(values) is None and not any(secret in values for secret in secrets):
        return headers
    return tuple(
        (name, value)
        for name, value in headers
        if _CONTROL.search(value) is None and not any(secret in value for secret in secrets)
    )


def _closing(response: aiohttp.ClientResponse | Answer) -> asyncio.Future[None] | None:
    """What is done when the reply's connection is closed, None where it has been given back already."""
    connection = response.connection
    protocol = None if connection is None else connection.protocol
    closed = None if protocol is None else protocol.closed
    if closed is not None:  # one for all replies of a connection
        closed.remove_done_callback(_retrieve)
        closed.add_done_callback(_retrieve)
    return closed


def _retrieve(closed: asyncio.Future[None]) -> None:
    """Look at how a connection ended, or asyncio complains that nobody did."""
    if not closed.cancelled():
        closed.exception()


class HttpUpstream:
    """A provider behind a base URL. `auth` names the way in which its credentials go: one of AUTHS."""

    def __init__(
        self,
        *,
        name: str,
        kind: str,
        access: Access,
        auth: str,
        dialects: frozenset[str],
        provider: str | None,
        session: aiohttp.ClientSession,
    ) -> None:
        self.name = name
        self.kind = kind
        self.address = _checked(name, access.base_url)
        self.dialects = dialects
        self.provider = provider
        self.takes_encoded = True
        self.websocket: Dialer | None = None
        self._base = endpoint(access.base_url, access.path_prefix)
        self._session = session
        self._replaced = frozenset(name.lower() for name, _ in access.headers)
        self._headers = tuple(
            (*AUTHS[access.auth or auth](secret), *access.headers) for secret in access.credentials or ("",)
        )
        extra = tuple(value for _, value in access.headers if len(value) >= SECRET_CHARS)
        self._secrets = tuple((secret, *extra) if secret else extra for secret in access.credentials or ("",))
        self.identities = tuple(_identity(self._base, headers) for headers in self._headers)
        self._poster = Poster(session, URL(self._base))

    @property
    def base_url(self) -> str:
        """Where it is, with its version."""
        return self._base

    async def send(self, outgoing: Outgoing, credential: int = 1) -> Reply:
        """Send the request; raises NotReached, whose `sent` decides whether another upstream may be tried."""
        url, headers, secrets = self.addressed(outgoing.headers, outgoing.path, outgoing.query, credential)
        body = outgoing.body
        response: aiohttp.ClientResponse | Answer
        try:
            if len(body) < LARGE_BODY_BYTES:
                response = await self._poster.post(url.raw_path_qs, headers, body)
            else:
                response = await self._in_pieces(url, headers, body)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL):
            raise NotReached(f"The upstream {self.name} can't be reached.", sent=False) from None
        except (aiohttp.ClientError, OSError, TimeoutError):
            raise NotReached(f"The upstream {self.name} closed the connection without a reply.", sent=True) from None
        return HttpReply(response, secrets)

    def addressed(
        self, headers: Sequence[tuple[str, str]], path: str, query: str, credential: int = 1
    ) -> tuple[URL, list[tuple[str, str]], Sequence[str]]:
        """Where a request goes, with which headers, and which words of these no answer may repeat."""
        url = URL(self._base + path + ("?" + query if query else ""), encoded=True)
        if self._replaced:
            headers = [(name, value) for name, value in headers if name.lower() not in self._replaced]
        given = [*headers, *self._authorize(credential), ("Accept-Encoding", "identity")]
        return url, given, self._secrets[credential - 1]

    async def get(self, path: str, query: str, headers: Sequence[tuple[str, str]], credential: int | None) -> HttpReply:
        """Ask the upstream something of our own, with the credential of that number or without; nothing is followed.

        aiohttp's errors come as they are, for whoever asks wants to know why (`upstreams.probe` does).
        """
        given = () if credential is None else self._authorize(credential)
        response = await self._session.get(
            URL(self._base + path + ("?" + query if query else ""), encoded=True),
            headers=[*headers, *given, ("Accept-Encoding", "identity")],
            skip_auto_headers=AUTOMATIC,
            allow_redirects=False,
        )
        return HttpReply(response, () if credential is None else self._secrets[credential - 1])

    def _authorize(self, credential: int) -> tuple[tuple[str, str], ...]:
        """The operator's own headers."""
        return self._headers[credential - 1]

    async def _in_pieces(self, url: URL, headers: Sequence[tuple[str, str]], body: bytes) -> aiohttp.ClientResponse:
        """Send a large body as fast as it is taken, by aiohttp's own way; its answer."""
        return await self._session.request(
            "POST",
            url,
            data=io.BytesIO(body),
            headers=spelled_alike(headers),
            skip_auto_headers=AUTOMATIC,
            allow_redirects=False,
        )


def _identity(base: str, headers: Sequence[tuple[str, str]]) -> str:
    return hashlib.sha256(repr((base, headers)).encode()).hexdigest()


def spelled_alike(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers as aiohttp's session takes them: it keeps repeats of one only where they are spelled alike."""
    spelled: dict[str, str] = {}
    return [(spelled.setdefault(name.lower(), name), value) for name, value in headers]
