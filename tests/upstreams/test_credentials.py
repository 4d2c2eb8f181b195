"""An upstream's credentials: from one of three places, one or several, never shown."""

from __future__ import annotations

from typing import Any

import pytest

from lumeproxy.errors import ConfigError
from lumeproxy.settings import Upstream
from lumeproxy.upstreams.credentials import credentials


def test_a_credential_comes_from_exactly_one_place(tmp_path):
    file = tmp_path / "key"
    file.write_text(" from-file\n")
    other = tmp_path / "other"
    other.write_text("other")
    environ = {"SOME_KEY": "from-env", "OTHER_KEY": "from-env-too", "EMPTY": ""}

    def of(**fields: Any) -> tuple[str, ...]:
        return credentials("a", Upstream.model_validate({"kind": "openai", **fields}), environ)

    assert of(api_key="inline") == ("inline",)
    assert of(api_key_env="SOME_KEY") == ("from-env",)
    assert of(api_key_file=str(file)) == ("from-file",)
    assert of(api_key=["b", "a"]) == ("b", "a")
    assert of(api_key_env=["SOME_KEY", "OTHER_KEY"]) == ("from-env", "from-env-too")
    assert of(api_key_file=[str(file), str(other)]) == ("from-file", "other")
    assert of(auth="none") == ()
    for fields, said in (
        ({}, "needs exactly one of api_key, api_key_env and api_key_file; it has none"),
        ({"api_key": "x", "api_key_env": "y"}, "it has api_key and api_key_env"),
        ({"api_key_env": "UNSET"}, "names UNSET, which is not set"),
        ({"api_key_env": "EMPTY"}, "names EMPTY, which is not set"),
        ({"api_key_file": str(tmp_path / "none")}, f"api_key_file: {tmp_path / 'none'} can't be read: No such file"),
        ({"api_key": ["x", ""]}, "is empty or not one line of printable ASCII"),
        ({"api_key": ["x", "y", "x"]}, "names the same credential twice"),
        ({"api_key": "x", "auth": "none"}, 'has auth = "none" and api_key all the same'),
        ({"api_key": " "}, "is empty or not one line of printable ASCII"),
        ({"api_key": "two\nlines"}, "is empty or not one line of printable ASCII"),
        ({"api_key": "sécret"}, "is empty or not one line of printable ASCII"),
    ):
        with pytest.raises(ConfigError) as error:
            of(**fields)
        assert "upstreams.a" in error.value.message
        assert said in error.value.message
        assert "sécret" not in error.value.message


def test_a_credential_file_that_is_no_text_is_refused(tmp_path):
    file = tmp_path / "key"
    file.write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigError, match="it is not text"):
        credentials("a", Upstream.model_validate({"kind": "openai", "api_key_file": str(file)}), {})
