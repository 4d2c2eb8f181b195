"""What an answer means: who is to blame, and whether the request may be sent again. The whole table."""

from __future__ import annotations

import pytest

from lumeproxy.core.failover import Blame, Verdict, asked_wait_ms, judge, usefulness

BRIEF = 5_000
NOW_MS = 1_795_000_000_000  # 2026-11-18 11:06:40 UTC


@pytest.mark.parametrize(
    ("status", "wait_ms", "blame", "repeat", "rest_ms"),
    [
        (200, None, Blame.NOBODY, False, 0),
        (307, None, Blame.NOBODY, False, 0),
        (400, None, Blame.NOBODY, False, 0),
        (401, None, Blame.REFUSED, True, 0),
        (402, 60_000, Blame.REFUSED, True, 0),
        (403, None, Blame.REFUSED, True, 0),
        (404, None, Blame.NOBODY, False, 0),
        (408, None, Blame.NOBODY, False, 0),
        (413, None, Blame.NOBODY, False, 0),
        (422, None, Blame.NOBODY, False, 0),
        (429, None, Blame.CREDENTIAL, True, 0),
        (429, 0, Blame.NOBODY, False, 0),
        (429, 5_000, Blame.NOBODY, False, 0),
        (429, 5_001, Blame.CREDENTIAL, True, 5_001),
        (500, None, Blame.UPSTREAM, True, 0),
        (500, 5_000, Blame.UPSTREAM, True, 0),
        (501, None, Blame.NOBODY, False, 0),
        (502, None, Blame.UPSTREAM, True, 0),
        (503, 60_000, Blame.UPSTREAM, True, 60_000),
        (504, None, Blame.UPSTREAM, False, 0),
        (520, None, Blame.UPSTREAM, False, 0),
        (524, None, Blame.UPSTREAM, False, 0),
        (529, 5_000, Blame.UPSTREAM, True, 0),
        (529, 5_001, Blame.UPSTREAM, True, 5_001),
        (599, None, Blame.UPSTREAM, False, 0),
    ],
)
def test_every_status_has_its_verdict(status, wait_ms, blame, repeat, rest_ms):
    assert judge(status, wait_ms, BRIEF) == Verdict(blame, repeat, rest_ms)


@pytest.mark.parametrize(
    ("headers", "wait_ms"),
    [
        ([], None),
        ([("Retry-After", "7")], 7_000),
        ([("retry-after", " 0 ")], 0),
        ([("retry-after", "1.5")], 1_500),
        ([("retry-after", "7"), ("retry-after-ms", "250")], 250),
        ([("retry-after-ms", "soon"), ("retry-after", "7")], None),
        ([("retry-after", "Wed, 18 Nov 2026 11:07:40 GMT")], 60_000),
        ([("retry-after", "Wed, 18 Nov 2026 11:05:40 GMT")], 0),
        ([("retry-after", "-3")], None),
        ([("retry-after", "")], None),
        ([("retry-after", "later")], None),
        ([("retry-after-ms", "inf")], None),
        ([("retry-after-ms", "nan")], None),
        ([("retry-after", "9" * 400)], None),
        ([("x-retry-after", "7")], None),
    ],
)
def test_the_wait_is_read_in_each_of_its_forms_and_never_guessed(headers, wait_ms):
    assert asked_wait_ms(headers, NOW_MS) == wait_ms


def test_of_several_failures_the_one_that_says_most_is_passed_on():
    answers = [(None, None), (401, None), (500, None), (502, None), (529, None), (503, None), (429, None), (503, 9_000)]
    ranks = [usefulness(status, wait_ms) for status, wait_ms in answers]

    assert ranks == [0, 1, 2, 2, 3, 3, 3, 4]
