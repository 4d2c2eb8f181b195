"""The key's format: checksum, digest, and what is no key."""

from __future__ import annotations

import os
import re

import pytest

from lumeproxy.core import apikey


def test_a_new_key_has_the_documented_shape_and_is_recognised():
    key = apikey.make(os.urandom)

    assert re.fullmatch("lume_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}", key.text)
    assert apikey.parse(key.text) == key.id
    assert key.text.endswith(key.last4)
    assert apikey.verify(key.text, key.sha256)
    assert not apikey.verify(key.text[:-1] + "?", key.sha256)


def test_every_single_typo_is_refused_without_a_look_up():
    key = apikey.make(os.urandom).text
    for at in range(len(key)):
        other = "A" if key[at] != "A" else "B"
        assert apikey.parse(key[:at] + other + key[at + 1 :]) is None


@pytest.mark.parametrize(
    "text", ["", "lume_", "sk-ant-abc", "lume_" + "é" * 47, "x" * 1_000_000, "lume_aaaaaaaa-" + "0" * 38]
)
def test_what_is_no_key_is_refused(text):
    assert apikey.parse(text) is None


def test_letters_are_drawn_without_bias():
    """Bytes of 248 and above would favour the first letters; they are drawn again."""
    sources = iter([b"\xff" * 8, b"\x00" * 8, b"\x01" * 32])
    key = apikey.make(lambda count: next(sources)[:count])

    assert key.text.startswith("lume_00000000_" + "1" * 32)


def test_an_admin_key_is_of_another_kind():
    admin, key = apikey.make(os.urandom, apikey.ADMIN_PREFIX), apikey.make(os.urandom)

    assert re.fullmatch(r"lume_admin_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}", admin.text)
    assert apikey.parse(admin.text, apikey.ADMIN_PREFIX) == admin.id == apikey.id_in(admin.text, apikey.ADMIN_PREFIX)
    assert apikey.parse(admin.text) is None
    assert apikey.parse(key.text, apikey.ADMIN_PREFIX) is None
    assert apikey.verify(admin.text, admin.sha256)
