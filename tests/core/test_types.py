"""The shared vocabulary."""

from __future__ import annotations

from lumeproxy.core.types import Usage, UsageRecord


def test_the_whole_input_is_the_sum_of_its_classes():
    assert Usage(1, 2, 3, 4, 100).total_input_tokens == 10


def test_a_record_gives_back_its_token_classes():
    record = UsageRecord(
        call_id="c", time_ms=1, account_id=1, key_id="k", endpoint="e", dialect="d", model="m",
        input_tokens=1, cache_read_tokens=2, cache_write_5m_tokens=3, cache_write_1h_tokens=4, output_tokens=5,
        reasoning_tokens=6, web_search_requests=7,
    )  # fmt: skip

    assert record.usage() == Usage(1, 2, 3, 4, 5, 6, 7)
