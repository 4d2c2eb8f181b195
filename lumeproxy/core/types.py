"""The vocabulary that the layers hand to each other.

Values only, no behaviour beyond sums. Token classes follow the providers' own bills; `input_tokens` excludes what was
read from or written to a cache, `reasoning_tokens` is a part of `output_tokens`. Money is nano-USD (1e-9 $), an int.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import msgspec


class Ending(enum.StrEnum):
    """How a call ended (design section 5)."""

    COMPLETE = "complete"
    REFUSED = "refused"  # the upstream answered with an error before the first byte of an answer
    UNREACHABLE = "unreachable"
    CUT_BY_UPSTREAM = "cut_by_upstream"
    CUT_BY_CLIENT = "cut_by_client"
    OUT_OF_CREDIT = "out_of_credit"
    INTERRUPTED = "interrupted"  # our process stopped or died


class SettledBy(enum.StrEnum):
    """Which rule made the charge."""

    REPORTED = "reported"
    ESTIMATE = "estimate"
    CHECKPOINT = "checkpoint"
    BOUND = "bound"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one call, each 0 or more."""

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    web_search_requests: int = 0

    @property
    def total_input_tokens(self) -> int:
        """Everything on the input side, which is what decides a price tier."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_5m_tokens + self.cache_write_1h_tokens


@dataclass(frozen=True, slots=True)
class Terms:
    """What, beside the model, changes a price: as asked before the call, as the upstream reported after it.

    `service_tier`: "standard", "priority", "flex" or "batch"; `speed`: "standard" or "fast"; `inference_geo`: the
    upstream's word, "" when unknown. Unknown words are kept, pricing decides what they mean.
    """

    service_tier: str = "standard"
    speed: str = "standard"
    inference_geo: str = ""


STANDARD_TERMS = Terms()


@dataclass(frozen=True, slots=True)
class Asked:
    """The few facts read from a request body; the body itself is passed on as it came.

    `max_output_tokens`: the caller's own limit, None when not given. `refers_elsewhere`: the request names content
    that is not in its bytes (files, URLs, an earlier response, hosted tools), so the input may be larger than they
    are. `has_attachments`: images or files may be carried as base64. `wants_usage_chunk`: Chat Completions streams only,
    whether the client itself asked for the usage chunk.
    """

    model: str
    stream: bool = False
    max_output_tokens: int | None = None
    terms: Terms = STANDARD_TERMS
    refers_elsewhere: bool = False
    has_attachments: bool = False
    wants_usage_chunk: bool = False


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One line per call: exactly design section 8, never content.

    Times are epoch ms, durations ms (None where it never happened), money nano-USD. `price_version` names the row of
    the prices table by which the bill can be recomputed; `multiplier_ppm` is the operator's factor in millionths.
    """

    call_id: str
    time_ms: int
    account_id: int
    key_id: str
    endpoint: str
    dialect: str
    model: str
    model_served: str = ""
    upstream: str = ""
    status: int | None = None
    ending: str = Ending.UNREACHABLE.value
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    web_search_requests: int = 0
    cost_nanousd: int = 0
    shortfall_nanousd: int = 0  # the part of the cost that hold and balance did not cover
    price_version: str = ""
    multiplier_ppm: int = 1_000_000
    estimated: bool = False
    settled_by: str = SettledBy.NONE.value
    ttfb_ms: int | None = None
    duration_ms: int | None = None
    client_address: str = ""
    user_agent: str = ""
    session_id: str = ""
    agent_id: str = ""
    upstream_request_id: str = ""
    error_code: str = ""
    error_text: str = ""
    credential: int = 0  # the number of the operator's credential at the upstream
    upstream_cost_nanousd: int = 0  # what the provider bills the operator, by `upstream_price_version`
    upstream_price_version: str = ""
    attempts: str = ""  # every try of an upstream, as a JSON list of [upstream, credential, status, error, ms]

    def usage(self) -> Usage:
        """The token classes of the record."""
        return Usage(
            input_tokens=self.input_tokens,
            cache_read_tokens=self.cache_read_tokens,
            cache_write_5m_tokens=self.cache_write_5m_tokens,
            cache_write_1h_tokens=self.cache_write_1h_tokens,
            output_tokens=self.output_tokens,
            reasoning_tokens=self.reasoning_tokens,
            web_search_requests=self.web_search_requests,
        )
