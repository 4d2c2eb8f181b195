"""The pages in a real browser, from a first sign-in to a suspension: every step as a person does it, with a real client's
call between; then each page at two widths, in light and dark, by the rules of accessibility.

Needs Chromium, playwright and axe-core (`make e2e` installs them). Pictures go to SCREENSHOTS, if that is set.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lumeproxy.dashboard.exports import OPERATORS
from tests.e2e.conftest import missing
from tests.e2e.product import ROOT, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
AXE = Path(os.environ.get("AXE", ROOT / ".venv" / "axe" / "node_modules" / "axe-core" / "axe.min.js"))
WIDTHS, SCHEMES = (390, 1280), ("light", "dark")
USERS = (
    "/",
    "/usage",
    "/usage?days=1&outcome=complete",
    "/keys",
    "/connect",
    "/credit",
    "/account",
    "/terms",
    "/privacy",
)
OPERATOR_PAGES = (
    "/operator", "/operator/accounts", "/operator/accounts/eva", "/operator/usage", "/operator/codes", "/operator/codes/1",
    "/operator/prices", "/operator/log",
)  # fmt: skip
# What the browser says of a page that is not as it should be; a 403 that the test itself causes is told by the network.
COMPLAINTS = re.compile(r"Content Security Policy|Refused to|Uncaught|Mixed Content")


class Person:
    """Somebody at a browser, and what that complained of."""

    def __init__(self, browser: Any, base: str) -> None:
        self.page = browser.new_context(accept_downloads=True, locale="en-GB", timezone_id="Europe/Rome").new_page()
        self.base = base
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", lambda message: self._heard(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        self.page.on("dialog", lambda dialog: dialog.accept())

    def _heard(self, text: str) -> None:
        if COMPLAINTS.search(text):
            self.complaints.append(text)

    def go(self, path: str) -> Any:
        return self.page.goto(self.base + path)

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def follow(self, name: str) -> None:
        self.page.get_by_role("link", name=name, exact=True).first.click()

    def accept_terms(self) -> None:
        self.page.get_by_role("checkbox").check()
        self.press("Continue")

    @property
    def words(self) -> str:
        return " ".join(self.page.locator("main").inner_text().split())


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api") if "CI" not in os.environ else __import__(
        "playwright.sync_api", fromlist=["sync_playwright"]
    )  # fmt: skip
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        missing("Chromium is not installed")
    if not AXE.is_file():
        missing(f"axe-core is not there: {AXE}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def eva(stack: Stack, chromium: Any) -> Person:
    """A user with a key and five dollars, before the first sign-in."""
    stack.key = stack.account("eva", "5")
    return Person(chromium, stack.base)


@pytest.fixture(scope="module")
def boss(stack: Stack, chromium: Any) -> Person:
    """The operator, signed in by a link of the command line."""
    stack.cli("account", "create", "boss")
    stack.cli("account", "admin", "boss")
    person = Person(chromium, stack.base)
    person.page.goto(stack.cli("account", "link", "boss")["url"])
    person.press("Sign in")
    person.accept_terms()
    return person


def test_a_first_sign_in_asks_for_the_terms_and_says_what_to_do_next(stack: Stack, eva: Person) -> None:
    eva.go("/")
    assert "/sign-in" in eva.page.url
    eva.page.get_by_label("API key").fill(stack.key)
    eva.press("Sign in with the key")
    assert "Before you begin: these are the terms." in eva.words
    eva.accept_terms()

    assert eva.page.url == stack.base + "/"
    assert "No calls in the last 30 days" in eva.words and "$5.00" in eva.words


def test_a_key_is_made_and_the_first_call_of_claude_code_makes_the_tick_appear(stack: Stack, eva: Person) -> None:
    eva.follow("Make a key")
    eva.page.get_by_label("Name").fill("laptop")
    eva.press("Make the key")
    key = eva.page.locator("pre").first.inner_text()
    assert re.fullmatch(r"lume_\w{8}_\w{38}", key)
    eva.page.locator("main").get_by_role("link", name="Connect a tool").click()
    assert "Waiting for the first call" in eva.words

    stack.script("run_claude_code.sh", key=key)

    eva.page.locator(".waiting.done").wait_for(timeout=15_000)
    assert re.search(r"The first call arrived: claude-\S+, complete\.", eva.words)


def test_the_usage_page_shows_it_and_its_file_equals_the_command(stack: Stack, eva: Person) -> None:
    records = stack.cli("usage", "eva")
    assert len(records) >= 2
    eva.page.get_by_role("navigation").get_by_role("link", name="Usage").click()

    assert eva.page.locator('a[href^="/usage/calls/"]').count() == len(records)
    with eva.page.expect_download() as download:
        eva.follow("JSON")
    theirs = [{name: value for name, value in record.items() if name not in OPERATORS} for record in records]
    assert json.loads(Path(download.value.path()).read_text()) == theirs
    with eva.page.expect_download() as download:
        eva.follow("CSV")
    assert len(Path(download.value.path()).read_text().splitlines()) == len(records) + 1
    eva.page.locator('a[href^="/usage/calls/"]').first.click()
    eva.page.locator('a[href^="/usage/sessions/"]').click()
    assert records[0]["session_id"] in eva.words and "the session itself" in eva.words


def test_the_operators_code_is_redeemed(stack: Stack, eva: Person, boss: Person) -> None:
    boss.go("/operator/codes")
    boss.page.get_by_label("Name").fill("spring")
    boss.page.get_by_label("Credit of each, dollars").fill("2.50")
    boss.page.get_by_label("How many").fill("2")
    boss.press("Make and show them")
    code = boss.page.locator("pre").inner_text().split()[0]

    before = stack.cli("credit", "balance", "eva")["balance_nanousd"]
    eva.go("/credit")
    eva.page.get_by_label("Code").fill(code.lower())
    eva.press("Redeem")
    assert "The code was redeemed" in eva.words and "code of spring" in eva.words
    assert stack.cli("credit", "balance", "eva")["balance_nanousd"] == before + 2_500_000_000


def test_a_suspension_ends_the_running_stream_and_is_told_until_it_is_lifted(
    stack: Stack, eva: Person, boss: Person
) -> None:
    begun, ended = threading.Event(), threading.Event()

    def stream() -> None:
        connection = http.client.HTTPConnection(stack.base.removeprefix("http://"), timeout=60)
        text = "tell me [[fake:long-3000,slow-20]]"
        body = {"model": "claude-opus-5-5", "max_tokens": 8000, "stream": True,
                "messages": [{"role": "user", "content": text}]}  # fmt: skip
        connection.request("POST", "/v1/messages", json.dumps(body), {"Authorization": "Bearer " + stack.key})
        response = connection.getresponse()
        response.read(200)
        begun.set()
        with contextlib.suppress(http.client.IncompleteRead):
            while response.read(4096):
                pass
        connection.close()
        ended.set()

    running = threading.Thread(target=stream)
    running.start()
    assert begun.wait(20)
    boss.go("/operator/accounts/eva")
    boss.page.get_by_label("Reason").fill("the invoice is open")
    at = time.monotonic()
    boss.press("Suspend the account")
    assert ended.wait(5)
    print(f"the stream ended {time.monotonic() - at:.2f} s after the click")  # noqa: T201
    running.join()
    assert "suspended: the invoice is open" in boss.words

    eva.go("/")
    assert "This account is suspended: the invoice is open" in eva.words
    eva.press("Sign out")
    eva.page.get_by_label("API key").fill(stack.key)
    eva.press("Sign in with the key")
    assert "This account is suspended: the invoice is open" in eva.words

    boss.press("Resume the account")
    eva.page.get_by_label("API key").fill(stack.key)
    eva.press("Sign in with the key")
    eva.page.get_by_role("heading", name="Overview").wait_for()
    assert stack.cli("usage", "eva")[0]["ending"] == "interrupted"


def looked_at(person: Person, paths: tuple[str, ...]) -> list[str]:
    """What is wrong with pages: wider than the screen, or against a rule of accessibility."""
    found = []
    folder = os.environ.get("SCREENSHOTS")
    for scheme in SCHEMES:
        person.page.emulate_media(color_scheme=scheme)
        for width in WIDTHS:
            person.page.set_viewport_size({"width": width, "height": 900})
            for path in paths:
                assert person.go(path).status == 200, path
                if folder:
                    name = re.sub(r"\W+", "-", path).strip("-") or "overview"
                    Path(folder).mkdir(parents=True, exist_ok=True)
                    person.page.screenshot(path=f"{folder}/{name}-{width}-{scheme}.png", full_page=True)
                excess = person.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
                if excess > 0:
                    found.append(f"{path} at {width}: {excess} px too wide")
                person.page.evaluate(AXE.read_text("utf-8") + "; undefined")
                for broken in person.page.evaluate("axe.run()")["violations"]:
                    nodes = [node["html"][:100] for node in broken["nodes"]][:3]
                    found.append(f"{path} at {width}, {scheme}: {broken['id']} {nodes}")
    return found


def test_every_page_fits_and_breaks_no_rule_of_accessibility(stack: Stack, eva: Person, boss: Person) -> None:
    call = stack.cli("usage", "eva")[0]["call_id"]
    key = next(key["id"] for key in stack.cli("key", "list", "eva") if key["name"] == "laptop")
    assert looked_at(eva, (*USERS, f"/usage/calls/{call}", f"/keys/{key}")) == []
    assert looked_at(boss, OPERATOR_PAGES) == []
    eva.press("Sign out")
    assert looked_at(eva, ("/sign-in",)) == []


def test_the_browser_had_nothing_to_complain_of_and_asked_no_other_host(
    stack: Stack, eva: Person, boss: Person
) -> None:
    for person in (eva, boss):
        assert person.complaints == []
        assert person.hosts == {stack.base.removeprefix("http://")}
    assert stack.cli("audit") == {"ok": True, "problems": []}
