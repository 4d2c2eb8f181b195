"""Tables, amounts, times and what is read from the command line."""

from __future__ import annotations

import json
import sys
import time

import click
import pytest

from lumeproxy.cli.output import (
    MAX_DURATION_MS,
    Amount,
    Duration,
    KeyId,
    NewName,
    Port,
    Since,
    Text,
    amounts,
    count,
    duration_ms,
    emit_json,
    plural,
    say_secret,
    short_count,
    since_ms,
    table,
    when,
)

DAY_MS = 86_400_000


@pytest.fixture
def kathmandu(monkeypatch):
    """A zone that is five hours and three quarters ahead."""
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_columns_stand_under_their_names_and_figures_to_the_right():
    assert table(("name", "n"), [("a", "1,000"), ("long", "7")], right=("n",)) == (
        "name      n\na     1,000\nlong      7"
    )


def test_a_table_without_rows_is_its_head():
    assert table(("a", "bb"), []) == "a  bb"


def test_flexible_columns_give_way_first_the_widest_most():
    row = ("x" * 60, "i" * 40, "y" * 20, "1" * 10)

    first, second = table(("note", "id", "why", "n"), [row], right=("n",), flexible=("note", "why")).splitlines()

    assert len(second) == 100
    assert second == "x" * 23 + "…  " + "i" * 40 + "  " + "y" * 20 + "  " + "1" * 10
    assert first.startswith("note  ")


def test_other_text_gives_way_when_that_is_not_enough_figures_never():
    row = ("x" * 60, "i" * 90, "1" * 30)

    line = table(("note", "id", "n"), [row], right=("n",), flexible=("note",)).splitlines()[1]

    assert line == "x" * 5 + "…  " + "i" * 59 + "…  " + "1" * 30
    assert len(table(("note", "n"), [("x" * 60, "1" * 95)], right=("n",)).splitlines()[1]) == 6 + 2 + 95


def test_cells_of_odd_characters_neither_break_nor_shift_the_table():
    lines = table(("a", "b"), [("漢字", "x"), ("e\u0301", "x"), ("\x1b[2J\n", "x"), ("abcdef", "x")]).splitlines()

    assert lines[1:] == ["漢字    x", "e\u0301       x", "?[2J?   x", "abcdef  x"]
    assert table(("a",), [("漢" * 60,)]).splitlines()[1] == "漢" * 49 + "…"


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        ([], []),
        ([10**9], ["$1.000000"]),
        ([10**9, 123_456_000], ["$1.000000", "$0.123456"]),
        ([-5 * 10**9, 2_500_000_000], ["-$5.000000", "$2.500000"]),
        ([10**9, 12], ["$1.000000", "$0.000000012"]),
    ],
)
def test_amounts_below_each_other_have_six_decimals(column, shown):
    assert amounts(column) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (999_999, "999,999"),
        (1_000_000, "1M"),
        (1_234_567, "1.23M"),
        (12_345_678, "12.3M"),
        (999_499_999, "999M"),
        (1_500_000_000, "1,500M"),
    ],
)
def test_a_short_count_has_at_most_seven_characters(number, shown):
    assert short_count(number) == shown
    assert len(shown) <= 7


def test_counts_are_read_at_a_glance():
    assert count(1_234_567) == "1,234,567"
    assert [plural(n, "call") for n in (0, 1, 1000)] == ["0 calls", "1 call", "1,000 calls"]


def test_times_are_local(kathmandu):
    assert when(1_795_000_000_000) == "2026-11-18 16:51"
    assert when(None) == "-"
    assert when(10**18) == "never"


def test_a_period_starts_so_long_ago_or_on_a_local_day(kathmandu):
    now_ms = 1_795_000_000_000

    assert since_ms("7d", now_ms) == now_ms - 7 * DAY_MS
    assert since_ms("1970-01-02", now_ms) == DAY_MS - (5 * 60 + 30) * 60_000  # Nepal's clock of that year
    assert since_ms("2026-11-18T16:51:40+05:45", now_ms) == 1_795_000_000_000
    for bad in ("", "yesterday", "2026-13-01", "0001-01-01", "5300w", "-7d"):
        with pytest.raises(ValueError, match=r"no period|longer"):
            since_ms(bad, now_ms)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0s", 0), ("90m", 90 * 60_000), ("12h", 12 * 3_600_000), (" 30D ", 30 * DAY_MS), ("2w", 14 * DAY_MS)],
)
def test_durations_are_a_number_and_a_unit(text, expected):
    assert duration_ms(text) == expected


@pytest.mark.parametrize("text", ["", "7", "d", "1.5d", "-1d", "7 d", "7y", "٣d", "99999999999d"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="no duration"):
        duration_ms(text)


def test_no_duration_is_longer_than_a_century():
    assert duration_ms("5228w") <= MAX_DURATION_MS
    with pytest.raises(ValueError, match="longer than 100 years"):
        duration_ms("999999999w")


def test_arguments_that_are_values_already_stay():
    assert [kind().convert(5, None, None) for kind in (Amount, Duration, Since)] == [5, 5, 5]
    assert Amount().convert(" $1.50 ", None, None) == 1_500_000_000
    for kind in (Amount, Duration, Since):
        with pytest.raises(click.BadParameter):
            kind().convert("x y", None, None)


@pytest.mark.parametrize(("kind", "none", "least"), [(Amount, "0", "0.000000001"), (Duration, "0d", "1s")])
def test_where_some_is_needed_nothing_is_a_slip(kind, none, least):
    assert kind().convert(none, None, None) == 0
    assert kind(some=True).convert(least, None, None) > 0
    with pytest.raises(click.BadParameter, match="must be above"):
        kind(some=True).convert(none, None, None)


@pytest.mark.parametrize("kind", [Text, KeyId])
@pytest.mark.parametrize("text", ["", "  "])
def test_words_are_never_empty(kind, text):
    with pytest.raises(click.BadParameter, match="it is empty"):
        kind().convert(text, None, None)
    assert kind().convert(" word ", None, None) == "word"


def test_of_a_whole_key_only_the_id_is_taken():
    assert KeyId().convert("lume_abcdefgh_SECRET", None, None) == "abcdefgh"
    for slip in ("lume_abc_SECRET", "_SECRETSECRET", "SECRETSECRET", "sk-SECRET", "lume_"):
        with pytest.raises(click.BadParameter) as raised:
            KeyId().convert(slip, None, None)
        assert raised.value.message == "an id has 8 letters and digits; key list shows them."


def test_a_new_accounts_name_is_in_small_letters_and_one():
    assert NewName().convert("Ann.B", None, None) == "ann.b"
    with pytest.raises(click.BadParameter, match="'a/b' is no account name"):
        NewName().convert("a/b", None, None)


@pytest.mark.parametrize("text", ["65536", "-1", "x", "", "1.5", "999999", "٣"])
def test_a_port_is_a_number_in_its_range(text):
    assert [Port().convert(good, None, None) for good in (0, "0", "8787", "65535")] == [0, 0, 8787, 65535]
    with pytest.raises(click.UsageError) as raised:
        Port().convert(text, None, None)
    assert raised.value.message == "--port takes a number from 0 to 65535."


def test_what_is_shown_once_is_not_lost_in_a_closed_output(capsys, monkeypatch):
    say_secret("lume_x")
    assert capsys.readouterr().out == "lume_x\n"

    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OSError, match="it is closed"):
        say_secret("lume_x")


def test_json_is_one_document_that_any_terminal_can_carry(capsys):
    value = {"a": "漢\udcff\n", "b": [1, None, True]}

    emit_json(value)

    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == value
