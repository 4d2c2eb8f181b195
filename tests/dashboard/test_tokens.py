"""A form's token follows from the browser's, and a foreign page has neither it nor our origin."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from lumeproxy.dashboard import tokens

TOKEN = "ab" * tokens.TOKEN_BYTES
FORM = tokens.form_token(TOKEN)
HERE = {"Origin": "https://here.test", "Sec-Fetch-Site": "same-origin"}


def test_a_forms_token_says_nothing_of_the_browsers_and_none_follows_from_none():
    assert len(FORM) == 64 and TOKEN not in FORM
    assert tokens.digest(TOKEN).hex() != FORM
    assert tokens.form_token("") == ""


@pytest.mark.parametrize(
    ("headers", "sent", "expected", "ours"),
    [
        (HERE, FORM, FORM, True),
        ({}, FORM, FORM, True),  # a program without a browser's headers
        (HERE, "", FORM, False),
        (HERE, FORM[:-1], FORM, False),
        (HERE, "\udcff", FORM, False),
        (HERE, "", "", False),
        ({**HERE, "Sec-Fetch-Site": "cross-site"}, FORM, FORM, False),
        ({**HERE, "Sec-Fetch-Site": "same-site"}, FORM, FORM, False),
        ({**HERE, "Sec-Fetch-Site": "none"}, FORM, FORM, False),
        ({**HERE, "Origin": "null"}, FORM, FORM, False),
        ({**HERE, "Origin": "https://evil.test"}, FORM, FORM, False),
        ({**HERE, "Origin": "http://["}, FORM, FORM, False),
        ({**HERE, "Origin": "https://here.test.evil.test"}, FORM, FORM, False),
        ({**HERE, "Origin": "https://here.test:1"}, FORM, FORM, False),
    ],
)
def test_a_form_is_ours_by_its_token_and_its_origin(headers, sent, expected, ours):
    assert tokens.is_own_form(headers, "http://here.test", sent, expected) is ours


@pytest.mark.parametrize("secure", [True, False])
def test_a_cookie_is_read_as_it_was_put(secure):
    response = web.Response()
    tokens.put(response, tokens.SESSION_COOKIE, TOKEN, secure=secure, seconds=60)
    (cookie,) = response.cookies.values()

    assert (cookie.key.startswith("__Host-"), bool(cookie["secure"])) == (secure, secure)
    assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["domain"]) == (True, "Lax", "/", "")
    request = make_mocked_request("GET", "/", headers={"Cookie": f"{cookie.key}={TOKEN}"})
    assert tokens.read(request, tokens.SESSION_COOKIE, secure=secure) == TOKEN
    assert tokens.read(request, tokens.SESSION_COOKIE, secure=not secure) == ""


@pytest.mark.parametrize("value", ["", "x", TOKEN[:-1], TOKEN.upper(), "g" * 64, TOKEN + "a"])
def test_what_can_be_no_token_is_none(value):
    request = make_mocked_request("GET", "/", headers={"Cookie": f"lume_session={value}"})

    assert tokens.read(request, tokens.SESSION_COOKIE, secure=False) == ""
