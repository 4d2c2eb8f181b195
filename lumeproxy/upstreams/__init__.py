"""Providers: one file per kind, one line in KINDS."""

from __future__ import annotations

from lumeproxy.upstreams import anthropic, openai

# Kinds that speak HTTP, by the word in the configuration. The built-in echo stands beside them in upstreams.echo.
KINDS = {anthropic.KIND: anthropic, openai.KIND: openai}
