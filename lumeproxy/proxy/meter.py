"""Reads along while an answer passes: scanner, reader and, for coded answers, a decoder of a copy.

Fed before a chunk is written, so that the last event can be held back until the charge is committed (design 4.8). Never
awaits, never raises, keeps bounded memory: what it cannot read leaves the reading incomplete and the charge an estimate.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from lumeproxy.core.sse import SseScanner
from lumeproxy.dialects.base import Mark, Reader

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# A coded chunk is decoded in steps of at most this size, so that a bomb passes through in slices.
DECODE_STEP_BYTES = 65_536
# What is coded may not decode to more than this many times its size; beyond it is a bomb and reading stops. A block of
# zstd (128 KiB) comes out with its last byte, so something is allowed in advance, and what was not used up is kept.
DECODE_RATIO = 200
DECODE_ADVANCE_BYTES = 262_144
DECODE_MOST_BYTES = 16 << 20


class Decoder:
    """Decodes a copy of a coded answer in bounded steps. Unknown codings decode to nothing and set `failed`.

    An answer may be coded in several members or frames, one behind the other.
    """

    def __init__(self, coding: str) -> None:
        self.failed = False
        self._make: Callable[[], _Decompressor] | None = None
        if coding in ("gzip", "x-gzip"):
            self._make = lambda: _Zlib(31)
        elif coding == "deflate":
            self._make = lambda: _Zlib(15)
        elif coding == "zstd":
            self._make = _Zstd
        else:
            self.failed = True
        self._current: _Decompressor | None = None if self._make is None else self._make()
        self._allowed = DECODE_ADVANCE_BYTES

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The decoded pieces of a chunk, each at most DECODE_STEP_BYTES."""
        self._allowed = min(self._allowed + len(chunk) * DECODE_RATIO, DECODE_MOST_BYTES)
        while not self.failed:
            try:
                piece, chunk = self._step(chunk)
            except (zlib.error, zstd.ZstdError, EOFError):
                self.failed = True
                return
            if not piece and not chunk:
                return
            self._allowed -= len(piece)
            self.failed = self._allowed < 0
            if piece:
                yield piece

    def _step(self, chunk: bytes) -> tuple[bytes, bytes]:
        """One step: what was decoded, and what of the chunk is left; both empty when there is no more to be had."""
        assert self._make is not None and self._current is not None
        if self._current.eof:
            if not chunk.strip(b"\0"):  # padding behind the last member
                return b"", b""
            self._current = self._make()
        return self._current.step(chunk)


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    def step(self, chunk: bytes) -> tuple[bytes, bytes]: ...


class _Zlib:
    def __init__(self, window_bits: int) -> None:
        self._inflate = zlib.decompressobj(window_bits)

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    def step(self, chunk: bytes) -> tuple[bytes, bytes]:
        piece = self._inflate.decompress(chunk, DECODE_STEP_BYTES)
        return piece, self._inflate.unconsumed_tail or self._inflate.unused_data


class _Zstd:
    def __init__(self) -> None:
        self._frame = zstd.ZstdDecompressor()

    @property
    def eof(self) -> bool:
        return self._frame.eof

    def step(self, chunk: bytes) -> tuple[bytes, bytes]:
        # What does not fit into a step is kept inside, and comes with the next one.
        piece = self._frame.decompress(chunk, DECODE_STEP_BYTES)
        return piece, self._frame.unused_data


