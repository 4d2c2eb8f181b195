"""What the README says is so: its first calls work, its commands and settings exist."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

from click.testing import CliRunner

from lumeproxy.cli.main import tree
from lumeproxy.compose import make_prices
from lumeproxy.core.types import STANDARD_TERMS
from lumeproxy.routes import make_routing
from lumeproxy.settings import load
from lumeproxy.upstreams.echo import EchoUpstream
from tests.support.proxy import Proxy
from tests.support.upstream import ScriptedUpstream

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


async def test_the_first_calls_work_without_a_provider(lume: Proxy, upstream: ScriptedUpstream) -> None:
    calls = [shlex.split(block.replace("\\\n", " ")) for block in blocks("sh") if block.startswith("curl http")]
    calls = [call for call in calls if "-d" in call]
    assert len(calls) == 2
    for _, url, header, value, flag, body in calls:
        assert (header, flag) == ("-H", "-d")
        path = url.removeprefix("http://127.0.0.1:8787")
        name, _, key = value.partition(": ")
        # curl's own content type, which is not JSON's.
        headers = {name: key.replace("$LUME_KEY", lume.key), "content-type": "application/x-www-form-urlencoded"}
        async with lume.session.post(lume.url + path, data=body, headers=headers) as response:
            answer = json.loads(await response.read())
        assert response.status == 200
        assert "You said: hello" in json.dumps(answer)
    assert [record["ending"] for record in await lume.records()] == ["complete", "complete"]
    assert upstream.received == []


async def test_the_line_for_the_admin_api_lists_the_accounts(lume: Proxy) -> None:
    (line,) = [block for block in blocks("sh") if "$ADMIN_KEY" in block]
    _, url, flag, header = shlex.split(line)
    name, _, value = header.partition(": ")
    key = (await lume.run("admin_key.create"))["key"]

    headers = {name: value.replace("$ADMIN_KEY", key)}
    async with lume.session.get(lume.url + url.removeprefix("http://127.0.0.1:8787"), headers=headers) as response:
        assert (flag, response.status) == ("-H", 200)
        listed = [found["account"] for found in (await response.json())["items"]]
    assert listed == [found["account"] for found in await lume.run("account.list")] != []


async def test_the_lines_that_connect_a_tool_name_a_command_and_scripts_that_are_there(lume: Proxy) -> None:
    (command,) = [shlex.split(block, comments=True) for block in blocks("sh") if "lumeproxy setup" in block]
    assert CliRunner().invoke(tree, [*command[1:], "--help"]).exit_code == 0
    paths = re.findall(r"/setup/[a-z-]+\.(?:sh|ps1)", TEXT)
    assert {path.rpartition(".")[2] for path in paths} == {"sh", "ps1"}
    for path in paths:
        async with lume.session.get(lume.url + path) as response:
            assert response.status == 200, path


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in set(
        re.findall(r"\bmake (\w+)", "\n".join(blocks("sh")) + "".join(re.findall(r"`make (\w+)`", TEXT)))
    ):
        assert f"\n{target}:" in makefile


def test_the_configuration_file_loads_and_its_models_have_a_price(tmp_path: Path) -> None:
    text, *_ = blocks("toml")
    file = tmp_path / "config.toml"
    file.write_text(text)
    given = load(config=file, data=tmp_path, environ={})
    upstreams = {name: EchoUpstream(name) for name in ("main", "local", "echo")}
    routing = make_routing(given, upstreams)
    prices = make_prices(given, routing)
    local = routing.find("my-model")

    assert local is not None
    assert (local.upstreams, local.upstream_model) == (("local",), "qwen3-coder")
    assert tomllib.loads(text)["billing"]["multiplier"] == 1.1
    assert prices.price("my-model", "qwen3-coder", None, 0, STANDARD_TERMS) is not None


def test_the_codex_settings_are_toml_that_names_one_provider() -> None:
    (text,) = (block for block in blocks("toml") if "[model_providers" in block)
    tree = tomllib.loads(text)

    assert set(tree["model_providers"]) == {tree["model_provider"]}
    assert set(tree["model_providers"]["lumeproxy"]) == {"name", "base_url", "wire_api", "env_key"}


def test_the_list_of_commands_is_the_tree_of_commands() -> None:
    (listed,) = blocks("text")
    said: dict[str, set[str]] = {}
    for line in listed.splitlines():
        _, noun, *rest = line.split(maxsplit=2)
        uses = rest[0].split(" | ") if rest else []
        said[noun.strip("[]")] = {use.split()[0] for use in uses if use[0].islower()}
    exists = {name: set(getattr(command, "commands", ())) for name, command in tree.commands.items()}

    assert said == exists


def test_the_options_in_the_list_exist() -> None:
    (listed,) = blocks("text")
    run = CliRunner()
    paths = [[], *([name] for name in tree.commands)]
    paths += [[name, inner] for name, command in tree.commands.items() for inner in getattr(command, "commands", ())]
    shown = "\n".join(run.invoke(tree, [*path, "--help"]).output for path in paths)

    for option in re.findall(r"--[a-z]+", listed):
        assert option in shown, option
