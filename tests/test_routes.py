"""The operator's routes and aliases: what they come to, and what is wrong with them in one sentence."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from lumeproxy.errors import ConfigError
from lumeproxy.routes import listed_models, make_routing
from lumeproxy.settings import Settings, load
from lumeproxy.upstreams.base import Upstream
from lumeproxy.upstreams.echo import EchoUpstream


class Somewhere(EchoUpstream):
    """An upstream that is only ever named."""

    def __init__(self, name: str, kind: str) -> None:
        super().__init__(name)
        self.kind = kind
        self.dialects = frozenset(
            {"anthropic_messages"} if kind == "anthropic" else {"openai_chat", "openai_responses"}
        )


UPSTREAMS: Mapping[str, Upstream] = {
    "a": Somewhere("a", "anthropic"),
    "b": Somewhere("b", "anthropic"),
    "o": Somewhere("o", "openai"),
    "echo": EchoUpstream(),
}
ROUTE = '[[routes]]\nmodel = "claude-*"\nupstreams = '
NAMED = "".join(f'[upstreams.{name}]\nkind = "{UPSTREAMS[name].kind}"\napi_key = "{name}"\n' for name in "abo")


def settings_of(folder, text: str) -> Settings:
    file = folder / "config.toml"
    file.write_text(text)
    return load(config=file, data=folder / "data", environ={})


def test_an_entry_may_say_which_model_it_is_asked_for_and_its_share(tmp_path):
    entries = '["a", { name = "b", model = "other" }]'
    text = (
        f'[[routes]]\nmodel = "claude-*"\nupstreams = {entries}\n[[routes]]\nmodel = "gpt-*"\nupstream_model = "all"\n'
    )
    text += 'upstreams = [{ name = "a", weight = 3 }, { name = "b", weight = 1, model = "its" }]\n'
    table = make_routing(settings_of(tmp_path, text), UPSTREAMS)

    claude, gpt = table.find("claude-x"), table.find("gpt-x")
    assert (claude.model_at("a"), claude.model_at("b"), claude.weights) == (None, "other", ())
    assert (gpt.model_at("a"), gpt.model_at("b"), gpt.weights_of(["b", "a"])) == ("all", "its", (1, 3))


def test_an_alias_stands_for_a_model_with_and_without_the_long_context(tmp_path):
    text = ROUTE + '["a"]\n[aliases]\nsonnet = "claude-sonnet-4-5"\n"gpt-5" = "claude-x"'
    table = make_routing(settings_of(tmp_path, text), UPSTREAMS)

    for asked, name in (("sonnet", "claude-sonnet-4-5"), ("sonnet[1m]", "claude-sonnet-4-5"), ("gpt-5", "claude-x"),
                        ("claude-opus[1m]", "claude-opus"), ("claude-opus", "claude-opus")):  # fmt: skip
        assert (table.resolve(asked)[0], [route.pattern for route in table.resolve(asked)[1]]) == (name, ["claude-*"])
    assert table.resolve("llama") == ("llama", ())


def test_a_name_with_the_suffix_may_have_a_route_of_its_own(tmp_path):
    text = '[[routes]]\nmodel = "claude-x[1m]"\nupstreams = ["a"]\n[[routes]]\nmodel = "claude-*"\nupstreams = ["b"]\n'
    table = make_routing(settings_of(tmp_path, text), UPSTREAMS)

    assert table.resolve("claude-x[1m]")[0] == "claude-x[1m]"
    assert [table.find(name).upstreams for name in ("claude-x[1m]", "claude-x", "claude-y[1m]")] == [
        ("a",),
        ("b",),
        ("b",),
    ]


def test_two_routes_of_one_model_serve_it_through_different_apis(tmp_path):
    text = '[[routes]]\nmodel = "m-*"\nupstreams = ["a", "b"]\n[[routes]]\nmodel = "m-*"\nupstreams = ["o"]\n'
    table = make_routing(settings_of(tmp_path, text), UPSTREAMS)

    assert [route.upstreams for route in table.resolve("m-1")[1]] == [("a", "b"), ("o",)]


def test_an_upstream_that_lists_its_models_serves_them_without_a_route(tmp_path):
    text = NAMED.replace('api_key = "o"', 'api_key = "o"\nmodels = ["llama", "qwen-*"]')
    settings = settings_of(tmp_path, text.replace('api_key = "b"', 'api_key = "b"\nmodels = "discover"'))
    table = make_routing(settings, UPSTREAMS)

    assert listed_models(settings) == {"o": ("llama", "qwen-*")}
    served = {model: table.find(model) for model in ("llama", "qwen-3", "gpt-5", "claude-x", "gpt-echo")}
    assert {model: route and route.upstreams for model, route in served.items()} == {
        "llama": ("o",),
        "qwen-3": ("o",),
        "gpt-5": None,
        "claude-x": ("a", "b"),
        "gpt-echo": ("echo",),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ROUTE + '["a", "z"]', "Route 1 (claude-*) names the upstream 'z'; there are a, b, echo, o."),
        (ROUTE + '["a", "a"]', "Route 1 (claude-*) names an upstream twice."),
        (ROUTE + '["a", "b", "o"]', "names the upstream 'o', which speaks openai_chat, openai_responses and could never "
                                    "stand in for another one there: give it a route of its own for the same model, or set "
                                    "upstreams.o.dialects."),
        (ROUTE + '["a", { name = "b", weight = 2 }]', "has a weight for some of its upstreams"),
        (ROUTE + '["a"]\n[aliases]\nx = "gpt-5"', "aliases.x stands for 'gpt-5', which no route serves."),
        (ROUTE + '["a"]\n[aliases]\nx = "y"\ny = "claude-x"', "aliases.x stands for 'y', which no route serves."),
        (ROUTE + '["a"]\n[aliases]\nx = "claude-*"', "aliases.x stands for 'claude-*', which no route serves."),
        (ROUTE + '["a"]\n[aliases]\n"x-*" = "claude-x"', "aliases.'x-*' must be a whole name, without *"),
    ],
)  # fmt: skip
def test_what_can_not_work_is_said_before_the_first_call(tmp_path, text, said):
    with pytest.raises(ConfigError) as caught:
        make_routing(settings_of(tmp_path, text), UPSTREAMS)

    assert said in caught.value.message


def test_a_route_for_all_sorts_of_models_may_lead_to_different_apis(tmp_path):
    text = ROUTE.replace("claude-*", "*") + '["a", "o"]'

    assert make_routing(settings_of(tmp_path, text), UPSTREAMS).find("anything").upstreams == ("a", "o")
