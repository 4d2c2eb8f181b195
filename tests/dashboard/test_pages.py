"""The guards of all pages, walked through the table itself, so that a new page can't be forgotten."""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
import urllib.parse
from pathlib import Path

import pytest

from lumeproxy.dashboard import pages as module
from lumeproxy.dashboard.route import Access, Route
from lumeproxy.dashboard.sitemap import ROUTES
from lumeproxy.dashboard.visit import HEADERS
from tests.dashboard.browser import Browser, Page, Site, site

NOBODY = {"id": "zzzzzzzz", "call": "call_none", "session": "none", "handle": "0" * 16, "name": "nobody", "batch": "99",
          "upstream": "none"}  # fmt: skip
FORMS = [route for route in ROUTES if route.method == "POST"]
OWN = [route for route in ROUTES if route.access is Access.USER and "{" in route.path]


def filled(route: Route, **values: str) -> str:
    """The route's path with something in the place of its variables."""
    return re.sub(r"\{(\w+)\}", lambda found: {**NOBODY, **values}[found[1]], route.path)


async def ask(browser: Browser, route: Route, **values: str) -> Page:
    path = filled(route, **values)
    return await (browser.get(path) if route.method == "GET" else browser.post(path))


def told(route: Route) -> str:
    return f"{route.method} {route.path}"


# --- who may -----------------------------------------------------------------------------------------------------------


async def test_every_page_but_the_open_ones_refuses_whoever_is_not_signed_in(pages: Site):
    for cookies in ({}, {"lume_session": "ab" * 32}, {"lume_session": "' OR 1"}, {"__Host-lume_session": "ab" * 32}):
        nobody = Browser(pages.lume, dict(cookies))
        await nobody.get("/sign-in")
        for route in ROUTES:
            if route.access is Access.OPEN:
                continue
            page = await ask(nobody, route)
            if route.method == "GET":
                assert page.to.startswith("/sign-in?next=/"), told(route)
            else:
                assert page.status == 401, told(route)
            assert "tester" not in page.text


async def test_every_page_of_the_operator_refuses_a_user_and_an_operator_by_api_key(pages: Site):
    boss = await pages.operator()
    user, by_key = await pages.user(), await pages.user("boss")
    walked = [route for route in ROUTES if route.access is Access.OPERATOR]
    assert len(walked) >= 18
    for route in walked:
        assert route.path.startswith("/operator"), told(route)
        for browser in (user, by_key):
            page = await ask(browser, route, name="tester")
            assert page.status == 403, told(route)
            assert "the operator's" in page.told
        if route.method == "GET":
            assert (await ask(boss, route, name="tester")).status in (200, 404), told(route)
    assert "/operator" not in (await user.get("/")).links | (await by_key.get("/")).links
    assert "/operator" in (await boss.get("/")).links


async def test_what_belongs_to_another_account_is_not_there(pages: Site):
    await pages.lume.run("account.create", name="bob", credit_nanousd=10**9)
    bobs_key = await pages.lume.run("key.create", account="bob")
    call = await pages.call(key=bobs_key["key"], **{"x-claude-code-session-id": "bobs-session"})
    bob = await pages.user("bob")
    values = {
        "id": bobs_key["id"],
        "call": call,
        "session": "bobs-session",
        "handle": sha_handle(bob),
        "name": "bob",
    }
    assert "this one" in (await bob.get("/account")).told
    ann = await pages.user()
    assert len(OWN) >= 7
    for route in OWN:
        page = await ask(ann, route, **values)
        assert page.status == 404, told(route)
        assert "bob" not in page.told
    for route in OWN:
        if route.method == "GET":
            assert (await ask(bob, route, **values)).status == 200, told(route)
    assert (await pages.lume.run("key.list", account="bob"))[0]["revoked_ms"] is None
    for name in ("/usage.json", "/usage.csv", "/account/data.json"):
        page = await ann.get(name + f"?key={bobs_key['id']}&session=bobs-session&account=bob&days=all")
        assert call not in page.text and "bob" not in page.text


def sha_handle(browser: Browser) -> str:
    """How the browser's session is called on a page."""
    return hashlib.sha256(browser.cookies["lume_session"].encode()).hexdigest()[:16]


# --- whose form it is --------------------------------------------------------------------------------------------------


async def test_every_form_without_its_token_or_from_elsewhere_is_403_and_changes_nothing(pages: Site):
    boss = await pages.operator()
    key = (await pages.lume.run("key.create", account="boss"))["id"]
    values = {"id": key, "name": "tester"}
    token, other = boss.token, (await pages.user()).token
    before = await pages.lume.server.database.read(everything)
    foreign: list[tuple[str, dict[str, str]]] = [
        ("", {}),
        ("0" * 64, {}),
        (other, {}),
        (token, {"Origin": "https://evil.test"}),
        (token, {"Origin": "null"}),
        (token, {"Sec-Fetch-Site": "cross-site"}),
        (token, {"Sec-Fetch-Site": "same-site"}),
    ]
    assert len(FORMS) >= 24
    for route in FORMS:
        for boss.token, headers in foreign:
            page = await boss.post(filled(route, **values), headers)
            assert page.status == 403, (told(route), headers)
            assert "form" in page.told
    assert await pages.lume.server.database.read(everything) == before
    boss.token = token
    assert (await boss.post("/operator/accounts/tester/note", note="x")).to.endswith("said=noted")


