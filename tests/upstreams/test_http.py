"""An upstream over HTTP: what is sent, how a reply is read, what a failure tells; and that nobody else is ever called."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
from functools import partial
from typing import Any

import aiohttp
import pytest

from lumeproxy.errors import ConfigError
from lumeproxy.upstreams import KINDS, anthropic
from lumeproxy.upstreams.base import Access, CutShort, NotReached
from lumeproxy.upstreams.http import LARGE_BODY_BYTES, HttpUpstream, endpoint
from tests.support import streams
from tests.support.proxy import Proxy
from tests.support.upstream import Connection, ScriptedUpstream


@pytest.fixture
def made(session, upstream: ScriptedUpstream) -> HttpUpstream:
    return anthropic.make("main", Access(upstream.url, ("operator-secret",)), frozenset(), session)


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("https://api.anthropic.com", "https://api.anthropic.com/v1"),
        ("https://api.anthropic.com/", "https://api.anthropic.com/v1"),
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("https://api.openai.com/v1//", "https://api.openai.com/v1"),
        ("http://127.0.0.1:8000/openai/v1beta", "http://127.0.0.1:8000/openai/v1beta"),
        ("https://host.test/v2", "https://host.test/v2"),
        ("https://host.test/anthropic", "https://host.test/anthropic/v1"),
        ("https://v1.host.test", "https://v1.host.test/v1"),
        ("https://host.test/v1/proxy", "https://host.test/v1/proxy/v1"),
        ("https://host.test/version1", "https://host.test/version1/v1"),
    ],
)
def test_a_base_url_may_be_written_with_and_without_its_version(base_url, expected):
    assert endpoint(base_url) == expected


@pytest.mark.parametrize(
    "base_url",
    ["http://", "https:///v1", "http://[bad", "http://host:99999", "http://host:x", "ftp://host", "host", "//host",
     "http://user:word@host", "http://user@host", "http://host?a=b", "http://host/v1#x"],
)  # fmt: skip
async def test_what_is_no_address_of_a_server_is_refused_before_the_first_call(session, base_url):
    with pytest.raises(ConfigError, match="upstreams.main.base_url") as caught:
        anthropic.make("main", Access(base_url, ("operator-secret",)), frozenset(), session)
    assert "word" not in caught.value.message.replace("without a user", "")


@pytest.mark.parametrize(
    ("base_url", "prefix", "expected"),
    [
        ("https://host.test", "/openai/v2", "https://host.test/openai/v2"),
        ("https://host.test/v1", "/x", "https://host.test/v1/x"),
        ("https://host.test/inference/", "/", "https://host.test/inference"),
        ("https://host.test", "", "https://host.test/v1"),
    ],
)
def test_a_path_prefix_stands_in_the_place_of_the_version(base_url, prefix, expected):
    assert endpoint(base_url, prefix) == expected


@pytest.mark.parametrize(
    ("kind", "auth", "sent"),
    [
        ("anthropic", "", ("x-api-key", "secret-of-ours")),
        ("anthropic", "bearer", ("Authorization", "Bearer secret-of-ours")),
        ("openai", "", ("Authorization", "Bearer secret-of-ours")),
        ("openai", "x-api-key", ("x-api-key", "secret-of-ours")),
        ("openai", "none", None),
    ],
)
async def test_the_credential_goes_in_the_header_that_the_operator_names(
    session, upstream: ScriptedUpstream, request_of, kind, auth, sent
):
    upstream.script = lambda c: c.reply(b"{}")
    credentials = () if auth == "none" else ("secret-of-ours",)
    made = KINDS[kind].make("main", Access(upstream.url, credentials, auth), frozenset(), session)

    await made.send(request_of())

    (seen,) = upstream.received
    found = [pair for pair in seen.headers if pair[0].lower() in ("x-api-key", "authorization")]
    assert found == ([sent] if sent else [])
    assert len(made.identities) == 1


async def test_extra_headers_take_the_place_of_the_clients_and_come_back_to_nobody(
    session, upstream: ScriptedUpstream, request_of
):
    upstream.script = lambda c: c.reply(b"{}", headers={"x-echo": "team-secret", "x-same": "on", "x-other": "fine"})
    extra = (("X-Title", "team-secret"), ("X-Flag", "on"))
    made = anthropic.make("main", Access(upstream.url, ("k",), headers=extra), frozenset(), session)

    reply = await made.send(request_of(b"{}", ("x-title", "the client's"), ("X-Kept", "1")))

    (seen,) = upstream.received
    assert [pair for pair in seen.headers if pair[0].lower().startswith("x-")] == [
        ("X-Kept", "1"), ("x-api-key", "k"), ("X-Title", "team-secret"), ("X-Flag", "on"),
    ]  # fmt: skip
    named = dict(reply.headers)
    assert "x-echo" not in named
    assert named["x-same"] == "on", "too short to be a secret"


async def test_each_credential_is_used_by_its_number_and_has_an_identity_that_does_not_tell_it(
    session, upstream: ScriptedUpstream, request_of
):
    upstream.script = lambda c: c.reply(b"{}", headers={"x-back": c.received.header("x-api-key") or ""})
    keys = ("secret-one", "secret-two")
    made = anthropic.make("main", Access(upstream.url, keys), frozenset(), session)
    for number, key in enumerate(keys, 1):
        reply = await made.send(request_of(), number)
        assert upstream.received[-1].header("x-api-key") == key
        assert "x-back" not in dict(reply.headers)

    other = anthropic.make("main", Access("http://127.0.0.1:1", keys[:1]), frozenset(), session)
    assert len({*made.identities, *other.identities}) == 3
    assert not [key for key in keys for identity in made.identities if key in identity]


# --- what is sent ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["", "beta=true", "a=%2F%7e+b&c=d%zz&&=", "x=http://evil.test/@"])
async def test_the_query_goes_as_it_came(made, upstream: ScriptedUpstream, request_of, query):
    upstream.script = lambda c: c.reply(b"{}")

    await made.send(request_of(query=query))

    assert upstream.received[0].target == "/v1/messages" + ("?" + query if query else "")


@pytest.mark.parametrize("size", [0, 1, LARGE_BODY_BYTES - 1, LARGE_BODY_BYTES, LARGE_BODY_BYTES + 1])
async def test_nothing_is_added_to_a_request_whatever_its_size(made, upstream: ScriptedUpstream, request_of, size):
    upstream.script = lambda c: c.reply(b"{}")
    body = b"x" * size

    await made.send(request_of(body, ("x-a", "1"), ("X-A", "2")))

    (seen,) = upstream.received
    assert seen.body == body
    assert seen.headers == [
        ("Host", upstream.url.removeprefix("http://")),
        ("x-a", "1"),
        ("X-A" if size < LARGE_BODY_BYTES else "x-a", "2"),
        ("x-api-key", "operator-secret"),
        ("Accept-Encoding", "identity"),
        ("Content-Length", str(size)),
    ]


async def test_no_cookie_is_kept_and_no_redirect_followed(made, upstream: ScriptedUpstream, request_of):
    upstream.script = partial(
        Connection.head,
        status=307,
        headers={"set-cookie": "session=1; Path=/", "location": upstream.url + "/elsewhere", "content-length": "0"},
    )
    for _ in range(2):
        reply = await made.send(request_of())
        assert (reply.status, await reply.read()) == (307, b"")

    assert [received.target for received in upstream.received] == ["/v1/messages"] * 2
    assert [received.header("cookie") for received in upstream.received] == [None, None]


# --- how a reply is read -----------------------------------------------------------------------------------------------


async def test_bytes_are_handed_out_as_they_come(made, upstream: ScriptedUpstream, request_of):
    steps: asyncio.Queue[bytes] = asyncio.Queue()

    async def answer(connection: Connection) -> None:
        await connection.stream_head({"Content-Type": "text/event-stream; charset=utf-8"})
        while data := await steps.get():
            await connection.chunk(data)
        await connection.end()

    upstream.script = answer
    reply = await made.send(request_of())
    assert (reply.status, reply.content_type, reply.content_length, reply.encoding) == (
        200,
        "text/event-stream",
        None,
        "",
    )
    for data in (b"one", b"two\n\n", b"\0\xff" * 1000):
        steps.put_nowait(data)
        assert await asyncio.wait_for(reply.read(), 5) == data
    steps.put_nowait(b"")
    assert await asyncio.wait_for(reply.read(), 5) == b""


@pytest.mark.parametrize(
    ("header", "encoding"), [("gzip", "gzip"), (" GZip ", "gzip"), ("identity", ""), ("", ""), ("br, gzip", "br, gzip")]
)
async def test_a_coded_reply_stays_coded(made, upstream: ScriptedUpstream, request_of, header, encoding):
    packed = gzip.compress(b"hello")
    upstream.script = lambda c: c.reply(packed, 200, {"content-encoding": header, "content-type": "Text/Plain ; a=b"})

    reply = await made.send(request_of())

    assert (reply.encoding, reply.content_type, reply.content_length) == (encoding, "text/plain", len(packed))
    assert await reply.read() == packed


async def test_headers_that_no_client_could_be_sent_or_that_tell_the_credential_are_dropped(
    made, upstream: ScriptedUpstream, request_of
):
    lines = [
        b"HTTP/1.1 200 OK", b"x-kept: a\tb", b"x-kept: c", b"x-control: a\x01b", b"x-delete: \x7f",
        b"x-echo: operator-secret", b"x-echo-too: Bearer operator-secret.", b"x-long: " + b"a" * 30_000,
        b"content-length: 0", b"", b"",
    ]  # fmt: skip
    upstream.script = partial(Connection.send, data=b"\r\n".join(lines))

    reply = await made.send(request_of())

    assert list(reply.headers) == [
        ("x-kept", "a\tb"),
        ("x-kept", "c"),
        ("x-long", "a" * 30_000),
        ("Content-Length", "0"),
    ]


@pytest.mark.parametrize(
    "wire",
    [
        b"content-length: 10\r\n\r\n12345",
        b"transfer-encoding: chunked\r\n\r\n5\r\n12345\r\n",
        b"transfer-encoding: chunked\r\n\r\n5\r\n12345\r\nzz\r\n",
        b"transfer-encoding: chunked\r\n\r\n5\r\n12345\r\n9\r\n123",
    ],
)
@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_reply_that_breaks_off_is_cut_short_after_what_came(
    made, upstream: ScriptedUpstream, request_of, wire, how
):
    read = asyncio.Event()

    async def answer(connection: Connection) -> None:
        head, _, body = wire.partition(b"12345")
        await connection.send(b"HTTP/1.1 200 OK\r\n" + head + b"12345")
        await asyncio.wait_for(read.wait(), 5)
        await connection.send(body)
        connection.writer.close() if how == "close" else connection.abort()

    upstream.script = answer
    reply = await made.send(request_of())
    assert await reply.read() == b"12345"
    read.set()
    with pytest.raises(CutShort):
        while await reply.read():
            pass
    reply.close()


async def test_a_connection_is_used_again_after_a_reply_was_read_and_closed_when_it_was_not(
    made, upstream: ScriptedUpstream, request_of
):
    used: list[int] = []
    closed = asyncio.Event()

    async def answer(connection: Connection) -> None:
        used.append(id(connection.writer))
        await connection.stream_head()
        await connection.chunk(b"one")
        if len(used) < 3:
            await connection.end()
            return
        await connection.closed_by_peer()
        closed.set()

    upstream.script = answer
    for _ in range(2):
        reply = await made.send(request_of())
        assert (await reply.read(), await reply.read()) == (b"one", b"")
        reply.close()
    reply = await made.send(request_of())
    assert await reply.read() == b"one"
    reply.close()
    reply.close()

    await asyncio.wait_for(closed.wait(), 5)
    assert used == [used[0]] * 3


# --- what a failure tells ----------------------------------------------------------------------------------------------


async def test_a_request_that_did_not_leave_may_go_elsewhere(session, request_of):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(NotReached) as caught:
            await anthropic.make("main", Access(url, ("operator-secret",)), frozenset(), session).send(request_of())

    assert caught.value.message == "The upstream main can't be reached."
    assert not caught.value.sent


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 40_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: a\r\n" * 200 + b"\r\n",
    ],
    ids=lambda wire: ascii(wire[:20]) + str(len(wire)),
)
async def test_a_request_that_may_have_arrived_goes_nowhere_else(made, upstream: ScriptedUpstream, request_of, wire):
    async def answer(connection: Connection) -> None:
        await connection.send(wire)
        connection.writer.close()

    upstream.script = answer
    with pytest.raises(NotReached, match="without a reply") as caught:
        await made.send(request_of())

    assert caught.value.sent
    assert len(upstream.received) == 1


async def test_a_reply_that_comes_before_the_body_was_taken_is_read_all_the_same(session, request_of):
    """A provider says 413 without reading 20 MB."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\nconnection: close\r\n\r\nlarge")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        reply = await anthropic.make("main", Access(url, ("k",)), frozenset(), session).send(
            request_of(b"x" * 20_000_000)
        )
        assert (reply.status, await reply.read()) == (413, b"large")
        reply.close()


