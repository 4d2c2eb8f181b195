"""What an account has on the pages, and what of it is erased with the account: password, note, sessions and links.

Which terms were accepted stays, and so do the lines of what was done, which name no account but by its number.
"""

from __future__ import annotations

from lumeproxy.store.database import Tx, bound


def forget(tx: Tx, account_id: int) -> None:
    """Take away who an account was on the pages; repeating changes nothing."""
    for table in ("sessions", "links", "people"):
        tx.execute(f"DELETE FROM {table} WHERE account_id = $1", bound(account_id))
