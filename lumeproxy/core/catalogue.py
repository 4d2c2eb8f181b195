"""List prices from the bundled data of genai-prices, kept offline, compiled to our integer rates.

https://github.com/pydantic/genai-prices (0.2.3, 2026-11). Its automatic update is never switched on: a list that changed
by itself has over-billed users before. An unknown model has no price, and neither has one that is also billed by audio or
images, which our token classes don't hold: refused beats charged wrongly.

Loading costs about 0.4 s and 40 MB, so it happens when a configuration needs a list price, not at import.
"""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

from lumeproxy.core.money import rate
from lumeproxy.core.pricing import Price, Rates, make_price
from lumeproxy.core.types import Terms

# Price keys of the list that our token classes cover; the storage search of OpenAI's file search is not reported on the
# wire as a count, and is left to the operator's multiplier.
_COVERED = frozenset(
    {
        "input_mtok",
        "cache_read_mtok",
        "cache_write_mtok",
        "cache_write_1h_mtok",
        "output_mtok",
        "web_searches_kcount",
        "storage_searches_kcount",
    }
)
# Anthropic charges a tenth more for inference kept in the US, from Claude 4.6 on (Anthropic's pricing page, "Data
# residency pricing", 2026-11); the list does not model it.
_US_PERCENT = 110
_BEFORE_US_PRICING = ("claude-2", "claude-v1", "claude-3", "claude-opus-4-0", "claude-opus-4-1", "claude-opus-4-5",
                      "claude-sonnet-4-0", "claude-sonnet-4-5", "claude-haiku-4-5")  # fmt: skip
# Words of `service_tier` that mean the list's plain price.
_PLAIN_TIERS = frozenset({"", "standard", "default", "auto"})


class Catalogue:
    """The bundled list."""

    def __init__(self, snapshot: Any, version: str) -> None:
        self._snapshot = snapshot
        self.source = f"genai-prices {version}"

    @classmethod
    def load(cls) -> Catalogue:
        """Read the bundled data."""
        import genai_prices
        from genai_prices.data_snapshot import get_snapshot

        return cls(get_snapshot(), genai_prices.__version__)

    def price(self, model: str, provider: str | None, at_ms: int, terms: Terms) -> Price | None:
        """The list price in force at `at_ms` under these terms; None for what the list does not know or cover."""
        info = self._find(model, provider)
        if info is None:
            return None
        at = datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC)
        prices = info.get_prices(at, _context(terms))
        given = {name: value for name, value in vars(prices).items() if value is not None}
        if "input_mtok" not in given or "output_mtok" not in given or not given.keys() <= _COVERED:
            return None
        percent = 100
        if terms.inference_geo == "us" and info.id.startswith("claude-") and not info.id.startswith(_BEFORE_US_PRICING):
            percent = _US_PERCENT
        search = rate(given.get("web_searches_kcount", 0)) // 1000
        return make_price(info.id, self.source, _tiers(given, percent), search)

    def models(self, provider: str) -> list[str]:
        """The priced, not deprecated models of a provider, for GET /v1/models."""
        found = next((p for p in self._snapshot.providers if p.id == provider), None)
        if found is None:
            return []
        # Families of fine-tuned models carry ids that are no model's name; those are not found by them.
        return [
            info.id
            for info in found.models
            if not info.deprecated and self._covered(info) and self._find(info.id, provider) is info
        ]

    def _covered(self, info: Any) -> bool:
        prices = info.prices if not isinstance(info.prices, list) else info.prices[-1].prices
        given = {name for name, value in vars(prices).items() if value is not None}
        return {"input_mtok", "output_mtok"} <= given <= _COVERED

    def _find(self, model: str, provider: str | None) -> Any:
        """The list's entry, None for a model that it does not know."""
        try:
            _, info = self._snapshot.find_provider_model(model, None, provider, None)
        except LookupError:
            return None
        return info


def _context(terms: Terms) -> dict[str, str]:
    context = {}
    if terms.service_tier == "batch":
        context["processing"] = "batch"
    elif terms.service_tier not in _PLAIN_TIERS:
        context["service_tier"] = terms.service_tier
    if terms.speed not in ("", "standard"):
        context["speed"] = terms.speed
    return context


def _tiers(given: dict[str, Any], percent: int) -> list[Rates]:
    """One Rates for each threshold that any class has. A class without a price of its own is charged as the list does:
    reads and writes as input, 1-hour writes as writes."""
    classes = {
        "input_rate": given["input_mtok"],
        "cache_read_rate": given.get("cache_read_mtok", given["input_mtok"]),
        "cache_write_5m_rate": given.get("cache_write_mtok", given["input_mtok"]),
        "cache_write_1h_rate": given.get("cache_write_1h_mtok", given.get("cache_write_mtok", given["input_mtok"])),
        "output_rate": given["output_mtok"],
    }
    starts = sorted({0, *(tier.start for value in classes.values() for tier in getattr(value, "tiers", ()))})
    return [
        Rates(above_input_tokens=start, **{name: _rate_at(value, start, percent) for name, value in classes.items()})
        for start in starts
    ]


def _rate_at(value: Any, start: int, percent: int) -> int:
    dollars: Decimal = getattr(value, "base", value)
    for tier in getattr(value, "tiers", ()):
        if start >= tier.start and start > 0:
            dollars = tier.price
    return rate(dollars * percent / 100)
