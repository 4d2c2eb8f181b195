"""Settings: where they come from, which one wins, and the sentence for what is wrong."""

from __future__ import annotations

import socket
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lumeproxy.errors import ConfigError
from lumeproxy.settings import Settings, load, process_environment


def loaded(folder: Path, text: str = "", environ: dict[str, str] | None = None, **options: Any) -> Settings:
    file = folder / "some.toml"
    file.write_text(text)
    return load(config=file, data=folder / "data", environ=environ or {}, **options)


def refusal(folder: Path, text: str = "", environ: dict[str, str] | None = None, **options: Any) -> str:
    with pytest.raises(ConfigError) as error:
        loaded(folder, text, environ, **options)
    assert "\n" not in error.value.message
    return error.value.message


def test_the_defaults_serve_on_this_machine_only(tmp_path):
    given = loaded(tmp_path)

    assert (given.server.host, given.server.port) == ("127.0.0.1", 8787)
    assert given.server.data == tmp_path / "data"
    assert given.upstreams == {}


def test_the_command_line_beats_the_environment_which_beats_the_file(tmp_path):
    text = "[server]\nport = 1\n[log]\nlevel = 'debug'"
    environ = {"LUMEPROXY_SERVER__PORT": "2", "LUMEPROXY_LIMITS__BODY_BYTES": "7", "OTHER": "x"}

    assert loaded(tmp_path, text).server.port == 1
    assert loaded(tmp_path, text, environ).server.port == 2
    assert loaded(tmp_path, text, environ, port=3, host="localhost").server.port == 3
    assert loaded(tmp_path, text, environ).limits.body_bytes == 7
    assert loaded(tmp_path, text, environ).log.level == "debug"


def test_the_file_is_found_by_option_variable_or_in_the_data_folder(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "config.toml").write_text("[server]\nport = 1")
    (tmp_path / "b.toml").write_text("[server]\nport = 2")
    (tmp_path / "c.toml").write_text("[server]\nport = 3")
    environ = {"LUMEPROXY_CONFIG": str(tmp_path / "b.toml")}

    assert load(data=data, environ={}).server.port == 1
    assert load(data=data, environ=environ).server.port == 2
    assert load(data=data, config=tmp_path / "c.toml", environ=environ).server.port == 3


def test_money_is_read_as_written_not_as_a_float(tmp_path):
    given = loaded(
        tmp_path, '[prices.m]\ninput = 0.1\noutput = 1e-5\n[billing]\nmultiplier = 1.1\nfirst_credit = "2.5"'
    )

    assert given.prices["m"].input == Decimal("0.1")
    assert given.prices["m"].output == Decimal("0.00001")
    assert given.billing.multiplier == Decimal("1.1")
    assert given.billing.first_credit == Decimal("2.5")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nprot = 1", "Unknown setting server.prot in"),
        ("[sever]\n", "Unknown setting sever in"),
        ("[server]\nport = 'x'", "The setting server.port in"),
        ("[server]\nport = 70000", "server.port in {file} is wrong: it must be at most 65535."),
        ("[server]\ntrusted_proxies = ['all']", "The setting server.trusted_proxies in"),
        ("[upstreams.a]\napi_key = 'x'", "The setting upstreams.a.kind in"),
        (
            "[upstreams.a]\nkind = 'claude'",
            "upstreams.a.kind in {file} is wrong: it must be 'anthropic', 'openai' or 'echo'.",
        ),
        ("[upstreams.a]\nkind = 'openai'\nbase_url = 'api.x.com'", "must start with http:// or https://"),
        (
            "[upstreams.'A B']\nkind = 'echo'",
            "The upstream name 'A B' in {file} is wrong: use up to 64 small letters, digits, - and _.",
        ),
        ("server = 5", "The setting server in {file} is wrong: it must be a table."),
        ("routes = 5", "The setting routes in {file} is wrong: it must be a list, in brackets."),
        ("[server]\nhost = 5", "The setting server.host in {file} is wrong: it must be a text, in quotes."),
        ("[[routes]]\nmodel = 'x'\nupstreams = ['a']\nto = 1", "Unknown setting to of route 1 in"),
        (
            "routes = [{model = 'x', upstreams = ['a']}, 5]",
            "The setting route 2 in {file} is wrong: it must be a table.",
        ),
        (
            "[[routes]]\nmodel = 'x'\nupstreams = []",
            "The setting upstreams of route 1 in {file} is wrong: it must not be empty.",
        ),
        ("[prices.x]\ninput = -1\noutput = 1", "prices.x.input"),
        ("[prices.x]\ninput = 1", "The setting prices.x.output in"),
        ("[billing]\nmultiplier = 'two'", "billing.multiplier"),
        ("[limits]\nbody_bytes = 0", "limits.body_bytes"),
        ("[log]\nlevel = 'loud'", "log.level"),
        ("x = ", "is not valid TOML"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_that_names_the_field(tmp_path, text, said):
    message = refusal(tmp_path, text)

    assert said.replace("{file}", str(tmp_path / "some.toml")) in message
    assert message.endswith(".")


def test_a_credential_is_not_quoted_back(tmp_path):
    message = refusal(tmp_path, "[upstreams.a]\nkind = 'openai'\napi_key = [['sk-secret']]")

    assert "upstreams.a.api_key" in message
    assert "sk-secret" not in message
    assert "sk-secret" not in repr(loaded(tmp_path, "[upstreams.a]\nkind = 'openai'\napi_key = 'sk-secret'"))


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"LUMEPROXY_SERVR__PORT": "1"}, "LUMEPROXY_SERVR__PORT names no section"),
        ({"LUMEPROXY_SERVER__PROT": "1"}, "Unknown setting server.prot"),
        ({"LUMEPROXY_SERVER__PORT": "many"}, "server.port"),
        ({"LUMEPROXY_ROUTES": "not json"}, "LUMEPROXY_"),
    ],
)
def test_a_slip_in_a_variable_is_not_silent(tmp_path, environ, said):
    assert said in refusal(tmp_path, "", environ)


