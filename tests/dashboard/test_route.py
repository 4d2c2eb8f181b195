"""The rows of the table."""

from __future__ import annotations

from lumeproxy.dashboard.route import Access


def test_there_are_four_kinds_of_visitors():
    assert [access.value for access in Access] == ["open", "signed_in", "user", "operator"]
