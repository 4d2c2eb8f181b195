"""Connecting a tool, and the tick of its first call."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from lumeproxy.dashboard import pages_connect
from tests.dashboard.browser import Browser, Site, site


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(pages_connect, "LOOK_S", 0.01)


def listen(pages: Site, user: Browser, since: int | str):
    cookie = "; ".join(f"{name}={value}" for name, value in user.cookies.items())
    return pages.lume.session.get(f"{pages.lume.url}/connect/calls?since={since}", headers={"Cookie": cookie})


async def test_the_lines_name_the_address_that_the_browser_came_by(pages: Site):
    page = await (await pages.user()).get("/connect")

    assert f"ANTHROPIC_BASE_URL={pages.lume.url} ANTHROPIC_AUTH_TOKEN=$LUME_KEY claude" in page.told
    assert f'base_url = "{pages.lume.url}/v1"' in page.told
    scripts = re.findall(r"http://\S+(/setup/\S+\.(?:sh|ps1))", page.told)
    assert len(scripts) == 6
    for script in scripts:
        assert (await pages.browser().get(script)).status == 200
    assert pages.lume.key not in page.text
    assert f'data-calls="/connect/calls?since={pages.clock.now_ms()}"' in page.text


async def test_the_first_call_arrives_as_an_event(pages: Site):
    await pages.call(text="before the page was shown")
    pages.clock.wall_ms += 10
    user = await pages.user()
    async with listen(pages, user, pages.clock.now_ms()) as stream:
        assert stream.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert await stream.content.readline() == b"retry: 3000\n"
        await pages.lume.run("account.create", name="bob", credit_nanousd=10**9)
        await pages.call(key=(await pages.lume.run("key.create", account="bob"))["key"])
        call = await pages.call()
        text = (await asyncio.wait_for(stream.read(), 5)).decode()

    name, data = text.strip().splitlines()
    assert name == "event: call"
    assert json.loads(data.removeprefix("data: ")) == {"call_id": call, "model": "claude-echo", "ending": "complete"}


async def test_pages_that_wait_are_limited_and_give_their_place_back(pages: Site):
    user = await pages.user()
    streams = [listen(pages, user, "x") for _ in range(4)]
    for stream in streams:
        assert (await stream.__aenter__()).status == 200
    async with listen(pages, user, 0) as refused:
        assert (refused.status, refused.headers["Retry-After"]) == (429, "30")
    for stream in streams:
        await stream.__aexit__(None, None, None)
    async with asyncio.timeout(5):
        while True:
            async with listen(pages, user, "x") as again:
                if again.status == 200:
                    return


async def test_a_page_that_waits_does_not_keep_the_server_from_stopping(tmp_path: Path):
    async with asyncio.timeout(5):
        async with site(tmp_path) as stopped:
            user = await stopped.user()
            reader, writer = await asyncio.open_connection("127.0.0.1", stopped.lume.server.port)
            cookie = f"Host: localhost\r\nCookie: lume_session={user.cookies['lume_session']}"
            writer.write(f"GET /connect/calls HTTP/1.1\r\n{cookie}\r\n\r\n".encode())
            await reader.readuntil(b"retry: 3000")
        assert (await reader.read()).endswith(b"0\r\n\r\n")
        writer.close()
