"""A browser without a screen: cookies, forms with their token, where it was sent on to."""

from __future__ import annotations

import contextlib
import html
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lumeproxy.clock import Clock
from tests.support.clock import FakeClock
from tests.support.proxy import Proxy, proxy

PASSWORD = "four plain words here"


@dataclass
class Page:
    """An answer."""

    status: int
    headers: Any
    text: str

    @property
    def to(self) -> str:
        """Where the browser is sent on to."""
        assert self.status == 303, (self.status, self.text)
        return str(self.headers["Location"])

    @property
    def told(self) -> str:
        """The page's words without its markup."""
        body = self.text.partition('<main id="main">')[2].partition("</main>")[0]
        words = re.sub(r"<(?:svg|option)\b.*?</(?:svg|option)>", " ", body, flags=re.DOTALL)
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", words)).split())

    @property
    def token(self) -> str:
        found = re.search(r'name="token" value="([0-9a-f]{64})"', self.text)
        return found[1] if found else ""

    @property
    def links(self) -> set[str]:
        return {html.unescape(link) for link in re.findall(r'(?:href|action|src)="([^"]*)"', self.text)}


@dataclass
class Browser:
    """Somebody at a browser; `token` is of the last page that had a form."""

    lume: Proxy
    cookies: dict[str, str] = field(default_factory=dict)
    token: str = ""

    async def get(self, path: str, **headers: str) -> Page:
        return await self._ask("GET", path, headers={"Accept": "text/html", **headers})

    async def post(self, path: str, headers: Any = None, **fields: str) -> Page:
        """Send a form as a browser does, with the token of the last page."""
        given = {"Origin": self.lume.url, "Sec-Fetch-Site": "same-origin", **(headers or {})}
        return await self._ask("POST", path, headers=given, data={"token": self.token, **fields})

    async def _ask(self, method: str, path: str, headers: dict[str, str], data: dict[str, str] | None = None) -> Page:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()), **headers}
        async with self.lume.session.request(
            method, self.lume.url + path, headers=headers, data=data, allow_redirects=False
        ) as response:
            for cookie in response.cookies.values():
                if cookie.value and cookie["max-age"] != "0":
                    self.cookies[cookie.key] = cookie.value
                else:
                    self.cookies.pop(cookie.key, None)
            page = Page(response.status, response.headers, await response.text())
        self.token = page.token or self.token
        return page

    async def sign_in(self, *, accept: Any = True, key: str = "", name: str = "", password: str = "") -> Page:
        """Through the form, and the terms too."""
        await self.get("/sign-in")
        page = await self.post("/sign-in", key=key, name=name, password=password)
        if page.status == 303 and accept:
            await self.accept()
        return page

    async def accept(self) -> None:
        page = await self.get("/accept")
        if page.status == 200:
            version = re.search(r'name="version" value="([^"]*)"', page.text)
            assert version
            assert (await self.post("/accept", version=version[1], accepted="yes")).to == "/"

    async def by_link(self, name: str) -> Page:
        """Through a link of the command line."""
        link = (await self.lume.run("account.link", name=name))["url"].removeprefix(self.lume.url)
        await self.get(link)
        page = await self.post("/sign-in/link", link=link.partition("token=")[2])
        await self.accept()
        await self.get("/")
        return page


@dataclass
class Site:
    """A running server with the account `tester`, and browsers before it."""

    lume: Proxy
    clock: FakeClock

    def browser(self) -> Browser:
        return Browser(self.lume)

    async def user(self, name: str = "tester") -> Browser:
        """Somebody signed in with a key of the account."""
        browser = self.browser()
        key = self.lume.key if name == "tester" else (await self.lume.run("key.create", account=name))["key"]
        await browser.sign_in(key=key)
        await browser.get("/keys")
        return browser

    async def operator(self, name: str = "boss") -> Browser:
        """Somebody who operates the server."""
        if not any(one["account"] == name for one in await self.lume.run("account.list")):
            await self.lume.run("account.create", name=name)
        await self.lume.run("account.admin", name=name)
        browser = self.browser()
        await browser.by_link(name)
        return browser

    async def call(self, model: str = "claude-echo", text: str = "hello there", key: str = "", **headers: str) -> str:
        """A call of the echo; its id."""
        body = {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": text}]}
        given = {"Authorization": f"Bearer {key or self.lume.key}", **headers}
        async with self.lume.post("/v1/messages", body, headers=given) as response:
            await response.read()
            assert response.status == 200
            return str(response.headers["x-lume-call-id"])

    async def password(self, name: str = "tester") -> None:
        """Give an account PASSWORD."""
        browser = self.browser()
        await browser.by_link(name)
        await browser.get("/account")
        assert (await browser.post("/account/password", new=PASSWORD, again=PASSWORD)).to == "/account?said=password"


class TickingClock(FakeClock):
    """Stands still but for timers of the server, which need the true one."""

    def monotonic_ms(self) -> int:
        return Clock().monotonic_ms() + self.steady_ms


@contextlib.asynccontextmanager
async def site(folder: Path, more: str = "", **environ: str) -> AsyncIterator[Site]:
    """A server with only the echo before it."""
    clock = TickingClock()
    given = {"LUMEPROXY_LIMITS__FAILED_KEYS_PER_MINUTE": "0", "LUMEPROXY_DASHBOARD__REGISTRATIONS_PER_MINUTE": "0"}
    async with proxy(folder, {}, more=more, clock=clock, environ={**given, **environ}) as lume:
        yield Site(lume, clock)