class StreamMeter:
    """The meter of one event stream.

    `mark` is FINAL or FAILED once the dialect's last event, or an error event, has been seen.
    """

    __slots__ = ("_ahead", "_decoder", "_markers", "_scanner", "mark", "reader")

    def __init__(self, reader: Reader, markers: tuple[bytes, ...], *, event_bytes: int, encoding: str) -> None:
        self.reader = reader
        self.mark = Mark.NONE
        self._markers = markers
        self._scanner = SseScanner(event_bytes)
        self._decoder = Decoder(encoding) if encoding else None
        self._ahead: bytes | None = None  # the unfinished event's data that the reader has been given already

    @property
    def can_splice(self) -> bool:
        """Whether our own events can be put into this stream: not into a coded one."""
        return self._decoder is None

    @property
    def unreadable(self) -> bool:
        """Whether some of the stream could not be decoded, so that its last event may have passed unseen."""
        return self._decoder is not None and self._decoder.failed

    @property
    def at_boundary(self) -> bool:
        """Whether everything fed so far ends exactly at the end of an event."""
        return self._scanner.at_boundary

    @property
    def boundary(self) -> int:
        """Offset in the last fed chunk just after its last complete event, -1 when none ended in it."""
        return self._scanner.boundary

    @property
    def learned(self) -> bool:
        """Whether reading on would teach nothing that a charge needs: the input is known, or the end has come."""
        return self.mark is not Mark.NONE or self.reader.reading.input_reported

    def feed(self, chunk: bytes) -> int:
        """Take a chunk; returns how many of its bytes may go to the client now.

        All of them, but in the chunk that completes the last event: there the bytes from that event on are held until
        the charge is committed (of a coded chunk, all of it, for its events have no place of their own).
        """
        if self._decoder is None:
            return self._feed_plain(chunk)
        seen = self.mark
        for piece in self._decoder.feed(chunk):
            if self.mark is seen:
                self._feed_plain(piece)
        if self._decoder.failed:
            self.reader.reading.output_bytes += len(chunk)
            _count_unread(self.reader, len(chunk))
        return 0 if self.mark is not seen else len(chunk)

    def finish(self) -> None:
        """The stream has come to a clean end: what stands there without a blank line behind it counts as an event."""
        if self.mark is Mark.NONE and not self.at_boundary:
            self._feed_plain(b"\n\n")

    def _feed_plain(self, chunk: bytes) -> int:
        reader = self.reader
        reader.reading.output_bytes += len(chunk)
        plain = self._scanner.plain(chunk)
        if plain is not None:
            for number, data in enumerate(plain):
                mark = reader.event(data)
                if mark is not Mark.NONE:
                    self.mark = mark
                    return _begin(chunk, number)
            return len(chunk)
        for event in self._scanner.feed(chunk):
            if self._ahead is not None:
                ahead, self._ahead = self._ahead, None
                if ahead == event.data:
                    continue
            mark = reader.oversized(event.head, event.tail, event.size) if event.oversized else reader.event(event.data)
            if mark is not Mark.NONE:
                self.mark = mark
                return event.start  # what comes behind the end is no part of the answer
        return len(chunk) if self._scanner.at_boundary else self._feed_unterminated(len(chunk))

    def _feed_unterminated(self, size: int) -> int:
        """A last event whose data line is complete but whose blank line is still to come counts already: a client
        may act on the line alone. It is given to the reader once, though it be met again with its blank line."""
        data = self._scanner.pending_data()
        if data is not None and data != self._ahead and any(marker in data for marker in self._markers):
            self._ahead = data
            mark = self.reader.event(data)
            if mark is not Mark.NONE:
                self.mark = mark
                return 0
        return size


def _begin(chunk: bytes, number: int) -> int:
    """Where the event of that number begins, in a chunk of whole events whose lines end in LF."""
    at = 0
    for _ in range(number):
        at = chunk.index(b"\n\n", at) + 2
    return at


class JsonMeter:
    """The meter of an answer that is one JSON document: keeps a copy up to `limit_bytes`, reads it at the end."""

    learned = False  # before its end nothing is known

    def __init__(self, reader: Reader, *, limit_bytes: int, encoding: str) -> None:
        self.reader = reader
        self._limit_bytes = limit_bytes
        self._decoder = Decoder(encoding) if encoding else None
        self._pieces: list[bytes] = []
        self._size = 0
        self._coded_size = 0
        self._finished = False

    def feed(self, chunk: bytes) -> None:
        """Take a chunk as it came from the upstream."""
        self._coded_size += len(chunk)
        for piece in (chunk,) if self._decoder is None else self._decoder.feed(chunk):
            self.reader.reading.output_bytes += len(piece)
            self._size += len(piece)
            if self._size <= self._limit_bytes:
                self._pieces.append(piece)

    def finish(self, *, complete: bool = True) -> None:
        """Read the whole document. One that broke off, over the limit, or in an unknown coding stays unread, and is
        estimated by its size."""
        if self._finished:
            return
        self._finished = True
        if self._decoder is not None and self._decoder.failed:
            self.reader.reading.output_bytes += self._coded_size
            _count_unread(self.reader, self._coded_size)
        elif not complete or self._size > self._limit_bytes:
            _count_unread(self.reader, self._size)
        else:
            self.reader.whole(self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces))
            reading = self.reader.reading
            if reading.truncated and not (reading.input_reported or reading.output_chars):
                self._read_events()
        self._pieces.clear()

    def _read_events(self) -> None:
        """What is no JSON may be an event stream under another name, as some servers send it: their clients read it all the
        same, so it is an answer. Where it is none either, nothing is found."""
        scanner = SseScanner(self._limit_bytes)
        for piece in (*self._pieces, b"\n\n"):
            for event in scanner.feed(piece):
                if self.reader.event(event.data) is not Mark.NONE:
                    return


def _count_unread(reader: Reader, size: int) -> None:
    """Bytes that can't be read are an answer all the same: each counts as a character of it. For coded events that is
    about right, since what surrounds their text shrinks to nothing."""
    reading = reader.reading
    reading.truncated = True
    reading.output_chars += size
