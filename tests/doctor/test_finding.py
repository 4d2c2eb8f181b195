"""Findings and the small words they are made of."""

from __future__ import annotations

import pytest

from lumeproxy.doctor.finding import Finding, State, failed, ok, size, spelled, warning


def test_a_finding_has_one_of_three_states():
    assert ok("disk", "Fine.") == Finding("disk", State.OK, "Fine.", None)
    assert warning("disk", "Low.", "rm x").state == "warning"
    assert failed("disk", "Full.").state == "failed"


@pytest.mark.parametrize(
    ("count_bytes", "told"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1_000, "1 KB"),
        (64_000_000, "64 MB"),
        (1_500_000_000, "1.5 GB"),
        (271_400_000_000, "271 GB"),
        (12_000_000_000_000, "12,000 GB"),
    ],
)
def test_sizes_are_told_in_the_unit_that_fits(count_bytes, told):
    assert size(count_bytes) == told


def test_counts_agree_with_their_noun():
    assert [spelled(number, "model") for number in (0, 1, 1_200)] == ["0 models", "1 model", "1,200 models"]
