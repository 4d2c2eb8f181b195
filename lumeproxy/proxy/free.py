"""The free endpoints: token counts and the list of models.

Neither held nor charged nor limited (Claude Code's /context sends 25 counts at once); the key is checked all the same.
Must not know the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol

from aiohttp import web

from lumeproxy.clock import Clock
from lumeproxy.core import estimate
from lumeproxy.core.patterns import is_pattern, matches
from lumeproxy.core.routing import RoutingTable
from lumeproxy.dialects.base import Dialect, Endpoint
from lumeproxy.errors import CredentialRejected, NotFound, Unreachable, UpstreamError
from lumeproxy.proxy.admission import Admission
from lumeproxy.proxy.answers import headers_for_client, render
from lumeproxy.proxy.auth import allows
from lumeproxy.proxy.dispatch import Dispatch
from lumeproxy.proxy.exchange import Exchange
from lumeproxy.proxy.incoming import Incoming
from lumeproxy.store.keys import StoredKey
from lumeproxy.upstreams.base import CutShort, Outgoing, Reply, Upstream

# Statuses by which an upstream says that it has no such endpoint; then our own estimate answers.
NOT_OFFERED = frozenset({404, 405, 501})
COUNT_REPLY_BYTES = 1 << 20
# Anthropic's documentation allows the epoch for a model whose release date is not known.
_UNKNOWN_DATE = "1970-01-01T00:00:00Z"


class ModelNames(Protocol):
    """Where the names behind a route's pattern come from; `discovered` are the lists of upstreams that were asked for
    theirs, of those that are (`discovering`)."""

    discovering: frozenset[str]
    discovered: dict[str, tuple[str, ...]]

    def models(self, pattern: str, upstreams: Sequence[str] = ()) -> Iterable[str]:
        """Known model names that match, as far as one of the upstreams may have them."""
        ...


class Counts:
    """Serves count_tokens: the upstream's own answer, or an estimate where it has none."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def serve(self, request: web.BaseRequest, dialect: Dialect, endpoint: Endpoint) -> web.StreamResponse:
        """Answer one count. Raises what Exchange.receive raises, ModelNotFound, UpstreamError kinds."""
        incoming = await self._exchange.receive(request, dialect, endpoint)
        try:
            async with asyncio.timeout(self._exchange.limits.count_ms / 1000):
                return await self._count(incoming)
        except TimeoutError:
            raise Unreachable("The model provider did not answer in time.", retry_after_s=5) from None

    async def _count(self, incoming: Incoming) -> web.Response:
        asked = incoming.asked.model
        found = self._exchange.books.admission.candidates(incoming.key, incoming.dialect.name, asked)
        session_id, _ = incoming.dialect.session(incoming.request.headers)

        def outgoing(upstream: Upstream) -> Outgoing:
            return incoming.outgoing(found.model_at(upstream.name, asked), plain=not upstream.takes_encoded)

        dispatch = Dispatch(
            self._exchange.dispatcher,
            found,
            (incoming.key.id, session_id, found.model),
            outgoing,
            lambda _target: None,
            lambda: incoming.request.transport is None,
            billed=False,
        )
        reply: Reply | None = None
        try:
            reply = await dispatch.send()
            return await self._pass_on(reply, incoming, found.model)
        finally:
            if reply is not None:
                reply.close()
            dispatch.close(well=reply is not None)

    async def _pass_on(self, reply: Reply, incoming: Incoming, model: str) -> web.Response:
        if reply.status in (401, 402, 403):
            raise CredentialRejected("The model provider refused this proxy's own credential. Tell your operator.")
        if reply.status in NOT_OFFERED:
            answer = incoming.dialect.count(estimated_tokens(incoming, model), incoming.call_id)
            if answer is None:
                raise NotFound("There is no such endpoint here.")
            return render(answer, x_lume_call_id=incoming.call_id)
        if reply.status < 200 or 300 <= reply.status < 400:
            raise UpstreamError("The model provider answered with a redirect, which is not followed.")
        pieces: list[bytes] = []
        size = 0
        try:
            while chunk := await reply.read():
                pieces.append(chunk)
                size += len(chunk)
                if size > COUNT_REPLY_BYTES:
                    raise Unreachable("The model provider's answer makes no sense.")
        except CutShort:
            raise Unreachable("The model provider's answer broke off.", retry_after_s=1) from None
        headers = headers_for_client(reply, incoming.call_id)
        return web.Response(status=reply.status, headers=headers, body=b"".join(pieces))


def estimated_tokens(incoming: Incoming, model: str) -> int:
    """Our own count of a request's text."""
    texts = incoming.dialect.request_texts(incoming.plain)
    factor = estimate.model_factor_permille(model)
    return max(1, sum(estimate.text_tokens(text) for text in texts) * factor // 1000)


class Models:
    """Serves GET /v1/models in one shape that both SDKs and Claude Code's model discovery accept.

    Only what can be called is listed: a model that has no price is refused, and so not shown.
    """

    def __init__(self, exchange: Exchange, names: ModelNames, clock: Clock) -> None:
        self._exchange = exchange
        self._clock = clock
        self._all: list[str] = []
        self.names = names
        self.offer(exchange.books.admission, names)

    def offer(self, admission: Admission, names: ModelNames) -> None:
        """List what these routes and prices serve, from now on. The lists of upstreams that are still asked for theirs
        are kept."""
        before = self.names.discovered
        names.discovered |= {name: before[name] for name in names.discovering if name in before}
        self.names = names
        served = _served(admission.routing, names)
        self._all = [name for name in served if admission.is_priced(name, self._clock.now_ms())]

    def refresh(self) -> None:
        """Take in what has been discovered."""
        self.offer(self._exchange.books.admission, self.names)

    @property
    def listed(self) -> Sequence[str]:
        """All that is listed, whatever a key may use."""
        return self._all

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """The models that the key may use."""
        key = await self._exchange.caller(request)
        entries = [_entry(name) for name in self.allowed(key)]
        return web.json_response(
            {
                "object": "list",
                "data": entries,
                "has_more": False,
                "first_id": entries[0]["id"] if entries else None,
                "last_id": entries[-1]["id"] if entries else None,
            }
        )

    async def serve_one(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """One model, NotFound where the key may not use it."""
        key = await self._exchange.caller(request)
        if name not in self.allowed(key):
            raise NotFound("There is no such model here, or it is not available with this key.")
        return web.json_response(_entry(name))

    def allowed(self, key: StoredKey) -> Sequence[str]:
        """The served names that the key's patterns include, aliases also by what they stand for."""
        aliases = self._exchange.books.admission.routing.aliases
        return [name for name in self._all if allows(key, name) or (name in aliases and allows(key, aliases[name]))]


def _served(routing: RoutingTable, names: ModelNames) -> list[str]:
    """Names in the routes' order: exact ones as they stand, patterns by the names known to match them. A name that
    an earlier route catches is that route's."""
    found: dict[str, None] = {}
    for route in routing.routes:
        # What its upstreams say of their own models is of no use where they are asked for another one.
        asked = () if route.upstream_model or route.models else route.upstreams
        candidates = sorted(names.models(route.pattern, asked)) if is_pattern(route.pattern) else [route.pattern]
        for name in candidates:
            if matches(route.pattern, name):
                found.setdefault(name)
    return [*routing.aliases, *found]


def _entry(name: str) -> dict[str, object]:
    return {
        "id": name,
        "type": "model",
        "object": "model",
        "display_name": name,
        "created_at": _UNKNOWN_DATE,
        "created": 0,
        "owned_by": "lumeproxy",
    }
