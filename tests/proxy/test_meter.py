"""The meter: reads any answer, holds its end back, raises nothing and keeps little."""

from __future__ import annotations

import gzip
import random
import sys
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from lumeproxy.core.types import Usage
from lumeproxy.dialects import DIALECTS
from lumeproxy.dialects.base import Mark, Reading
from lumeproxy.proxy.meter import (
    DECODE_ADVANCE_BYTES,
    DECODE_MOST_BYTES,
    DECODE_STEP_BYTES,
    Decoder,
    JsonMeter,
    StreamMeter,
)
from tests.support import streams
from tests.support.calls import ANTHROPIC, CHAT, PATHS, RESPONSES, ask, events, whole

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

READ = {
    ANTHROPIC: Usage(input_tokens=100, output_tokens=20),
    RESPONSES: Usage(input_tokens=60, cache_read_tokens=40, output_tokens=20, reasoning_tokens=5),
    CHAT: Usage(input_tokens=60, cache_read_tokens=40, output_tokens=20, reasoning_tokens=5),
}
SAID = len("Hello there")


def stream_meter(path: str, encoding: str = "", event_bytes: int = 131_072) -> StreamMeter:
    (dialect,) = (d for d in DIALECTS if path.endswith(d.endpoints[0].path))
    reader = dialect.reader(dialect.ask(ask(path)))
    return StreamMeter(reader, dialect.terminal_markers, event_bytes=event_bytes, encoding=encoding)


def json_meter(path: str, encoding: str = "", limit_bytes: int = 1 << 20) -> JsonMeter:
    return JsonMeter(stream_meter(path).reader, limit_bytes=limit_bytes, encoding=encoding)


def feed(meter: StreamMeter, *chunks: bytes) -> Reading:
    for chunk in chunks:
        meter.feed(chunk)
    return meter.reader.reading


# --- streams -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_at_every_split_nothing_of_the_last_event_is_free_before_it_is_known(path: str, end: bytes) -> None:
    made = events(path)
    stream = b"".join(made).replace(b"\n", end)
    last = len(b"".join(made[:-1]).replace(b"\n", end))
    acts = len(stream) - 2 * len(end) + 1  # with the data line complete, a client may act
    for at in range(len(stream) + 1):
        meter = stream_meter(path)
        free = meter.feed(stream[:at])
        # Bytes of the last event may go as long as they are not enough to act on.
        assert free == at if at < acts else free in (0, last), at
        assert (meter.mark is Mark.FINAL) is (at >= acts)
        if at < acts:
            meter.feed(stream[at:])
        reading = meter.reader.reading
        assert (reading.usage, reading.output_chars, meter.mark) == (READ[path], SAID, Mark.FINAL), at


@pytest.mark.parametrize(
    ("path", "tricky"),
    [
        (ANTHROPIC, streams.event({"type": "content_block_delta", "delta": {"text": "message_stop"}})),
        (CHAT, streams.event({"choices": [{"delta": {"content": "I am [DONE]!"}}], "error": None})),
        (RESPONSES, streams.event({"type": "response.output_text.delta", "delta": "twelve chars", "error": None})),
    ],
)
def test_an_event_that_looks_like_the_last_is_counted_once(path: str, tricky: bytes) -> None:
    """Its data line is read before its blank line comes, for it might be the last one."""
    bare = tricky.rstrip(b"\n")
    for parts in ([tricky], [bare + b"\n", b"\n"], [bare, b"\r", b"\n", b"\r\n"], [bare + b"\r", b"\n\r", b"\n"]):
        meter = stream_meter(path)

        assert feed(meter, *parts).output_chars == 12, parts  # its text, once
        assert feed(meter, tricky).output_chars == 24
        assert meter.mark is Mark.NONE


def test_what_stands_behind_the_last_event_is_not_read() -> None:
    meter = stream_meter(ANTHROPIC)
    more = b"".join(events(ANTHROPIC, delta={"output_tokens": 999}))
    whole_stream = b"".join(events(ANTHROPIC))

    free = meter.feed(whole_stream + more)

    assert free == len(whole_stream) - len(events(ANTHROPIC)[-1])
    assert meter.reader.reading.usage == READ[ANTHROPIC]
    coded = stream_meter(ANTHROPIC, "gzip")
    assert (
        coded.feed(gzip.compress(whole_stream + random.Random(3).randbytes(80_000).hex().encode() + b"\n\n" + more))
        == 0
    )
    assert coded.reader.reading.usage == READ[ANTHROPIC]


