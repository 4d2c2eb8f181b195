"""From settings to upstreams, routes, prices and sockets; what is wrong among them is one sentence."""

from __future__ import annotations

import errno
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from lumeproxy import compose
from lumeproxy.compose import (
    Names,
    base_url,
    bind_sentence,
    close_all,
    listen,
    make_admission,
    make_exchange_limits,
    make_hosts,
    make_loop,
    make_names,
    make_patience,
    make_prices,
    make_session,
    make_tls,
    make_upstreams,
    make_websocket_limits,
    make_websockets,
    serves_claude,
)
from lumeproxy.core.pricing import Price, cost
from lumeproxy.core.types import Terms, Usage
from lumeproxy.errors import ConfigError
from lumeproxy.routes import make_routing
from lumeproxy.settings import Settings, load
from lumeproxy.upstreams.base import Upstream
from tests.support.clock import START_MS

TWO = '[upstreams.a]\nkind = "anthropic"\napi_key = "x"\n[upstreams.o]\nkind = "openai"\napi_key = "y"\n'
PLAIN = Terms()


def settings_of(folder: Path, text: str = "", **options: Any) -> Settings:
    file = folder / "config.toml"
    file.write_text(text)
    return load(config=file, data=folder / "data", environ={}, **options)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


def bill(price: Price | None, usage: Usage) -> int:
    assert price is not None
    return cost(price, usage, 10**6)


def upstreams_of(session: aiohttp.ClientSession, settings: Settings, **environ: str) -> dict[str, Upstream]:
    return make_upstreams(settings, environ, session)


@pytest.mark.parametrize(
    ("config", "environ", "kinds"),
    [
        ("", {}, {"echo": "echo"}),
        ("", {"ANTHROPIC_API_KEY": "x"}, {"anthropic": "anthropic", "echo": "echo"}),
        ("", {"OPENAI_API_KEY": "x", "ANTHROPIC_API_KEY": ""}, {"openai": "openai", "echo": "echo"}),
        (TWO, {"ANTHROPIC_API_KEY": "x"}, {"a": "anthropic", "o": "openai", "echo": "echo"}),
        ('[upstreams.mine]\nkind = "echo"', {}, {"mine": "echo", "echo": "echo"}),
        ('[upstreams.echo]\nkind = "openai"\napi_key = "x"', {}, {"echo": "openai"}),
    ],
)
async def test_upstreams_are_the_configured_ones_or_those_of_the_environment_and_the_echo(
    tmp_path, session, config, environ, kinds
):
    made = upstreams_of(session, settings_of(tmp_path, config), **environ)

    assert {name: upstream.kind for name, upstream in made.items()} == kinds
    assert all(upstream.name == name for name, upstream in made.items())


async def test_an_upstream_speaks_what_its_kind_does_unless_told_otherwise(tmp_path, session):
    text = TWO + '[upstreams.c]\nkind = "openai"\napi_key = "x"\ndialects = ["openai_chat"]\n'
    made = upstreams_of(session, settings_of(tmp_path, text))

    assert made["a"].dialects == {"anthropic_messages"}
    assert made["o"].dialects == {"openai_responses", "openai_chat"}
    assert made["c"].dialects == {"openai_chat"}
    assert serves_claude(made)
    del made["a"]
    assert not serves_claude(made)


async def test_an_upstream_without_a_credential_is_named(tmp_path, session):
    with pytest.raises(ConfigError, match=r"^upstreams\.p needs exactly one of api_key"):
        upstreams_of(session, settings_of(tmp_path, '[upstreams.p]\nkind = "openai"'))


# --- routes --------------------------------------------------------------------------------------------------------------


async def test_without_routes_each_kind_serves_its_usual_models_and_the_echo_its_own(tmp_path, session):
    settings = settings_of(tmp_path, TWO)
    table = make_routing(settings, upstreams_of(session, settings))

    served = {model: table.find(model) for model in ("claude-opus-9", "gpt-9", "claude-echo", "gpt-echo", "llama")}
    assert {m: r and r.upstreams for m, r in served.items()} == {
        "claude-opus-9": ("a",),
        "gpt-9": ("o",),
        "claude-echo": ("echo",),
        "gpt-echo": ("echo",),
        "llama": None,
    }


