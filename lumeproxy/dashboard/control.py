"""The Unix socket by which commands reach a running server: whoever may read the data folder may command it.

POST /api/v1/operations/NAME with a JSON object of arguments; the answer is the operation's JSON, or
{"error": {"code", "message"}} with the error's status. The socket file is 0600 and exists only while the server runs.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import ClientConnectorError, ClientError, ClientSession, ClientTimeout, UnixConnector, web
from structlog.typing import FilteringBoundLogger

from lumeproxy.dashboard.operations import READS, Operations
from lumeproxy.dashboard.socketpath import SOCKET_NAME, address
from lumeproxy.errors import ConfigError, LumeError, Missing, Refused, StoreUnavailable
from lumeproxy.logs import bug

PATH = "/api/v1/operations/"
ANSWER_S = 300  # an audit or backup of a large database takes its time
_ERRORS: dict[str, type[LumeError]] = {kind.code: kind for kind in (Missing, Refused, StoreUnavailable)}


class NotRunning(Exception):
    """No server listens on the data folder's socket, or one that is stopping took the question to its grave."""


class ControlSocket:
    """The server's end."""

    def __init__(self, operations: Operations, folder: Path, log: FilteringBoundLogger) -> None:
        self._operations = operations
        self._folder = folder
        self._log = log
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. The caller holds the data folder's lock, so a socket file found there is a dead server's.

        Raises ConfigError for a folder that can hold no socket.
        """
        app = web.Application()
        app.router.add_post(PATH + "{name}", self._handle)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        (self._folder / SOCKET_NAME).unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._bind(sock)
            await web.SockSite(self._runner, sock).start()
        except OSError as error:
            sock.close()
            raise ConfigError(
                f"The data folder {self._folder} can't hold a Unix socket ({error.strerror}); choose one on a local disk "
                "with --data."
            ) from None

    def _bind(self, sock: socket.socket) -> None:
        before = os.umask(0o177)
        try:
            with address(self._folder) as path:
                sock.bind(path)
        finally:
            os.umask(before)
        sock.setblocking(False)

    async def stop(self) -> None:
        """Stop listening and take the file away."""
        if self._runner is not None:
            await self._runner.cleanup()
        (self._folder / SOCKET_NAME).unlink(missing_ok=True)

    async def _handle(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        try:
            try:
                arguments = msgspec.json.decode(await request.read(), type=dict[str, Any])
            except (msgspec.MsgspecError, UnicodeDecodeError):
                raise Refused("The arguments are not a JSON object.") from None
            answer = await self._operations.run(name, arguments)
        except LumeError as error:
            return _json({"error": {"code": error.code, "message": error.message}}, error.status)
        except Exception as error:
            bug(self._log, error, name)
            return _json({"error": {"code": "internal_error", "message": "Something went wrong in the server."}}, 500)
        if name not in READS:
            self._log.info("operation", name=name)
        return _json(answer, 200)


def _json(value: Any, status: int) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")


async def call(folder: Path, name: str, arguments: dict[str, Any]) -> Any:
    """Ask a running server. Raises NotRunning (then nothing was done), or the operation's own LumeError."""
    body = encoded(arguments)
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(address(folder)) if folder.is_dir() else str(folder / SOCKET_NAME)
        timeout = ClientTimeout(total=ANSWER_S, sock_connect=5)
        try:
            async with (
                ClientSession(connector=UnixConnector(path=path), timeout=timeout) as session,
                session.post("http://lumeproxy" + PATH + name, data=body) as response,
            ):
                status, answered = response.status, await response.read()
        except ClientConnectorError:
            raise NotRunning from None
        except (ClientError, OSError):
            if name in READS:
                raise NotRunning from None
            # It may have been carried out: to do it once more could make a second key or a second payment.
            raise LumeError(
                f"The server went away before it answered; look whether {name} was done before you try again."
            ) from None
    answer = msgspec.json.decode(answered)
    if status == 200:
        return answer
    error = answer.get("error", {}) if isinstance(answer, dict) else {}
    kind = _ERRORS.get(str(error.get("code")), LumeError)
    raise kind(error.get("message", "The server refused without saying why."))


def encoded(arguments: dict[str, Any]) -> bytes:
    """Arguments as JSON. Raises Refused for text that is none, as a terminal of another encoding sends it."""
    try:
        return msgspec.json.encode(arguments)
    except UnicodeEncodeError:
        raise Refused("The arguments are not valid UTF-8 text.") from None