def test_an_error_event_is_an_end_too() -> None:
    meter = stream_meter(ANTHROPIC)
    error = streams.event({"type": "error", "error": {"type": "overloaded_error"}}, "error")

    assert meter.feed(b": hi\n\n" + error) == len(b": hi\n\n")
    assert meter.mark is Mark.FAILED
    assert meter.learned


def test_where_the_input_is_known_or_the_end_has_come_there_is_nothing_more_to_learn() -> None:
    anthropic, chat = stream_meter(ANTHROPIC), stream_meter(CHAT)
    assert not anthropic.learned

    feed(anthropic, events(ANTHROPIC)[0])
    feed(chat, *events(CHAT, usage=None)[:-1])

    assert (anthropic.learned, chat.learned) == (True, False)
    feed(chat, b"data: [DONE]\n\n")
    assert chat.learned


@pytest.mark.parametrize("path", PATHS)
def test_at_a_clean_end_an_event_without_its_blank_line_counts(path: str) -> None:
    meter = stream_meter(path)
    stream = b"".join(events(path)).rstrip(b"\n")
    assert meter.feed(stream) == len(stream)

    meter.finish()

    assert meter.mark is Mark.FINAL
    assert meter.reader.reading.usage == READ[path]


@pytest.mark.parametrize("rest", [b"", b"data: {", b'data: {"type":"message_st', b": comment", b"\n"])
def test_at_a_clean_end_half_an_event_counts_as_nothing(rest: bytes) -> None:
    meter = stream_meter(ANTHROPIC)
    feed(meter, b"".join(events(ANTHROPIC)[:-1]) + rest)

    meter.finish()

    assert meter.mark is Mark.NONE


def test_boundaries_are_told_for_the_last_chunk() -> None:
    meter = stream_meter(CHAT)
    one = events(CHAT)[0]

    meter.feed(one[:10])
    assert (meter.boundary, meter.at_boundary) == (-1, False)
    meter.feed(one[10:] + b"data: {")
    assert (meter.boundary, meter.at_boundary) == (len(one) - 10, False)
    meter.feed(b"}\n\n")
    assert (meter.boundary, meter.at_boundary) == (3, True)
    assert (meter.can_splice, stream_meter(CHAT, "gzip").can_splice) == (True, False)


GARBAGE = {
    "nothing but line ends": b"\r\n" * 5000,
    "all bytes": bytes(range(256)) * 200,
    "no JSON": b"data: {{{\n\ndata: [1,2\n\ndata: \xff\xfe\n\n" * 500,
    "odd JSON": b'data: 7\n\ndata: null\n\ndata: []\n\ndata: {"type":7}\n\ndata: {"usage":[],"message":3}\n\n',
    "deep JSON": b"data: " + b"[" * 50_000 + b"\n\n",
    "wrong types": b'data: {"type":"message_start","message":{"model":1,"usage":{"input_tokens":{}}}}\n\n'
    b'data: {"type":"response.created","response":{"usage":{"input_tokens":"7"}}}\n\n'
    b'data: {"choices":[{"delta":[]}],"usage":{"prompt_tokens":-7}}\n\n',
    "a line without end": b"data: " + b"x" * 1_000_000,
    "BOMs": b"\xef\xbb\xbf" * 50 + b"\n\n",
    "a number of 5,000 digits": b'data: {"usage":{"input_tokens":' + b"9" * 5000 + b"}}\n\n",
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_raises_nothing_and_all_of_it_is_free(path: str, kind: str) -> None:
    data = GARBAGE[kind]
    for size in (7, 4096, len(data)):
        meter = stream_meter(path)
        parts = [data[at : at + size] for at in range(0, min(len(data), 2000 * size), size)]
        assert [meter.feed(part) for part in parts] == [len(part) for part in parts]
        meter.finish()
        assert meter.mark is Mark.NONE
        usage = meter.reader.reading.usage
        assert usage.input_tokens == usage.output_tokens == 0


def test_an_endless_event_is_not_kept() -> None:
    meter = stream_meter(CHAT)
    part = b"x" * 65_536
    meter.feed(b"data: ")
    tracemalloc.start()
    try:
        for _ in range(300):  # 20 MB
            meter.feed(part)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert meter.feed(b"\n\n" + b"".join(events(CHAT))) > 0
    assert (meter.mark, meter.reader.reading.truncated) == (Mark.FINAL, True)


# --- coded -------------------------------------------------------------------------------------------------------------

CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}


