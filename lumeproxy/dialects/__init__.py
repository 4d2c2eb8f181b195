"""Client-facing APIs: one file each, one line here."""

from __future__ import annotations

from lumeproxy.dialects.anthropic_messages import AnthropicMessages
from lumeproxy.dialects.base import Dialect
from lumeproxy.dialects.openai_chat import OpenAIChat
from lumeproxy.dialects.openai_responses import OpenAIResponses
from lumeproxy.dialects.openai_websocket import OpenAIWebSocket

DIALECTS: tuple[Dialect, ...] = (AnthropicMessages(), OpenAIResponses(), OpenAIChat())
WEBSOCKET = OpenAIWebSocket()  # the one API that is offered over WebSockets too
