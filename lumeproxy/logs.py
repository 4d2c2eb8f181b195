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
from typing import Any, TextIO, cast

import msgspec
import structlog
from structlog.typing import FilteringBoundLogger, WrappedLogger

from lumeproxy.clock import Clock

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
CALL_FIRST = ("account", "model", "status", "cost_nanousd")
# Our keys, of which the public id may stay, and those of the providers.
_SECRET = re.compile(r"(lume_(?:admin_)?[0-9A-Za-z]{8})_[0-9A-Za-z]+|\b(sk-)[0-9A-Za-z_-]{12,}")


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


class JsonLog:
    """Writes JSON lines as structlog would with processors of ours, at a quarter of its time: every call writes one."""

    def __init__(self, output: Output, clock: Clock, least: int) -> None:
        self._output = output
        self._clock = clock
        self._least = least

    def debug(self, event: str, *args: object, **facts: object) -> None:
        """See structlog's logger, also for the others."""
        self._write("debug", event, args, facts)

    def info(self, event: str, *args: object, **facts: object) -> None:
        """What happens every day."""
        self._write("info", event, args, facts)

    def warning(self, event: str, *args: object, **facts: object) -> None:
        """What somebody should look at some day."""
        self._write("warning", event, args, facts)

    def error(self, event: str, *args: object, **facts: object) -> None:
        """What somebody should look at."""
        self._write("error", event, args, facts)

    exception = critical = error

    def _write(self, level: str, event: str, args: tuple[object, ...], facts: dict[str, object]) -> None:
        if LEVELS[level] < self._least:
            return
        facts.pop("exc_info", None)  # a traceback may quote a request
        line = {"time_ms": self._clock.now_ms(), "level": level, "event": event % args if args else event, **facts}
        text = _encoded(line)
        if "lume_" in text or "sk-" in text:
            for name, value in line.items():
                if isinstance(value, str):
                    line[name] = masked(value)
            text = _encoded(line)
        self._output.msg(text)


def make(*, level: str, style: str, clock: Clock, stream: TextIO | None = None) -> FilteringBoundLogger:
    """A logger: `level` of LEVELS, `style` "auto", "console" or "json" (auto: console on a terminal)."""
    stream = sys.stderr if stream is None else stream
    console = style == "console" or (style == "auto" and stream.isatty())
    if not console:
        return cast(FilteringBoundLogger, JsonLog(Output(stream), clock, LEVELS[level]))
    logger: FilteringBoundLogger = structlog.wrap_logger(
        Output(stream),
        processors=[
            _stamp(clock),
            structlog.processors.add_log_level,
            _without_secrets,
            _call_for_a_person,
            structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=18, sort_keys=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        cache_logger_on_first_use=True,
    )
    return logger


def _stamp(clock: Clock) -> Callable[[WrappedLogger, str, Any], Any]:
    def stamp(_logger: WrappedLogger, _method: str, event: Any) -> Any:
        seconds = clock.now_ms() // 1000 % 86_400
        event["timestamp"] = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}Z"
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


def _encoded(line: dict[str, object]) -> str:
    try:
        return msgspec.json.encode(line, enc_hook=str).decode()
    except UnicodeEncodeError:  # half a surrogate pair, from a path or an argument that was not UTF-8
        return json.dumps(line, default=str)


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