@pytest.mark.parametrize("coding", CODERS)
@pytest.mark.parametrize("size", [17, 100_000])
def test_a_coded_copy_is_decoded(coding: str, size: int) -> None:
    plain = random.Random(1).randbytes(66_000).hex().encode()
    coded = CODERS[coding](plain) * (1 if coding == "deflate" else 2)
    decoder = Decoder(coding)

    pieces = [piece for at in range(0, len(coded), size) for piece in decoder.feed(coded[at : at + size])]

    assert b"".join(pieces) == plain * (1 if coding == "deflate" else 2)
    assert max(map(len, pieces)) <= DECODE_STEP_BYTES
    assert not decoder.failed


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_all_of_a_chunk_comes_out_with_it(coding: str) -> None:
    """Also where the last step is filled to the brim, and what is left lies inside the decoder."""
    for size in (DECODE_STEP_BYTES - 1, DECODE_STEP_BYTES, DECODE_STEP_BYTES + 1, 3 * DECODE_STEP_BYTES + 200):
        plain = random.Random(2).randbytes(1000).hex().encode() * 200
        if coding == "gzip":
            coder = zlib.compressobj(wbits=31)
            flushed = coder.compress(plain[:size]) + coder.flush(zlib.Z_SYNC_FLUSH)
        else:
            packer = zstd.ZstdCompressor()
            flushed = packer.compress(plain[:size], mode=packer.FLUSH_BLOCK)

        assert b"".join(Decoder(coding).feed(flushed)) == plain[:size]


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("br", b"\x0b\x02\x80"),
        ("gzip, zstd", b"x"),
        ("gzip", b"no gzip"),
        ("deflate", b"\x00\x00\x00"),
        ("zstd", b"none"),
    ],
)
def test_what_can_not_be_decoded_fails_in_silence(coding: str, data: bytes) -> None:
    decoder = Decoder(coding)

    assert list(decoder.feed(data)) == []
    assert decoder.failed
    assert list(decoder.feed(data)) == []


def test_padding_behind_the_last_member_is_no_failure() -> None:
    decoder = Decoder("gzip")

    assert list(decoder.feed(gzip.compress(b"all") + b"\0\0\0")) == [b"all"]
    assert list(decoder.feed(b"\0")) == []
    assert not decoder.failed


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_bomb_is_not_unpacked(coding: str) -> None:
    bomb = CODERS[coding](b"\0" * 50_000_000)
    meter = json_meter(CHAT, coding)
    tracemalloc.start()
    try:
        for at in range(0, len(bomb), 5000):
            meter.feed(bomb[at : at + 5000])
        meter.finish()
        assert tracemalloc.get_traced_memory()[1] < 3_000_000  # a MiB of which is the copy that is kept
    finally:
        tracemalloc.stop()
    reading = meter.reader.reading
    assert reading.truncated
    assert reading.output_chars == len(bomb)
    assert reading.output_bytes < DECODE_ADVANCE_BYTES + (200 + 1) * len(bomb) + DECODE_STEP_BYTES


def test_an_honest_beginning_earns_no_bomb() -> None:
    bomb = gzip.compress(b"\0" * 40_000_000)
    coded = gzip.compress(random.Random(4).randbytes(500_000), 1) + bomb
    decoder = Decoder("gzip")

    decoded = sum(len(piece) for at in range(0, len(coded), 65_536) for piece in decoder.feed(coded[at : at + 65_536]))

    assert decoder.failed
    assert 500_000 < decoded <= 500_000 + DECODE_MOST_BYTES + len(bomb) * 200 < 30_000_000


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("coding", CODERS)
def test_of_a_coded_stream_the_chunk_with_the_last_event_is_held_whole(path: str, coding: str) -> None:
    coded = CODERS[coding](b"".join(events(path)))
    meter = stream_meter(path, coding)

    free = [meter.feed(coded[at : at + 1]) for at in range(len(coded))]

    assert meter.mark is Mark.FINAL
    assert free.count(0) == 1
    assert meter.reader.reading.usage == READ[path]
    assert not meter.unreadable


