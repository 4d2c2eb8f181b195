"""Reads along while an answer passes: scanner, reader and, for coded answers, a decoder of a copy.

Fed before a chunk is written, so that the last event can be held back until the charge is committed (design 4.8). Never
awaits, never raises, keeps bounded memory: what it cannot read leaves the reading incomplete and the charge an estimate.
"""

from __future__ import annotations

import sys
import zlib
from typing import Protocol

from lumeproxy.core.sse import SseScanner
from lumeproxy.dialects.base import Mark, Reader

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# A coded chunk is decoded in steps of at most this size, so that a bomb passes through in slices.
DECODE_STEP_BYTES = 65_536
# A single coded chunk may not decode to more than this many times itself; beyond it is a bomb and reading stops.
DECODE_RATIO = 200


class _Decoder(Protocol):
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class Decoder:
    """Decodes a copy of a coded answer in bounded steps. Unknown codings decode to nothing and set `failed`."""

    def __init__(self, coding: str) -> None:
        self.failed = False
        self._zlib = None
        self._zstd = None
        if coding in ("gzip", "x-gzip", "deflate"):
            self._zlib = zlib.decompressobj(15 if coding == "deflate" else 31)
        elif coding == "zstd":
            self._zstd = zstd.ZstdDecompressor()
        else:
            self.failed = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """The decoded pieces of a chunk, each at most DECODE_STEP_BYTES."""
        if self.failed:
            return []
        pieces: list[bytes] = []
        allowed = DECODE_STEP_BYTES + len(chunk) * DECODE_RATIO
        try:
            if self._zlib is not None:
                rest = chunk
                while rest and not self._zlib.eof and allowed > 0:
                    pieces.append(self._zlib.decompress(rest, DECODE_STEP_BYTES))
                    allowed -= len(pieces[-1])
                    rest = self._zlib.unconsumed_tail
            elif self._zstd is not None and not self._zstd.eof:
                pieces.append(self._zstd.decompress(chunk, DECODE_STEP_BYTES))
                while not self._zstd.needs_input and not self._zstd.eof and allowed > 0:
                    pieces.append(self._zstd.decompress(b"", DECODE_STEP_BYTES))
                    allowed -= len(pieces[-1])
        except (zlib.error, zstd.ZstdError, EOFError):
            self.failed = True
        if allowed <= 0:
            self.failed = True
        return pieces


class StreamMeter:
    """The meter of one event stream.

    `mark` is FINAL or FAILED once the dialect's last event, or an error event, has been seen.
    """

    __slots__ = ("_decoder", "_markers", "_scanner", "mark", "reader")

    def __init__(self, reader: Reader, markers: tuple[bytes, ...], *, event_bytes: int, encoding: str) -> None:
        self.reader = reader
        self.mark = Mark.NONE
        self._markers = markers
        self._scanner = SseScanner(event_bytes)
        self._decoder = Decoder(encoding) if encoding else None

    @property
    def can_splice(self) -> bool:
        """Whether our own events can be put into this stream: not into a coded one."""
        return self._decoder is None

    @property
    def at_boundary(self) -> bool:
        """Whether everything fed so far ends exactly at the end of an event."""
        return self._scanner.at_boundary

    @property
    def boundary(self) -> int:
        """Offset in the last fed chunk just after its last complete event, -1 when none ended in it."""
        return self._scanner.boundary

    def feed(self, chunk: bytes) -> int:
        """Take a chunk; returns how many of its bytes may go to the client now.

        All of them, but in the chunk that completes the last event: there the bytes from that event on are held until
        the charge is committed (of a coded chunk, all of it, for its events have no place of their own).
        """
        if self._decoder is None:
            return self._feed_plain(chunk)
        seen = self.mark
        for piece in self._decoder.feed(chunk):
            self._feed_plain(piece)
        if self._decoder.failed:
            self.reader.reading.truncated = True
        return 0 if self.mark is not seen else len(chunk)

    def _feed_plain(self, chunk: bytes) -> int:
        free = len(chunk)
        reader = self.reader
        reader.reading.output_bytes += free
        for event in self._scanner.feed(chunk):
            mark = reader.oversized(event.head, event.tail) if event.oversized else reader.event(event.data)
            if mark is not Mark.NONE and self.mark is Mark.NONE:
                self.mark = mark
                free = event.start
        if self.mark is Mark.NONE and not self._scanner.at_boundary:
            free = min(free, self._feed_unterminated(len(chunk)))
        return free

    def _feed_unterminated(self, size: int) -> int:
        """A last event whose data line is complete but whose blank line is still to come counts already: a client
        may act on the line alone."""
        data = self._scanner.pending_data()
        if data is not None and any(marker in data for marker in self._markers):
            mark = self.reader.event(data)
            if mark is not Mark.NONE:
                self.mark = mark
                return 0
        return size


class JsonMeter:
    """The meter of an answer that is one JSON document: keeps a copy up to `limit_bytes`, reads it at the end."""

    def __init__(self, reader: Reader, *, limit_bytes: int, encoding: str) -> None:
        self.reader = reader
        self._limit_bytes = limit_bytes
        self._decoder = Decoder(encoding) if encoding else None
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> None:
        """Take a chunk as it came from the upstream."""
        for piece in (chunk,) if self._decoder is None else self._decoder.feed(chunk):
            self.reader.reading.output_bytes += len(piece)
            if self._size <= self._limit_bytes:
                self._size += len(piece)
                self._pieces.append(piece)

    def finish(self) -> None:
        """Read the whole document; an answer over the limit, or in an unknown coding, stays unread and is estimated."""
        if self._size > self._limit_bytes or (self._decoder is not None and self._decoder.failed):
            self.reader.reading.truncated = True
            return
        self.reader.whole(self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces))
        self._pieces.clear()
