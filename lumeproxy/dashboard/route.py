"""One row of the table of pages: which path, who may, what serves it. Every guard reads it from here."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from lumeproxy.dashboard.visit import Visit


class Access(enum.Enum):
    """Who may see a page, from anybody to the operator."""

    OPEN = "open"
    SIGNED_IN = "signed_in"  # also before the terms are accepted
    USER = "user"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Route:
    """A page or a form's target. What has the method POST asks for the form's token."""

    method: str
    path: str
    access: Access
    serve: Callable[[Visit], Awaitable[web.StreamResponse]]
