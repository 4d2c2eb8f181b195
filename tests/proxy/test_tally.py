"""What the process has served, in counters."""

from __future__ import annotations

from lumeproxy.proxy.tally import Tally
from lumeproxy.store.ledger import Settled
from tests.store.books import billed

SETTLED = Settled(cost_nanousd=500, shortfall_nanousd=0, balance_nanousd=9, available_nanousd=9)


def shown(tally: Tally) -> list[str]:
    return [line for line in tally.lines() if not line.startswith("#")]


def test_a_call_is_counted_by_dialect_status_and_ending_with_its_tokens_and_its_cost():
    tally = Tally()
    for _ in range(2):
        tally.ended(billed("c", 4, input_tokens=10, output_tokens=3, reasoning_tokens=1), SETTLED)

    assert shown(tally) == [
        'lumeproxy_calls_total{dialect="anthropic_messages",status="200",ending="complete"} 2',
        'lumeproxy_tokens_total{dialect="anthropic_messages",class="input"} 20',
        'lumeproxy_tokens_total{dialect="anthropic_messages",class="output"} 6',
        'lumeproxy_tokens_total{dialect="anthropic_messages",class="reasoning"} 2',
        'lumeproxy_cost_nanousd_total{dialect="anthropic_messages"} 1000',
    ]


def test_an_upstreams_failures_and_our_own_refusals_are_counted_apart():
    tally = Tally()
    tally.ended(billed("c", 4, ending="unreachable", status=None, upstream="main"), SETTLED)
    tally.ended(billed("c", 4, ending="cut_by_client", upstream="main"), SETTLED)
    tally.refused("invalid_key")

    assert shown(tally)[:3] == [
        'lumeproxy_calls_total{dialect="anthropic_messages",status="200",ending="cut_by_client"} 1',
        'lumeproxy_calls_total{dialect="anthropic_messages",status="none",ending="unreachable"} 1',
        'lumeproxy_refusals_total{code="invalid_key"} 1',
    ]
    assert shown(tally)[-1] == 'lumeproxy_upstream_failures_total{upstream="main",ending="unreachable"} 1'


def test_no_label_holds_what_a_client_may_invent():
    tally = Tally()
    tally.ended(billed("c", 4, model="invented", key_id="mykey", user_agent="ua", ending="refused"), SETTLED)

    assert not any(word in line for line in tally.lines() for word in ("invented", "mykey", "ua"))
