"""The README's snippet for compatible providers: with the address of a scripted one in the place of the provider's, each
upstream is asked at the provider's path, with its credential where that provider wants it, and answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lumeproxy.errors import ConfigError
from lumeproxy.settings import load
from tests.support.calls import ANTHROPIC, CHAT, RESPONSES, ask, whole
from tests.support.client import take
from tests.support.proxy import Proxy, proxy
from tests.support.upstream import ScriptedUpstream

TEXT = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
(SNIPPET,) = (block for block in re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL) if "openrouter" in block)
KEYS = {name: f"secret of {name}".replace(" ", "-") for name in re.findall(r'api_key_env = "(\w+)"', SNIPPET)}
BEARER, OWN, NONE = "authorization", "x-api-key", ""
# Upstream, the API it is asked through, the path there, where the credential goes.
EXPECTED = [
    ("openrouter", CHAT, "/api/v1/chat/completions", BEARER),
    ("openrouter", RESPONSES, "/api/v1/responses", BEARER),
    ("openrouter-claude", ANTHROPIC, "/api/v1/messages", BEARER),
    ("deepseek", ANTHROPIC, "/anthropic/v1/messages", OWN),
    ("kimi", ANTHROPIC, "/anthropic/v1/messages", BEARER),
    ("glm", ANTHROPIC, "/api/anthropic/v1/messages", BEARER),
    ("glm-chat", CHAT, "/api/paas/v4/chat/completions", BEARER),
    ("ollama", CHAT, "/v1/chat/completions", NONE),
    ("ollama", RESPONSES, "/v1/responses", NONE),
    ("ollama", ANTHROPIC, "/v1/messages", NONE),
    ("vllm", CHAT, "/v1/chat/completions", BEARER),
    ("llamacpp", ANTHROPIC, "/v1/messages", NONE),
    ("lume", ANTHROPIC, "/v1/messages", OWN),
    ("lume", RESPONSES, "/v1/responses", OWN),
]


def test_every_upstream_of_the_snippet_is_tried_here() -> None:
    assert set(re.findall(r"\[upstreams\.([\w-]+)\]", SNIPPET)) == {row[0] for row in EXPECTED}


def test_the_snippet_loads_and_its_routes_hold(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(SNIPPET)
    given = load(config=file, data=tmp_path, environ={})

    assert [route.model for route in given.routes] == ["claude-*", "deepseek-*"]
    assert given.aliases == {"sonnet": "claude-sonnet-4-5"}


async def test_each_is_asked_as_its_provider_wants_it(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    text = re.sub(r'base_url = "https?://[^/"]+', f'base_url = "{upstream.url}', SNIPPET.partition("[[routes]]")[0])
    prices = '[prices."m-*"]\ninput = 1\noutput = 10\n'
    text = text.replace('models = ["qwen3-coder", "gpt-oss:*"]\n', "")
    for name in {row[0] for row in EXPECTED}:
        text += f'[[routes]]\nmodel = "m-{name}"\nupstreams = ["{name}"]\n'
    async with proxy(tmp_path, {}, more=text + prices, environ={}, variables=KEYS) as lume:
        for name, path, target, header in EXPECTED:
            await asked(lume, upstream, name, path, target, header)


async def asked(lume: Proxy, upstream: ScriptedUpstream, name: str, path: str, target: str, header: str) -> None:
    answer = whole(path)
    upstream.script = lambda c: c.reply(answer)
    taken = await take(lume.post(path, ask(path, model=f"m-{name}", stream=False)))

    assert (taken.status, taken.body) == (200, answer), name
    seen = upstream.received[-1]
    assert (seen.method, urlsplit(seen.target).path) == ("POST", target)
    assert json.loads(seen.body)["model"] == f"m-{name}"
    sent = {one: value for one in (BEARER, OWN) if (value := seen.header(one)) is not None}
    if header == NONE:
        assert sent == {}
    else:
        variable = re.search(rf'\[upstreams\.{name}\].*?api_key_env = "(\w+)"', SNIPPET, re.DOTALL)
        assert variable is not None
        assert sent == {header: ("Bearer " if header == BEARER else "") + KEYS[variable[1]]}
    assert seen.header("x-title") == ("my team" if name == "openrouter" else None)


@pytest.mark.parametrize("kind", ["azure", "bedrock", "vertex"])
def test_what_is_not_supported_yet_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'[upstreams.x]\nkind = "{kind}"\n')
    with pytest.raises(ConfigError, match=r"upstreams\.x\.kind"):
        load(config=file, data=tmp_path, environ={})
