"""The two questions that a set-up puts to the proxy: which models the key may use, and one small call.

By urllib, since a set-up must start in a blink and loads nothing of a server. No redirects: the key goes to the address
that was given and nowhere else. Must not know any tool.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from lumeproxy.clients.address import is_near
from lumeproxy.clients.base import Trial
from lumeproxy.errors import Refused

LIST_S, CALL_S = 20.0, 120.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024
SHOWN_CHARS = 300


@dataclass(frozen=True, slots=True)
class Proof:
    """A call that went through: the model, the id that the proxy gave it, and what it cost in dollars, "" where the proxy
    does not say."""

    model: str
    call_id: str
    cost_usd: str


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """A redirect is an error, with its status."""


def models(url: str, key: str) -> tuple[str, ...]:
    """The models that the key may use. Raises Refused where the proxy can't be reached or does not take the key."""
    answer, _ = _answer(_request(url, "/v1/models", key, None), LIST_S)
    data = answer.get("data")
    entries = data if isinstance(data, list) else []
    names = [entry.get("id") for entry in entries if isinstance(entry, dict)]
    if not isinstance(data, list) or not all(isinstance(name, str) for name in names):
        raise Refused(f"What answers at {url} is no such proxy: its list of models makes no sense.")
    return tuple(name for name in names if isinstance(name, str) and name.isprintable())


def prove(url: str, key: str, trial: Trial) -> Proof:
    """Make one small call. Raises Refused with the proxy's own sentence where it fails."""
    _, headers = _answer(_request(url, trial.path, key, trial.body), CALL_S)
    return Proof(str(trial.body["model"]), headers.get("x-lume-call-id", ""), headers.get("x-lume-charge", ""))


def _request(url: str, path: str, key: str, body: dict[str, Any] | None) -> urllib.request.Request:
    headers = {"Authorization": f"Bearer {key}", "User-Agent": "lumeproxy-setup", "Accept": "application/json"}
    data = None
    if body is not None:
        data = json.dumps(body).encode()
        headers |= {"Content-Type": "application/json", "anthropic-version": "2023-06-01"}
    return urllib.request.Request(url + path, data=data, headers=headers)


def _answer(request: urllib.request.Request, timeout_s: float) -> tuple[dict[str, Any], http.client.HTTPMessage]:
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if is_near(request.host.rpartition(":")[0].strip("[]") or request.host):
        handlers.append(urllib.request.ProxyHandler({}))  # nobody's web proxy is asked for what is on this machine
    where = f"{request.type}://{request.host}"
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout_s) as response:
            answer = json.loads(response.read(MAX_ANSWER_BYTES))
            headers = response.headers
    except urllib.error.HTTPError as error:
        with error:
            raise Refused(_sentence(where, error.code, error.read(MAX_ANSWER_BYTES))) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise Refused(f"{where} can't be reached: {getattr(reason, 'strerror', None) or reason}.") from None
    except ValueError:
        raise Refused(f"What answers at {where} is no such proxy: it does not speak JSON.") from None
    if not isinstance(answer, dict):
        raise Refused(f"What answers at {where} is no such proxy.")
    return answer, headers


def _sentence(where: str, status: int, body: bytes) -> str:
    """What a refusal says, in the shape of any of the APIs, as far as a terminal can show it."""
    try:
        told = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        told = ""
    shown = "".join(char for char in str(told) if char.isprintable())[:SHOWN_CHARS]
    return f"{where} answered {status}" + (f": {shown}" if shown else ".")
