"""Who pays when a call ends, and for what: the truth table of design section 5, one pure function.

In: how the call ended and what the meter had read. Out: the usage to charge and the rule that fired. Knows no prices and
no balances; the ledger caps what the credit does not cover.

    ending             input reported    nothing reported
    complete           reported + est.   estimate of both sides
    refused            nothing           nothing
    unreachable        nothing           nothing
    cut_by_upstream    reported + est.   estimate where output was delivered, else nothing
    cut_by_client      reported + est.   estimate of the input, and of what was delivered
    out_of_credit      reported + est.   estimate of both sides
    interrupted        reported + est.   as cut_by_upstream

"+ est." is an estimate of the delivered output, where the upstream had not yet reported its last number of it (the
number at the beginning of an answer is not one, also when the answer is complete). Whatever the row says, an upstream's
numbers are data, not truth: above the bound, or absurd, they are charged at the bound and flagged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lumeproxy.core.types import Ending, SettledBy, Usage

# A single answer that searched the web more often would have run into its own output limit.
MAX_WEB_SEARCHES = 200


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that an upstream may claim for one call, in tokens."""

    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Metered:
    """What is known of a call when it ends.

    `usage` holds the upstream's reported numbers; the flags say which sides it stated and whether the output number
    is its last. The estimates are our own: of the request's input, and of the output that was delivered (0 when none).
    `absurd`: some reported number was negative, shrinking or no number.
    """

    usage: Usage
    input_reported: bool
    output_reported: bool
    output_final: bool
    estimated_input_tokens: int
    estimated_output_tokens: int
    absurd: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to charge: `usage`, whether any part of it is an estimate, and the rule that fired."""

    usage: Usage
    estimated: bool
    settled_by: SettledBy


NOTHING = Verdict(Usage(), estimated=False, settled_by=SettledBy.NONE)


def bounds(
    *,
    body_bytes: int,
    relayed_bytes: int,
    refers_elsewhere: bool,
    floor_input_tokens: int,
    referred_input_tokens: int,
    reasoning_allowance_tokens: int,
) -> Bounds:
    """The bound of one call.

    A token stands for at least a byte of the request, so its size bounds the input, but for the provider's own
    instructions (the floor) and for content that is named, not carried (`referred_input_tokens`). The output is
    bounded by the bytes relayed and an allowance for reasoning that is billed and never shown.
    """
    input_tokens = max(body_bytes, floor_input_tokens)
    if refers_elsewhere:
        input_tokens = max(input_tokens, referred_input_tokens)
    return Bounds(input_tokens, relayed_bytes + reasoning_allowance_tokens)


def decide(ending: Ending, metered: Metered, limit: Bounds) -> Verdict:
    """The row of the table for this ending; every row has a test of the same name."""
    if ending in (Ending.REFUSED, Ending.UNREACHABLE):
        return NOTHING
    if not _owes(ending, metered):
        return NOTHING
    usage, estimated = metered.usage, False
    if not metered.input_reported:
        usage, estimated = replace(usage, input_tokens=metered.estimated_input_tokens), True
    if not metered.output_final and metered.estimated_output_tokens > usage.output_tokens:
        usage, estimated = replace(usage, output_tokens=metered.estimated_output_tokens), True
    elif not metered.output_reported:
        estimated = True
    bounded = clamp(usage, limit)
    if metered.absurd or bounded != usage:
        return Verdict(bounded, estimated=True, settled_by=SettledBy.BOUND)
    return Verdict(usage, estimated, SettledBy.ESTIMATE if estimated else SettledBy.REPORTED)


def _owes(ending: Ending, metered: Metered) -> bool:
    """Whether this ending is charged at all: a broken answer of which nothing was reported or delivered is not."""
    if metered.input_reported or metered.output_reported or metered.estimated_output_tokens:
        return True
    return ending in (Ending.COMPLETE, Ending.CUT_BY_CLIENT, Ending.OUT_OF_CREDIT)


def clamp(usage: Usage, limit: Bounds) -> Usage:
    """The usage cut down to the bound: uncached input goes first, the dearest classes last."""
    over = usage.total_input_tokens - limit.input_tokens
    if over > 0:
        for name in ("input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens"):
            taken = min(over, getattr(usage, name))
            usage = replace(usage, **{name: getattr(usage, name) - taken})
            over -= taken
    if usage.output_tokens > limit.output_tokens:
        usage = replace(usage, output_tokens=limit.output_tokens)
    if usage.web_search_requests > MAX_WEB_SEARCHES:
        usage = replace(usage, web_search_requests=MAX_WEB_SEARCHES)
    if usage.reasoning_tokens > usage.output_tokens:
        usage = replace(usage, reasoning_tokens=usage.output_tokens)
    return usage
