"""Structured logs: for a person on a terminal, as JSON lines otherwise. Never content, never a key.

The logger is made once and handed down; there is no global configuration. The standard library's loggers (aiohttp,
asyncio) are let through as event names and exception types only: their messages may quote a request, key included.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import FilteringBoundLogger, WrappedLogger

from lumeproxy.clock import Clock

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
CALL_FIRST = ("account", "model", "status", "cost_nanousd")
# Our keys, of which the public id may stay, and those of the providers.
_SECRET = re.compile(r"(lume_[0-9A-Za-z]{8})_[0-9A-Za-z]+|\b(sk-)[0-9A-Za-z_-]{12,}")


REMEMBERED_PLACES = 1000  # of library code that has logged something


class Output:
    """Writes finished lines to a text stream; one write a line, so that lines of threads don't mix."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        """Write one line; a reader that has gone away or a full disk does not stop the server, nor fail a call."""
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            return

    debug = info = warning = error = critical = exception = msg


def make(*, level: str, style: str, clock: Clock, stream: TextIO | None = None) -> FilteringBoundLogger:
    """A logger: `level` of LEVELS, `style` "auto", "console" or "json" (auto: console on a terminal)."""
    stream = sys.stderr if stream is None else stream
    console = style == "console" or (style == "auto" and stream.isatty())
    processors: list[Any] = [_stamp(clock, console=console), structlog.processors.add_log_level, _without_secrets]
    if console:
        processors.append(_call_for_a_person)
        processors.append(structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=18, sort_keys=False))
    else:
        processors.append(_json)
    logger: FilteringBoundLogger = structlog.wrap_logger(
        Output(stream),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        cache_logger_on_first_use=True,
    )
    return logger


def _stamp(clock: Clock, *, console: bool) -> Callable[[WrappedLogger, str, Any], Any]:
    def stamp(_logger: WrappedLogger, _method: str, event: Any) -> Any:
        now_ms = clock.now_ms()
        if console:
            seconds = now_ms // 1000 % 86_400
            event["timestamp"] = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}Z"
        else:
            event["time_ms"] = now_ms
        return event

    return stamp


def _without_secrets(_logger: WrappedLogger, _method: str, event: Any) -> Any:
    """A second fence: no value should hold a key, but a path is the caller's, who may have put one there. A traceback
    may quote a request, so none is written, whoever asks for it."""
    event.pop("exc_info", None)
    for name, value in event.items():
        if isinstance(value, str) and ("lume_" in value or "sk-" in value):
            event[name] = masked(value)
    return event


def masked(text: str) -> str:
    """The text without the secret part of keys in it."""
    return _SECRET.sub(r"\1\2…", text)


def _call_for_a_person(_logger: WrappedLogger, _method: str, event: Any) -> Any:
    """Who, what, how it ended and what it cost, before the call's id, which is long and seldom needed."""
    if event.get("event") != "call":
        return event
    call_id = event.pop("call", None)
    first = {name: event.pop(name) for name in CALL_FIRST if name in event}
    return {**first, **event, "call": call_id}


def _json(_logger: WrappedLogger, _method: str, event: Any) -> str:
    head = {name: event.pop(name) for name in ("time_ms", "level", "event")}
    try:
        return msgspec.json.encode(head | event, enc_hook=str).decode()
    except UnicodeEncodeError:  # half a surrogate pair, from a path or an argument that was not UTF-8
        return json.dumps(head | event, default=str)


class Bridge(logging.Handler):
    """Carries standard library records over as logger name and exception type, without their text; of one place at most
    one a second, since a loop that finds no descriptor left says so thousands of times."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._said: dict[tuple[str, str], int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record's source; the message and the traceback stay behind, they may quote a request."""
        place, second = f"{record.module}:{record.lineno}", int(record.created)
        if self._said.get((record.name, place)) == second:
            return
        if len(self._said) >= REMEMBERED_PLACES:
            self._said.clear()
        self._said[record.name, place] = second
        kind = record.exc_info[0] if record.exc_info else None
        self._log.warning("library", logger=record.name, error=kind.__name__ if kind else "", place=place)


def bridge_library_loggers(log: FilteringBoundLogger) -> Callable[[], None]:
    """Route the root logger to `log`; returns the function that undoes it."""
    handler = Bridge(log)
    root = logging.getLogger()
    root.addHandler(handler)
    return lambda: root.removeHandler(handler)


def bug(log: FilteringBoundLogger, error: BaseException, call_id: str) -> None:
    """Log an error that nobody foresaw: its type and where it came from, not its text, which may quote a request."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    log.error("bug", call=call_id, error=type(error).__name__, at=places[-8:])
