"""The table of the admin API: each route once, with who may use it, what it takes and what it answers.

The routes, the checks and the OpenAPI document are all made from it, so that none can say something else.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from functools import cached_property

import msgspec

from lumeproxy.dashboard import answers
from lumeproxy.dashboard import arguments as args

PREFIX = "/api/v1"
_IN_PATH = re.compile(r"\{(\w+)\}")
# Comes in a header, not in a body.
_IN_HEADER = frozenset({"idempotency_key"})


class Who(enum.Enum):
    """Who may use a route: any admin key, or one that may change something."""

    READ = "read"
    CHANGE = "change"


@dataclass(frozen=True)
class Route:
    """A method and path below PREFIX, the operation behind it, what that takes and answers, and with which status.
    `repeatable`: an Idempotency-Key makes a repetition of the request safe."""

    method: str
    path: str
    operation: str
    takes: type[args.Arguments]
    answers: type[answers.Answer]
    who: Who
    summary: str
    status: int = 200
    repeatable: bool = False
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(_IN_PATH.findall(self.path)))

    @cached_property
    def given(self) -> type[msgspec.Struct]:
        """What comes beside the path: a body's fields, or a query's where the method is GET."""
        apart = {*self.names, *_IN_HEADER}
        fields = []
        for one in msgspec.structs.fields(self.takes):
            if one.name not in apart:
                default = {} if one.default is msgspec.NODEFAULT else {"default": one.default}
                if one.default_factory is not msgspec.NODEFAULT:
                    default = {"default_factory": one.default_factory}
                fields.append((one.name, one.type, msgspec.field(**default)) if default else (one.name, one.type))
        name = "".join(part.title() for part in self.operation.replace("_", ".").split(".")) + "Given"
        return msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)

    @cached_property
    def numbers(self) -> frozenset[str]:
        """Those of `given` that are whole numbers, which a query can only write as text."""
        found = set()
        for one in msgspec.structs.fields(self.given):
            schema = msgspec.json.schema(one.type)
            if any(kind.get("type") == "integer" for kind in schema.get("anyOf", [schema])):
                found.add(one.name)
        return frozenset(found)

    def match(self, parts: list[str]) -> dict[str, str] | None:
        """The values of the names in the path, None where these parts of a path are another's."""
        mine = self.path.split("/")[1:]
        if len(mine) != len(parts):
            return None
        found = {}
        for one, part in zip(mine, parts, strict=True):
            if one.startswith("{"):
                found[one[1:-1]] = part
            elif one != part:
                return None
        return found if all(found.values()) else None


ROUTES = (
    Route("GET", "/server", "server.show", args.Arguments, answers.Server, Who.READ, "The running server"),
    Route("GET", "/accounts", "account.page", args.Page, answers.Accounts, Who.READ, "List accounts by name"),
    Route("POST", "/accounts", "account.create", args.CreateAccount, answers.Account, Who.CHANGE,
          "Make an account, with first credit or without", 201, repeatable=True),
    Route("GET", "/accounts/{name}", "account.show", args.Name, answers.Account, Who.READ, "Show an account"),
    Route("PATCH", "/accounts/{name}", "account.limit", args.LimitAccount, answers.Account, Who.CHANGE,
          "Set an account's limits; null is what is usual, what is left out stays"),
    Route("POST", "/accounts/{name}/suspend", "account.suspend", args.Suspend, answers.Account, Who.CHANGE,
          "Suspend an account; its running calls end within a second"),
    Route("POST", "/accounts/{name}/resume", "account.resume", args.Name, answers.Account, Who.CHANGE,
          "Let a suspended account make calls again"),
    Route("POST", "/accounts/{name}/close", "account.close", args.Name, answers.Account, Who.CHANGE,
          "Close an account for good; its records and balance stay"),
    Route("POST", "/accounts/{name}/erase", "account.erase", args.Name, answers.Account, Who.CHANGE,
          "Close an account and erase all that points to a person; the ledger stays, under the name in the answer"),
    Route("GET", "/accounts/{account}/balance", "credit.balance", args.Of, answers.Balance, Who.READ,
          "What an account has"),
    Route("POST", "/accounts/{account}/grants", "credit.grant", args.Grant, answers.Balance, Who.CHANGE,
          "Give an account credit", 201, repeatable=True),
    Route("GET", "/accounts/{account}/entries", "credit.page", args.EntryPage, answers.Entries, Who.READ,
          "List an account's entries, newest first"),
    Route("POST", "/accounts/{account}/keys", "key.create", args.CreateKey, answers.NewKey, Who.CHANGE,
          "Make a key; its secret is in this answer only", 201, repeatable=True),
    Route("GET", "/keys", "key.page", args.PageOf, answers.Keys, Who.READ, "List keys, of one account or all"),
    Route("GET", "/keys/{id}", "key.show", args.Id, answers.Key, Who.READ, "Show a key"),
    Route("PATCH", "/keys/{id}", "key.limit", args.LimitKey, answers.ChangedKey, Who.CHANGE,
          "Set a key's limits and budgets; null is none, what is left out stays"),
    Route("POST", "/keys/{id}/revoke", "key.revoke", args.Id, answers.ChangedKey, Who.CHANGE,
          "Revoke a key; its running calls end within a second"),
    Route("POST", "/keys/{id}/rotate", "key.rotate", args.Rotate, answers.ReplacedKey, Who.CHANGE,
          "Replace a key by a new one with the same name, models and limits", 201, repeatable=True),
    Route("GET", "/usage", "usage.page", args.UsagePage, answers.Records, Who.READ, "List calls, newest first"),
    Route("GET", "/usage/totals", "usage.summary", args.Summary, answers.Groups, Who.READ,
          "Sum calls up by model, key, day, session, upstream or account"),
    Route("GET", "/audit", "audit.run", args.Arguments, answers.Audit, Who.READ,
          "Recompute every bill and check the books; takes its time on a large database"),
)  # fmt: skip


def allowed(parts: list[str]) -> dict[str, tuple[Route, dict[str, str]]]:
    """The routes of a path by method, with the values in it; empty where there is nothing."""
    found = ((route, route.match(parts)) for route in ROUTES)
    return {route.method: (route, values) for route, values in found if values is not None}
