"""The control socket: the operations over a Unix socket, errors as what they were."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lumeproxy import logs
from lumeproxy.dashboard.control import PATH, ControlSocket, NotRunning, call
from lumeproxy.dashboard.operations import Operations
from lumeproxy.dashboard.socketpath import SOCKET_NAME, address
from lumeproxy.errors import LumeError, Missing, Refused, StoreUnavailable
from lumeproxy.store.database import Database
from tests.support.clock import FakeClock


@pytest.fixture
def written() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
async def folder(
    operations: Operations, database: Database, clock: FakeClock, tmp_path: Path, written: io.StringIO
) -> AsyncIterator[Path]:
    """A data folder whose server answers."""
    place = tmp_path / "data"
    control = ControlSocket(operations, place, logs.make(level="info", style="json", clock=clock, stream=written))
    await control.start()
    yield place
    await control.stop()
    assert not (place / SOCKET_NAME).exists()


async def raw(folder: Path, name: str, body: bytes) -> tuple[int, Any]:
    with address(folder) as path:
        connector = aiohttp.UnixConnector(path=path)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post("http://x" + PATH + name, data=body) as response,
        ):
            return response.status, await response.json()


async def mute(folder: Path, name: str) -> Exception:
    """What a caller is told when the server takes the question and goes away."""

    def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    folder.mkdir()
    with address(folder) as path:
        server = await asyncio.start_unix_server(hang_up, path)
    async with server:
        with pytest.raises((LumeError, NotRunning)) as told:
            await call(folder, name, {})
    return told.value


async def test_an_operation_is_carried_out_and_answered(folder: Path):
    made = await call(folder, "account.create", {"name": "ann", "credit_nanousd": 5})

    assert made["balance_nanousd"] == 5
    assert await call(folder, "account.list", {}) == [made]


async def test_the_socket_is_for_its_owner_only_also_in_a_folder_with_a_long_path(
    operations: Operations, clock: FakeClock, tmp_path: Path
):
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    control = ControlSocket(operations, deep, logs.make(level="info", style="json", clock=clock, stream=io.StringIO()))
    await control.start()

    assert stat.S_IMODE((deep / SOCKET_NAME).stat().st_mode) == 0o600
    assert (await call(deep, "server.show", {}))["base_url"] == "http://here:1"
    await control.stop()
    await control.stop()


async def test_a_dead_servers_socket_is_no_server_and_is_replaced(
    operations: Operations, clock: FakeClock, tmp_path: Path
):
    with address(tmp_path) as path, socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with pytest.raises(NotRunning):
        await call(tmp_path, "account.list", {})

    log = logs.make(level="info", style="json", clock=clock, stream=io.StringIO())
    control = ControlSocket(operations, tmp_path, log)
    await control.start()
    assert await call(tmp_path, "account.list", {}) == []
    await control.stop()


@pytest.mark.parametrize("place", ["nowhere", "."])
async def test_where_nobody_listens_no_server_runs(tmp_path: Path, place):
    with pytest.raises(NotRunning):
        await call(tmp_path / place, "account.list", {})


@pytest.mark.parametrize(
    ("name", "arguments", "kind", "status"),
    [
        ("account.show", {"name": "nobody"}, Missing, 404),
        ("account.create", {"name": "?"}, Refused, 409),
        ("no.such", {}, Missing, 404),
        ("account.create", {}, Refused, 409),
    ],
)
async def test_an_error_arrives_as_what_it_was(folder: Path, operations: Operations, name, arguments, kind, status):
    with pytest.raises(kind) as here:
        await operations.run(name, arguments)
    with pytest.raises(kind) as there:
        await call(folder, name, arguments)

    assert type(there.value) is kind
    assert there.value.message == here.value.message
    code, body = await raw(folder, name, json.dumps(arguments).encode())
    assert (code, body["error"]["code"]) == (status, kind.code)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"name": "\xff"}', b"null"])
async def test_what_is_no_object_is_refused(folder: Path, body):
    assert await raw(folder, "account.create", body) == (
        409,
        {"error": {"code": "refused", "message": "The arguments are not a JSON object."}},
    )


async def test_a_database_that_takes_no_writes_is_said_to_be(folder: Path, database: Database, monkeypatch):
    async def full(*_: object) -> None:
        raise StoreUnavailable("No writes now.", retry_after_s=5)

    monkeypatch.setattr(database, "write", full)

    with pytest.raises(StoreUnavailable, match="No writes now."):
        await call(folder, "account.create", {"name": "ann"})


async def test_a_bug_is_logged_by_place_and_answered_without_its_text(
    folder: Path, database: Database, written: io.StringIO, monkeypatch
):
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("something secret")

    monkeypatch.setattr(database, "read", broken)

    with pytest.raises(LumeError, match=r"^Something went wrong in the server\.$"):
        await call(folder, "account.list", {})

    (line,) = [json.loads(line) for line in written.getvalue().splitlines()]
    assert (line["event"], line["call"], line["error"]) == ("bug", "account.list", "ZeroDivisionError")
    assert "secret" not in written.getvalue()


async def test_changes_are_logged_by_name_reads_are_not(folder: Path, written: io.StringIO):
    await call(folder, "account.create", {"name": "ann"})
    made = await call(folder, "key.create", {"account": "ann"})
    await call(folder, "account.list", {})
    await call(folder, "credit.entries", {"account": "ann"})

    events = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [(e["event"], e["name"]) for e in events] == [("operation", "account.create"), ("operation", "key.create")]
    assert made["key"] not in written.getvalue()


async def test_text_that_is_none_is_refused_before_it_is_sent(tmp_path: Path):
    with pytest.raises(Refused, match="not valid UTF-8"):
        await call(tmp_path, "account.create", {"name": "\udcff"})


async def test_a_read_that_a_dying_server_left_unanswered_may_be_asked_again(tmp_path: Path):
    assert isinstance(await mute(tmp_path / "x", "account.list"), NotRunning)


async def test_a_change_that_a_dying_server_left_unanswered_is_not_repeated(tmp_path: Path):
    told = await mute(tmp_path / "x", "key.create")

    assert isinstance(told, LumeError)
    assert told.message.startswith("The server went away before it answered; look whether key.create was done")


@pytest.mark.parametrize("body", [b'{"error": {}}', b"[]", b'{"error": {"code": "new"}}'])
async def test_an_answer_of_another_version_is_still_an_error(tmp_path: Path, body):
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 418 No\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        writer.close()

    with address(tmp_path) as path:
        server = await asyncio.start_unix_server(answer, path)
    async with server:
        with pytest.raises(LumeError, match="refused without saying why"):
            await call(tmp_path, "account.list", {})
