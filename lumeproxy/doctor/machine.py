"""Findings about this machine and the data on it: SQLite, the data folder, who may read what, TLS, the books. Pure: values
in, findings out."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lumeproxy.doctor.finding import Finding, Hint, failed, ok, size, spelled, warning
from lumeproxy.store.inspection import Contents, Folder
from lumeproxy.store.sqlite import has_wal_reset_bug

DAY_MS = 86_400_000
# After a checkpoint the WAL is cut back to 64 MB; one that stays above twice that is held open by a reader, or not
# checkpointed for want of disk.
WAL_BYTES = 128 * 1024 * 1024
# Below the first, commits are about to fail; below the second it is time to look. A checkpoint may need the WAL's size
# once more.
LEAST_FREE_BYTES = 64 * 1024 * 1024
LOW_FREE_BYTES = 1024 * 1024 * 1024
# Most issuers' certificates live for 90 days or less and are renewed a third before their end.
RENEW_DAYS = 14
SHOWN_PROBLEMS = 3


def sqlite(version: str, python: str) -> Finding:
    """The SQLite library; `python` is the interpreter that lumeproxy runs in."""
    if has_wal_reset_bug(version):
        return warning(
            "sqlite",
            f"SQLite {version} has the WAL-reset bug (sqlite.org/wal.html): lumeproxy's single writer keeps it harmless, a "
            "newer one rules it out.",
            f"{shlex.quote(python)} -m pip install 'lumeproxy[sqlite]'",
        )
    return ok("sqlite", f"SQLite {version}.")


def data_folder(path: Path, found: Folder, hint: Hint) -> Finding:
    """Whether it is there and can be read and written by this user."""
    if not found.is_folder:
        return failed("data folder", f"There is a file in the place of {path}.", "choose another folder with --data")
    if not found.exists and not found.writable:
        text = f"{path} does not exist, and this user can't make it."
        return failed("data folder", text, "choose another folder with --data")
    if not found.exists:
        return ok("data folder", f"{path} does not exist yet; the first start makes it.")
    if found.owner is not None and not (found.readable and found.writable):
        text = f"{path} belongs to {found.owner} and is closed to this user."
        return failed("data folder", text, f"sudo -u {shlex.quote(found.owner)} {hint('doctor')}")
    if not (found.readable and found.writable):
        text = f"{path} or the database in it can't be written (a read-only disk?), so that no call can be charged."
        return failed("data folder", text, f"chmod -R u+rwX {shlex.quote(str(path))}")
    return ok("data folder", f"{path}.")


def disk(found: Folder) -> Finding:
    """Room for the database and its WAL."""
    free = f"{size(found.free_bytes)} of {size(found.disk_bytes)} are free on the data folder's disk"
    mend = "make room, or move the data folder to another disk and name it with --data"
    if found.free_bytes < LEAST_FREE_BYTES:
        return failed("disk", f"{free}: new calls are about to be refused.", mend)
    if found.free_bytes < max(LOW_FREE_BYTES, 2 * found.wal_bytes):
        return warning("disk", f"{free}.", mend)
    return ok("disk", f"{free}.")


def wal(found: Folder, hint: Hint, *, served: bool) -> Finding:
    """The write-ahead log's size."""
    if found.wal_bytes <= WAL_BYTES:
        return ok(
            "wal", f"{size(found.wal_bytes)} wait to be written into the database of {size(found.database_bytes)}."
        )
    text = f"The WAL has grown to {size(found.wal_bytes)}: a reader holds it open, or the disk was full for a while."
    mend = "end other programs that have lumeproxy.db open, then restart the server" if served else hint("serve")
    return warning("wal", text, mend)


