"""From a page's address to the calls that it asks for, and back. Both the user's and the operator's usage pages read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from lumeproxy.core.limits import DAY_MS, day_of
from lumeproxy.core.types import Ending
from lumeproxy.store.reports import END, Filter, Place

PERIODS = {"1": "today", "7": "7 days", "30": "30 days", "90": "90 days", "all": "all time"}
USUAL_PERIOD = "7"
OUTCOMES = {"": "any ending", "failed": "failed", **{ending.value: ending.value.replace("_", " ") for ending in Ending}}
_CHARS = 200


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks for: a period by its word, and the rest as in Filter, "" for any."""

    days: str = USUAL_PERIOD
    model: str = ""
    key: str = ""
    session: str = ""
    outcome: str = ""
    account: str = ""  # on the operator's pages only

    def filter(self, account_id: int | None, now_ms: int) -> Filter:
        """The calls of an account, or of all."""
        since_ms = 0 if self.days == "all" else (day_of(now_ms) - int(self.days) + 1) * DAY_MS
        return Filter(
            account_id=account_id,
            since_ms=since_ms,
            model=self.model,
            key_id=self.key,
            session_id=self.session,
            outcome=self.outcome,
        )

    def query(self, **other: str) -> str:
        """As the query of an address, with other values for some."""
        values = {name: getattr(self, name) for name in self.__slots__} | other
        return urlencode({name: value for name, value in values.items() if value})


def asked(query: Mapping[str, str]) -> Asked:
    """What an address asks for; what can't be meant is as if it were left out."""
    days, outcome = query.get("days", USUAL_PERIOD), query.get("outcome", "")
    given = {name: query.get(name, "")[:_CHARS] for name in ("model", "key", "session", "account")}
    return Asked(
        days=days if days in PERIODS else USUAL_PERIOD, outcome=outcome if outcome in OUTCOMES else "", **given
    )


def place(text: str) -> Place:
    """Where a list goes on, from the address; from its beginning for what is no place."""
    time_ms, _, call_id = text.partition(".")
    if not time_ms.isascii() or not time_ms.isdigit() or len(time_ms) > 15:
        return END
    return int(time_ms), call_id[:_CHARS]


def text_of(at: Place) -> str:
    """A place as it stands in an address."""
    return f"{at[0]}.{at[1]}"
