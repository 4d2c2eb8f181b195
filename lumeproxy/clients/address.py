"""The address of a proxy as a person writes it, and links that hand it on.

CC Switch's link: https://github.com/farion1231/cc-switch, user manual 5.3 "Deep Link Protocol" (read 2026-11-24).
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlencode, urlsplit

from lumeproxy.errors import Refused

# Nothing in it that a shell, a settings file or a page would take for anything but text.
_HOST = re.compile(r"[0-9A-Za-z](?:[0-9A-Za-z_.-]*[0-9A-Za-z])?|\[[0-9A-Fa-f:.]+\]")
_PORT = re.compile(":[0-9]+$")
_PATH = re.compile(r"(?:/[0-9A-Za-z._~-]+)*")
_VERSION = re.compile(r"(?:/v1)+$")


def checked_url(text: str) -> tuple[str, list[str]]:
    """The address without a slash or version at its end, and what to warn of. Raises Refused for what is no address."""
    given = text.strip().rstrip("/")
    url = _VERSION.sub("", given)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    # urlsplit drops line breaks in silence, so the text itself is looked at, too.
    is_plain = url.isascii() and url.isprintable() and not parts.query and not parts.fragment
    if not is_plain or parts.scheme not in ("http", "https") or not _HOST.fullmatch(_PORT.sub("", parts.netloc)):
        raise Refused(
            "That is no address of a proxy; it looks like https://proxy.example.com or http://127.0.0.1:8787."
        )
    if not _PATH.fullmatch(parts.path):
        raise Refused("The address has a character in its path that has no place there.")
    warnings = []
    if url != given:
        warnings.append(
            f"The address was given with /v1 at its end; {url} is used, to which each tool adds what it needs."
        )
    if parts.scheme == "http" and not is_near(host):
        warnings.append(
            f"{url} is not encrypted: whoever is on the way to it reads the key and all that is said. Use https."
        )
    return url, warnings


def is_near(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return host == "localhost" or host.endswith(".localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def ccswitch_link(app: str, url: str, key: str, model: str | None) -> str:
    """A link by which CC Switch takes the proxy into its list. It holds the key."""
    fields = {"resource": "provider", "app": app, "name": "lumeproxy", "endpoint": url, "apiKey": key, "homepage": url}
    if model is not None:
        fields["model"] = model
    return "ccswitch://v1/import?" + urlencode(fields)