async def test_the_operators_routes_are_in_order_and_leave_the_echo_to_itself(tmp_path, session):
    text = (
        TWO + '[[routes]]\nmodel = "*-x"\nupstreams = ["o", "a"]\nupstream_model = "y"\n'
        '[[routes]]\nmodel = "*"\nupstreams = ["a"]\n'
    )
    settings = settings_of(tmp_path, text)
    table = make_routing(settings, upstreams_of(session, settings))

    exact = table.find("claude-x")
    assert exact and (exact.upstreams, exact.upstream_model) == (("o", "a"), "y")
    assert table.find("anything").upstreams == ("a",)
    assert table.find("claude-echo").upstreams == ("echo",)
    assert [route.pattern for route in table.routes] == ["*-x", "claude-echo", "gpt-echo", "*"]


async def test_a_route_of_the_very_name_takes_an_echo_model_elsewhere(tmp_path, session):
    settings = settings_of(tmp_path, TWO + '[[routes]]\nmodel = "claude-echo"\nupstreams = ["a"]\n')
    table = make_routing(settings, upstreams_of(session, settings))

    assert table.find("claude-echo").upstreams == ("a",)
    assert table.find("gpt-echo").upstreams == ("echo",)
    assert table.find("claude-x") is None
    assert [route.pattern for route in table.routes] == ["claude-echo", "gpt-echo"]


async def test_a_route_to_nowhere_is_named_by_its_number(tmp_path, session):
    route = '[[routes]]\nmodel = "m"\nupstreams = ["a"]\n'
    settings = settings_of(tmp_path, TWO + route + route.replace('"a"', '"b"'))

    with pytest.raises(ConfigError, match=r"^Route 2 \(m\) names the upstream 'b'; there are a, echo, o\.$"):
        make_routing(settings, upstreams_of(session, settings))


# --- prices --------------------------------------------------------------------------------------------------------------


async def test_the_echo_costs_one_and_five_dollars_and_needs_no_list(tmp_path, session, monkeypatch):
    monkeypatch.setattr("lumeproxy.compose.Catalogue.load", lambda: pytest.fail("the list was loaded"))
    settings = settings_of(tmp_path)
    prices = make_prices(settings, make_routing(settings, upstreams_of(session, settings)))

    for model in ("claude-echo", "gpt-echo"):
        price = prices.price(model, model, None, START_MS, PLAIN)
        assert bill(price, Usage(input_tokens=1)) == 1000
        assert bill(price, Usage(output_tokens=1)) == 5000
    assert prices.price("llama", "llama", None, START_MS, PLAIN) is None


async def test_the_operators_price_stands_over_the_list(tmp_path, session):
    text = TWO + '[prices."claude-opus-*"]\ninput = 0.000001\noutput = 2\n'
    settings = settings_of(tmp_path, text)
    prices = make_prices(settings, make_routing(settings, upstreams_of(session, settings)))

    mine = prices.price("claude-opus-4-5", "claude-opus-4-5", "anthropic", START_MS, PLAIN)
    listed = prices.price("claude-sonnet-4-5", "claude-sonnet-4-5", "anthropic", START_MS, PLAIN)
    assert bill(mine, Usage(output_tokens=1)) == 2000
    assert bill(mine, Usage(input_tokens=1_000_000)) == 1000
    assert bill(listed, Usage(input_tokens=1)) == 3000


async def test_a_price_finer_than_money_is_named(tmp_path, session):
    settings = settings_of(tmp_path, '[prices."m"]\ninput = 0.0000000001\noutput = 1\n')

    with pytest.raises(ConfigError, match=r'^The setting prices\."m" is wrong: a price has at most nine decimals\.$'):
        make_prices(settings, make_routing(settings, {}))


