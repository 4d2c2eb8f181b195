"""The dashboard from settings: texts, prices, and terms that the API asks for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lumeproxy.errors import ConfigError
from lumeproxy.front import make_texts, required_terms
from lumeproxy.settings import load
from tests.dashboard.browser import site


def settings_of(folder: Path, text: str):
    file = folder / "config.toml"
    file.write_text(text)
    return load(config=file, data=folder / "data", environ={})


def test_texts_are_the_operators_or_the_defaults(tmp_path: Path):
    (tmp_path / "p.md").write_text("# Ours")
    made = make_texts(settings_of(tmp_path, '[dashboard]\nprivacy_file = "p.md"\nterms_version = "2026-11"\n'))

    assert str(made.privacy) == "<h1>Ours</h1>"
    assert str(made.terms).startswith("<h1>Terms</h1>")
    assert made.version == "2026-11"


@pytest.mark.parametrize(
    ("content", "told"), [(None, "No such file"), (b"\xff", "not UTF-8"), (b"x" * 1_000_001, "larger")]
)
def test_a_text_that_cant_be_used_is_told(tmp_path: Path, content, told):
    if content is not None:
        (tmp_path / "t.md").write_bytes(content)
    with pytest.raises(ConfigError, match=f"dashboard.terms_file: .*t.md .*{told}"):
        make_texts(settings_of(tmp_path, '[dashboard]\nterms_file = "t.md"\n'))


def test_the_terms_are_asked_for_only_where_the_operator_says_so(tmp_path: Path):
    assert required_terms(settings_of(tmp_path, ""), "http://here") is None
    asked = "[dashboard]\nterms_required = true\n"
    assert required_terms(settings_of(tmp_path, asked), "http://here").url == "http://here/sign-in"
    behind = '[server]\ntrusted_proxies = ["10.0.0.1"]\nallowed_hosts = ["lume.example.org"]\n' + asked
    assert required_terms(settings_of(tmp_path, behind), "http://here").url == "https://lume.example.org/sign-in"


async def test_the_api_answers_403_with_the_link_until_the_terms_are_accepted(tmp_path: Path):
    async with site(tmp_path, LUMEPROXY_DASHBOARD__TERMS_REQUIRED="true") as strict:
        for path, kind in (("/v1/messages", "permission_error"), ("/v1/responses", "permission_error")):
            async with strict.lume.post(path, {"model": "claude-echo", "messages": [], "input": "x"}) as response:
                answer = json.loads(await response.read())
                assert response.status == 403
                assert answer["error"]["type"] == kind
                assert f"sign in at {strict.lume.url}/sign-in" in answer["error"]["message"]
                assert response.headers["x-should-retry"] == "false"
        assert await strict.lume.records() == []

        await strict.user()  # who accepts them

        await strict.call()
        await strict.call()
        assert len(await strict.lume.records()) == 2
        assert (await strict.lume.balance()).held_nanousd == 0