@pytest.mark.parametrize("coding", ["br", "gzip"])
def test_bytes_of_a_stream_that_can_not_be_read_count_as_its_output(coding: str) -> None:
    meter = stream_meter(CHAT, coding)

    assert [meter.feed(b"garbage" * 10), meter.feed(b"x" * 30)] == [70, 30]
    meter.finish()

    reading = meter.reader.reading
    assert meter.unreadable
    assert (meter.mark, reading.truncated) == (Mark.NONE, True)
    assert (reading.output_chars, reading.output_bytes) == (100, 100)


def test_a_stream_that_breaks_in_its_coding_keeps_what_was_read() -> None:
    meter = stream_meter(ANTHROPIC, "gzip")
    coder = zlib.compressobj(wbits=31)
    first = coder.compress(b"".join(events(ANTHROPIC)[:4])) + coder.flush(zlib.Z_SYNC_FLUSH)

    meter.feed(first)
    meter.feed(b"\xff" * 40)

    reading = meter.reader.reading
    assert (reading.input_reported, reading.usage.input_tokens) == (True, 100)
    assert reading.output_chars == len("Hello") + 40
    assert meter.unreadable


# --- whole answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("coding", ["", "gzip", "zstd"])
def test_a_whole_answer_is_read_at_its_end(path: str, coding: str) -> None:
    body = CODERS[coding](whole(path)) if coding else whole(path)
    meter = json_meter(path, coding)
    for at in range(0, len(body), 11):
        meter.feed(body[at : at + 11])
    assert not meter.reader.reading.input_reported

    meter.finish()
    meter.finish()

    reading = meter.reader.reading
    assert (reading.usage, reading.output_chars) == (READ[path], SAID)
    assert reading.output_bytes == len(whole(path))


@pytest.mark.parametrize(
    ("body", "coding", "complete", "counted"),
    [
        (whole(CHAT), "", False, len(whole(CHAT))),  # broke off
        (b" " * 1001, "", True, 1001),  # over the limit
        (b"\x0b\x02\x80" * 9, "br", True, 27),  # unknown coding
        (gzip.compress(b" " * 300)[:-1], "gzip", False, 300),
    ],
)
def test_a_whole_answer_that_can_not_be_read_counts_by_its_size(
    body: bytes, coding: str, complete: bool, counted: int
) -> None:
    meter = json_meter(CHAT, coding, limit_bytes=1000)
    meter.feed(body[:5])
    meter.feed(body[5:])

    meter.finish(complete=complete)

    reading = meter.reader.reading
    assert (reading.input_reported, reading.truncated, reading.output_chars) == (False, True, counted)
    assert reading.output_bytes == counted


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("coding", ["", "gzip"])
@pytest.mark.parametrize("size", [7, 1 << 20])
def test_an_event_stream_that_is_not_called_one_is_read_all_the_same(path: str, coding: str, size: int) -> None:
    stream = b"".join(events(path)).rstrip()
    body = CODERS[coding](stream) if coding else stream
    meter = json_meter(path, coding)
    for at in range(0, len(body), size):
        meter.feed(body[at : at + size])

    meter.finish()

    reading = meter.reader.reading
    assert (reading.usage, reading.output_chars) == (READ[path], SAID)
    assert reading.input_reported and reading.output_final


@pytest.mark.parametrize("path", PATHS)
def test_a_page_that_is_no_answer_counts_for_none(path: str) -> None:
    meter = json_meter(path)
    meter.feed(b"<html>\n\ndata: <b>Welcome</b>\n\n" * 9)

    meter.finish()

    reading = meter.reader.reading
    assert (reading.input_reported, reading.output_reported, reading.output_chars) == (False, False, 0)


def test_an_answer_over_the_limit_is_not_kept() -> None:
    meter = json_meter(CHAT, limit_bytes=100_000)
    part = b"x" * 65_536
    tracemalloc.start()
    try:
        for _ in range(300):
            meter.feed(bytes(part))
        assert tracemalloc.get_traced_memory()[1] < 300_000
    finally:
        tracemalloc.stop()