async def test_a_connection_that_is_not_made_in_time_is_given_up(session, request_of, monkeypatch):
    async def never(*_: Any, **__: Any) -> None:
        raise aiohttp.ConnectionTimeoutError

    monkeypatch.setattr(session.connector, "connect", never)
    with pytest.raises(NotReached) as caught:
        await anthropic.make("main", Access("http://127.0.0.1:1", ("k",)), frozenset(), session).send(request_of())
    assert not caught.value.sent


# --- nobody else is called (SSRF) --------------------------------------------------------------------------------------


class Trap:
    """A second server on this machine that nobody should ever connect to, and the addresses that were connected to."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connected: list[Any] = []
        self.looked_up: list[Any] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"


@pytest.fixture
async def trap(monkeypatch):
    async def sprung(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(sprung, "127.0.0.1", 0)
    made = Trap(server.sockets[0].getsockname()[1])
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def watched(self: socket.socket, address: Any) -> None:
        made.connected.append(address)
        return connect(self, address)

    def looked(*args: Any, **named: Any) -> Any:
        made.looked_up.append(args[0])
        return look_up(*args, **named)

    monkeypatch.setattr(socket.socket, "connect", watched)
    monkeypatch.setattr(socket, "getaddrinfo", looked)
    async with server:
        yield made


BODY = {"model": "claude-test-1", "max_tokens": 5, "messages": []}
HEADERS = """
    Host X-Forwarded-Host X-Host X-Original-URL X-Rewrite-URL Forwarded Referer Origin X-Upstream X-Base-Url
    OpenAI-Base-Url X-Portkey-Custom-Host X-Proxy-Url Proxy Location Destination
