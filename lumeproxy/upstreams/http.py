"""An upstream over HTTP: one request, one reply, nothing followed, nothing decoded.

aiohttp's defaults that are wrong for a proxy are set where the session is made (app.py) and here: no redirects, no
cookies, no environment proxies, no total timeout, no automatic headers. Errors of aiohttp become ours at this seam.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence

import aiohttp
from yarl import URL

from lumeproxy.upstreams.base import CutShort, NotReached, Outgoing, Reply

# aiohttp warns above this size that bytes block the loop; a file object of the same bytes is written in pieces.
LARGE_BODY_BYTES = 1 << 20
_AUTOMATIC = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_VERSIONED = re.compile(r"/v\d+[a-z0-9]*$")


def endpoint(base_url: str) -> str:
    """The URL to which a dialect's path (`/messages`) is appended.

    Providers are written with and without their version (`https://api.openai.com/v1`, `https://api.anthropic.com`):
    one that ends in a version is taken as it is, else `/v1` is added.
    """
    base = base_url.rstrip("/")
    return base if _VERSIONED.search(base) else base + "/v1"


class HttpReply:
    """A reply whose bytes are handed out as aiohttp reads them."""

    __slots__ = ("_content", "_response", "content_length", "content_type", "encoding", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._content = response.content
        self.status = response.status
        self.headers: Sequence[tuple[str, str]] = tuple(response.headers.items())
        self.content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        self.content_length = response.content_length
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        self.encoding = "" if encoding == "identity" else encoding

    async def read(self) -> bytes:
        """The next bytes, b"" at the end. Raises CutShort when the connection broke or the framing says so."""
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise CutShort(type(error).__name__) from None

    def close(self) -> None:
        """Close the connection if bytes are left, else give it back to the pool."""
        if self._content.at_eof():
            self._response.release()
        else:
            self._response.close()


class HttpUpstream:
    """A provider behind a base URL; `authorize` gives the headers that carry the operator's credential."""

    def __init__(
        self,
        *,
        name: str,
        kind: str,
        base_url: str,
        dialects: frozenset[str],
        provider: str | None,
        authorize: Callable[[], Sequence[tuple[str, str]]],
        session: aiohttp.ClientSession,
    ) -> None:
        self.name = name
        self.kind = kind
        self.dialects = dialects
        self.provider = provider
        self.takes_encoded = True
        self._base = endpoint(base_url)
        self._authorize = authorize
        self._session = session

    async def send(self, outgoing: Outgoing) -> Reply:
        """Send the request; raises NotReached, whose `sent` decides whether another upstream may be tried."""
        url = self._base + outgoing.path + ("?" + outgoing.query if outgoing.query else "")
        headers = [*outgoing.headers, *self._authorize(), ("Accept-Encoding", "identity")]
        body = outgoing.body
        try:
            response = await self._session.request(
                "POST",
                URL(url, encoded=True),
                data=body if len(body) < LARGE_BODY_BYTES else io.BytesIO(body),
                headers=headers,
                skip_auto_headers=_AUTOMATIC,
                allow_redirects=False,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL):
            raise NotReached(f"The upstream {self.name} can't be reached.", sent=False) from None
        except (aiohttp.ClientError, OSError, TimeoutError):
            raise NotReached(f"The upstream {self.name} closed the connection without a reply.", sent=True) from None
        return HttpReply(response)
