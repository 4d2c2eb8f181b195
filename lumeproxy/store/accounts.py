"""Accounts: who pays. Functions of one transaction; the house's own accounts are not shown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from lumeproxy.core.limits import USUAL, Limits
from lumeproxy.errors import Missing, Refused
from lumeproxy.store.database import Tx, bound

HOUSE_CREDIT, HOUSE_REVENUE, HOUSE_SHORTFALL = 1, 2, 3  # rows of the first migration
ERASED = "erased-"  # and the account's number: the name of an erased account
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_COLUMNS = (
    "id, name, kind, status, reason, balance_nanousd, held_nanousd, created_ms, calls_per_minute, concurrent_calls,"
    " low_balance_nanousd"
)


@dataclass(frozen=True, slots=True)
class Account:
    """A row; `available_nanousd` is what no hold has set aside. Below `low_balance_nanousd` (None: what is usual, 0: never)
    its owner is told."""

    id: int
    name: str
    kind: str
    status: str
    reason: str
    balance_nanousd: int
    held_nanousd: int
    created_ms: int
    limits: Limits = USUAL
    low_balance_nanousd: int | None = None

    @property
    def available_nanousd(self) -> int:
        """Balance less holds."""
        return self.balance_nanousd - self.held_nanousd


def checked_name(name: str) -> str:
    """A name for an account, in small letters. Raises Refused for what is no name."""
    name = name.lower()
    if not _NAME.fullmatch(name):
        raise Refused(
            f"{name[:70]!r} is no account name: use up to 64 letters, digits and . _ @ -, a letter or digit first."
        )
    return name


def create(tx: Tx, name: str, now_ms: int) -> Account:
    """A new account without credit. Raises Refused for a taken name or one that is no name."""
    name = checked_name(name)
    if name.startswith(ERASED):
        raise Refused(f"Names that begin with {ERASED} are kept for accounts that were erased.")
    if tx.execute("SELECT 1 FROM accounts WHERE name = $1", bound(name)).fetchone():
        raise Refused(f"There is an account {name} already.")
    tx.execute(
        "INSERT INTO accounts (name, kind, status, created_ms, changed_ms) VALUES ($1, 'customer', 'active', $2, $2)",
        bound(name, now_ms),
    )
    return get(tx, name)


def get(tx: Tx, name: str) -> Account:
    """The customer's account of that name. Raises Missing."""
    row = tx.execute(
        f"SELECT {_COLUMNS} FROM accounts WHERE name = $1 AND kind = 'customer'", bound(name.lower())
    ).fetchone()
    if row is None:
        raise Missing(f"There is no account {name[:70]}.")
    return _account(row)


def list_all(tx: Tx) -> list[Account]:
    """All customers by name."""
    rows = tx.execute(f"SELECT {_COLUMNS} FROM accounts WHERE kind = 'customer' ORDER BY name")
    return [_account(row) for row in rows]


def page(tx: Tx, after: str, limit: int) -> list[Account]:
    """So many customers by name, those behind a name."""
    rows = tx.execute(
        f"SELECT {_COLUMNS} FROM accounts WHERE name > $1 AND kind = 'customer' ORDER BY name LIMIT $2",
        bound(after, limit),
    )
    return [_account(row) for row in rows]


def search(tx: Tx, text: str, limit: int, after: str = "") -> list[Account]:
    """Customers whose name holds a text, by name, those after a name."""
    rows = tx.execute(
        f"SELECT {_COLUMNS} FROM accounts WHERE kind = 'customer' AND name > $1 AND instr(name, $2) ORDER BY name LIMIT $3",
        bound(after, text.lower(), limit),
    )
    return [_account(row) for row in rows]


def sums(tx: Tx) -> dict[str, int]:
    """All customers together: how many by status, what they have and what of it is held; nano-USD."""
    rows = tx.execute(
        "SELECT status, count(*), sum(balance_nanousd), sum(held_nanousd) FROM accounts WHERE kind = 'customer'"
        " GROUP BY status"
    )
    found = {"active": 0, "suspended": 0, "closed": 0, "balance_nanousd": 0, "held_nanousd": 0}
    for status, number, balance, held in rows:
        found[status] = number
        found["balance_nanousd"] += balance
        found["held_nanousd"] += held
    return found


def count(tx: Tx) -> int:
    """How many customers there are."""
    found: int = tx.execute("SELECT count(*) FROM accounts WHERE kind = 'customer'").fetchone()[0]
    return found


def inactive_ids(tx: Tx) -> list[int]:
    """Ids of accounts that are suspended or closed and still have running calls."""
    # By their holds, not by what is held: a call of a free model holds nothing.
    rows = tx.execute(
        "SELECT id FROM accounts WHERE status <> 'active' AND id IN (SELECT account_id FROM holds) ORDER BY id"
    )
    return [row[0] for row in rows]


def set_status(tx: Tx, name: str, status: str, reason: str, now_ms: int) -> Account:
    """Suspend, resume or close; repeating changes nothing. Raises Missing, Refused for a closed account."""
    account = get(tx, name)
    if account.status == "closed" and status != "closed":
        raise Refused(f"The account {account.name} is closed for good.")
    tx.execute(
        "UPDATE accounts SET status = $1, reason = $2, changed_ms = $3 WHERE id = $4",
        bound(status, reason, now_ms, account.id),
    )
    return get(tx, name)


def limit(tx: Tx, name: str, limits: Limits) -> Account:
    """Set how fast and how often at once an account may call; in force at once. Raises Missing."""
    account = get(tx, name)
    tx.execute(
        "UPDATE accounts SET calls_per_minute = $1, concurrent_calls = $2 WHERE id = $3",
        bound(limits.calls_per_minute, limits.concurrent_calls, account.id),
    )
    return get(tx, name)


def set_low_balance(tx: Tx, name: str, low_balance_nanousd: int | None) -> Account:
    """Set below which balance a notice is due; None for what is usual. Raises Missing."""
    account = get(tx, name)
    tx.execute("UPDATE accounts SET low_balance_nanousd = $1 WHERE id = $2", bound(low_balance_nanousd, account.id))
    return get(tx, name)


def probe(tx: Tx) -> None:
    """Write something, to learn whether the disk takes it."""
    tx.execute("UPDATE accounts SET changed_ms = changed_ms + 1 WHERE id = $1", bound(HOUSE_CREDIT))


def _account(row: tuple[Any, ...]) -> Account:
    fields: list[Any] = [*row[:-3], Limits(*row[-3:-1]), row[-1]]
    return Account(*fields)