"""
FIELDS = "api_base base_url endpoint url host proxy custom_host callback_url webhook azure_endpoint image_url"
MODELS = (
    "{trap}/m claude-test-1#@{trap} claude-test-1@{trap} http://{trap}/claude ../../{trap} claude-%0d%0aHost:{trap}"
)
TARGETS = """
    http://{trap}/v1/messages http://127.0.0.1@{trap}/v1/messages //{trap}/v1/messages /v1/messages@{trap}
    /v1/messages?url=http://{trap}/ /v1/messages?a@{trap}/ /v1/messages?x#@{trap} /v1/../../{trap}/v1/messages
    /v1/messages/..;/{trap} /v1/v1/messages?base_url=http://{trap}
"""


def tries(trap: str, key: str) -> list[tuple[str, bytes]]:
    """Raw requests that name the trap in every place that a naive proxy would look at."""

    def raw(target: str, body: dict[str, Any], *headers: str, host: str = "127.0.0.1") -> bytes:
        text = json.dumps(body).encode()
        lines = [
            f"POST {target} HTTP/1.1",
            f"Host: {host}",
            f"x-api-key: {key}",
            f"Content-Length: {len(text)}",
            *headers,
        ]
        return "\r\n".join([*lines, "", ""]).encode() + text

    made = [(target, raw(target.format(trap=trap), BODY)) for target in TARGETS.split()]
    for name in HEADERS.split():
        value = trap if "Host" in name else f"http://{trap}/"
        if name == "Host":
            made.append((name, raw("/v1/messages", BODY, host=trap)))
        else:
            made.append((name, raw("/v1/messages", BODY, f"{name}: {value}")))
    for field in FIELDS.split():
        made.append((field, raw("/v1/messages", {**BODY, field: f"http://{trap}/", "metadata": {field: trap}})))
        made.append((field, raw("/v1/messages/count_tokens", {**BODY, field: f"http://{trap}/"})))
    made += [(model, raw("/v1/messages", {**BODY, "model": model.format(trap=trap)})) for model in MODELS.split()]
    return made


async def test_no_request_makes_the_proxy_call_anybody_but_its_upstream(
    lume: Proxy, upstream: ScriptedUpstream, trap: Trap
):
    upstream.script = lambda c: c.reply(streams.anthropic_whole())
    attempts = tries(trap.host, lume.key)
    assert len(attempts) >= 25
    answered: dict[str, int] = {}
    for name, wire in attempts:
        reader, writer = await asyncio.open_connection("127.0.0.1", lume.server.port)
        writer.write(wire)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        answered[name] = int(head.split(b" ")[1])
        writer.close()

    assert {address[1] for address in trap.connected} == {lume.server.port, upstream.port}
    assert trap.connected.count(("127.0.0.1", trap.port)) == 0
    assert set(trap.looked_up) <= {"127.0.0.1"}
    assert set(answered.values()) <= {200, 400, 403, 404}
    assert answered["api_base"] == 200
    own = f"127.0.0.1:{upstream.port}"
    assert {received.header("host") for received in upstream.received} == {own}
    assert {received.target.partition("?")[0] for received in upstream.received} == {
        "/v1/messages",
        "/v1/messages/count_tokens",
    }


async def test_no_answer_makes_the_proxy_call_anybody_but_its_upstream(
    lume: Proxy, upstream: ScriptedUpstream, trap: Trap
):
    place = f"http://{trap.host}/v1/messages"
    hints = {
        **dict.fromkeys(("location", "content-location", "refresh"), place),
        "alt-svc": f'h2="{trap.host}"',
        "link": f"<{place}>; rel=next",
        "set-cookie": f"a=b; Domain={trap.host}",
        "content-length": "0",
    }
    for status in (200, 201, 301, 302, 303, 305, 307, 308, 421, 503):
        upstream.script = partial(Connection.head, status=status, headers=hints)
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            async with lume.post(path, BODY, allow_redirects=False) as response:
                assert response.status == (502 if 300 <= status < 400 else status)

    assert {address[1] for address in trap.connected} == {lume.server.port, upstream.port}
    assert len(upstream.received) == 20


async def test_the_environments_proxy_is_not_asked(
    session, upstream: ScriptedUpstream, request_of, trap: Trap, monkeypatch
):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{trap.host}")
    upstream.script = lambda c: c.reply(b"{}")

    reply = await anthropic.make("main", Access(upstream.url, ("k",)), frozenset(), session).send(request_of())

    assert reply.status == 200
    assert {address[1] for address in trap.connected} == {upstream.port}


async def test_the_trap_can_spring(trap: Trap, session, request_of):
    """A control: what the tests above rule out is seen when it happens."""
    with contextlib.suppress(NotReached):
        await anthropic.make("main", Access(f"http://{trap.host}", ("k",)), frozenset(), session).send(request_of())

    assert ("127.0.0.1", trap.port) in [tuple(address) for address in trap.connected]


# --- held back ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tapped", [False, True])
async def test_a_paused_reply_takes_nothing_more_and_comes_whole_all_the_same(
    made, upstream: ScriptedUpstream, request_of, tapped
):
    """Paused again and again, between bytes that come in many pieces: none may be kept back by the parser."""
    size = 2_000_000

    async def answer(c: Connection) -> None:
        await c.stream_head()
        for _ in range(size // 1000):
            await c.chunk(b"a" * 1000)
        await c.end()

    upstream.script = answer
    reply = await made.send(request_of())
    content = reply._content
    got = 0

    def take(piece: bytes) -> bool:
        nonlocal got
        got += len(piece)
        return False

    while True:
        reply.pause()
        reply.pause()  # twice is once
        taken = content.total_bytes
        for _ in range(3):
            await asyncio.sleep(0)
        assert content.total_bytes == taken
        if tapped and await asyncio.wait_for(reply.flow(take), 5):
            continue
        piece = await asyncio.wait_for(reply.read(), 5)
        if not piece:
            break
        got += len(piece)
    reply.close()

    assert got == size
    assert len(upstream.received) == 1


async def test_a_connection_that_was_paused_serves_the_next_request(
    made, upstream: ScriptedUpstream, request_of, session
):
    upstream.script = lambda c: c.stream([b"data: 1\n\n"])
    for _ in range(3):
        reply = await made.send(request_of())
        reply.pause()
        while await asyncio.wait_for(reply.read(), 5):
            reply.pause()
        reply.close()

    assert len(upstream.received) == 3
    assert len(session.connector._conns) == 1


@pytest.mark.parametrize(
    "wire", [b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n", b"Content-Length: 10\r\n\r\n12345"]
)
@pytest.mark.parametrize("garbage", [b"", b"not a size\r\n"])
async def test_a_connection_is_lost_for_who_reads_in_that_very_moment_too(
    made, upstream: ScriptedUpstream, request_of, wire: bytes, garbage: bytes
):
    read = asyncio.Event()

    async def answer(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\n" + wire)
        await asyncio.wait_for(read.wait(), 5)
        if b"chunked" in wire:
            await connection.send(garbage)
        connection.abort()

    upstream.script = answer
    reply: Any = await made.send(request_of())
    assert await reply.read() == b"12345"
    lost = reply._response.connection
    read.set()
    async with asyncio.timeout(5):
        while lost.transport is not None:  # noqa: ASYNC110  # each turn of the loop, to meet that in which it goes
            await asyncio.sleep(0)
    with pytest.raises(CutShort):
        await reply.read()
    reply.close()
