"""Server-sent events: bytes in, events out, bounded memory. No socket, no JSON.

WHATWG HTML, "Server-sent events" (2026-11): lines end in LF, CRLF or CR, events in a blank line, one byte order mark may
stand at the start. Written for a tap on a passing stream: it tells where in the last chunk each event began and ended, so
that the caller can hold bytes back or stop between two events.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Two line ends in a row, of any kind. A CR alone is a line end, a CR before an LF is half of one.
BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_BOM = b"\xef\xbb\xbf"
HEAD_BYTES = 4_096
TAIL_BYTES = 65_536


@dataclass(slots=True)
class Event:
    """One event with data.

    `data`: its data lines joined by LF. `start` and `end`: offsets in the chunk of the last `feed`; an event that began in
    an earlier chunk starts at 0. An event above the scanner's limit is `oversized`: instead of data it has the first and
    the last bytes of its text, and the text's `size`.
    """

    data: bytes
    start: int
    end: int
    oversized: bool = False
    head: bytes = b""
    tail: bytes = b""
    size: int = 0


class SseScanner:
    """Feeds on chunks of any size; keeps at most `limit_bytes` of an unfinished event."""

    __slots__ = ("_at_start", "_buffer", "_crlf", "_dropped", "_head", "_limit", "_over", "_searched", "boundary")

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._buffer = bytearray()
        self._searched = 0  # up to here the buffer is known to hold no blank line
        self._crlf = False
        self._at_start = True
        self._over = False  # inside an event that is too large
        self._dropped = 0  # bytes of it that are not kept
        self._head = b""
        self.boundary = -1

    @property
    def at_boundary(self) -> bool:
        """Whether all bytes fed so far make whole events."""
        return not self._over and not self._buffer.strip(b"\r\n")

    def feed(self, chunk: bytes) -> list[Event]:
        """Take a chunk; the events that it completes. `boundary` is then the offset after the last of them, or -1."""
        self.boundary = -1
        if not self._crlf and b"\r" in chunk:
            self._crlf = True
        before = len(self._buffer)
        if before:
            self._buffer += chunk
            text: bytes | bytearray = self._buffer
            searched = max(0, self._searched - 3)
        else:
            text, searched = chunk, 0
        events: list[Event] = []
        begin = 0
        while True:
            found = self._blank_line(text, searched)
            if found is None:
                break
            end_of_text, searched = found
            self.boundary = searched - before
            event = self._event(bytes(text[begin:end_of_text]), max(0, begin - before), searched - before)
            if event is not None:
                events.append(event)
            begin = searched
        self._keep(text, begin, before)
        return events

    def plain(self, chunk: bytes) -> list[bytes] | None:
        """The data of the events of a chunk that is nothing but whole events with data, as nearly all are: taken in at a
        third of the cost. None for any other, which is not taken in."""
        if self._buffer or self._crlf or self._at_start or self._over:
            return None
        if not chunk.endswith(b"\n\n") or chunk.endswith(b"\n\n\n") or b"\r" in chunk:
            return None
        found = []
        for text in chunk[:-2].split(b"\n\n"):
            # Nearly all have a name and one line of data.
            at = text.find(b"\ndata: ") if text.startswith(b"event: ") else -1
            if at > 0 and text.find(b"\n", 7) == at and text.find(b"\n", at + 1) < 0:
                data: bytes | None = text[at + 7 :]
            else:
                data = _data(text)
            if data is None or len(text) > self._limit:
                return None
            found.append(data)
        self.boundary = len(chunk)
        return found

    def pending_data(self) -> bytes | None:
        """The data of the unfinished event if its last line is complete, else None."""
        buffer = self._buffer
        if not buffer or self._over or buffer[-1] not in b"\r\n":
            return None
        return _data(bytes(buffer))

    def _blank_line(self, text: bytes | bytearray, start: int) -> tuple[int, int] | None:
        """The end of the event's text and of the blank line after it."""
        if not self._crlf:
            at = text.find(b"\n\n", start)
            return None if at < 0 else (at, at + 2)
        match = BLANK_LINE.search(text, start)
        return None if match is None else (match.start(), match.end())

    def _event(self, text: bytes, start: int, end: int) -> Event | None:
        if self._at_start:
            self._at_start = False
            text = text.removeprefix(_BOM)
        if self._over:
            size, self._over, self._dropped = self._dropped + len(text), False, 0
            return Event(b"", start, end, oversized=True, head=self._head, tail=text[-TAIL_BYTES:], size=size)
        if (size := len(text)) > self._limit:
            return Event(b"", start, end, oversized=True, head=text[:HEAD_BYTES], tail=text[-TAIL_BYTES:], size=size)
        data = _data(text)
        return None if data is None else Event(data, start, end)

    def _keep(self, text: bytes | bytearray, begin: int, before: int) -> None:
        """Hold on to what is left of an unfinished event, cut to head and tail when it has grown too large."""
        if before:
            del self._buffer[:begin]
        elif begin < len(text):
            self._buffer += text[begin:]
        if len(self._buffer) > self._limit:
            if not self._over:
                self._over = True
                self._head = bytes(self._buffer[:HEAD_BYTES])
            self._drop()
        elif self._over and len(self._buffer) > 2 * TAIL_BYTES:
            self._drop()
        self._searched = len(self._buffer)

    def _drop(self) -> None:
        self._dropped += len(self._buffer) - TAIL_BYTES
        del self._buffer[:-TAIL_BYTES]


def _data(text: bytes) -> bytes | None:
    """The joined data lines of an event's text, None when it has none."""
    if text.startswith(b"event: "):
        line_end = text.find(b"\n")
        rest = text[line_end + 1 :] if line_end > 0 else b""
    else:
        rest = text
    if rest.startswith(b"data: ") and b"\n" not in rest and b"\r" not in text:
        return rest[6:]
    lines = []
    for line in text.splitlines():
        if line.startswith(b"data:"):
            value = line[5:]
            lines.append(value[1:] if value.startswith(b" ") else value)
        elif line == b"data":
            lines.append(b"")
    return b"\n".join(lines) if lines else None
