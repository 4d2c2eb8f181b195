"""A proxy's address as people write it, and the link that hands it on."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from lumeproxy.clients.address import ccswitch_link, checked_url, is_near
from lumeproxy.errors import Refused
from tests.clients.support import KEY


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://proxy.test", "https://proxy.test"),
        (" https://proxy.test/ ", "https://proxy.test"),
        ("http://127.0.0.1:8787", "http://127.0.0.1:8787"),
        ("http://[::1]:8787/", "http://[::1]:8787"),
        ("https://a.test/team/llm", "https://a.test/team/llm"),
        ("http://localhost", "http://localhost"),
    ],
)
def test_an_address_is_taken_without_a_slash_at_its_end(given, url):
    assert checked_url(given) == (url, [])


@pytest.mark.parametrize("given", ["https://a.test/v1", "https://a.test/v1/", "https://a.test/v1/v1"])
def test_a_version_at_the_end_is_taken_off_and_said(given):
    url, (warning,) = checked_url(given)

    assert url == "https://a.test"
    assert "/v1" in warning


def test_plain_http_to_another_machine_is_said():
    _, (warning,) = checked_url("http://proxy.test:8787")

    assert "not encrypted" in warning
    assert is_near("127.0.0.9") and is_near("localhost") and not is_near("10.0.0.1") and not is_near("proxy.test")


WRONG = """
    proxy.test ftp://a.test http:// https:///x https://a.test?x=1 https://a.test#f https://user:pw@a.test https://a.test:x
    https://a.test:99999 https://a'b.test https://a$(id).test https://a`id`.test https://a.test/'x https://a.test/$(id)
    https://a.test/;x https://-a.test https://a.test/"x https://a.test\\x javascript:alert(1) https://ä.test
    https://[::1 http://a.test:80:80 https://a.test/../x{ https://a.test/%0a
"""


@pytest.mark.parametrize("given", [*WRONG.split(), "", "https://a b.test", "https://a.test\nx", "https://a.test/x y"])
def test_what_is_no_address_is_refused(given):
    with pytest.raises(Refused):
        checked_url(given)


def test_the_link_carries_every_field_whatever_is_in_it():
    link = ccswitch_link("claude", "https://a.test/x", KEY, "m&n")

    assert link.startswith("ccswitch://v1/import?resource=provider&app=claude&name=lumeproxy&")
    assert parse_qs(urlsplit(link).query) == {
        "resource": ["provider"], "app": ["claude"], "name": ["lumeproxy"], "endpoint": ["https://a.test/x"],
        "apiKey": [KEY], "homepage": ["https://a.test/x"], "model": ["m&n"],
    }  # fmt: skip
