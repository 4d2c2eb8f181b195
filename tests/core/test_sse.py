"""Events from bytes: any line ends, any chunking, bounded memory."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumeproxy.core.sse import HEAD_BYTES, TAIL_BYTES, SseScanner

LIMIT = 131_072
TRICKY = (
    b"\xef\xbb\xbf: a comment\n\nevent: one\ndata: first\n\n"
    b"data: second\r\n\r\n: ping\n\nevent:x\ndata:third\rdata: more\r\rid: 7\n\ndata\n\ndata: \xff\x00\n\n\n\n"
    b'event: last\ndata: {"type": "end"}\n\n'
)
EXPECTED = [b"first", b"second", b"third\nmore", b"", b"\xff\x00", b'{"type": "end"}']


def reference(text: bytes) -> list[bytes]:
    """The specification's line-by-line reading, slow and plain."""
    text = text.removeprefix(b"\xef\xbb\xbf")
    lines = re.split(rb"\r\n|\n|\r", text)
    complete = lines[:-1]
    events: list[bytes] = []
    data: list[bytes] = []
    for line in complete:
        if not line:
            if data:
                events.append(b"\n".join(data))
            data = []
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif line == b"data":
            data.append(b"")
    return events


def feed(chunks: list[bytes], limit: int = LIMIT) -> list[bytes]:
    scanner = SseScanner(limit)
    return [event.data for chunk in chunks for event in scanner.feed(chunk)]


def test_all_line_ends_comments_and_multi_line_data_are_read():
    assert feed([TRICKY]) == EXPECTED == reference(TRICKY)


def test_every_split_point_gives_the_same_events():
    for at in range(len(TRICKY) + 1):
        assert feed([TRICKY[:at], TRICKY[at:]]) == EXPECTED, at


def test_byte_by_byte_gives_the_same_events():
    assert feed([TRICKY[i : i + 1] for i in range(len(TRICKY))]) == EXPECTED


PIECES = st.sampled_from(
    [b"data: a", b"data:b", b"event: e", b":c", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"x", b"data"]
)


@given(st.lists(PIECES, max_size=30), st.lists(st.integers(0, 200), max_size=6))
def test_any_chunking_of_anything_gives_what_the_specification_says(pieces, cuts):
    text = b"".join(pieces) + b"\n\n"
    points = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    chunks = [text[a:b] for a, b in zip(points, points[1:], strict=False)]

    assert feed(chunks) == reference(text)


def test_offsets_tell_where_events_begin_and_end_in_the_last_chunk():
    scanner = SseScanner(LIMIT)

    assert [event.data for event in scanner.feed(b"data: a\n\nda")] == [b"a"]
    assert scanner.boundary == 9
    assert not scanner.at_boundary
    (event,) = scanner.feed(b"ta: b\n\n")
    assert (event.data, event.start, event.end) == (b"b", 0, 7)
    assert (scanner.boundary, scanner.at_boundary) == (7, True)
    first, second = scanner.feed(b"data: c\n\ndata: d\n\ndata: e")
    assert (first.start, first.end, second.start, second.end) == (0, 9, 9, 18)
    assert scanner.feed(b"e") == []
    assert scanner.boundary == -1


def test_the_data_of_an_unfinished_event_is_known_once_its_line_is_complete():
    scanner = SseScanner(LIMIT)
    scanner.feed(b"event: x\ndata: [DO")
    assert scanner.pending_data() is None
    scanner.feed(b"NE]\n")
    assert scanner.pending_data() == b"[DONE]"
    scanner.feed(b"\n")
    assert scanner.pending_data() is None


@pytest.mark.parametrize("step", [1 << 20, 65_536, 1000])
def test_an_event_beyond_the_limit_is_given_by_its_head_and_tail(step):
    text = b'event: big\ndata: {"type":"big"' + b"x" * 500_000 + b'"usage"}'
    scanner = SseScanner(LIMIT)
    events = []
    whole = text + b"\n\ndata: next\n\n"
    for at in range(0, len(whole), step):
        events += scanner.feed(whole[at : at + step])
        assert len(scanner._buffer) <= LIMIT + step

    big, following = events
    assert big.oversized
    assert big.size == len(text)
    assert big.head == text[:HEAD_BYTES]
    assert big.tail == text[-TAIL_BYTES:]
    assert (following.data, following.oversized) == (b"next", False)


def test_a_hundred_megabytes_without_an_end_stay_bounded():
    scanner = SseScanner(LIMIT)
    chunk = b"y" * (1 << 20)
    for _ in range(100):
        scanner.feed(chunk)

    assert len(scanner._buffer) <= LIMIT
    assert not scanner.at_boundary


def test_a_million_single_bytes_are_read_in_linear_time():
    scanner = SseScanner(LIMIT)
    for _ in range(1_000_000 // 8):
        for byte in (b"d", b"a", b"t", b"a", b":", b"z", b"\n", b"\n"):
            scanner.feed(byte)

    assert scanner.at_boundary


@pytest.mark.parametrize(
    ("chunk", "datas"),
    [
        (b"data: x\n\n", [b"x"]),
        (b"event: e\ndata: x\n\n", [b"x"]),
        (b"data:x\ndata: y\n\n", [b"x\ny"]),
        (b"data: x\n\nevent: e\ndata: y\n\n\ndata: z\n\n", [b"x", b"y", b"z"]),
        (b": comment\n\n", None),
        (b"data: x\n", None),
        (b"data: x\n\ndata: y", None),
        (b"data: x\n\n: comment\n\n", None),
        (b"data: x\r\n\r\n", None),
        (b"data: " + b"x" * 200 + b"\n\n", None),
        (b"\n\n", None),
        (b"", None),
    ],
)
def test_a_chunk_of_whole_events_is_taken_in_at_once_and_any_other_not_at_all(chunk, datas):
    scanner, plain = SseScanner(100), SseScanner(100)
    for one in (scanner, plain):
        one.feed(b"data: first\n\n")

    assert scanner.plain(chunk) == datas
    if datas is None:
        found = scanner.feed(chunk)
        assert found == plain.feed(chunk)
    else:
        assert datas == [event.data for event in plain.feed(chunk)]
    assert (scanner.boundary, scanner.at_boundary) == (plain.boundary, plain.at_boundary)


@given(st.lists(st.sampled_from([b"event: a\n", b"data: x\n", b"data:\n", b"data: y", b"\n", b"\n\n", b": c\n", b"\r\n",
                                 b"id: 1\n", b"event: " + b"e" * 90, b"data: " + b"z" * 60])))  # fmt: skip
def test_whatever_is_taken_in_at_once_is_what_was_found_event_by_event(pieces):
    chunk = b"".join(pieces)
    scanner, plain = SseScanner(100), SseScanner(100)
    for one in (scanner, plain):
        one.feed(b"data: first\n\n")

    datas = scanner.plain(chunk)

    if datas is not None:
        found = plain.feed(chunk)
        assert datas == [event.data for event in found if not event.oversized]
        assert len(datas) == len(found)
        assert (scanner.boundary, scanner.at_boundary) == (plain.boundary, plain.at_boundary)


def test_an_event_that_has_begun_is_not_mistaken_for_a_whole_one():
    scanner = SseScanner(100)
    assert scanner.plain(b"data: at the start, where a byte order mark may stand\n\n") is None
    scanner.feed(b"data: a\n\ndata: b")

    assert scanner.plain(b"data: c\n\n") is None
    assert [event.data for event in scanner.feed(b"data: c\n\n")] == [b"bdata: c"]
