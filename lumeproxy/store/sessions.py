"""Who is signed in on the pages, and the links that sign in once. Of either only the SHA-256 is here.

A session ends by its time, by being ended, and with the API key that it was begun with.
"""

from __future__ import annotations

from dataclasses import dataclass

from lumeproxy.errors import Missing, Refused
from lumeproxy.store import accounts, people
from lumeproxy.store.database import Tx, bound
from lumeproxy.store.people import Person

# More browsers than anybody has; the oldest session ends when one more begins.
SESSIONS_OF_ACCOUNT = 20
LINKS_OF_ACCOUNT = 20
HANDLE_CHARS = 16


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody signed in. `handle` names it on a page: it is the start of the digest, and opens nothing."""

    sha256: bytes
    account_id: int
    via: str
    created_ms: int
    seen_ms: int
    expires_ms: int
    client_address: str
    user_agent: str

    @property
    def handle(self) -> str:
        """The session's name on a page."""
        return self.sha256.hex()[:HANDLE_CHARS]


_COLUMNS = "sha256, account_id, via, created_ms, seen_ms, expires_ms, client_address, user_agent"


def begin(tx: Tx, session: Session, key_id: str | None = None) -> None:
    """Sign in, with the key that it was done by; sessions that have ended are swept, the oldest beyond
    SESSIONS_OF_ACCOUNT are ended."""
    tx.execute("DELETE FROM sessions WHERE expires_ms <= $1", bound(session.created_ms))
    tx.execute(
        f"INSERT INTO sessions ({_COLUMNS}, key_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        bound(
            session.sha256,
            session.account_id,
            session.via,
            session.created_ms,
            session.seen_ms,
            session.expires_ms,
            session.client_address,
            session.user_agent,
            key_id,
        ),
    )
    tx.execute(
        "DELETE FROM sessions WHERE account_id = $1 AND sha256 <> $2 AND sha256 NOT IN (SELECT sha256 FROM sessions"
        " WHERE account_id = $1 AND sha256 <> $2 ORDER BY created_ms DESC, sha256 LIMIT $3)",
        bound(session.account_id, session.sha256, SESSIONS_OF_ACCOUNT - 1),
    )


def find(tx: Tx, sha256: bytes, now_ms: int) -> tuple[Session, Person] | None:
    """The session of a digest and whose it is, None where there is none in force."""
    row = tx.execute(
        f"SELECT {_COLUMNS} FROM sessions s WHERE sha256 = $1 AND expires_ms > $2 AND (key_id IS NULL OR EXISTS"
        " (SELECT 1 FROM keys k WHERE k.id = s.key_id AND (k.revoked_ms IS NULL OR k.revoked_ms > $2)"
        " AND (k.expires_ms IS NULL OR k.expires_ms > $2)))",
        bound(sha256, now_ms),
    ).fetchone()
    if row is None:
        return None
    session = Session(*row)
    return session, people.get(tx, session.account_id)


def touch(tx: Tx, sha256: bytes, now_ms: int) -> None:
    """Note that a session was used."""
    tx.execute("UPDATE sessions SET seen_ms = $1 WHERE sha256 = $2 AND seen_ms < $1", bound(now_ms, sha256))


def of_account(tx: Tx, account_id: int, now_ms: int) -> list[Session]:
    """An account's sessions that have not ended, newest first."""
    rows = tx.execute(
        f"SELECT {_COLUMNS} FROM sessions WHERE account_id = $1 AND expires_ms > $2 ORDER BY created_ms DESC, sha256",
        bound(account_id, now_ms),
    )
    return [Session(*row) for row in rows]


def end(tx: Tx, sha256: bytes) -> None:
    """Sign out."""
    tx.execute("DELETE FROM sessions WHERE sha256 = $1", bound(sha256))


def end_by_handle(tx: Tx, account_id: int, handle: str) -> None:
    """Sign an account's other browser out. Raises Missing for what is no session of the account."""
    ended = tx.execute(
        "DELETE FROM sessions WHERE account_id = $1 AND lower(substr(hex(sha256), 1, $2)) = $3",
        bound(account_id, HANDLE_CHARS, handle),
    )
    if not ended.rowcount:
        raise Missing("This session has ended already.")


def end_all(tx: Tx, account_id: int, but: bytes = b"") -> None:
    """Sign an account out everywhere, but for one session."""
    tx.execute("DELETE FROM sessions WHERE account_id = $1 AND sha256 <> $2", bound(account_id, but))


# --- links -------------------------------------------------------------------------------------------------------------


def add_link(tx: Tx, sha256: bytes, name: str, now_ms: int, expires_ms: int) -> Person:
    """Keep a link of an account. Raises Missing, Refused for an account that can't sign in."""
    account = accounts.get(tx, name)
    if account.status != "active":
        raise Refused(f"The account {account.name} is {account.status}; it can't sign in.")
    tx.execute("DELETE FROM links WHERE expires_ms <= $1", bound(now_ms))
    tx.execute(
        "DELETE FROM links WHERE account_id = $1 AND sha256 NOT IN"
        " (SELECT sha256 FROM links WHERE account_id = $1 ORDER BY expires_ms DESC, sha256 LIMIT $2)",
        bound(account.id, LINKS_OF_ACCOUNT - 1),
    )
    tx.execute(
        "INSERT INTO links (sha256, account_id, expires_ms) VALUES ($1, $2, $3)", bound(sha256, account.id, expires_ms)
    )
    return people.get(tx, account.id)


def link(tx: Tx, sha256: bytes, now_ms: int) -> Person | None:
    """Whom a link would sign in, None for one that is used up, expired or none."""
    row = tx.execute(
        "SELECT account_id FROM links WHERE sha256 = $1 AND expires_ms > $2", bound(sha256, now_ms)
    ).fetchone()
    return None if row is None else people.get(tx, row[0])


def use_link(tx: Tx, sha256: bytes, now_ms: int) -> Person | None:
    """As `link`, and the link is used up."""
    person = link(tx, sha256, now_ms)
    tx.execute("DELETE FROM links WHERE sha256 = $1", bound(sha256))
    return person
