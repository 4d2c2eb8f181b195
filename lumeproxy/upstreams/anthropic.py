"""The Anthropic API and what is compatible with it: key in `x-api-key`.

https://docs.anthropic.com/en/api/overview (2026-11). The client's `anthropic-version` is passed on, never set.
"""

from __future__ import annotations

from dataclasses import replace

import aiohttp

from lumeproxy.upstreams.base import Access
from lumeproxy.upstreams.http import HttpUpstream

KIND = "anthropic"
DEFAULT_BASE_URL = "https://api.anthropic.com"
AUTH = "x-api-key"
DIALECTS = frozenset({"anthropic_messages"})


def make(name: str, access: Access, dialects: frozenset[str], session: aiohttp.ClientSession) -> HttpUpstream:
    """The upstream; an empty `base_url` is the provider's own, empty `dialects` mean Messages only."""
    return HttpUpstream(
        name=name,
        kind=KIND,
        access=replace(access, base_url=access.base_url or DEFAULT_BASE_URL),
        auth=AUTH,
        dialects=dialects or DIALECTS,
        provider=KIND,
        session=session,
    )
