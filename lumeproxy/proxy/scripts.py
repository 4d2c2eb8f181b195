"""`GET /setup/NAME`: the scripts by which a developer's machine is set up, with this server's address filled in.

Without a key, since who asks has none yet; there is nothing in a script that is anybody's. The address is the one that was
asked, as a trusted proxy in front tells it. Must not know what the scripts do.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import hdrs, web

from lumeproxy.errors import InvalidRequest, NotFound, Refused
from lumeproxy.proxy.address import Addresses

# The script of a name for an address, None for a name that there is none of. Raises Refused for what is no address.
Render = Callable[[str, str], str | None]

FORWARDED_HOST, FORWARDED_PROTO = "X-Forwarded-Host", "X-Forwarded-Proto"


class Scripts:
    """Serves the set-up scripts."""

    def __init__(self, render: Render, addresses: Addresses) -> None:
        self._render = render
        self._addresses = addresses

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One script. Raises NotFound, InvalidRequest for a Host that can't be put into one."""
        try:
            text = self._render(request.match_info["script"], self.url(request))
        except Refused:
            raise InvalidRequest("The Host of this request is no address that a set-up could name.") from None
        if text is None:
            raise NotFound("There is no such set-up script here.")
        # The text depends on who was asked by which name: no cache between may keep it for others.
        headers = {hdrs.CACHE_CONTROL: "no-store", "X-Content-Type-Options": "nosniff"}
        return web.Response(text=text, content_type="text/plain", headers=headers)

    def url(self, request: web.BaseRequest) -> str:
        """The address that the request came by."""
        host, scheme = request.headers.get(hdrs.HOST, ""), request.scheme
        if self._addresses.trusts(request.remote):
            host = request.headers.get(FORWARDED_HOST, host)
            scheme = request.headers.get(FORWARDED_PROTO, scheme)
        return f"{scheme}://{host}"
