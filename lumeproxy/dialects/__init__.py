"""Client-facing APIs: one file each, one line here."""

from __future__ import annotations

from lumeproxy.dialects.anthropic_messages import AnthropicMessages
from lumeproxy.dialects.base import Dialect
from lumeproxy.dialects.openai_chat import OpenAIChat
from lumeproxy.dialects.openai_responses import OpenAIResponses

DIALECTS: tuple[Dialect, ...] = (AnthropicMessages(), OpenAIResponses(), OpenAIChat())
