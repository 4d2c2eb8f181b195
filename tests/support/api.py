"""Asking a running proxy's admin API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from lumeproxy.dashboard.routes import PREFIX
from tests.support.proxy import Proxy


@dataclass
class Answered:
    """An answer of the API."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> tuple[int, str]:
        assert set(self.json) == {"error"}
        assert set(self.json["error"]) == {"code", "message"}
        return self.status, self.json["error"]["code"]


@dataclass
class Api:
    """Requests with an admin key."""

    lume: Proxy
    key: str
    key_id: str

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answered:
        """One request; headers with `_` for `-`, of which `authorization=""` leaves the key out. Bytes go as they are."""
        sent = {"Authorization": f"Bearer {self.key}"}
        sent.update({name.replace("_", "-").title(): value for name, value in headers.items()})
        sent = {name: value for name, value in sent.items() if value}
        data = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
        url = self.lume.url + PREFIX + path
        async with self.lume.session.request(method, url, data=data, headers=sent) as response:
            return Answered(response.status, response.headers, await response.read())


async def api_of(lume: Proxy, *, may_change: bool = True) -> Api:
    """The API of a running proxy, with a new admin key."""
    made = await lume.run("admin_key.create", name="test", may_change=may_change)
    return Api(lume, made["key"], made["id"])
