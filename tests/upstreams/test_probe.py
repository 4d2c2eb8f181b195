"""What an upstream's answer to a question for its models tells, and that nothing it says is repeated."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from lumeproxy.upstreams import anthropic, openai
from lumeproxy.upstreams.base import Access
from lumeproxy.upstreams.http import HttpUpstream
from lumeproxy.upstreams.probe import Probe, date_ms, model_names, probe
from tests.support.certificate import write_certificate
from tests.support.clock import START_MS, FakeClock
from tests.support.upstream import Connection, ScriptedUpstream

SECRET = "operator-secret"
LIST = json.dumps({"data": [{"id": "m-1"}, {"id": "m-2", "object": "model"}], "has_more": False}).encode()
Script = Callable[[Connection], Awaitable[None]]


@pytest.fixture
def made(session, upstream: ScriptedUpstream) -> HttpUpstream:
    return openai.make("main", Access(upstream.url, (SECRET,)), frozenset(), session)


async def asked(upstream: HttpUpstream, clock: FakeClock | None = None, **limits: int) -> Probe:
    return await probe(upstream, clock or FakeClock(), **{"timeout_ms": 5_000, "body_bytes": 10_000, **limits})


def answers(body: bytes = LIST, status: int = 200, bare: int = 401, **headers: str) -> Script:
    """Whoever brings the credential gets the body, whoever does not the status `bare`."""

    async def script(connection: Connection) -> None:
        own = {name.replace("_", "-"): value for name, value in headers.items()}
        known = SECRET in str(connection.received.headers)
        await connection.reply(body if known or bare == 200 else b"{}", status if known else bare, own)

    return script


# --- the question --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "target", "mine"),
    [
        (anthropic, "/v1/models?limit=1000", [("x-api-key", SECRET), ("anthropic-version", "2023-06-01")]),
        (openai, "/v1/models", [("Authorization", f"Bearer {SECRET}")]),
    ],
)
async def test_each_kind_is_asked_as_its_provider_wants(session, upstream, kind, target, mine):
    upstream.script = answers()

    await asked(kind.make("main", Access(upstream.url, (SECRET,)), frozenset(), session))

    first, second = upstream.received
    assert [(one.method, one.target, one.body) for one in (first, second)] == [("GET", target, b"")] * 2
    assert set(mine) <= set(first.headers)
    assert {name.lower() for name, _ in first.headers} == {"host", "accept-encoding", *(n.lower() for n, _ in mine)}
    assert SECRET not in str(second.headers)


# --- the answer ----------------------------------------------------------------------------------------------------------


async def test_a_list_for_the_credentials_sake_tells_all(made, upstream):
    upstream.script = answers(date="Wed, 18 Nov 2026 09:26:41 GMT")
    clock = FakeClock()

    found = await asked(made, clock)

    assert found == Probe(
        reachable=True,
        status=200,
        credential_ok=True,
        models=("m-1", "m-2"),
        latency_ms=0,
        date_ms=1_794_994_001_000,
        at_ms=START_MS,
    )


async def test_a_list_that_anybody_gets_checks_no_credential(made, upstream):
    upstream.script = answers(bare=200)

    found = await asked(made)

    assert (found.status, found.credential_ok, found.models, found.error) == (200, None, ("m-1", "m-2"), "")


@pytest.mark.parametrize(
    ("status", "credential_ok", "error"),
    [
        (401, False, "it answers 401"),
        (402, False, "it answers 402"),
        (403, False, "it answers 403"),
        (404, None, "it answers 404"),
        (429, None, "it answers 429"),
        (503, None, "it answers 503"),
    ],
)
async def test_a_status_is_told_and_only_a_refusal_judges_the_credential(made, upstream, status, credential_ok, error):
    upstream.script = answers(b'{"error": {"message": "your key operator-secret is bad"}}', status)

    found = await asked(made)

    assert (found.reachable, found.status, found.credential_ok, found.models) == (True, status, credential_ok, None)
    assert found.error == error
    assert len(upstream.received) == 1
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("location", "to"),
    [
        ("https://other.test:444/v1/models?key=x", "https://other.test:444"),
        ("https://me:word@other.test/x", "https://other.test"),
        (f"https://other.test/{SECRET}", ""),
        ("/elsewhere", ""),
        ("https://[bad", ""),
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_told_by_its_origin_and_never_followed(made, upstream, location, to, status):
    upstream.script = answers(b"", status, location=location)

    found = await asked(made)

    assert (found.redirects_to, found.error) == (to, "it redirects, which is not followed")
    assert (found.status, found.credential_ok, len(upstream.received)) == (status, None, 1)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"<html>Welcome</html>", {}),
        (b'{"models": []}', {}),
        (b"[" * 5_000, {}),
        (json.dumps({"data": [{"id": "x" * 20_000}]}).encode(), {}),
        (gzip.compress(LIST), {"content_encoding": "gzip"}),
    ],
    ids=["html", "other", "deep", "long", "compressed"],
)
async def test_what_is_no_list_of_models_is_none(made, upstream, body, headers):
    upstream.script = answers(body, **headers)

    found = await asked(made)

    assert (found.reachable, found.status, found.models) == (True, 200, None)
    assert (found.credential_ok, found.error) == (None, "what it answered is no list of models")


async def test_a_list_that_breaks_off_is_none_either(made, upstream):
    async def script(connection: Connection) -> None:
        await connection.head(200, {"content-length": "100"})
        await connection.send(b'{"data": [')
        connection.abort()

    upstream.script = script

    found = await asked(made)

    assert (found.reachable, found.status, found.error) == (True, 200, "it broke off its list of models")


async def test_a_second_answer_that_fails_leaves_the_credential_unjudged(made, upstream):
    async def script(connection: Connection) -> None:
        if SECRET in str(connection.received.headers):
            await connection.reply(LIST)
        else:
            connection.abort()

    upstream.script = script

    found = await asked(made)

    assert (found.models, found.credential_ok, found.error) == (("m-1", "m-2"), None, "")


# --- no answer -----------------------------------------------------------------------------------------------------------


async def test_nobody_there_a_closed_connection_and_what_is_no_http_are_told_apart(
    made, upstream, session, unused_tcp_port
):
    async def hangs_up(connection: Connection) -> None:
        connection.abort()

    async def raves(connection: Connection) -> None:
        await connection.send(b"SSH-2.0-OpenSSH_9.2 operator-secret\r\n\r\n")
        connection.writer.close()

    told = []
    for script in (hangs_up, raves):
        upstream.script = script
        told.append(await asked(made))
    told.append(
        await asked(openai.make("x", Access(f"http://127.0.0.1:{unused_tcp_port}", (SECRET,)), frozenset(), session))
    )

    assert [one.error for one in told] == [
        "it closed the connection without an answer",
        "its answer is no HTTP",
        "can't connect: Connection refused",
    ]
    assert all(dataclasses.replace(one, error="") == Probe(reachable=False, at_ms=START_MS) for one in told)


async def test_a_name_that_nobody_knows_is_told(session, monkeypatch):
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    found = await asked(openai.make("x", Access("http://no-such-host.test", (SECRET,)), frozenset(), session))

    assert (found.reachable, found.error) == (False, "the name no-such-host.test can't be resolved")


async def test_an_upstream_that_is_silent_is_given_up_in_time(made, upstream):
    held = asyncio.Event()

    async def script(_connection: Connection) -> None:
        await held.wait()

    upstream.script = script

    found = await asked(made, timeout_ms=50)
    held.set()

    assert (found.reachable, found.error) == (False, "no answer within 0.05 s")


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[tuple[int, Path]]]]:
    """Servers that speak TLS with a certificate of these dates, as long as the test runs."""
    servers = []

    async def start(begins_ms: int, ends_ms: int) -> tuple[int, Path]:
        certificate, key = write_certificate(tmp_path, begins_ms, ends_ms)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        server = await asyncio.start_server(lambda _r, writer: writer.close(), "127.0.0.1", 0, ssl=context)
        servers.append(server)
        return server.sockets[0].getsockname()[1], certificate

    yield start
    for server in servers:
        server.close()


DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("begins", "ends", "trusted", "why"),
    [
        (-400, 30_000, False, "its certificate is not trusted: self-signed certificate"),
        (-16_000, -2_000, True, "its certificate is not trusted: certificate has expired"),
        (25_000, 30_000, True, "its certificate is not trusted: certificate is not yet valid"),
    ],
)
async def test_a_certificate_that_is_no_good_is_told_with_the_reason(secured, begins, ends, trusted, why):
    now_ms = 1_790_000_000_000
    port, certificate = await secured(now_ms + begins * DAY_MS, now_ms + ends * DAY_MS)
    context = ssl.create_default_context(cafile=str(certificate) if trusted else None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        found = await asked(openai.make("x", Access(f"https://127.0.0.1:{port}", (SECRET,)), frozenset(), session))

    assert (found.reachable, found.error) == (False, why)


async def test_plain_http_where_tls_was_meant_is_told(session):
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        found = await asked(openai.make("x", Access(f"https://127.0.0.1:{port}", (SECRET,)), frozenset(), session))

    assert (found.reachable, found.error) == (False, "it does not speak TLS as we do; is https right?")


# --- parts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'{"data": []}', ()),
        (b'[{"id": "a"}]', ("a",)),
        (b'{"data": [{"id": "a"}, {"id": "a"}, {"id": 1}, {"id": ""}, "x", {"id": "b\\n"}, {"id": "b"}]}', ("a", "b")),
        (b'{"data": {"id": "a"}}', None),
        (b"\xff", None),
        (b"3", None),
    ],
)
def test_names_are_those_that_can_be_models(body, names):
    assert model_names(body) == names


def test_a_list_without_end_is_cut():
    body = json.dumps({"data": [{"id": str(number)} for number in range(10_050)]}).encode()

    assert len(model_names(body) or ()) == 10_000


@pytest.mark.parametrize(
    ("header", "ms"),
    [
        ("Thu, 01 Jan 1970 00:00:10 GMT", 10_000),
        ("Thu, 01 Jan 1970 01:00:10 +0100", 10_000),
        ("Thu, 01 Jan 1970 00:00:10 -0000", 10_000),
        ("", None),
        ("yesterday", None),
        ("Thu, 99 Jan 1970 00:00:10 GMT", None),
    ],
)
def test_a_date_is_read_or_left(header, ms):
    assert date_ms(header) == ms


async def test_the_time_of_an_answer_from_a_cache_is_not_believed(made, upstream):
    upstream.script = answers(date="Thu, 01 Jan 1970 00:00:10 GMT", age="3600")

    assert (await asked(made)).date_ms is None
