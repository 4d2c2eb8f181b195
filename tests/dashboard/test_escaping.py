"""Whatever stands in a field comes out escaped: thirty payloads in each field that a page shows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from html.parser import HTMLParser

import pytest
from markupsafe import escape

from lumeproxy.core.types import UsageRecord
from lumeproxy.dashboard.sitemap import ROUTES
from lumeproxy.store import accounts, codes, keys, ledger, people, sessions, usage
from lumeproxy.store.days import add
from lumeproxy.store.sessions import Session
from tests.dashboard.browser import Site
from tests.dashboard.test_pages import filled

PAYLOADS = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\"><svg onload=alert(1)>", "' onmouseover='alert(1)",
    "</title><script>alert(1)</script>", "</textarea><script>a</script>", "javascript:alert(1)", "{{ 7*7 }}", "{% raw %}",
    "<iframe src=//evil.test>", "<a href=javascript:alert(1)>x</a>", "&lt;script&gt;", "&#60;script&#62;", "<!--", "-->",
    "<style>*{display:none}</style>", "<base href=//evil.test>", "<form action=//evil.test>", "\" autofocus onfocus=a x=\"",
    "<math><mi xlink:href=data:x>", "]]><x>", "<meta http-equiv=refresh content=0>", "\u2028<b>", "\u202eevil",
    "<body onload=a>", "<details open ontoggle=a>", "<object data=x>", "<link rel=stylesheet href=//e>", "\\\"><b>",
    "<xmp><p title=\"</xmp><img onerror=a>\">",
]  # fmt: skip


class Reader(HTMLParser):
    """The elements of a page that no template of ours has written."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[object] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        strange = {"iframe", "base", "object", "style", "math", "meta-refresh", "xmp", "b", "x", "embed"}
        if tag in strange or any(name.startswith("on") or name in ("style", "srcdoc", "http-equiv") for name in given):
            self.foreign.append((tag, given))
        if tag == "script" and not str(given.get("src", "")).startswith("/static/"):
            self.foreign.append((tag, given))
        for name in ("href", "src", "action", "data"):
            if not (given.get(name) or "/").startswith(("/", "#")) or (given.get(name) or "").startswith("//"):
                self.foreign.append((tag, given))


@pytest.fixture
async def spoilt(pages: Site) -> AsyncIterator[Site]:
    """A server in whose every text column stands every payload; past the checks at the door, as an older version might
    have let it in."""
    await pages.lume.run("account.admin", name="tester")

    def spoil(tx):
        ann = accounts.get(tx, "tester")
        now_ms = pages.clock.now_ms()
        for number, text in enumerate(PAYLOADS):
            digest = bytes([number]) * 32
            keys.add(tx, f"key{number:05}", "tester", digest, '<b>"', text[:64], (text,), now_ms, None)
            record = UsageRecord(call_id=f"call{number}", time_ms=now_ms, account_id=ann.id, key_id=f"key{number:05}",
                endpoint=text, dialect=text, model=text, model_served=text, upstream=text, status=500, ending=text,
                settled_by=text, ttfb_ms=1, duration_ms=1, client_address=text, user_agent=text, session_id=text,
                agent_id=text, upstream_request_id=text, error_code=text, error_text=text, price_version="")  # fmt: skip
            usage.insert(tx, record)
            add(tx, record)
            ledger.grant(tx, "tester", 1, text, None, now_ms)
            sessions.begin(tx, Session(digest, ann.id, "key", now_ms, now_ms, 2**50, text, text))
            codes.add(tx, text[:64], "credit", 1, [(digest, text[-4:])], now_ms, None)
        everything = " ".join(PAYLOADS)
        people.set_note(tx, "tester", everything)
        tx.execute("UPDATE accounts SET reason = :1 WHERE id = :2", {"1": everything, "2": ann.id})
        tx.execute("INSERT INTO prices VALUES ('', '{}', 0)")

    await pages.lume.server.database.write(spoil)
    for text in PAYLOADS:
        await pages.lume.run("account.suspend", name="tester", reason=text)
        await pages.lume.run("account.note", name="tester", note=text)
    await pages.lume.run("account.resume", name="tester")
    yield pages
    await pages.lume.server.database.write(unspoil)


def unspoil(tx):
    """Take the made-up records away, so that the books are in order again."""
    tx.execute("DELETE FROM usage")
    tx.execute("DELETE FROM days")
    tx.execute("DELETE FROM prices WHERE version = ''")


async def test_thirty_payloads_in_every_field_come_out_escaped_on_every_page(spoilt: Site):
    assert len(PAYLOADS) == len(set(PAYLOADS)) == 30
    boss = spoilt.browser()
    await boss.by_link("tester")
    shown: dict[str, int] = {}
    for route in ROUTES:
        if route.method == "POST" or route.path in (
            "/connect/calls",
            "/usage.json",
            "/usage.csv",
            "/account/data.json",
        ):
            continue
        for number in range(0, 30, 3) if "{" in route.path else (0, 7):
            text = PAYLOADS[number]
            values = {"id": f"key{number:05}", "call": f"call{number}", "name": "tester", "batch": str(number + 1)}
            path = filled(route, session="x", **values)
            query = "" if "?" in path else "?q={0}&model={0}&session={0}&outcome={0}&next={0}&said={0}&before={0}"
            for asked in ("", query.format(percent(text))):
                page = await boss.get(path + asked)
                reader = Reader()
                reader.feed(page.text)
                assert reader.foreign == [], (path, asked)
                for payload in PAYLOADS:
                    if "<" in payload:
                        assert payload not in page.text, (path, payload)
                        shown[payload] = shown.get(payload, 0) + (str(escape(payload))[:8] in page.text)
    # The payloads were there to be seen.
    assert min(shown.values()) > 20


def percent(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())
