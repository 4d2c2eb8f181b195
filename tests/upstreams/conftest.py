"""A request as it goes upstream, and a session like the server's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from lumeproxy.compose import make_session
from lumeproxy.core.types import Asked
from lumeproxy.dialects import DIALECTS
from lumeproxy.settings import load
from lumeproxy.upstreams.base import Outgoing

Request = Callable[..., Outgoing]


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    async with make_session(load(data=tmp_path, environ={})) as made:
        yield made


@pytest.fixture
def request_of() -> Request:
    def make(
        body: bytes = b"{}", *headers: tuple[str, str], path: str = "/messages", query: str = "", dialect: str = ""
    ) -> Outgoing:
        speaker = next(known for known in DIALECTS if known.name == (dialect or "anthropic_messages"))
        return Outgoing(speaker, Asked("m"), path, query, headers, body, "call_1", 1)

    return make
