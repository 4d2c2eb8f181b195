"""Call ids sort by time and don't repeat."""

from __future__ import annotations

import re

from lumeproxy.core import callid


def test_ids_sort_by_time_whatever_the_random_part():
    ids = [callid.make(ms, bytes([255 - ms % 256]) * 10) for ms in range(1_795_000_000_000, 1_795_000_000_300)]

    assert ids == sorted(ids)
    assert all(re.fullmatch("call_[0-9a-hjkmnp-tv-z]{26}", one) for one in ids)


def test_ids_of_one_moment_differ_by_their_random_part():
    assert callid.make(1, b"a" * 10) != callid.make(1, b"b" * 10)
