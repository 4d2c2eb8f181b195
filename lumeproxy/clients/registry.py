"""The tools that can be set up."""

from __future__ import annotations

from lumeproxy.clients.base import Tool
from lumeproxy.clients.claude_code import ClaudeCode
from lumeproxy.clients.codex import Codex
from lumeproxy.clients.opencode import Opencode

TOOLS: tuple[Tool, ...] = (ClaudeCode(), Codex(), Opencode())


def tool(name: str) -> Tool:
    """The tool of that name on the command line. Raises KeyError."""
    return {known.name: known for known in TOOLS}[name]