def test_paths_are_taken_from_the_files_own_folder(tmp_path):
    text = """
        [server]
        tls_certificate = "c.pem"
        tls_key = "/etc/k.pem"
        [upstreams.a]
        kind = "openai"
        api_key_file = "keys/a"
    """
    given = loaded(tmp_path, text)

    assert given.server.tls_certificate == tmp_path / "c.pem"
    assert given.server.tls_key == Path("/etc/k.pem")
    assert given.upstreams["a"].api_key_file == (tmp_path / "keys" / "a",)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.toml can't be read: No such file"):
        load(config=tmp_path / "nowhere.toml", data=tmp_path, environ={})


@pytest.mark.parametrize("host", ["192.0.2.7", "no-such-host.invalid", "a..b", "", "2001:db8::1"])
def test_what_is_no_address_of_this_machine_is_told_as_that(tmp_path, host):
    assert refusal(tmp_path, host=host) == f"server.host {host!r} is no address of this machine; set it with --host."


def test_a_name_without_an_address_is_none_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [])

    assert "is no address of this machine" in refusal(tmp_path, host="example.com")


def test_a_wrong_value_is_told_although_an_option_comes_before_it(tmp_path):
    assert "server.port in" in refusal(tmp_path, "[server]\nport = 70000", port=1)
    assert "server.host in" in refusal(tmp_path, "[server]\nhost = 5", host="localhost")
    assert "server.port" in refusal(tmp_path, "", {"LUMEPROXY_SERVER__PORT": "x"}, port=1)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "example.com", "localhost.example.com"])
def test_a_public_address_needs_tls_or_a_trusted_proxy(tmp_path, host, monkeypatch):
    here = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: here)
    assert "keys would travel in clear" in refusal(tmp_path, host=host)
    behind = loaded(tmp_path, "[server]\ntrusted_proxies = ['127.0.0.1']", host=host)
    secured = loaded(tmp_path, "[server]\ntls_certificate = 'a'\ntls_key = 'b'", host=host)
    assert behind.server.host == secured.server.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1"])
def test_loopback_addresses_need_neither(tmp_path, host):
    assert loaded(tmp_path, host=host).server.host == host


def test_tls_needs_both_files(tmp_path):
    assert "set both or neither" in refusal(tmp_path, "[server]\ntls_key = 'b'")


def test_the_processes_own_variables_are_read_as_they_are(monkeypatch):
    monkeypatch.setenv("LUMEPROXY_DATA", "/somewhere")

    assert process_environment()["LUMEPROXY_DATA"] == "/somewhere"
