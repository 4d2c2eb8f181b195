"""Logs: JSON lines for machines, a short line for people, never a key and never another library's words."""

from __future__ import annotations

import io
import json
import logging

import pytest

from lumeproxy import logs
from tests.support.clock import START_MS, FakeClock

KEY = "lume_01234567_ABCDEFGHIJKLMNOPQRSTUVWXYZ012345abcdef"
PROVIDERS = "sk-ant-api03-AAAAAAAAAAAAAAAAAAAA"


class Terminal(io.StringIO):
    """A stream that a person reads."""

    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(stream, clock):
    return logs.make(level="info", style="json", clock=clock, stream=stream)


def test_a_line_is_one_json_object_with_time_level_and_event_first(stream, log):
    log.info("started", port=1, names=["a", "b"], where=None)
    log.warning("odd\nevent", text="two\nlines")

    assert stream.getvalue().count("\n") == 2
    first, second = lines(stream)
    assert list(first) == ["time_ms", "level", "event", "port", "names", "where"]
    assert first == {
        "time_ms": START_MS,
        "level": "info",
        "event": "started",
        "port": 1,
        "names": ["a", "b"],
        "where": None,
    }
    assert (second["level"], second["event"], second["text"]) == ("warning", "odd\nevent", "two\nlines")


@pytest.mark.parametrize("value", [2**80, object, {1: 2}, "\udcff", b"\xff"])
def test_any_value_makes_a_line(stream, log, value):
    log.info("odd", value=value)

    assert lines(stream)[0]["event"] == "odd"


@pytest.mark.parametrize(
    ("level", "written"),
    [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)],
)
def test_lines_below_the_level_are_left_out(stream, clock, level, written):
    log = logs.make(level=level, style="json", clock=clock, stream=stream)

    for write in (log.debug, log.info, log.warning, log.error):
        write("x")

    assert len(lines(stream)) == written


def test_a_person_reads_time_level_event_and_values_on_one_line(stream, clock):
    log = logs.make(level="info", style="console", clock=clock, stream=stream)

    log.info("refused", path="/a\n12:00:00Z forged\x1b[2J", code="x y")

    text = stream.getvalue()
    assert text.startswith("11:06:40Z [info     ] refused            path='/a\\n12:00:00Z forged\\x1b[2J' code='x y'")
    assert text.count("\n") == 1


def test_a_person_reads_of_a_call_who_what_and_how_much_first_and_its_id_last(stream, clock):
    values = {"call": "call_1", "account": "ann", "upstream": "echo", "model": "m", "status": 200, "cost_nanousd": 7}
    console = logs.make(level="info", style="console", clock=clock, stream=stream)

    console.info("call", **values)
    console.info("other", call="call_2", account="ann")
    logs.make(level="info", style="json", clock=clock, stream=stream).info("call", **values)

    first, second, third = stream.getvalue().splitlines()
    assert first.endswith("account=ann model=m status=200 cost_nanousd=7 upstream=echo call=call_1")
    assert second.endswith("call=call_2 account=ann")
    assert list(json.loads(third))[3:] == list(values)


def test_the_style_follows_the_stream_unless_it_is_set(stream, clock):
    for style, target, is_json in (
        ("auto", stream, True),
        ("auto", Terminal(), False),
        ("json", Terminal(), True),
        ("console", io.StringIO(), False),
    ):
        logs.make(level="info", style=style, clock=clock, stream=target).info("x")
        assert target.getvalue().startswith("{") is is_json


def test_standard_error_is_where_it_goes(capsys, clock):
    logs.make(level="info", style="json", clock=clock).info("x")

    out, err = capsys.readouterr()
    assert (out, json.loads(err)["event"]) == ("", "x")


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_key_that_came_into_a_value_does_not_reach_the_line(clock, stream, style):
    log = logs.make(level="info", style=style, clock=clock, stream=stream)

    log.info("refused", path=f"/v1/{KEY}/x/{PROVIDERS}", other=KEY, model="task-lume_and-disk-usage-of-a-name")

    text = stream.getvalue()
    assert KEY[14:] not in text
    assert "AAAA" not in text
    assert "/v1/lume_01234567…/x/sk-…" in text
    assert "task-lume_and-disk-usage-of-a-name" in text


def test_of_a_key_in_a_sentence_the_id_stays():
    assert logs.masked(f"There is no account {KEY}.") == "There is no account lume_01234567…."
    assert logs.masked("There is no account lume_x.") == "There is no account lume_x."
    assert logs.masked(f"lume_admin_01234567_{KEY[14:]}!") == "lume_admin_01234567…!"


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_traceback_is_never_written(clock, stream, style):
    log = logs.make(level="info", style=style, clock=clock, stream=stream)
    try:
        raise ValueError("what the user said")
    except ValueError:
        log.exception("failed")

    assert "what the user said" not in stream.getvalue()
    assert "failed" in stream.getvalue()


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device"), ValueError("closed")])
def test_a_stream_that_takes_nothing_stops_nobody(clock, error):
    class Broken(io.StringIO):
        tried = 0

        def flush(self) -> None:
            Broken.tried += 1
            raise error

    logs.make(level="info", style="json", clock=clock, stream=Broken()).info("x")

    assert Broken.tried == 1


def test_a_librarys_record_is_carried_over_without_its_words(stream, log, caplog):
    undo = logs.bridge_library_loggers(log)
    library = logging.getLogger("aiohttp.server")
    caplog.set_level(logging.DEBUG, "aiohttp.server")
    try:
        try:
            raise RuntimeError("Authorization: Bearer secret")
        except RuntimeError:
            library.exception("Error handling %s", "the secret request", extra={"secret": "x"})
        library.warning("the secret again")
        library.info("not worth a line")
    finally:
        undo()
    library.warning("after the end")

    raised, plain = lines(stream)
    assert "secret" not in stream.getvalue()
    assert raised["event"] == plain["event"] == "library"
    assert (raised["logger"], raised["error"], plain["error"]) == ("aiohttp.server", "RuntimeError", "")
    assert str(raised["place"]).startswith("test_logs:")


def test_a_bug_is_told_by_kind_and_place_not_by_its_words(stream, log):
    def deep(n: int) -> None:
        if n:
            deep(n - 1)
        raise KeyError("what the user said")

    try:
        deep(20)
    except KeyError as error:
        logs.bug(log, error, "call_1")

    (line,) = lines(stream)
    assert (line["level"], line["event"], line["call"], line["error"]) == ("error", "bug", "call_1", "KeyError")
    places = line["at"]
    assert isinstance(places, list) and len(places) == 8
    assert all(place.startswith("test_logs.py:") and place.endswith(" deep") for place in places)
    assert "user" not in stream.getvalue()


def test_the_time_is_read_for_each_line(stream, log, clock: FakeClock):
    log.info("a")
    clock.advance(5)
    log.info("b")

    assert [line["time_ms"] for line in lines(stream)] == [START_MS, START_MS + 5]


def test_a_place_that_logs_without_end_is_heard_once_a_second():
    heard: list[str] = []

    class Log:
        def warning(self, event: str, **facts: str) -> None:
            heard.append(facts["place"])

    bridge = logs.Bridge(Log())  # type: ignore[arg-type]
    for created in (1.0, 1.1, 1.9, 2.0, 2.5):
        for line in (7, 8):
            record = logging.LogRecord("asyncio", logging.ERROR, "x.py", line, "no descriptors", None, None)
            record.created = created
            bridge.emit(record)

    assert heard == ["x:7", "x:8"] * 2