async def test_billing_is_taken_over_exactly(tmp_path, session):
    text = "[billing]\nmultiplier = 1.25\nhold_output_tokens = 7\nhold_least_output_tokens = 3\n"
    settings = settings_of(tmp_path, text)

    billing = make_admission(settings, upstreams_of(session, settings)).billing

    assert (billing.multiplier_ppm, billing.hold_output_tokens, billing.hold_least_output_tokens) == (1_250_000, 7, 3)
    assert (billing.bound_input_tokens, billing.bound_referred_tokens) == (32_768, 10_000_000)
    assert billing.bound_reasoning_tokens == 131_072


async def test_a_multiplier_with_too_many_decimals_is_named(tmp_path, session):
    settings = settings_of(tmp_path, "[billing]\nmultiplier = 1.0000001")

    with pytest.raises(ConfigError, match=r"^The setting billing\.multiplier is wrong: .* six decimals"):
        make_admission(settings, upstreams_of(session, settings))


# --- names ---------------------------------------------------------------------------------------------------------------


async def test_listed_names_are_those_of_the_providers_in_use_and_of_the_prices(tmp_path, session):
    settings = settings_of(
        tmp_path, TWO + '[prices."my-own"]\ninput = 1\noutput = 1\n[prices."x-*"]\ninput=1\noutput=1\n'
    )
    names = make_names(settings, upstreams_of(session, settings))

    assert "claude-sonnet-4-5" in names.models("claude-*")
    assert "gpt-5" in names.models("gpt-*")
    assert names.models("my-*") == ["my-own"]
    assert names.models("x-*") == []


@pytest.mark.parametrize(
    "config",
    ["", TWO + '[[routes]]\nmodel = "m"\nupstreams = ["a"]\n[prices."m"]\ninput = 1\noutput = 1\n'],
    ids=["echo alone", "every model named and priced"],
)
async def test_the_list_is_not_read_where_no_name_can_come_from_it(tmp_path, session, monkeypatch, config):
    monkeypatch.setattr("lumeproxy.compose.Catalogue.load", lambda: pytest.fail("the list was loaded"))
    settings = settings_of(tmp_path, config)

    assert make_names(settings, upstreams_of(session, settings)).models("*") == (["m"] if config else [])


def test_a_name_is_known_once():
    assert Names(["b", "a*", "a1"], ["a1", "a2"]).models("a*") == ["a1", "a2"]


# --- connections ---------------------------------------------------------------------------------------------------------


async def test_the_session_to_the_upstreams_adds_and_unpacks_nothing(tmp_path):
    async with make_session(settings_of(tmp_path, "[limits]\nconnect_ms = 1500")) as session:
        assert not session.auto_decompress
        assert not session.trust_env
        assert isinstance(session.cookie_jar, aiohttp.DummyCookieJar)
        assert (session.timeout.total, session.timeout.sock_connect, session.timeout.sock_read) == (None, 1.5, None)
        assert session.connector is not None and session.connector.limit == 0
    assert session.closed


def test_a_port_is_bound_with_a_small_send_buffer_that_connections_inherit(tmp_path):
    settings = settings_of(tmp_path, "[limits]\nsend_buffer_bytes = 32768", port=0)
    (sock,) = listen(settings)
    try:
        assert sock.getsockname()[0] == "127.0.0.1"
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 32768  # the kernel counts its own share
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert not sock.getblocking()
        with pytest.raises(ConfigError, match=f"server.port {sock.getsockname()[1]} on 127.0.0.1 is in use"):
            sock.listen()
            listen(settings_of(tmp_path, port=sock.getsockname()[1]))
    finally:
        close_all([sock])
    assert sock.fileno() == -1


def test_an_ipv6_address_is_bound_alone(tmp_path):
    try:
        (sock,) = listen(settings_of(tmp_path, '[server]\nhost = "::1"', port=0))
    except ConfigError:
        pytest.skip("this machine has no IPv6")
    with sock:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_a_name_needs_only_one_address_of_this_machine(tmp_path, monkeypatch):
    real = socket.getaddrinfo
    here = real("127.0.0.1", 0, type=socket.SOCK_STREAM)
    elsewhere = [(*here[0][:4], ("192.0.2.1", 0))]  # an address for documentation: nobody has it
    settings = settings_of(tmp_path, port=0)

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: elsewhere + here + here)
    made = listen(settings)
    assert [sock.getsockname()[0] for sock in made] == ["127.0.0.1"]
    close_all(made)

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: elsewhere)
    with pytest.raises(ConfigError, match=r"server\.host '127\.0\.0\.1' is no address of this machine"):
        listen(settings)


