"""The upstreams that the settings name, as a command sees them where no server runs."""

from __future__ import annotations

import pytest

from lumeproxy.dashboard.upstreams import Known
from lumeproxy.fleet import ConfiguredFleet
from lumeproxy.settings import load

TEXT = """
[upstreams.main]
kind = "anthropic"
api_key_env = ["NOT_SET_HERE", "NOR_THIS"]
[upstreams.local]
kind = "openai"
base_url = "http://127.0.0.1:11434/v1"
auth = "none"
"""
ECHO = Known("echo", "built in", 1)


@pytest.mark.parametrize(
    ("text", "environ", "found"),
    [
        ("", {}, {"echo": ECHO}),
        ("", {"OPENAI_API_KEY": "x"}, {"openai": Known("openai", "https://api.openai.com/v1", 1), "echo": ECHO}),
        (
            TEXT,
            {},
            {
                "main": Known("anthropic", "https://api.anthropic.com", 2),
                "local": Known("openai", "http://127.0.0.1:11434/v1", 1),
                "echo": ECHO,
            },
        ),
        ('[upstreams.mine]\nkind = "echo"', {}, {"mine": ECHO, "echo": ECHO}),
    ],
)
def test_they_are_known_without_their_credentials(tmp_path, text, environ, found):
    file = tmp_path / "config.toml"
    file.write_text(text)
    fleet = ConfiguredFleet(load(config=file, data=tmp_path, environ=environ), environ)

    assert fleet.known() == found
    assert (fleet.selection, fleet.places("main")) == (None, (0, 0))
