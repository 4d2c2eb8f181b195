"""A visit: what it says comes from a fixed list, and what it does is done in its account's name."""

from __future__ import annotations

import re
from pathlib import Path

from lumeproxy.dashboard import visit
from lumeproxy.dashboard.sitemap import ROUTES
from tests.dashboard.browser import Site

PAGES = "\n".join(file.read_text("utf-8") for file in sorted(Path(visit.__file__).parent.glob("pages_*.py")))


async def test_a_page_says_only_what_is_in_the_list(pages: Site):
    user = await pages.user()

    assert "The key is revoked." in (await user.get("/keys?said=revoked")).told
    for text in ("<b>hello", "anything", ""):
        assert 'class="said"' not in (await user.get("/keys?said=" + text)).text


def test_every_sentence_is_said_by_some_page():
    for name in visit.SAID:
        assert f'"{name}"' in PAGES, name


def test_every_target_that_pages_send_on_to_exists():
    paths = {route.path for route in ROUTES if route.method == "GET"}
    for target in re.findall(r'visit\.to\("([^"]*)"', PAGES):
        assert target.partition("?")[0] in paths, target