def test_a_busy_second_address_closes_the_first(tmp_path, monkeypatch):
    made: list[socket.socket] = []

    def bound(family: int, address: Any, _size: int) -> socket.socket:
        if made:
            raise OSError(errno.EADDRINUSE, "in use")
        made.append(socket.socket(family))
        return made[0]

    here = socket.getaddrinfo("127.0.0.1", 0, type=socket.SOCK_STREAM)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [*here, (*here[0][:4], ("127.0.0.2", 0))])
    monkeypatch.setattr(compose, "_bound", bound)

    with pytest.raises(ConfigError, match="in use by another program"):
        listen(settings_of(tmp_path, port=0))

    assert made[0].fileno() == -1


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            errno.EADDRINUSE,
            "server.port 80 on h is in use by another program; stop that one or choose another with --port.",
        ),
        (errno.EACCES, "server.port 80 may not be opened by this user; choose one above 1023 with --port."),
        (errno.EADDRNOTAVAIL, "server.host 'h' is no address of this machine (no such); set it with --host."),
    ],
)
def test_why_an_address_cannot_be_bound_is_said_with_the_mend(code, sentence):
    assert bind_sentence(OSError(code, "no such"), "h", 80) == sentence


def test_an_unknown_host_name_is_no_address(tmp_path):
    text = '[server]\nhost = "no-such-host.invalid"\ntrusted_proxies = ["10.0.0.1"]'
    with pytest.raises(
        ConfigError, match=r"^server\.host 'no-such-host\.invalid' is no address of this machine \(.+\)"
    ):
        listen(settings_of(tmp_path, text, port=0))


def test_what_cannot_be_a_hosts_name_is_no_address(tmp_path):
    with pytest.raises(
        ConfigError, match=r"^server\.host 'a\.\.b' is no address of this machine \(it can't be a name\)"
    ):
        listen(settings_of(tmp_path, '[server]\nhost = "a..b"\ntrusted_proxies = ["10.0.0.1"]', port=0))


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", "http://127.0.0.1:9"),
        ('[server]\nhost = "::1"', "http://[::1]:9"),
        ('[server]\nhost = "localhost"', "http://localhost:9"),
        ('[server]\nhost = "10.1.2.3"\ntls_certificate = "c"\ntls_key = "k"', "https://10.1.2.3:9"),
    ],
)
def test_the_servers_own_address_is_a_url(tmp_path, text, url):
    assert base_url(settings_of(tmp_path, text), 9) == url


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("", {"localhost", "127.0.0.1", "[::1]"}),
        ('[server]\nhost = "127.0.0.2"', {"localhost", "127.0.0.1", "[::1]", "127.0.0.2"}),
        ('[server]\nallowed_hosts = ["Proxy.Example.org"]', {"proxy.example.org"}),
        ('[server]\ntrusted_proxies = ["127.0.0.1"]', None),
        ('[server]\ntls_certificate = "c"\ntls_key = "k"', None),
        ('[server]\ntrusted_proxies = ["127.0.0.1"]\nallowed_hosts = ["a"]', {"a"}),
    ],
)
def test_host_names_are_limited_unless_a_name_of_the_outside_is_expected(tmp_path, text, hosts):
    assert make_hosts(settings_of(tmp_path, text)) == (None if hosts is None else frozenset(hosts))


def test_tls_is_off_until_there_is_a_certificate_which_must_be_one(tmp_path):
    assert make_tls(settings_of(tmp_path)) is None
    here = tmp_path / "config.toml"
    for certificate, key, told in (
        (
            "no.pem",
            "config.toml",
            f"server.tls_certificate: {tmp_path / 'no.pem'} can't be read: No such file or directory.",
        ),
        ("config.toml", "no.pem", f"server.tls_key: {tmp_path / 'no.pem'} can't be read: No such file or directory."),
        ("config.toml", "config.toml", f"; they are {here} and {here}."),
    ):
        text = f'[server]\ntls_certificate = "{certificate}"\ntls_key = "{key}"'
        with pytest.raises(ConfigError) as raised:
            make_tls(settings_of(tmp_path, text))
        assert told in raised.value.message
    assert raised.value.message.startswith("server.tls_certificate and server.tls_key can't be used: [SSL] PEM lib")


