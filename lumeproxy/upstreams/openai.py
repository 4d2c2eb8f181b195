"""The OpenAI API and what is compatible with it: key as a bearer token.

https://platform.openai.com/docs/api-reference/authentication (2026-11).
"""

from __future__ import annotations

from dataclasses import replace

import aiohttp

from lumeproxy.upstreams.base import Access
from lumeproxy.upstreams.http import HttpUpstream

KIND = "openai"
DEFAULT_BASE_URL = "https://api.openai.com/v1"
AUTH = "bearer"
DIALECTS = frozenset({"openai_responses", "openai_chat"})


def make(name: str, access: Access, dialects: frozenset[str], session: aiohttp.ClientSession) -> HttpUpstream:
    """The upstream; an empty `base_url` is the provider's own, empty `dialects` mean Responses and Chat."""
    return HttpUpstream(
        name=name,
        kind=KIND,
        access=replace(access, base_url=access.base_url or DEFAULT_BASE_URL),
        auth=AUTH,
        dialects=dialects or DIALECTS,
        provider=KIND,
        session=session,
    )
