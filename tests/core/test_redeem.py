"""Redeem codes: readable, random, and the same however they are typed."""

from __future__ import annotations

import os
import re
from functools import partial

import pytest

from lumeproxy.core import redeem

CODE = "0123-4567-89AB-CDEF"


def test_a_code_is_sixteen_characters_of_crockfords_alphabet_in_groups():
    made = {redeem.make(os.urandom) for _ in range(200)}

    assert len(made) == 200
    for code in made:
        assert re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{4}(-[0-9A-HJKMNP-TV-Z]{4}){3}", code)


def test_every_bit_of_the_ten_bytes_is_in_the_code():
    zero = redeem.make(lambda count: bytes(count))
    assert zero == "0000-0000-0000-0000"
    for bit in range(80):
        assert redeem.make(partial(int.to_bytes, 1 << bit)).count("0") == 15
    assert redeem.make(lambda count: b"\xff" * count) == "ZZZZ-ZZZZ-ZZZZ-ZZZZ"


@pytest.mark.parametrize(
    "typed",
    ["0123-4567-89ab-cdef", "0123456789ABCDEF", " 0123 4567 89ab cdef\n", "O123-4567-89AB-CDEF", "oI23-4567-89ab-cdef",
     "0l23-4567-89AB-CDEF"],
)  # fmt: skip
def test_a_code_is_the_same_however_it_is_typed(typed):
    assert redeem.digest(typed) == redeem.digest(CODE)


@pytest.mark.parametrize("typed", ["", "0123-4567-89AB-CDEG", "0123-4567-89AB-CDE", "\udcff", "é"])
def test_another_text_is_another_code(typed):
    assert redeem.digest(typed) != redeem.digest(CODE)