def test_tls_serves_and_asks_no_certificate_of_clients(tmp_path, monkeypatch):
    loaded: list[Any] = []
    (tmp_path / "c").touch()
    (tmp_path / "k").touch()
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", lambda _self, *files: loaded.append(files))

    context = make_tls(settings_of(tmp_path, '[server]\ntls_certificate = "c"\ntls_key = "k"'))

    assert context is not None
    assert (context.verify_mode, context.minimum_version >= ssl.TLSVersion.TLSv1_2) == (ssl.CERT_NONE, True)
    assert loaded == [(tmp_path / "c", tmp_path / "k")]


def test_limits_reach_the_calls_as_they_were_set(tmp_path):
    text = (
        "[limits]\nbody_bytes = 1\nbody_idle_ms = 2\nevent_bytes = 3\njson_reply_bytes = 4\njson_buffer_bytes = 5\n"
        "first_byte_ms = 6\nstream_idle_ms = 7\nclient_stall_ms = 8\ncall_ms = 9\n[billing]\ndrain_ms = 10\n"
    )
    settings = settings_of(tmp_path, text)

    limits, patience = make_exchange_limits(settings), make_patience(settings)

    assert (limits.body_bytes, limits.body_idle_ms, limits.event_bytes) == (1, 2, 3)
    assert (limits.json_reply_bytes, limits.json_buffer_bytes, limits.drain_ms) == (4, 5, 10)
    assert (patience.first_byte_ms, patience.stream_idle_ms, patience.client_stall_ms) == (6, 7, 8)
    assert (patience.call_ms, patience.drain_ms) == (9, 10)


def test_the_loop_is_the_faster_one_where_it_is_installed(monkeypatch):
    made = object()
    monkeypatch.setitem(sys.modules, "uvloop", SimpleNamespace(new_event_loop=made))
    assert make_loop() is made

    monkeypatch.setitem(sys.modules, "uvloop", None)  # which an import takes for not there
    assert make_loop() is None


async def test_websockets_are_offered_where_they_are_switched_on(tmp_path, session):
    text = TWO + '[upstreams.w]\nkind = "openai"\napi_key = "z"\nwebsocket = true\n'
    made = make_upstreams(settings_of(tmp_path, text), {}, session)

    assert [name for name, upstream in made.items() if upstream.websocket is not None] == ["w"]
    first = make_admission(settings_of(tmp_path, text), made).websocket_upstream("openai_responses")
    assert first is made["w"]


@pytest.mark.parametrize(
    "more",
    [
        'kind = "anthropic"\napi_key = "x"',
        'kind = "echo"',
        'kind = "openai"\napi_key = "x"\ndialects = ["openai_chat"]',
    ],
)
async def test_websockets_of_an_upstream_that_cannot_have_them_are_refused(tmp_path, session, more):
    settings = settings_of(tmp_path, f"[upstreams.w]\n{more}\nwebsocket = true\n")

    with pytest.raises(
        ConfigError, match=r"^upstreams\.w\.websocket: only an upstream that speaks openai_responses over HTTP"
    ):
        make_upstreams(settings, {}, session)


def test_limits_of_websockets_reach_both_sides(tmp_path):
    text = (
        "[limits]\nwebsocket_connect_ms = 1\nwebsocket_message_bytes = 2\nwebsocket_idle_ms = 3\nwebsocket_open_ms = 4\n"
        "websockets_per_account = 5\nheader_bytes = 6\n"
    )
    settings = settings_of(tmp_path, text)

    nobody: Any = SimpleNamespace(books=None)
    theirs, ours = make_websocket_limits(settings), make_websockets(settings, nobody).limits

    assert (theirs.connect_ms, theirs.message_bytes, theirs.header_bytes) == (1, 2, 6)
    assert (ours.idle_ms, ours.open_ms, ours.per_account) == (3, 4, 5)
