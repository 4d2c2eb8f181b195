"""Records as files: JSON equal to `lumeproxy usage --json` but for what is between operator and provider, and CSV. Sent
piece by piece, so that a million records need no more memory than a thousand.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web

from lumeproxy.dashboard.visit import Visit
from lumeproxy.store import reports
from lumeproxy.store.reports import END, Filter, Place
from lumeproxy.store.usage import SHOWN

PIECE_ROWS = 1000
# What a call cost the operator, and by which ways it went, is not its caller's to know.
OPERATORS = frozenset({"credential", "upstream_cost_nanousd", "upstream_price_version", "attempts"})
FIELDS = tuple(name for name in SHOWN if name not in OPERATORS)
# What a spreadsheet would take for a formula; a model's or program's name is whatever a client sent.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_TYPES = {"json": "application/json", "csv": "text/csv"}


async def send(visit: Visit, which: Filter, kind: str, name: str) -> web.StreamResponse:
    """The records as a file of kind "json" or "csv", newest first."""
    response = await begin(visit, f"{name}.{kind}", _TYPES[kind])
    if kind == "csv":
        await response.write(_csv([list(FIELDS)]))
        async for piece in records(visit, which):
            await response.write(_csv([[_cell(record[field]) for field in FIELDS] for record in piece]))
    else:
        await write_list(response, records(visit, which))
    await response.write_eof()
    return response


async def begin(visit: Visit, name: str, content_type: str) -> web.StreamResponse:
    """The head of a file's answer."""
    response = web.StreamResponse()
    response.content_type, response.charset = content_type, "utf-8"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    visit.harden(response)
    await response.prepare(visit.request)
    return response


async def records(visit: Visit, which: Filter) -> AsyncIterator[list[dict[str, Any]]]:
    """All records in pieces; between two of them others use the database."""
    at: Place | None = END
    while at is not None:
        found, at = await visit.read(reports.calls, which, PIECE_ROWS, at)
        if found:
            yield [{name: record[name] for name in FIELDS} for record in found]


async def write_list(response: web.StreamResponse, pieces: AsyncIterator[list[dict[str, Any]]]) -> None:
    """One JSON list of all that the pieces hold."""
    between = b"["
    async for piece in pieces:
        for record in piece:
            await response.write(between + msgspec.json.encode(record))
            between = b",\n"
    await response.write(b"]\n" if between != b"[" else b"[]\n")


def _csv(rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    """A value of a cell; a text that begins like a formula gets a ' before it."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return "" if value is None else value
