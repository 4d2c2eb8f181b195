"""Clients and providers that mean no good: malformed and dripping requests, clients that never read, silent providers,
guessed keys, tricks with headers, paths and addresses; and what was said is found nowhere afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import logging
import random
import re
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from lumeproxy.core import apikey
from lumeproxy.dashboard.control import call as operate
from lumeproxy.dialects import DIALECTS
from tests.faults.conftest import Report, times
from tests.faults.product import Product, session
from tests.faults.test_load import (
    ANSWER,
    MB,
    PROMPT,
    PROVIDER,
    ask,
    descriptors,
    events,
    forget_peak,
    found_in,
    memory,
    probed,
    quiet,
    records_of,
    served,
)
from tests.proxy.test_door import MALFORMED, TOO_LARGE
from tests.support import calls
from tests.support.upstream import Connection

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

FOREIGN, COOKIE, QUERY = "sk-ant-canary-key-55aa-not-a-real-one", "canary-cookie-13", "canary-query-17"
TOOL, FILE = "canary-tool-argument-21", "canary-file-name-34"
SECRETS = (FOREIGN, COOKIE, QUERY, TOOL, FILE)


async def said(port: int, data: bytes, seconds: float = 10) -> bytes:
    """Send bytes, and read until the server closes or says no more; a reset ends it too."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    try:
        writer.write(data)
        async with asyncio.timeout(seconds):
            while piece := await reader.read(65_536):
                got += piece
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.close()
    return got


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ")[1]) if answer.startswith(b"HTTP/") else 0


def raw(made: Product, path: str, body: bytes, *lines: str, key: bool = True) -> bytes:
    """A POST by bytes, on a connection that is closed after it."""
    head = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", *lines, f"Content-Length: {len(body)}"]
    if key:
        head.append(f"Authorization: Bearer {made.key}")
    if not any(line.lower().startswith("connection:") for line in lines):
        head.append("Connection: close")
    return "\r\n".join(head).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


# --- 25: malformed requests -------------------------------------------------------------------------------------------


async def test_malformed_requests_reach_nobody_and_leave_no_traceback(report: Report) -> None:
    """Check 25. Control: aiohttp as it comes lets some of the same requests through, and quotes keys in log and answer."""
    wrong: list[str] = []
    async with served() as made:
        made.upstream.script = lambda c: c.reply(calls.whole(calls.ANTHROPIC))
        key = made.key.encode()
        answers = {name: await said(made.port, data.replace(b"{key}", key)) for name, data in MALFORMED.items()}
        for name, answer in answers.items():
            expected = 431 if name in TOO_LARGE else 400
            if status_of(answer) != expected or key[14:] in answer or b"Traceback" in answer:
                wrong.append(f"{name}: {answer[:60]!r}")
        assert made.upstream.received == []
        assert await records_of(made) == []
        good = await said(made.port, raw(made, calls.ANTHROPIC, ask(calls.ANTHROPIC, stream=False)))
        assert status_of(good) == 200
        assert len(await records_of(made)) == 1
        tracebacks = made.log.count("Traceback")
    passed, quoted, logged = await _stock(key)
    report(
        "25 malformed requests",
        len(MALFORMED),
        "all 400 or 431 and closed, 0 upstream, 0 tracebacks; control, stock aiohttp: some pass, some quote the key",
        f"{len(MALFORMED) - len(wrong)} refused, {tracebacks} tracebacks; control: {passed} pass, {quoted} answers and "
        f"{logged} tracebacks quote it",
    )
    assert wrong == []
    assert len(MALFORMED) >= 60
    assert passed
    assert quoted + logged


