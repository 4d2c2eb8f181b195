"""The built-in stand-in: says back what it was told, in every dialect, with true usage numbers, without a network.

What it says is composed by the dialect; here it is only handed out piece by piece, as a provider would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lumeproxy.upstreams.base import Dialer, Outgoing, Reply, Take

KIND = "echo"
NAME = "echo"
ADDRESS = "built in"
DIALECTS = frozenset({"anthropic_messages", "openai_responses", "openai_chat"})


class EchoReply:
    """A composed answer, handed out one chunk a read."""

    def __init__(self, status: int, headers: Sequence[tuple[str, str]], chunks: Sequence[bytes]) -> None:
        self.status = status
        self.headers = headers
        named = {name.lower(): value for name, value in headers}
        self.content_type = named.get("content-type", "").partition(";")[0]
        self.content_length = len(chunks[0]) if len(chunks) == 1 else None
        self.encoding = ""
        self._chunks = iter(chunks)

    async def read(self) -> bytes:
        """The next chunk, b"" at the end; other tasks get their turn in between."""
        await asyncio.sleep(0)
        return next(self._chunks, b"")

    async def flow(self, take: Take) -> bool:
        """Nothing arrives by itself here."""
        return False

    def pause(self) -> None:
        """Nothing arrives by itself here."""

    def close(self) -> None:
        """Forget what was not read."""
        self._chunks = iter(())


class EchoUpstream:
    """The stand-in as an upstream."""

    kind = KIND
    dialects = DIALECTS
    address = ADDRESS
    provider: str | None = None
    takes_encoded = False
    identities: tuple[str, ...] = ("echo",)
    websocket: Dialer | None = None

    def __init__(self, name: str = NAME) -> None:
        self.name = name

    async def send(self, outgoing: Outgoing, credential: int = 1) -> Reply:
        """Answer at once; never unreachable."""
        answer = outgoing.dialect.echo(
            outgoing.body, outgoing.asked, outgoing.call_id, outgoing.created_s, outgoing.path
        )
        return EchoReply(answer.status, tuple(answer.headers.items()), answer.chunks)
