"""Where the data and the configuration are."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from lumeproxy.errors import ConfigError
from lumeproxy.folder import closing_command, config_file, configures, data_folder, is_open_with_key


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration that names a folder beside itself."""
    made = tmp_path / "lume.toml"
    made.write_text('[server]\ndata = "from-file"')
    return made


def test_the_first_that_names_a_folder_wins(tmp_path, file):
    named = {
        "LUMEPROXY_DATA": str(tmp_path / "from-variable"),
        "LUMEPROXY_SERVER__DATA": str(tmp_path / "from-setting"),
        "LUMEPROXY_CONFIG": str(file),
    }

    assert data_folder(tmp_path / "from-option", file, named) == tmp_path / "from-option"
    for name, folder in (
        ("LUMEPROXY_DATA", "from-variable"),
        ("LUMEPROXY_SERVER__DATA", "from-setting"),
        ("LUMEPROXY_CONFIG", "from-file"),
    ):
        assert data_folder(None, None, named) == tmp_path / folder
        named[name] = ""
    assert data_folder(None, file, {}) == tmp_path / "from-file"
    assert data_folder(None, None, named) == platformdirs.user_data_path("lumeproxy", appauthor=False)


@pytest.mark.parametrize("text", ["", "[server]\nport = 1", '[server]\ndata = ""', "server = 5"])
def test_a_configuration_that_names_no_folder_leaves_the_platforms(tmp_path, text):
    file = tmp_path / "lume.toml"
    file.write_text(text)

    assert data_folder(None, file, {}) == platformdirs.user_data_path("lumeproxy", appauthor=False)


def test_a_folder_is_absolute_and_home_is_spelt_out(tmp_path, monkeypatch, file):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    assert data_folder(Path("here"), None, {}) == tmp_path / "here"
    assert data_folder(None, None, {"LUMEPROXY_DATA": "~/there"}) == tmp_path / "home" / "there"
    assert data_folder(None, Path("lume.toml"), {}) == tmp_path / "from-file"
    file.write_text('[server]\ndata = "~/deep"')
    assert data_folder(None, file, {}) == tmp_path / "home" / "deep"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "can't be read: No such file or directory."),
        ("[server", "is not valid TOML"),
        (
            "[server]\ndata = 5",
            "The setting server.data in {file} is wrong: it must be the path of a folder, in quotes.",
        ),
        ('[server]\ndata = "~nobody-of-that-name"', "names a user that does not exist; write out its path."),
    ],
)
def test_what_names_no_folder_is_said_with_the_mend(tmp_path, text, told):
    file = tmp_path / "lume.toml"
    if text is not None:
        file.write_text(text)

    with pytest.raises(ConfigError) as raised:
        data_folder(None, file, {})

    assert told.format(file=file) in raised.value.message


def test_text_of_another_encoding_is_not_toml(tmp_path):
    file = tmp_path / "lume.toml"
    file.write_bytes(b'[server]\ndata = "\xff"')

    with pytest.raises(ConfigError, match="not valid TOML"):
        data_folder(None, file, {})


def test_the_configuration_is_the_named_one_or_that_of_the_data_folder(tmp_path, file):
    assert config_file(None, tmp_path, {}) is None
    inside = tmp_path / "config.toml"
    inside.touch()
    assert config_file(None, tmp_path, {}) == inside
    assert config_file(None, tmp_path, {"LUMEPROXY_CONFIG": str(file)}) == file
    assert config_file(Path("x"), tmp_path, {"LUMEPROXY_CONFIG": str(file)}) == Path("x")


@pytest.mark.parametrize(
    ("text", "mode", "is_open"),
    [
        ('[upstreams.a]\napi_key = "k"', 0o640, True),
        ('[upstreams.a]\napi_key = "k"', 0o604, True),
        ('[upstreams.a]\napi_key = "none"', 0o644, False),
        ('[upstreams.a]\napi_key = "None"\n[upstreams.b]\napi_key = "k"', 0o644, True),
        ('[upstreams.a]\napi_key = "k"\nbase_url = "http://127.0.0.1:9/v1"', 0o644, False),
        ('[upstreams.a]\napi_key = "k"\nbase_url = "http://localhost"', 0o644, False),
        ('[upstreams.a]\napi_key = "k"\nbase_url = "http://[::1]:9"', 0o644, False),
        ('[upstreams.a]\napi_key = "k"\nbase_url = "http://127.example.org"', 0o644, True),
        ('[upstreams.a]\napi_key = "k"\nbase_url = "http://[x"', 0o644, True),
        ('[upstreams.a]\napi_key = "k"', 0o600, False),
        ('[upstreams.a]\napi_key = "k"', 0o711, False),
        ('[upstreams.a]\napi_key = ""', 0o644, False),
        ('[upstreams.a]\napi_key_env = "K"', 0o644, False),
        ("upstreams = 5", 0o644, False),
        ("[upstreams]\na = 5", 0o644, False),
        ("", 0o644, False),
    ],
)
def test_a_key_in_a_file_that_others_read_is_noticed(tmp_path, text, mode, is_open):
    file = tmp_path / "lume.toml"
    file.write_text(text)
    file.chmod(mode)

    assert is_open_with_key(file) is is_open


@pytest.mark.parametrize(
    ("variable", "does"),
    [
        ("LUMEPROXY_DATA", False),
        ("LUMEPROXY_CONFIG", False),
        ("LUMEPROXY_SERVER__PORT", True),
        ("LUMEPROXY_TYPO", True),
        ("HOME", False),
    ],
)
def test_a_variable_with_our_prefix_is_meant_as_a_setting(variable, does):
    assert configures(variable) is does


def test_the_mend_closes_what_others_can_get_at_and_only_that(tmp_path):
    folder, file, closed = tmp_path / "my data", tmp_path / "f", tmp_path / "g"
    folder.mkdir()
    for path, mode in ((folder, 0o750), (file, 0o604), (closed, 0o600)):
        path.touch()
        path.chmod(mode)

    assert closing_command(folder, file, closed) == f"chmod 700 '{folder}' && chmod 600 {file}"
    assert closing_command(closed, tmp_path / "none") is None


def test_a_data_folder_that_this_user_may_not_look_into_is_told_with_the_mend(tmp_path, monkeypatch):
    def closed(_path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", closed)

    with pytest.raises(ConfigError) as raised:
        config_file(None, tmp_path, {})
    assert raised.value.message == (
        f"The data folder {tmp_path} is closed to this user; run lumeproxy as its owner or choose another with --data."
    )
    assert config_file(tmp_path / "c", tmp_path, {}) == tmp_path / "c"