async def _stock(key: bytes) -> tuple[int, int, int]:
    """The same requests before a bare server: how many get a 200, have the key in their answer, and in the log."""

    async def fine(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(text="fine")

    text = io.StringIO()
    log = logging.getLogger("lumeproxy.tests.stock")
    log.propagate = False
    handler = logging.StreamHandler(text)
    log.addHandler(handler)
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{path:.*}", fine)
    runner = web.AppRunner(app, logger=log, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        answers = [await said(port, data.replace(b"{key}", key), 0.3) for data in MALFORMED.values()]
    finally:
        await runner.cleanup()
        log.removeHandler(handler)
    return (
        sum(status_of(a) == 200 for a in answers),
        sum(key in a for a in answers),
        text.getvalue().count(key.decode()),
    )


# --- 26: headers ------------------------------------------------------------------------------------------------------

# Hop by hop, or somebody's own business; `named` is so only because Connection names it.
TO_UPSTREAM = ("Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "TE", "Trailer", "Upgrade",
               "Expect", "Named", "Cookie", "X-Api-Key", "Api-Key", "X-Forwarded-For", "CF-Connecting-IP")  # fmt: skip
TO_CLIENT = ("Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "TE", "Trailer", "Upgrade",
             "Expect", "Named", "Set-Cookie", "Server", "Alt-Svc", "Anthropic-Ratelimit-Tokens",
             "X-Lume-Forged")  # fmt: skip


async def test_headers_that_are_nobodys_business_pass_neither_way(report: Report) -> None:
    """Check 26. Control: another header with the same value passes in both directions."""
    leaked: list[str] = []
    control, credentials = 0, 0
    mark = "canary-header-8"
    async with served() as made:
        for path, streamed in itertools.product(calls.PATHS, (True, False)):
            body = ask(path, stream=streamed)
            key = f"Authorization: Bearer {made.key}"
            for up, down in zip(TO_UPSTREAM, TO_CLIENT, strict=True):

                async def echo(connection: Connection, down=down, streamed=streamed, path=path) -> None:
                    pairs = [("Connection", "named"), (down, mark), ("X-Open", mark + "-open")]
                    # What it was given, in headers of its own and in one that clients read.
                    pairs += [("X-Echo-" + name, value) for name, value in connection.received.headers]
                    pairs += [("X-Given", f"you sent {PROVIDER}"), ("Authorization", f"Bearer {PROVIDER}")]
                    whole = b"".join(events(path)) if streamed else calls.whole(path)
                    kind = "text/event-stream" if streamed else "application/json"
                    await connection.head(200, [*pairs, ("Content-Type", kind), ("Content-Length", str(len(whole)))])
                    await connection.send(whole)
                    connection.writer.close()

                made.upstream.script = echo
                lines = [key, f"{up}: {mark}", f"X-Open: {mark}-open", "Connection: close, named"]
                answer = await said(made.port, raw(made, path, body, *lines, key=False))
                head = answer.partition(b"\r\n\r\n")[0].decode("latin-1")
                assert status_of(answer) == 200
                received = made.upstream.received[-1].headers
                if any(value == mark for _, value in received):
                    leaked.append(f"{up} up")
                if re.search(rf"(?im)^{down}: .*{mark}\r?$", head):
                    leaked.append(f"{down} down")
                control += any(value == mark + "-open" for _, value in received) and f"{mark}-open" in head
                credentials += PROVIDER in head or made.key in str(received)
        fault = json.dumps({"error": {"message": f"Incorrect API key provided: {PROVIDER}", "code": "invalid_api_key"}})
        made.upstream.script = lambda c: c.reply(fault.encode(), 401)
        refusals = [await said(made.port, raw(made, path, ask(path))) for path in calls.PATHS]
        credentials += sum(PROVIDER.encode() in answer for answer in refusals)
        assert [status_of(answer) for answer in refusals] == [502] * 3
    cycles = 6 * len(TO_UPSTREAM)
    report(
        "26 headers, both ways",
        cycles,
        "14 headers x 2 dropped, no credential of ours passed; control: an open one passes",
        f"{len(leaked)} leaked, {credentials} credentials; control: {control} of {cycles}",
    )
    assert leaked == []
    assert credentials == 0
    assert control == cycles


# --- 27: heads that drip in -------------------------------------------------------------------------------------------


@dataclass
class Drip(asyncio.Protocol):
    """A request of which a byte comes every two seconds."""

    text: bytes
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    sent: int = 0
    transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = time.monotonic()

    def drip(self) -> None:
        if self.ended is None:
            self.transport.write(self.text[self.sent : self.sent + 1])
            self.sent += 1


async def test_dripping_heads_are_closed_and_harm_nobody(report: Report) -> None:
    """Check 27. Control: a bare aiohttp server still has such a connection then."""
    wanted = times(500, 5000)
    loop = asyncio.get_running_loop()
    text = b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    async with served() as made, session() as client, _bare() as bare:
        made.upstream.script = lambda c: c.stream(events(c.received.target))
        taken: list[tuple[float, float]] = []
        stop = asyncio.Event()

        async def others() -> None:
            while not stop.is_set():
                start = time.monotonic()
                async with client.post(made.url + calls.CHAT, data=ask(calls.CHAT), headers=made.headers) as response:
                    assert await response.read() == b"".join(events(calls.CHAT))
                taken.append((start, time.monotonic() - start))
                await asyncio.sleep(0.02)

        async with probed(made) as stalls:
            working = asyncio.ensure_future(others())
            await asyncio.sleep(2)
            begun = time.monotonic()
            drips: list[Drip] = []
            for n in range(wanted):
                _, drip = await loop.create_connection(lambda: Drip(text), "127.0.0.1", made.port)
                drips.append(drip)
                if n % 100 == 0:
                    await asyncio.sleep(0.01)
            _, control = await loop.create_connection(lambda: Drip(text), "127.0.0.1", bare)
            while time.monotonic() - begun < 22 and any(drip.ended is None for drip in drips):
                for drip in (*drips, control):
                    drip.drip()
                await asyncio.sleep(2)
            open_elsewhere = control.ended is None
            stop.set()
            await working
            control.transport.abort()
        await quiet(made)
        records = await records_of(made)
    lasted = [drip.ended - drip.began for drip in drips if drip.ended is not None]
    before, during = stalls.p99_ms(until=begun), stalls.p99_ms(since=begun)
    mine = sorted(1000 * took for at, took in taken if at > begun)
    report(
        "27 dripping heads",
        wanted,
        "each closed after 15 s (+-1), others' added p99 <= 50 ms; control, bare aiohttp: still open",
        f"{len(lasted)} closed after {min(lasted, default=0):.1f}-{max(lasted, default=99):.1f} s, /healthz p99 "
        f"{before:.1f} -> {during:.1f} ms, {len(mine)} calls p99 {mine[len(mine) * 99 // 100]:.0f} ms; control: "
        f"{'open' if open_elsewhere else 'closed'}",
    )
    assert len(lasted) == wanted
    assert 14 <= min(lasted) <= max(lasted) <= 16
    assert during - before <= 50
    assert len(records) == len(taken)
    assert all(record["cost_nanousd"] == calls.BILL[calls.CHAT] for record in records)
    assert open_elsewhere


@contextlib.asynccontextmanager
async def _bare() -> AsyncIterator[int]:
    """The port of aiohttp as it comes."""
    runner = web.AppRunner(web.Application(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


# --- 28: bodies that do not end ---------------------------------------------------------------------------------------


async def test_bodies_that_do_not_come_take_no_hold_and_little_memory(report: Report) -> None:
    """Check 28. Controls: a slow body that is fast enough is served; a running stream is seen to have its hold."""
    idle_s, many = times(2, 30), times(4, 8)
    limit = 33 * MB
    async with served(limits=f"body_idle_ms = {idle_s * 1000}") as made, session() as client:
        going = asyncio.Event()
        path, body = calls.ANTHROPIC, ask(calls.ANTHROPIC)

        async def answer(connection: Connection) -> None:
            first, *rest = events(path)
            await connection.stream_head()
            await connection.chunk(first)
            if connection.received.target.endswith("?waits"):
                await going.wait()
            for item in rest:
                await connection.chunk(item)
            await connection.end()

        made.upstream.script = answer
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {made.key}\r\n"
        sized, coded = head + "Content-Length: 100000\r\n\r\n", head + "Transfer-Encoding: chunked\r\n\r\n"

        async def half() -> tuple[int, float]:
            return await _sending(made, sized.encode() + body[:50], b"", pause_s=1)

        async def dripped() -> tuple[int, float]:
            return await _sending(made, sized.encode(), b"a", pause_s=1)

        async def endless() -> tuple[int, float]:
            return await _sending(made, coded.encode(), b"%x\r\n" % 65_536 + b"a" * 65_536 + b"\r\n", pause_s=0)

        async def slow() -> int:
            whole = ask(path, system="a" * 100_000)

            async def pieces() -> AsyncIterator[bytes]:
                for at in range(0, len(whole), 10_000):
                    yield whole[at : at + 10_000]
                    await asyncio.sleep(idle_s / 5)

            async with client.post(made.url + path, data=pieces(), headers=made.headers) as response:
                await response.read()
                return response.status

        async def waiting() -> bytes:
            async with client.post(f"{made.url}{path}?waits", data=body, headers=made.headers) as response:
                return await response.read()

        before = forget_peak(made.pid)
        bad = [asyncio.ensure_future(kind()) for kind in (half, dripped) for _ in range(many)]
        await asyncio.sleep(idle_s / 2)
        nothing = await operate(made.data, "credit.balance", {"account": "me"})
        stream = asyncio.ensure_future(waiting())
        await asyncio.sleep(0.3)
        something = await operate(made.data, "credit.balance", {"account": "me"})
        late = await asyncio.gather(*bad)
        small = memory(made.pid, "VmHWM") - before
        forget_peak(made.pid)
        large = await asyncio.gather(*(endless() for _ in range(many)))
        # What is needed once, whoever sends, is not theirs.
        grown = (memory(made.pid, "VmHWM") - before - 2 * MB) / many
        served_slowly = await slow()
        going.set()
        await stream
        await quiet(made)
        records = await records_of(made)
    statuses = sorted({status for status, _ in late}), sorted({status for status, _ in large})
    times_s = [took for _, took in late]
    report(
        "28 bodies that do not end",
        3 * many,
        f"408 at {idle_s} s (+-1.5), 413; no hold; RSS + <= 33 MB each; control: slow one served, a stream has a hold",
        f"{statuses[0]} at {min(times_s):.1f}-{max(times_s):.1f} s, {statuses[1]}; held {nothing['held_nanousd']}; "
        f"{grown / MB:+.1f} MB each ({small / MB:+.1f} MB idle); control: {served_slowly}, held "
        f"{something['held_nanousd']}",
    )
    assert statuses == ([408], [413])
    assert idle_s - 0.5 <= min(times_s) <= max(times_s) <= idle_s + 1.5
    assert nothing["held_nanousd"] == 0 < something["held_nanousd"]
    assert served_slowly == 200
    assert grown <= limit
    assert [record["ending"] for record in records] == ["complete"] * 2


async def _sending(made: Product, head: bytes, piece: bytes, *, pause_s: float) -> tuple[int, float]:
    """Send a piece again and again until there is an answer: its status, and after which time."""
    start = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
    answer = asyncio.ensure_future(reader.read(65_536))
    try:
        writer.write(head)
        while not answer.done() and time.monotonic() - start < 60:
            writer.write(piece)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            if pause_s:
                await asyncio.wait({answer}, timeout=pause_s)
            else:
                await asyncio.sleep(0)
        return status_of(await asyncio.wait_for(answer, 5)), time.monotonic() - start
    finally:
        answer.cancel()
        writer.transport.abort()


# --- 29: clients that never read --------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def deaf(made: Product, count: int) -> AsyncIterator[None]:
    """Clients whose sockets are as small as can be, and that read nothing."""
    loop, path = asyncio.get_running_loop(), calls.ANTHROPIC
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", made.port))
            await loop.sock_sendall(sock, raw(made, path, ask(path)))
        yield


def kernel(port: int) -> list[int]:
    """Bytes of kernel memory of each of the server's connections with clients."""
    out = subprocess.run(["ss", "-tmnH", "state", "established", f"sport = :{port}"], capture_output=True, check=True)
    found = re.findall(r"skmem:\(r(\d+),rb\d+,t(\d+),tb\d+,f(\d+),w(\d+)", out.stdout.decode())
    return [sum(map(int, one)) for one in found]


def flood(size: int) -> Any:
    """A script that writes an answer of so many bytes as fast as it is taken."""
    word = (ANSWER + " ") * 640

    async def script(connection: Connection) -> None:
        first, opening, *_ = events(calls.ANTHROPIC)
        delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
        item = b"event: content_block_delta\ndata: " + json.dumps(delta).encode() + b"\n\n"
        await connection.stream_head()
        for part in (first, opening, *([item] * (size // len(item))), *events(calls.ANTHROPIC)[-3:]):
            await connection.chunk(part)
        await connection.end()

    return script


async def test_clients_that_never_read_are_cut_and_charged(report: Report) -> None:
    """Check 29. Controls: one that reads slowly is not cut; with a large send buffer the kernel holds more than allowed."""
    wanted, stall_s = times(50, 200), times(3, 60)
    limits = f"client_stall_ms = {stall_s * 1000}"
    async with served(limits=limits) as made:
        made.upstream.script = flood(10 * MB)
        async with deaf(made, 5):
            await asyncio.sleep(0.3)
        await quiet(made)
        before, start = memory(made.pid), time.monotonic()
        async with deaf(made, wanted):
            reading = asyncio.ensure_future(_slowly(made, stall_s))
            await asyncio.sleep(1.5)
            each = (memory(made.pid) - before) / wanted
            sizes = sorted(kernel(made.port))[-wanted:]
            records: list[dict[str, Any]] = []
            while len(records) < wanted + 5 and time.monotonic() - start < stall_s + 10:
                await asyncio.sleep(0.25)
                records = [one for one in await records_of(made) if one["ending"] == "cut_by_client"]
            whole = await reading
            left = descriptors(made.pid)
        # The first five left; these were cut, but for the one that read, if it was.
        records = records[:wanted]
    lasted = sorted(one["duration_ms"] / 1000 for one in records)
    endings = {(one["ending"], one["settled_by"], one["input_tokens"]) for one in records}
    least, bill = 100 * calls.INPUT, 100 * calls.INPUT + 20 * calls.OUTPUT
    costs = sorted(one["cost_nanousd"] for one in records)
    async with served(limits=f"{limits}\nsend_buffer_bytes = 4_194_304") as other:
        other.upstream.script = flood(10 * MB)
        async with deaf(other, 5):
            await asyncio.sleep(1)
            control = max(kernel(other.port))
    report(
        f"29 clients that never read, {stall_s} s",
        wanted,
        f"all cut after {stall_s} s (+-1.5), cut_by_client, <= 64 KB RSS and <= 300 KB kernel each; controls: a slow "
        "one whole, large buffers above",
        f"{len(records)} cut after {lasted[0]:.1f}-{lasted[-1]:.1f} s, {sorted(endings)}, {each / 1024:.0f} KB RSS, "
        f"kernel at most {max(sizes) / 1024:.0f} KB; controls: {'whole' if whole else 'cut'}, {control / 1024:.0f} KB",
    )
    assert len(records) == wanted
    assert stall_s <= lasted[0] <= lasted[-1] <= stall_s + 1.5
    assert {ending for ending, _, _ in endings} == {"cut_by_client"}
    assert {tokens for _, _, tokens in endings} == {100}
    assert least < costs[0]
    assert costs[-1] <= bill + calls.tokens_out(calls.ANTHROPIC, 4 * MB) * calls.OUTPUT
    assert each <= 64 * 1024
    assert max(sizes) <= 300 * 1024 < control
    assert whole
    assert left < 60


async def _slowly(made: Product, stall_s: float) -> bool:
    """Read a bit every quarter of the time that is allowed for nothing, then the rest; whether it came whole."""
    loop, path, last = asyncio.get_running_loop(), calls.ANTHROPIC, b""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", made.port))
        await loop.sock_sendall(sock, raw(made, path, ask(path)))
        for _ in range(8):
            last = await loop.sock_recv(sock, 262_144)  # all there is, or TCP keeps its window shut
            await asyncio.sleep(stall_s / 4)
        with contextlib.suppress(ConnectionError):
            while piece := await loop.sock_recv(sock, 65_536):
                last = (last + piece)[-200:]
    return b"message_stop" in last


# --- 30: providers that say nothing -----------------------------------------------------------------------------------


async def test_a_silent_provider_is_given_up_at_the_stated_time(report: Report) -> None:
    """Check 30. Control: one that is silent for less is waited for."""
    setting = 2.0
    limits = f"first_byte_ms = {setting * 1000:.0f}\nstream_idle_ms = {setting * 1000:.0f}\nconnect_ms = 2_000"
    stopped, full = socket.socket(), socket.socket()
    try:
        for sock, backlog in ((stopped, 128), (full, 0)):
            sock.bind(("127.0.0.1", 0))
            sock.listen(backlog)
        fillers = await _fill(full.getsockname())
        places = {"refused": 1, "stopped": stopped.getsockname()[1], "unreachable": full.getsockname()[1]}
        more = "\n".join(
            f'[upstreams.{name}]\nkind = "anthropic"\nbase_url = "http://127.0.0.1:{port}"\napi_key = "{PROVIDER}"\n'
            f'[prices."claude-{name}"]\ninput = 1\noutput = 10\n'
            f'[[routes]]\nmodel = "claude-{name}"\nupstreams = ["{name}"]'
            for name, port in places.items()
        )
        async with served(limits=limits, more=more) as made, session() as client:

            async def silent(connection: Connection) -> None:
                path, _, how = connection.received.target.partition("?")
                head, *rest = events(path)
                if how == "nothing":
                    await connection.closed_by_peer()
                    return
                await connection.stream_head()
                if how != "head":
                    await connection.chunk(head)
                if how == "short":
                    await asyncio.sleep(setting / 2)
                    for item in rest:
                        await connection.chunk(item)
                    await connection.end()
                else:
                    await connection.closed_by_peer()

            made.upstream.script = silent

            async def one(path: str, how: str, **asked: Any) -> tuple[str, float, int, bool, str]:
                start, clean = time.monotonic(), True
                url = f"{made.url}{path}?{how}"
                async with client.post(url, data=ask(path, **asked), headers=made.headers) as response:
                    try:
                        await response.read()
                    except aiohttp.ClientPayloadError:
                        clean = False
                    return how, time.monotonic() - start, response.status, clean, response.headers["x-lume-call-id"]

            told = await asyncio.gather(
                *(one(path, how) for path in calls.PATHS for how in ("nothing", "head", "begun", "short")),
                *(one(calls.ANTHROPIC, name, model=f"claude-{name}") for name in places),
            )
            await quiet(made)
            records = {record["call_id"]: record for record in await records_of(made)}
            for filler in fillers:
                filler.close()
    finally:
        stopped.close()
        full.close()
    wrong = []
    late = 0.0
    for how, took, status, clean, call_id in told:
        record = records[call_id]
        due = {"refused": 0.0, "short": setting / 2}.get(how, setting)
        late = max(late, abs(took - due))
        path = record["endpoint"]
        ended = (status, clean, record["ending"], record["cost_nanousd"])
        right: set[Any] = {(503, True, "unreachable", 0)}
        if how == "short":
            right = {(200, True, "complete", calls.BILL[path])}
        elif how == "head":
            # The reply had begun, and nothing came: no output was delivered, so nothing is charged.
            right = {(200, False, "cut_by_upstream", 0)}
        elif how == "begun":
            # Anthropic has told its input by then, and one token of output; the others nothing, but a first word.
            reported = calls.INPUT * 100 + calls.OUTPUT
            right = {(200, False, "cut_by_upstream", reported if path == calls.ANTHROPIC else record["cost_nanousd"])}
        if ended not in right:
            wrong.append(f"{path} {how}: {ended}")
    report(
        "30 silent provider",
        len(told),
        f"given up after {setting:.0f} s (+-1), charged by rule, no clean end; control: silent for half of it is served",
        f"{len(told) - len(wrong)} right, at most {late:.2f} s off",
    )
    assert wrong == []
    assert late <= 1


async def _fill(address: tuple[str, int]) -> list[socket.socket]:
    """Connections that nobody accepts, until the next one is not even answered."""
    made = []
    for _ in range(8):
        sock = socket.socket()
        sock.setblocking(False)
        made.append(sock)
        try:
            async with asyncio.timeout(0.3):
                await asyncio.get_running_loop().sock_connect(sock, address)
        except TimeoutError:
            return made
    raise AssertionError("the backlog does not fill")


# --- 40: canaries -----------------------------------------------------------------------------------------------------


async def test_what_was_said_is_found_nowhere(report: Report, dice: random.Random) -> None:
    """Check 40: all sorts of calls, endings and faults, then every file and the log at its finest. (Each other check looks
    for its own prompt, answer and keys too.) Control: what is kept on purpose, a user agent, is found."""
    agent = "canary-agent-2"
    async with served(canaries=SECRETS) as made, session() as client:
        answers: list[bytes] = []
        for path in calls.PATHS:
            await _talk(made, client, path, agent, answers, dice)
        for name, data in MALFORMED.items():
            if b"{key}" in data:
                answers.append(await said(made.port, data.replace(b"{key}", made.key.encode())))
                answers[-1] = answers[-1].replace(PROMPT.encode(), b"") if name == "noise" else answers[-1]
        hosts = [f"Host: {made.key}", f"Host: {FOREIGN}", f"Cookie: {COOKIE}\x01", f"X-Api-Key: {FOREIGN}\x01"]
        for line in hosts:
            head = f"POST /v1/messages?{QUERY} HTTP/1.1\r\n{line}\r\nAuthorization: Bearer {made.key}\r\n\r\n"
            answers.append(await said(made.port, head.encode(), 1))
        for target in (f"/{made.key}", f"/v1/{FOREIGN}", f"/v1/models/{made.key}", f"/v1/messages/{made.key}?{QUERY}"):
            head = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            answers.append(await said(made.port, f"{head}Authorization: Bearer {made.key}\r\n\r\n".encode(), 1))
        for word in (made.key[:-1] + "x", FOREIGN):
            answers.append(
                await said(made.port, raw(made, calls.CHAT, ask(calls.CHAT), f"X-Api-Key: {word}", key=False))
            )
        async with client.get(made.url + "/readyz") as response:
            answers.append(await response.read())
        backup = made.data / "copy.db"
        await operate(made.data, "backup.run", {"path": str(backup)})
        words = (made.key, made.key[14:], PROVIDER, PROMPT, ANSWER, *SECRETS)
        hits = found_in(made, words)
        echoed = [word for word in (made.key, PROVIDER, FOREIGN, COOKIE, QUERY) if word.encode() in b"".join(answers)]
        control = found_in(made, (agent,))
        count = len(answers)
    report(
        "40 canaries",
        count,
        f"0 hits of {len(words)} words in files, log, backup and answers; control: the user agent is found",
        f"{len(hits)} hits, {len(echoed)} in answers; control: {len(control)}",
    )
    assert hits == []
    assert echoed == []
    assert any("lumeproxy.db" in one for one in control)


async def _talk(
    made: Product, client: aiohttp.ClientSession, path: str, agent: str, answers: list[bytes], dice: random.Random
) -> None:
    """Calls of one dialect with all that is secret in them, with every kind of answer."""
    tools = [{"type": "function", "name": "f", "function": {"name": "f", "arguments": TOOL}}]
    data = ask(path, tools=tools, metadata={"file": FILE})
    whole = ask(path, tools=tools, stream=False, metadata={"file": FILE})
    fault = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": f"no: {PROMPT} {TOOL}"}})
    item = events(path)

    async def broken(connection: Connection) -> None:
        await connection.stream_head()
        await connection.chunk(b"".join(item[: dice.randrange(1, len(item))]))
        connection.abort()

    async def noisy(connection: Connection) -> None:
        await connection.stream([b"data: {" + ANSWER.encode() + b"\xff\n\n", f"data: {fault}\n\n".encode(), *item])

    async def misframed(connection: Connection) -> None:
        await connection.stream_head()
        await connection.send(ANSWER.encode() + b"\r\nzz" + PROMPT.encode())

    scripts: list[tuple[bytes, Any]] = [
        (data, lambda c: c.stream(item)),
        (whole, lambda c: c.reply(calls.whole(path, ANSWER))),
        (data, lambda c: c.reply(fault.encode(), 400)),
        (whole, lambda c: c.reply(fault.encode(), 413)),
        (data, lambda c: c.reply(fault.encode(), 401, {"www-authenticate": PROVIDER})),
        (whole, lambda c: c.reply(b"<html>" + PROMPT.encode(), 418, {"content-type": "text/html"})),
        (data, lambda c: c.reply(b"", 302, {"location": f"http://127.0.0.1:1/{PROMPT}"})),
        (data, broken),
        (data, noisy),
        (data, misframed),
        (b'{"model": "' + PROMPT.encode(), None),
        (json.dumps({"model": "nobody", "x": PROMPT}).encode(), None),
        (json.dumps({"model": PROMPT * 20, "messages": []}).encode(), None),
    ]
    headers = {**made.headers, "x-api-key": FOREIGN, "Cookie": COOKIE, "User-Agent": agent}
    for body, script in scripts:
        made.upstream.script = script
        async with client.post(
            f"{made.url}{path}?q={QUERY}", data=body, headers=headers, allow_redirects=False
        ) as response:
            with contextlib.suppress(aiohttp.ClientPayloadError):
                text = await response.read()
                answers.append(str(response.headers).encode() + (b"" if script is not None else text))
    made.upstream.script = lambda c: c.stream(item)
    _, writer = await asyncio.open_connection("127.0.0.1", made.port)
    writer.write(raw(made, path, data))  # a client that leaves at once
    await asyncio.sleep(0.01)
    writer.transport.abort()


# --- 41: credentials and paths ----------------------------------------------------------------------------------------


def bad_credentials(key: str) -> list[list[str]]:
    """Headers that are no valid key."""
    texts = ["", " ", "lume_", "null", "' OR '1'='1", 'lume_" OR 1=1 --', "lume_'; DROP TABLE keys; --", key[:-1],
             key + "x", key.upper(), key.swapcase(), key[:14], key[:13] + "x" + key[14:], "sk-1234", FOREIGN, "*", "%",
             "lume_%25", "../../etc/passwd", "a" * 20_000, "lume_" + "\u00e9" * 20, "\udcff\udcfe",
             key.replace("_", "\uff3f"),
             key[:20] + " " + key[20:], f"Bearer {key}", "lume_" + "0" * 46]  # fmt: skip
    both = [[f"Authorization: Bearer {text}", f"x-api-key: {text}"] for text in texts]
    one = [[f"{name}: {text}"] for text in texts for name in ("Authorization: Bearer", "x-api-key")]
    forms = [f"Authorization: Basic {key}", f"Authorization: {key}", f"Cookie: key={key}", f"x-goog-api-key: {key}",
             f"Proxy-Authorization: Bearer {key}", f"X-Lume-Key: {key}", f"Authorization: Bearer,{key}"]  # fmt: skip
    return [[]] + both + [[line.replace("Bearer: ", "Bearer ")] for (line,) in one] + [[form] for form in forms]


PATH_TRICKS = ("//v1/messages", "/v1//messages", "/v1/messages/", "/v1/messages;x=1", "/v1/messages/..", "/v1/./messages",
               "/v1/%2e%2e/v1/messages", "/V1/MESSAGES", "/v1/messages%00", "/v1/messages%0d%0a", "/v1\\messages",
               "/v1/v1/v1/messages", "/healthz/../v1/messages", "/./v1/messages", "/v1/messages%2f", "/v1%2fmessages",
               "/v1/messages/count_tokens/x", "/api/v1/operations/credit.grant", "/api/v1/operations/usage.list",
               "/metrics", "/v1/messages%20", "/v1/messages.json", "/v1/completions", "/v1/embeddings",
               "/%2e%2e/%2e%2e/etc/passwd", "/v1/messages/@127.0.0.1:9", "/.env", "/lumeproxy.db",
               "/config.toml")  # fmt: skip


async def test_nothing_gets_by_the_keys(report: Report) -> None:
    """Check 41. Control: with the key, each endpoint is served and reaches the provider."""
    endpoints = [prefix + endpoint.path for d in DIALECTS for endpoint in d.endpoints for prefix in ("/v1", "/v1/v1")]
    passed: list[str] = []
    tried = 0
    async with served(limits="failed_keys_per_minute = 0", canaries=(FOREIGN,)) as made:
        made.upstream.script = lambda c: c.reply(b"{}")

        async def attempt(label: str, data: bytes) -> None:
            nonlocal tried
            tried += 1
            answer = await said(made.port, data, 5)
            if status_of(answer) not in (400, 401, 403, 404, 405, 426, 431) or made.upstream.received:
                passed.append(f"{label}: {answer[:40]!r} {len(made.upstream.received)}")
                made.upstream.received.clear()

        key = made.key
        bodies = {
            d.name: ask({"a": calls.ANTHROPIC, "r": calls.RESPONSES}.get(d.name[0], calls.CHAT)) for d in DIALECTS
        }
        body = ask(calls.ANTHROPIC)
        for lines in bad_credentials(key):
            for path in calls.PATHS:
                await attempt(f"{path} {[line[:60] for line in lines]}", raw(made, path, ask(path), *lines, key=False))
        for path in (*endpoints, "/v1/models", "/v1/models/claude-test-1", "/v1/responses"):
            method = "GET" if "models" in path else "POST"
            await attempt(path, raw(made, path, body, key=False).replace(b"POST", method.encode(), 1))
        for path in PATH_TRICKS:
            await attempt(path, raw(made, path, body, key=False))
            await attempt(path + " with the key", raw(made, path, body))
        for host in ("x/#@y", "evil.example", "127.0.0.1.evil.example", "x@127.0.0.1", "127.0.0.1:80:80", "[::1", ""):
            text = raw(made, calls.ANTHROPIC, body).replace(b"Host: 127.0.0.1", b"Host: " + host.encode())
            await attempt(f"host {host}", text)
        for target in ("http://evil.example/v1/messages", f"http://127.0.0.1:{made.upstream.port}/v1/messages"):
            await attempt(target, raw(made, target, body, key=False))
        for name in ("X-HTTP-Method-Override", "X-Original-URL", "X-Rewrite-URL"):
            await attempt(name, raw(made, "/healthz", body, f"{name}: /v1/messages"))
        reached = 0
        for dialect in DIALECTS:
            for endpoint in dialect.endpoints:
                for prefix in ("/v1", "/v1/v1"):
                    before = len(made.upstream.received)
                    answer = await said(made.port, raw(made, prefix + endpoint.path, bodies[dialect.name]), 5)
                    reached += status_of(answer) == 200 and len(made.upstream.received) == before + 1
        two = raw(made, calls.ANTHROPIC, body, "x-api-key: lume_wrong", "Authorization: Bearer lume_wrong")
        before = len(made.upstream.received)
        ambiguous = status_of(await said(made.port, two, 5)), len(made.upstream.received) - before
    report(
        "41 credential and path tricks",
        tried,
        f"0 pass, 0 upstream; control: {len(endpoints)} endpoints served with the key",
        f"{len(passed)} passed; control: {reached} served; two Authorization headers: {ambiguous}",
    )
    assert passed == []
    assert reached == len(endpoints)
    assert ambiguous[0] in (200, 400, 401)


# --- 43: guessing -----------------------------------------------------------------------------------------------------


def guesses(dice: random.Random) -> Iterator[str]:
    """Keys that nobody has, well formed and with a right checksum, so that only a look-up tells."""
    while True:
        yield apikey.make(dice.randbytes).text


async def test_guessing_is_throttled_whatever_address_is_claimed(report: Report, dice: random.Random) -> None:
    """Check 43. Controls: another address is not throttled, and with the limit off no guess is turned away."""
    wanted = 1000
    spoofs = ("X-Forwarded-For", "CF-Connecting-IP", "X-Real-IP", "Forwarded", "True-Client-IP", "X-Client-IP")
    statuses: list[int] = []
    waits: list[str | None] = []
    valid = 0
    made_up = guesses(dice)
    async with served() as made, session() as client:
        made.upstream.script = lambda c: c.stream(events(c.received.target))
        fresh = await operate(
            made.data, "key.create", {"account": "me", "name": "fresh", "expires_ms": None, "models": []}
        )
        used: list[str] = []
        for n in range(wanted):
            used.append(next(made_up))
            address = ".".join(str(dice.randrange(1, 255)) for _ in range(4))
            spoofed = {name: f"for={address}" if name == "Forwarded" else address for name in spoofs}
            carried = {"Authorization": f"Bearer {used[-1]}"} if n % 2 else {"x-api-key": used[-1]}
            path = calls.PATHS[n % 3]
            async with client.post(made.url + path, data=ask(path), headers={**spoofed, **carried}) as response:
                statuses.append(response.status)
                if response.status == 429:
                    waits.append(response.headers.get("retry-after"))
            if n % 100 == 50:
                # Also with a key that was never seen before the block.
                good = {**spoofed, "Authorization": f"Bearer {made.key if n % 200 == 50 else fresh['key']}"}
                async with client.post(made.url + path, data=ask(path), headers=good) as response:
                    valid += b"".join(events(path)) == await response.read()
        records = await records_of(made)
        lines = [line for line in made.log.splitlines() if '"event":"guessing"' in line]
        elsewhere = await _from("127.0.0.2", made, next(made_up))
        spoken = [key for key in used if key[14:] in made.log]
    async with served(limits="failed_keys_per_minute = 0") as other, session() as client:
        off = 0
        for _ in range(40):
            headers = {"x-api-key": next(made_up)}
            async with client.post(other.url + calls.CHAT, data=ask(calls.CHAT), headers=headers) as response:
                off += response.status == 401
    looked_up = statuses.count(401)
    report(
        "43 guessing with spoofed addresses",
        wanted,
        "<= 20 looked up, the rest 429 with retry-after, valid keys served, a log line a block; controls: other address "
        "401, without limit 40 of 40 looked up",
        f"{looked_up} looked up, {statuses.count(429)} x 429, {valid} of 10 valid served, {len(lines)} lines; controls: "
        f"{elsewhere}, {off} of 40",
    )
    assert 10 <= looked_up <= 20
    assert looked_up + statuses.count(429) == wanted
    assert all(wait is not None and 1 <= int(wait) <= 3600 for wait in waits)
    assert valid == 10
    assert {record["client_address"] for record in records} == {"127.0.0.1"}
    assert len(lines) == 1
    assert '"127.0.0.1"' in lines[0]
    assert spoken == []
    assert elsewhere == 401
    assert off == 40


async def _from(address: str, made: Product, key: str) -> int:
    """The status that a wrong key gets from another address of this machine."""
    connector = aiohttp.TCPConnector(local_addr=(address, 0))
    async with aiohttp.ClientSession(connector=connector) as client:
        headers = {"x-api-key": key}
        async with client.post(made.url + calls.CHAT, data=ask(calls.CHAT), headers=headers) as response:
            return response.status


# --- 44: requests that would choose where to --------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def traced(strace: str, pid: int, out: Path) -> AsyncIterator[None]:
    """Have every connect of a process written down."""
    process = await asyncio.create_subprocess_exec(
        strace, "-f", "-qq", "-e", "trace=connect", "-o", str(out), "-p", str(pid)
    )
    try:
        async with asyncio.timeout(10):
            while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 10)


async def test_no_request_chooses_where_to_connect(report: Report, strace: str, tmp_path: Path) -> None:
    """Check 44. Control: the connections to the configured provider are seen in the same trace."""
    canary = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = canary.sockets[0].getsockname()[1]
    evil, name = f"http://127.0.0.1:{port}/v1", "evil.invalid"
    fields = (
        "api_base",
        "base_url",
        "api_url",
        "endpoint",
        "upstream",
        "host",
        "proxy",
        "webhook",
        "callback_url",
        "url",
    )
    image = [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": evil + "/a.png"}}]}]
    tries: list[tuple[dict[str, Any], list[str], str]] = [({field: evil}, [], "") for field in fields]
    tries += [({"model": text}, [], "") for text in
              (f"claude-test-1#@127.0.0.1:{port}", f"claude-test-1@{name}", f"{evil}/claude-test-1",
               "claude-test-1/../../x", f"claude-test-1?base_url={evil}")]  # fmt: skip
    tries += [({}, [line], "") for line in
              (f"X-Forwarded-Host: 127.0.0.1:{port}", f"X-Upstream-Url: {evil}", f"X-Api-Base: {evil}",
               f"Forwarded: host={name}", f"X-Original-URL: {evil}", f"Destination: {evil}", f"Referer: {evil}",
               f"OpenAI-Base-Url: {evil}")]  # fmt: skip
    tries += [({}, [], f"?api_base={evil}"), ({}, [], f"?{evil}"), ({"messages": image}, [], ""),
              ({"mcp_servers": [{"type": "url", "url": evil}]}, [], "")]  # fmt: skip
    hits = 0
    trace = tmp_path / "connects"
    async with served() as made:
        allowed = made.upstream.port
        made.upstream.script = lambda c: c.stream(events(calls.ANTHROPIC), {"connection": "close"})
        async with traced(strace, made.pid, trace):
            for more, lines, query in tries:
                await said(made.port, raw(made, calls.ANTHROPIC + query, ask(calls.ANTHROPIC, **more), *lines), 5)
            for status in (301, 302, 303, 307, 308):
                made.upstream.script = lambda c, status=status: c.reply(b"", status, {"location": evil + "/messages"})
                answer = await said(made.port, raw(made, calls.ANTHROPIC, ask(calls.ANTHROPIC)), 5)
                assert status_of(answer) == 502
            for target in (evil + "/messages", f"http://{name}/v1/messages", f"//127.0.0.1:{port}/v1/messages"):
                await said(made.port, raw(made, target, ask(calls.ANTHROPIC)), 5)
            tunnel = f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {made.key}"
            await said(made.port, tunnel.encode() + b"\r\n\r\n", 2)
            host = raw(made, calls.ANTHROPIC, ask(calls.ANTHROPIC))
            await said(made.port, host.replace(b"Host: 127.0.0.1", b"Host: 127.0.0.1:%d" % port), 5)
        made.upstream.script = lambda c: c.stream(events(calls.ANTHROPIC))
    canary.close()
    connects = re.findall(r"connect\(\d+, \{sa_family=(\w+)(?:, sin6?_port=htons\((\d+)\))?", trace.read_text())
    right = sum(family == "AF_INET" and number == str(allowed) for family, number in connects)
    hits = sum(number == str(port) for _, number in connects)
    cycles = len(tries) + 10
    report(
        "44 requests that choose an address",
        cycles,
        "0 connections but to the provider; control: those are seen",
        f"{len(connects) - right} others, {hits} to the bait; control: {right}",
    )
    assert len(connects) == right, sorted(set(connects))
    assert right >= len(tries) / 2
