"""Findings about the machine and the data: each fault is told with its mend, and health as health."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from lumeproxy.doctor import machine
from lumeproxy.doctor.finding import Finding
from lumeproxy.doctor.machine import DAY_MS, Private, Running, Served
from lumeproxy.store.inspection import Contents, Folder

GB, MB = 10**9, 10**6
FOLDER = Folder(
    exists=True,
    is_folder=True,
    owner=None,
    readable=True,
    writable=True,
    database_exists=True,
    database_bytes=5 * MB,
    wal_bytes=2 * MB,
    free_bytes=50 * GB,
    disk_bytes=100 * GB,
    holder=None,
)
DATA = Path("/data")
FILE = DATA / "lumeproxy.db"
NOW_MS = 1_790_000_000_000


def hint(command: str) -> str:
    return f"./lume {command}"


def folder(**changes: Any) -> Folder:
    return dataclasses.replace(FOLDER, **changes)


def told(finding: Finding) -> tuple[str, str, str | None]:
    return str(finding.state), finding.text, finding.mend


# --- SQLite, folder, disk ------------------------------------------------------------------------------------------------


def test_an_sqlite_with_the_bug_is_warned_of_with_the_command_that_brings_a_newer_one():
    finding = machine.sqlite("3.40.1", "/opt/my lume/bin/python")

    assert finding.state == "warning"
    assert finding.text.startswith("SQLite 3.40.1 has the WAL-reset bug (sqlite.org/wal.html)")
    assert finding.mend == "'/opt/my lume/bin/python' -m pip install 'lumeproxy[sqlite]'"
    assert told(machine.sqlite("3.51.3", "python")) == ("ok", "SQLite 3.51.3.", None)


@pytest.mark.parametrize("closed", ["readable", "writable"])
def test_a_folder_that_is_closed_to_this_user_fails_with_what_opens_it(closed):
    mine = machine.data_folder(Path("/my data"), folder(**{closed: False}), hint)
    anothers = machine.data_folder(Path("/my data"), folder(**{closed: False}, owner="lume"), hint)

    assert told(mine) == (
        "failed",
        "/my data or the database in it can't be written (a read-only disk?), so that no call can be charged.",
        "chmod -R u+rwX '/my data'",
    )
    assert told(anothers) == (
        "failed", "/my data belongs to lume and is closed to this user.", "sudo -u lume ./lume doctor",
    )  # fmt: skip


def test_a_folder_that_is_open_to_this_user_is_well_whoever_owns_it():
    assert told(machine.data_folder(DATA, FOLDER, hint)) == ("ok", "/data.", None)
    assert told(machine.data_folder(DATA, folder(owner="lume"), hint)) == ("ok", "/data.", None)


def test_a_folder_that_is_not_there_yet_is_no_fault():
    assert told(machine.data_folder(DATA, folder(exists=False, database_exists=False), hint)) == (
        "ok", "/data does not exist yet; the first start makes it.", None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"is_folder": False}, "There is a file in the place of /data."),
        ({"exists": False, "writable": False}, "/data does not exist, and this user can't make it."),
    ],
)
def test_a_place_where_no_folder_can_be_fails(changes, text):
    expected = ("failed", text, "choose another folder with --data")

    assert told(machine.data_folder(DATA, folder(**changes), hint)) == expected


@pytest.mark.parametrize(
    ("free", "wal", "state", "text"),
    [
        (50 * GB, 0, "ok", "50 GB of 100 GB are free on the data folder's disk."),
        (900 * MB, 0, "warning", "900 MB of 100 GB are free on the data folder's disk."),
        (3 * GB, 2 * GB, "warning", "3 GB of 100 GB are free on the data folder's disk."),
        (
            30 * MB,
            0,
            "failed",
            "30 MB of 100 GB are free on the data folder's disk: new calls are about to be refused.",
        ),
    ],
)
def test_a_disk_that_is_nearly_full_is_told_before_and_when_it_matters(free, wal, state, text):
    finding = machine.disk(folder(free_bytes=free, wal_bytes=wal))

    assert (str(finding.state), finding.text, finding.mend is None) == (state, text, state == "ok")


@pytest.mark.parametrize(
    ("wal_bytes", "served", "state", "mend"),
    [
        (64 * MB, True, "ok", None),
        (200 * MB, True, "warning", "end other programs that have lumeproxy.db open, then restart the server"),
        (200 * MB, False, "warning", "./lume serve"),
    ],
)
def test_a_write_ahead_log_that_has_grown_is_warned_of(wal_bytes, served, state, mend):
    finding = machine.wal(folder(wal_bytes=wal_bytes), hint, served=served)

    assert (str(finding.state), finding.mend) == (state, mend)
    assert f"{wal_bytes // MB} MB" in finding.text


# --- database ------------------------------------------------------------------------------------------------------------


def looked(**fields: Any) -> list[tuple[str, str, str | None]]:
    return [told(finding) for finding in machine.database(FILE, Contents(**fields), 3, hint)]


def test_books_in_order_with_a_key_in_force_are_health():
    assert looked(accounts=1_200, keys_in_force=1) == [
        ("ok", "The file is sound, and every bill and balance in it is right (audit).", None),
        ("ok", "1,200 accounts, 1 key in force.", None),
    ]


@pytest.mark.parametrize(
    ("fields", "text", "mend"),
    [
        ({}, "There is no account yet.", "./lume account create NAME --credit 10"),
        ({"accounts": 2}, "No key is in force, so that nobody can call.", "./lume key create ACCOUNT"),
    ],
)
def test_a_database_that_lets_nobody_in_is_warned_of(fields, text, mend):
    assert looked(**fields)[1:] == [("warning", text, mend)]


RESTORE = f"stop the server, and put a backup in the place of {FILE} (README, On a server)"


@pytest.mark.parametrize(
    ("fields", "state", "text", "mend"),
    [
        ({"error": "file is not a database"}, "failed", f"{FILE} can't be read: file is not a database.", RESTORE),
        ({"version": 4}, "failed", f"{FILE} was written by a newer lumeproxy (version 4, this one knows 3).",
         "start the newer one, or restore a backup made before the upgrade"),
        ({"version": 2}, "ok", f"{FILE} is of version 2; the next start brings it to 3.", None),
        ({"problems": ("A.", "B.")}, "failed", "A. B.", "./lume audit"),
        ({"problems": ("A.", "B.", "C.", "D.", "E.")}, "failed", "A. B. C. And 2 problems more.", "./lume audit"),
        ({"problems": ("The database file is damaged: x.",)}, "failed", "The database file is damaged: x.", RESTORE),
    ],
)  # fmt: skip
def test_a_database_that_is_not_right_is_told_alone(fields, state, text, mend):
    assert looked(**fields) == [(state, text, mend)]


# --- modes ---------------------------------------------------------------------------------------------------------------


def test_each_thing_that_others_can_get_at_is_warned_of_with_the_command_that_closes_it():
    findings = machine.modes(
        [
            Private(DATA, 0o40755, "the database", folder=True),
            Private(FILE, 0o100600, "the database"),
            Private(Path("/my key"), 0o100640, "an upstream's key"),
            Private(Path("/tls.key"), 0o100640, "the key of the certificate", closed=0o007),
        ]
    )

    assert [told(finding) for finding in findings] == [
        ("warning", "/data has mode 755: others on this machine can get at the database.", "chmod 700 /data"),
        (
            "warning",
            "/my key has mode 640: others on this machine can get at an upstream's key.",
            "chmod 600 '/my key'",
        ),
    ]


def test_what_is_closed_is_told_once_and_nothing_of_nothing():
    closed = Private(FILE, 0o100600, "the database")

    assert [told(finding) for finding in machine.modes([closed, closed])] == [
        ("ok", "What holds secrets is closed to others on this machine.", None)
    ]
    assert machine.modes([]) == []


# --- TLS -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begins", "ends", "state", "text"),
    [
        (-1, 80, "ok", "The certificate fits its key and is valid for 80 days more."),
        (-80, 13, "warning", "The certificate /c.pem expires in 13 days."),
        (-80, 0, "failed", "The certificate /c.pem expired today: no client connects."),
        (-90, -1, "failed", "The certificate /c.pem expired 1 day ago: no client connects."),
        (1, 90, "failed", "The certificate /c.pem is not valid yet: is the clock right?"),
    ],
)
def test_a_certificate_is_told_by_its_dates(begins, ends, state, text):
    finding = machine.tls(Served(Path("/c.pem"), (NOW_MS + begins * DAY_MS, NOW_MS + ends * DAY_MS)), NOW_MS)

    assert (str(finding.state), finding.text) == (state, text)


def test_a_certificate_whose_dates_cannot_be_read_is_warned_of():
    assert machine.tls(Served(Path("/c.pem"), None), NOW_MS).state == "warning"


# --- the server ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("running", "state", "text", "mend"),
    [
        (Running(), "ok", "None runs on this data folder now.", "./lume serve"),
        (Running(7, "http://h:1", "1.0"), "ok", "lumeproxy 1.0 (process 7) serves on http://h:1.", None),
        (Running(7, "http://h:1", "0.9"), "warning",
         "lumeproxy 0.9 (process 7) serves on http://h:1; this command is 1.0.", "restart the server"),
        (Running(holder="7"), "failed",
         "Process 7 has the data folder and does not answer commands: it starts, stops or hangs.",
         "wait a minute and run this again; if it stays so: kill 7"),
        (Running(holder="unknown"), "failed",
         "Process unknown has the data folder and does not answer commands: it starts, stops or hangs.",
         "wait a minute and run this again; if it stays so: restart the machine"),
    ],
)  # fmt: skip
def test_who_serves_the_data_is_told(running, state, text, mend):
    assert told(machine.server(running, "1.0", hint)) == (state, text, mend)
