"""The Anthropic API and what is compatible with it: key in `x-api-key`.

https://docs.anthropic.com/en/api/overview (2026-11). The client's `anthropic-version` is passed on, never set.
"""

from __future__ import annotations

import aiohttp

from lumeproxy.upstreams.http import HttpUpstream

KIND = "anthropic"
DEFAULT_BASE_URL = "https://api.anthropic.com"
DIALECTS = frozenset({"anthropic_messages"})


def make(
    name: str, base_url: str, api_key: str, dialects: frozenset[str], session: aiohttp.ClientSession
) -> HttpUpstream:
    """The upstream; an empty `base_url` is the provider's own, empty `dialects` mean Messages only."""
    return HttpUpstream(
        name=name,
        kind=KIND,
        base_url=base_url or DEFAULT_BASE_URL,
        dialects=dialects or DIALECTS,
        provider=KIND,
        authorize=lambda: (("x-api-key", api_key),),
        session=session,
    )
