"""The scripts that set a tool up where there is no Python: a shell around the node program whose parts are the
.mjs files here.

What is filled in is the proxy's address and nothing else, so that a script may be shown to anybody: the key comes from the
developer's own environment or keyboard. Must not know how a script is handed out.
"""

from __future__ import annotations

import functools
import re
import shlex
from importlib import resources

from lumeproxy.clients import jsontext, tomltext
from lumeproxy.clients.address import checked_url
from lumeproxy.clients.base import NAME
from lumeproxy.clients.codex import PROFILE
from lumeproxy.clients.registry import TOOLS

PARTS = ("jsontext.mjs", "plan.mjs", "apply.mjs", "tools.mjs", "program.mjs")
NAMES = tuple(f"{tool.name}.{kind}" for tool in TOOLS for kind in ("sh", "ps1"))

_HOLE = re.compile("@([A-Z_]+)@")


def render(name: str, url: str) -> str | None:
    """The script of that name for the proxy at an address, None where there is no such script. Raises Refused for what is
    no address."""
    if name not in NAMES:
        return None
    address, _ = checked_url(url)
    tool_name, _, kind = name.rpartition(".")
    values = {
        "TITLE": next(tool.title for tool in TOOLS if tool.name == tool_name),
        "TOOL": tool_name,
        "URL": address,
        "QUOTED_URL": shlex.quote(address) if kind == "sh" else "'" + address.replace("'", "''") + "'",
        "PROGRAM": "\n".join(_part(part) for part in PARTS).rstrip("\n"),
        "BY_HAND": by_hand(tool_name, address),
    }
    return _HOLE.sub(lambda hole: values[hole[1]], _part(f"setup.{kind}"))


def by_hand(tool_name: str, url: str) -> str:
    """What to write into which file where no program can do it."""
    if tool_name == "codex":
        provider = {"name": "lumeproxy", "base_url": f"{url}/v1", "wire_api": "responses",
                    "experimental_bearer_token": "YOUR KEY", "supports_websockets": False}  # fmt: skip
        text = tomltext.fresh({"model_provider": NAME, "model_providers": {NAME: provider}})
        return f"Put this into ~/.codex/{PROFILE}.config.toml, and start Codex with: codex -p {PROFILE}\n\n{text}"
    if tool_name == "opencode":
        options = {"baseURL": f"{url}/v1", "apiKey": "YOUR KEY"}
        entry = {"npm": "@ai-sdk/anthropic", "name": "lumeproxy", "options": options, "models": {"A MODEL": {}}}
        return f"Put this into ~/.config/opencode/opencode.json:\n\n{jsontext.fresh({'provider': {NAME: entry}})}"
    env = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_AUTH_TOKEN": "YOUR KEY"}
    return f"Put this into ~/.claude/settings.json (to undo it, take both lines out):\n\n{jsontext.fresh({'env': env})}"


@functools.cache
def _part(name: str) -> str:
    return resources.files("lumeproxy.clients").joinpath(name).read_text("utf-8")
