"""Which headers pass, which are dropped, in both directions. An open list: what is not named here passes unchanged.

Hop-by-hop headers follow RFC 9110 section 7.6.1 (2022-06); the rest is design section 9. Knows no values, so it can't
leak one. Names are compared in lower case, order and repeats are kept.
"""

from __future__ import annotations

from collections.abc import Iterable

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "expect",
    }
)

# Of a WebSocket's opening (RFC 6455 section 11.3, 2011-12): each connection has its own. A subprotocol may carry a key.
_HANDSHAKE = frozenset(
    {
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
    }
)

# Set anew for the upstream's connection, or by the upstream module with the operator's own values.
_REFRAMED = frozenset({"host", "content-length", "accept-encoding"})

# The client's own secrets. The organisation and project headers scope the credential that is dropped with them: kept,
# they would make a provider refuse the operator's.
_CREDENTIALS = frozenset(
    {
        "authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "cookie",
        "openai-organization",
        "openai-project",
    }
)

# Written by a reverse proxy in front of us, not by the client: they name the user's address.
_ADDRESSES = frozenset(
    {
        "forwarded",
        "via",
        "x-real-ip",
        "cf-connecting-ip",
        "true-client-ip",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-forwarded-server",
    }
)

_NEVER_UPSTREAM = HOP_BY_HOP | _HANDSHAKE | _REFRAMED | _CREDENTIALS | _ADDRESSES

# The provider's cookies, server name and the operator's own rate limits are nobody else's business; alt-svc and
# strict-transport-security speak of the provider's host and would be taken for ours.
_NEVER_CLIENT = (
    HOP_BY_HOP
    | _HANDSHAKE
    | frozenset({"content-length", "set-cookie", "server", "alt-svc", "strict-transport-security"})
)
_NEVER_CLIENT_PREFIXES = ("anthropic-ratelimit-", "x-lume-")


def for_upstream(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The client's headers that go upstream, in order; the caller adds credential and `accept-encoding: identity`."""
    kept = []
    named: list[str] = []
    for name, value in pairs:
        low = name.lower()
        if low in _NEVER_UPSTREAM:
            if low == "connection":
                named += [token.strip().lower() for token in value.split(",")]
            continue
        kept.append((name, value))
    if named:
        return [(name, value) for name, value in kept if name.lower() not in named]
    return kept


def for_client(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The upstream's headers that go to the client, in order; the caller frames the body and adds `x-lume-*`."""
    kept = []
    named: list[str] = []
    for name, value in pairs:
        low = name.lower()
        if low in _NEVER_CLIENT or low.startswith(_NEVER_CLIENT_PREFIXES):
            if low == "connection":
                named += [token.strip().lower() for token in value.split(",")]
            continue
        kept.append((name, value))
    if named:
        return [(name, value) for name, value in kept if name.lower() not in named]
    return kept
