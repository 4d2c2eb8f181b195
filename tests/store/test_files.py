"""Files that are taken away from under an open database."""

from __future__ import annotations

from pathlib import Path

import pytest

from lumeproxy.errors import StoreUnavailable
from lumeproxy.store import accounts
from lumeproxy.store.database import Database
from lumeproxy.store.files import SUFFIXES, Files


@pytest.fixture
async def database(tmp_path: Path):
    made = await Database.open(tmp_path / "data")
    yield made
    await made.close()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("how", ["removed", "replaced", "moved away with its folder"])
async def test_a_file_that_is_gone_stops_new_writes_and_no_open_ones(database: Database, tmp_path: Path, suffix, how):
    await database.write(accounts.create, "before", 1)
    assert database.look_at_files() is None
    file = tmp_path / "data" / ("lumeproxy.db" + suffix)
    if how == "removed":
        file.unlink()
    elif how == "replaced":
        content = b"x" * 4096
        (tmp_path / "other").write_bytes(content)
        (tmp_path / "other").replace(file)
    else:
        (tmp_path / "data").rename(tmp_path / "away")

    lost = database.look_at_files()

    assert lost == file.name or how.startswith("moved")
    assert database.look_at_files() is None, "said once"
    with pytest.raises(StoreUnavailable) as error:
        database.submit(accounts.probe)
    assert error.value.retry_after_s == 30
    await database.submit_urgent(accounts.create, "settled", 2)


async def test_what_was_settled_meanwhile_is_saved_by_a_clean_close(tmp_path: Path):
    database = await Database.open(tmp_path / "data")
    await database.write(accounts.create, "one", 1)
    (tmp_path / "data" / "lumeproxy.db-wal").unlink()
    assert database.look_at_files() == "lumeproxy.db-wal"
    await database.submit_urgent(accounts.create, "two", 2)
    await database.close()

    again = await Database.open(tmp_path / "data")
    assert [account.name for account in await again.read(accounts.list_all)] == ["one", "two"]
    await again.close()


async def test_checkpoints_and_growth_are_no_change(database: Database):
    for number in range(50):
        await database.write(accounts.create, f"a{number}", 1)
    await database.outside(lambda tx: tx.execute("SELECT count(*) FROM accounts").fetchone())
    assert database.look_at_files() is None


def test_a_file_that_was_never_there_is_not_missed(tmp_path: Path):
    files = Files(tmp_path / "x.db")
    assert files.changed() is None
    (tmp_path / "x.db").touch()
    assert files.changed() == "x.db"
