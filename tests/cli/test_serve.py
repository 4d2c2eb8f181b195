"""`lumeproxy serve`: what is wrong with a configuration is one sentence, exit 2, and nothing was made."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lumeproxy.cli.main import run

KEYLESS = '[upstreams.prod]\nkind = "anthropic"\n'
KEYED = KEYLESS + 'api_key = "sk-ant-very-secret"\n'


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ('[server]\ndrain_s = "long"', ["server.drain_s", "whole number"]),
        ("[server]\nprot = 1", ["Unknown setting server.prot", "config.example.toml"]),
        ('[server]\nhost = "0.0.0.0"', ["server.host", "server.tls_certificate", "server.trusted_proxies"]),
        ('[server]\nhost = "192.0.2.1"\ntrusted_proxies = ["10.0.0.1"]', ["server.host '192.0.2.1'", "--host"]),
        ('[server]\ntls_certificate = "no.pem"\ntls_key = "no.pem"', ["server.tls_certificate: ", "no.pem can't be read"]),
        ('[server]\ntls_certificate = "config.toml"\ntls_key = "config.toml"', ["server.tls_certificate", "PEM"]),
        ("[server]\ndata = 5", ["server.data", "path of a folder"]),
        (KEYLESS, ["upstreams.prod", "exactly one of api_key, api_key_env and api_key_file", "none"]),
        (KEYLESS + 'api_key_env = "NO_SUCH"', ["upstreams.prod.api_key_env", "NO_SUCH, which is not set"]),
        (KEYLESS + 'api_key_file = "no-such-file"', ["upstreams.prod.api_key_file: ", "no-such-file can't be read"]),
        (KEYED + 'api_key_env = "HOME"', ["upstreams.prod", "api_key and api_key_env"]),
        (KEYED + 'base_url = "example.org"', ["upstreams.prod.base_url", "http://"]),
        ('[upstreams.prod]\nkind = "azure"', ["upstreams.prod.kind", "'anthropic', 'openai' or 'echo'"]),
        (KEYED + '[[routes]]\nmodel = "x"\nupstreams = ["pord"]', ["Route 1 (x)", "'pord'", "echo, prod"]),
        ('[prices.x]\ninput = 1\noutput = 2000000', ['prices."x"', "1,000,000"]),
        ("[billing]\nmultiplier = 1.0000001", ["billing.multiplier", "six decimals"]),
        ("[server\n", ["not valid TOML", "line 1"]),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named_with_the_mend(config, told, tmp_path: Path, capsys):
    file = tmp_path / "config.toml"
    file.write_text(config)
    file.chmod(0o600)
    data = [] if "data" in config else ["--data", str(tmp_path / "data")]

    assert run(["serve", "--config", str(file), "--port", "0", *data]) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lumeproxy: ")
    assert err.count("\n") == 1
    assert [part for part in told if part not in err] == []
    assert "very-secret" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_a_busy_port_is_named_and_nothing_is_made(tmp_path: Path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        assert run(["--data", str(tmp_path / "data"), "--port", str(port)]) == 2

    assert capsys.readouterr().err == (
        f"lumeproxy: server.port {port} on 127.0.0.1 is in use by another program; stop that one or choose another "
        "with --port.\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["file/x", "/proc/lumeproxy"])
def test_a_folder_that_cannot_be_written_is_named_with_the_mend(folder, tmp_path: Path, capsys):
    (tmp_path / "file").touch()

    assert run(["--data", str(tmp_path / folder), "--port", "0"]) == 2

    err = capsys.readouterr().err
    assert f"The data folder {tmp_path / folder} can't be" in err
    assert "--data" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--port", "65536"], ["--port", "x"], ["--json"], ["extra"], ["--data", ""]])
def test_wrong_usage_exits_with_2(arguments, capsys):
    assert run(["serve", *arguments]) == 2
    assert "Usage: lumeproxy serve" in capsys.readouterr().err


def test_a_wrong_port_of_the_file_is_told_although_an_option_comes_before_it(tmp_path: Path, capsys):
    file = tmp_path / "config.toml"
    file.write_text("[server]\nport = 70000")

    assert run(["--config", str(file), "--port", "0", "--data", str(tmp_path / "data")]) == 2

    assert (
        capsys.readouterr().err == f"lumeproxy: The setting server.port in {file} is wrong: it must be at most 65535.\n"
    )


def test_a_port_out_of_range_is_told_in_plain_words(capsys):
    assert run(["serve", "--port", "70000"]) == 2
    assert capsys.readouterr().err.endswith("\nError: --port takes a number from 0 to 65535.\n")