def database(path: Path, found: Contents, newest: int, hint: Hint) -> list[Finding]:
    """Integrity and books, and whether anybody can call."""
    restore = f"stop the server, and put a backup in the place of {path} (README, On a server)"
    if found.error:
        return [failed("database", f"{path} can't be read: {found.error}.", restore)]
    if found.version is not None and found.version > newest:
        text = f"{path} was written by a newer lumeproxy (version {found.version}, this one knows {newest})."
        return [failed("database", text, "start the newer one, or restore a backup made before the upgrade")]
    if found.version is not None:
        return [ok("database", f"{path} is of version {found.version}; the next start brings it to {newest}.")]
    if found.problems:
        shown = " ".join(found.problems[:SHOWN_PROBLEMS])
        more = len(found.problems) - SHOWN_PROBLEMS
        text = f"{shown} And {spelled(more, 'problem')} more." if more > 0 else shown
        damaged = any("damaged" in problem for problem in found.problems)
        return [failed("database", text, restore if damaged else hint("audit"))]
    books = ok("database", "The file is sound, and every bill and balance in it is right (audit).")
    if not found.accounts:
        return [books, warning("keys", "There is no account yet.", hint("account create NAME --credit 10"))]
    if not found.keys_in_force:
        return [books, warning("keys", "No key is in force, so that nobody can call.", hint("key create ACCOUNT"))]
    told = f"{spelled(found.accounts, 'account')}, {spelled(found.keys_in_force, 'key')} in force."
    return [books, ok("keys", told)]


@dataclass(frozen=True, slots=True)
class Private:
    """A file or folder that nobody else should get at. `mode` are its permission bits, `closed` those that must not be set;
    `what` says what it holds."""

    path: Path
    mode: int
    what: str
    closed: int = 0o077
    folder: bool = False


def modes(found: Sequence[Private]) -> list[Finding]:
    """One finding for each that others can get at, or one that all is well."""
    findings = [
        warning(
            "file modes",
            f"{private.path} has mode {private.mode & 0o777:03o}: others on this machine can get at {private.what}.",
            f"chmod {700 if private.folder else 600} {shlex.quote(str(private.path))}",
        )
        for private in found
        if private.mode & private.closed
    ]
    if findings or not found:
        return findings
    return [ok("file modes", "What holds secrets is closed to others on this machine.")]


@dataclass(frozen=True, slots=True)
class Served:
    """A server's certificate as its files have it: from when to when it is valid, None where that can't be told."""

    path: Path
    validity_ms: tuple[int, int] | None


def tls(found: Served, now_ms: int) -> Finding:
    """The dates of a certificate whose key fits."""
    if found.validity_ms is None:
        return warning("tls", f"{found.path} fits its key, but its dates can't be read.")
    begins_ms, ends_ms = found.validity_ms
    mend = f"renew {found.path} and restart the server"
    days = (ends_ms - now_ms) // DAY_MS
    if now_ms >= ends_ms:
        ago = (now_ms - ends_ms) // DAY_MS
        when = f"{spelled(ago, 'day')} ago" if ago else "today"
        return failed("tls", f"The certificate {found.path} expired {when}: no client connects.", mend)
    if now_ms < begins_ms:
        return failed("tls", f"The certificate {found.path} is not valid yet: is the clock right?", "timedatectl")
    if days < RENEW_DAYS:
        return warning("tls", f"The certificate {found.path} expires in {spelled(days, 'day')}.", mend)
    return ok("tls", f"The certificate fits its key and is valid for {spelled(days, 'day')} more.")


@dataclass(frozen=True, slots=True)
class Running:
    """Who serves the data folder: a server that answers (`process_id`, `base_url`), or a `holder` of the lock that does
    not, or nobody."""

    process_id: int | None = None
    base_url: str | None = None
    version: str | None = None
    holder: str | None = None


def server(found: Running, own_version: str, hint: Hint) -> Finding:
    """Whether a server runs on the data, and answers."""
    if found.process_id is not None:
        told = f"lumeproxy {found.version} (process {found.process_id}) serves on {found.base_url}"
        if found.version != own_version:
            return warning("server", f"{told}; this command is {own_version}.", "restart the server")
        return ok("server", f"{told}.")
    if found.holder is not None:
        stop = f"kill {found.holder}" if found.holder.isdigit() else "restart the machine"
        return failed(
            "server",
            f"Process {found.holder} has the data folder and does not answer commands: it starts, stops or hangs.",
            f"wait a minute and run this again; if it stays so: {stop}",
        )
    return ok("server", "None runs on this data folder now.", hint("serve"))