def everything(tx):
    """What a form could change."""
    names = ("accounts", "people", "keys", "entries", "sessions", "links", "batches", "codes", "actions", "acceptances")
    found = {name: tx.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall() for name in names}
    # The ledger's own row is touched by the server's look at the disk.
    found["accounts"] = [row[:8] for row in found["accounts"]]
    return found


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (b'{"token": "x"}', "application/json", 400),
        (b"--x", "multipart/form-data; boundary=x", 400),
        (b"a=\xff", "application/x-www-form-urlencoded", 400),
        (b"&".join([b"a=1"] * 101), "application/x-www-form-urlencoded", 400),
        (b"a=" + b"x" * 70_000, "application/x-www-form-urlencoded", 413),
    ],
)
async def test_what_is_no_form_is_refused(pages: Site, data, content_type, status):
    url = pages.lume.url + "/sign-in"
    async with pages.lume.session.post(url, data=data, headers={"Content-Type": content_type}) as response:
        assert response.status == status
        assert "text/html" in response.headers["Content-Type"]


async def test_a_form_that_never_arrives_is_let_go(pages: Site, monkeypatch):
    monkeypatch.setattr(module, "FORM_S", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", pages.lume.server.port)
    head = "POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    writer.write((head + "Content-Length: 10\r\n\r\nkey").encode())
    answer = await asyncio.wait_for(reader.readline(), 10)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 408 ")


# --- how it is answered ------------------------------------------------------------------------------------------------


async def test_every_answer_carries_the_headers_of_a_page_and_refers_to_nobody_else(pages: Site):
    await pages.call(**{"x-claude-code-session-id": "s-1"})
    boss, nobody = await pages.operator("tester"), pages.browser()
    call = (await pages.lume.records())[0]["call_id"]
    await pages.lume.run("code.create", name="b", amount_nanousd=1, count=1)
    key = (await pages.lume.run("key.list", account="tester"))[0]["id"]
    paths = {route.path for route in ROUTES}
    for route in ROUTES:
        if route.method == "POST" or route.path == "/connect/calls":
            continue
        values = {"id": key, "call": call, "session": "s-1", "name": "tester", "batch": "1"}
        for browser in (boss, nobody):
            page = await ask(browser, route, **values)
            assert page.status in (200, 303) or route.path in ("/register", "/sign-in/link"), told(route)
            for name, value in HEADERS.items():
                assert page.headers[name] == value, (told(route), name)
            for link in page.links if "html" in page.headers.get("Content-Type", "") else ():
                assert link.startswith("/") and not link.startswith("//") or link == "#main", link
                known = link.startswith("/static/") or any(
                    re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), urllib.parse.urlsplit(link).path or "/")
                    for path in paths
                )
                assert known or link == "#main", (told(route), link)
            assert not re.search(r"<style|style=|<script(?! src=\"/static/)|\son\w+=|javascript:", page.text), told(
                route
            )


async def test_the_first_page_is_for_browsers_and_only_under_our_own_name(pages: Site):
    browser = pages.browser()
    assert (await browser.get("/")).to == "/sign-in?next=/"
    async with pages.lume.session.get(pages.lume.url + "/", headers={"Host": "load-balancer.test"}) as response:
        assert (response.status, response.content_type) == (200, "text/plain")
    for path in ("/", "/sign-in", "/usage"):
        page = await browser.get(path, Host="evil.test")
        assert page.status == 403
        assert "server.allowed_hosts" in page.text


async def test_static_files_are_kept_by_browsers_and_no_other_file_is_served(pages: Site):
    browser = pages.browser()
    page = await browser.get("/sign-in")
    files = {link for link in page.links if link.startswith("/static/")}
    assert len(files) == 3
    for link in files:
        file = await browser.get(link)
        assert (file.status, file.headers["Cache-Control"]) == (200, "public, max-age=31536000, immutable")
        assert file.headers["X-Content-Type-Options"] == "nosniff"
        assert (await browser.get(link.partition("?")[0])).headers["Cache-Control"] == "no-cache"
    for path in ("/static/base.html", "/static/..%2fpages.py", "/static/%2e%2e/pages.py", "/static/"):
        assert (await browser.get(path)).status == 404


async def test_a_bug_is_told_without_its_text_and_logged(pages: Site, monkeypatch):
    user = await pages.user()

    def broken(*_given):
        raise RuntimeError("secret words")

    monkeypatch.setattr(sys.modules["lumeproxy.store.ledger"], "entries", broken)
    page = await user.get("/credit")

    assert page.status == 500
    assert "secret" not in page.text
    assert "page GET /credit" in pages.lume.log.getvalue()


async def test_a_session_ends_by_its_time_and_its_use_is_noted(pages: Site):
    user = await pages.user()
    pages.clock.wall_ms += module.TOUCH_MS + 1
    await user.get("/account")
    (kept,) = await pages.lume.server.database.read(
        lambda tx: tx.execute("SELECT seen_ms - created_ms FROM sessions").fetchall()
    )
    assert kept == (module.TOUCH_MS + 1,)
    pages.clock.wall_ms += 720 * 3_600_000

    assert (await user.get("/usage?days=30&model=a*")).to == "/sign-in?next=/usage%3Fdays%3D30%26model%3Da%2A"


async def test_behind_tls_the_cookies_are_for_this_host_only(tmp_path: Path):
    async with site(tmp_path, LUMEPROXY_SERVER__TRUSTED_PROXIES='["127.0.0.1"]') as behind:
        user = await behind.user()

        assert set(user.cookies) == {"__Host-lume_session", "__Host-lume_visit"}
        told = {"X-Forwarded-Host": "lume.example.org", "X-Forwarded-Proto": "https"}
        page = await user.get("/connect", Host="inside", **told)
        assert "https://lume.example.org/v1" in page.text
        ours = {**told, "Host": "inside", "Origin": "https://lume.example.org"}
        assert (await user.post("/keys", ours, name="a")).status == 200
        assert (await user.post("/keys", {**ours, "Origin": "https://inside"}, name="a")).status == 403
