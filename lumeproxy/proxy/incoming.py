"""A request that has been read, and what of it goes upstream. Must not know prices or the database."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from lumeproxy.core.headers import for_upstream
from lumeproxy.core.types import Asked
from lumeproxy.dialects.base import Dialect, Endpoint
from lumeproxy.store.keys import StoredKey
from lumeproxy.upstreams.base import Outgoing

# Of a user agent or an upstream's request id; longer ones say nothing more about who or what it was.
TEXT_CHARS = 200


@dataclass(slots=True)
class Incoming:
    """A request that has been read: bytes as sent, bytes decoded, the facts in them."""

    request: web.BaseRequest
    dialect: Dialect
    endpoint: Endpoint
    call_id: str
    time_ms: int
    key: StoredKey
    body: bytes
    plain: bytes
    asked: Asked

    def outgoing(self, upstream_model: str | None, *, plain: bool) -> Outgoing:
        """The request as it goes upstream: the same bytes, unless a value has to be spliced into them, or the upstream
        takes only `plain` ones; then the content-encoding goes too."""
        request = self.request
        headers = for_upstream(request.headers.items())
        encoding = request.headers.get("Content-Encoding", "")
        body = self.dialect.to_upstream(self.plain, self.asked, upstream_model)
        if body is self.plain and not plain:
            body = self.body
        elif encoding:
            headers = [(name, value) for name, value in headers if name.lower() != "content-encoding"]
        return Outgoing(
            dialect=self.dialect,
            asked=self.asked,
            path=self.endpoint.path,
            query=request.rel_url.raw_query_string,
            headers=headers,
            body=body,
            call_id=self.call_id,
            created_s=self.time_ms // 1000,
        )

    def forget_body(self) -> None:
        """Let the body go once it is sent: a stream may run for an hour, and a prompt is kept no longer than needed."""
        self.body = self.plain = b""


def printable(text: str) -> str:
    """A header's text for a record: printable, at most TEXT_CHARS."""
    return "".join(c for c in text[:TEXT_CHARS] if c.isprintable())
