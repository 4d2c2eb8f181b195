"""GET /metrics, for Prometheus: to this machine itself, or to whoever has an admin key.

Nobody is on this machine who came through a reverse proxy; so a request with a header that such proxies add is not from
loopback, whatever its address says. Must not know what is counted.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

from aiohttp import web

from lumeproxy.core.metrics import CONTENT_TYPE
from lumeproxy.dashboard.adminkeys import AdminAuth
from lumeproxy.dashboard.api import failed
from lumeproxy.errors import LumeError, MethodNotAllowed

PATH = "/metrics"
_FORWARDED = ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via")


class MetricsPage:
    """Serves the lines that `collect` yields."""

    def __init__(
        self, auth: AdminAuth, address: Callable[[web.BaseRequest], str], collect: Callable[[], Iterator[str]]
    ) -> None:
        self._auth = auth
        self._address = address
        self._collect = collect

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        try:
            if request.method not in ("GET", "HEAD"):
                raise MethodNotAllowed("This path takes GET and HEAD.")
            if "Authorization" in request.headers or not self._is_here(request):
                await self._auth.caller(request.headers, self._address(request))
        except LumeError as error:
            response = failed(error)
            if isinstance(error, MethodNotAllowed):
                response.headers["Allow"] = "GET, HEAD"
            return response
        text = "".join(f"{line}\n" for line in self._collect())
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})

    def _is_here(self, request: web.Request) -> bool:
        if any(name in request.headers for name in _FORWARDED):
            return False
        try:
            return ipaddress.ip_address(self._address(request)).is_loopback
        except ValueError:
            return False
