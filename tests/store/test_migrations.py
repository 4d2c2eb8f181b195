"""From any version to this one, or not at all."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from lumeproxy.errors import ConfigError
from lumeproxy.store import migrations
from lumeproxy.store.migrations import known, migrate, statements

FIRST = "CREATE TABLE a (x INTEGER);\nINSERT INTO a VALUES (1);\n"
SECOND = "ALTER TABLE a ADD COLUMN y INTEGER NOT NULL DEFAULT 7;\nUPDATE a SET x = 2;\n"


@pytest.fixture
def empty():
    conn = sqlite3.connect(":memory:", isolation_level=None)
    yield conn
    assert not conn.in_transaction
    conn.close()


def version(conn):
    return conn.execute("PRAGMA user_version").fetchone()[0]


def schema(conn):
    return sorted(row[0] for row in conn.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))


# --- from here to there ------------------------------------------------------------------------------------------------


def test_a_fresh_file_gets_everything(empty):
    assert migrate(empty, known()) == len(known())

    assert version(empty) == len(known())
    tables = {row[0] for row in empty.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables >= {"accounts", "keys", "holds", "entries", "prices", "usage"}
    assert empty.execute("SELECT id, name, kind, balance_nanousd FROM accounts ORDER BY id").fetchall() == [
        (1, "house:credit", "house", 0),
        (2, "house:revenue", "house", 0),
        (3, "house:shortfall", "house", 0),
    ]


def test_repeating_changes_nothing(empty):
    migrate(empty, known())
    before = schema(empty)
    seen = []
    empty.set_trace_callback(seen.append)

    assert migrate(empty, known()) == len(known())

    assert seen == ["PRAGMA user_version"]
    empty.set_trace_callback(None)
    assert schema(empty) == before


def test_only_what_is_missing_is_applied_and_data_is_kept(empty):
    assert migrate(empty, [FIRST]) == 1
    assert migrate(empty, [FIRST, SECOND]) == 2

    assert version(empty) == 2
    assert empty.execute("SELECT x, y FROM a").fetchall() == [(2, 7)]


def test_a_newer_file_is_refused_and_untouched(empty):
    migrate(empty, [FIRST, SECOND])

    with pytest.raises(ConfigError, match=r"newer lumeproxy \(version 2, this one knows 1\)"):
        migrate(empty, [FIRST])

    assert version(empty) == 2
    assert empty.execute("SELECT x FROM a").fetchall() == [(2,)]


@pytest.mark.parametrize(
    "bad",
    [
        "UPDATE a SET x = 9;\nSELECT * FROM nowhere;\n",
        "UPDATE a SET x = 9;\nINSERT INTO a VALUES (3, 4);\n",
        "UPDATE a SET x = 9;\nUPDATE a SET",
    ],
    ids=["unknown table", "wrong row", "ends in a statement"],
)
def test_a_migration_that_fails_leaves_the_version_before_it(empty, bad):
    migrate(empty, [FIRST])

    with pytest.raises((sqlite3.Error, ValueError)):
        migrate(empty, [FIRST, bad])

    assert version(empty) == 1
    assert empty.execute("SELECT x FROM a").fetchall() == [(1,)]


def test_a_migration_that_sqlite_itself_gave_up_is_not_rolled_back_twice(empty):
    migrate(empty, [FIRST])

    with pytest.raises(sqlite3.IntegrityError):
        migrate(empty, [FIRST, "CREATE UNIQUE INDEX one ON a (x);\nINSERT OR ROLLBACK INTO a VALUES (1);\n"])

    assert version(empty) == 1


def test_the_files_are_numbered_without_a_gap():
    files = sorted(Path(migrations.__file__).parent.glob("*.sql"))

    assert [int(file.name[:4]) for file in files] == list(range(1, len(files) + 1))
    assert known() == [file.read_text("utf-8") for file in files]


# --- single statements -------------------------------------------------------------------------------------------------

TRIGGER = "CREATE TRIGGER t BEFORE UPDATE ON a\nBEGIN\n  SELECT 1;\n  SELECT 2;\nEND;"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("-- only a word; and a half\n", []),
        ("SELECT 1;\nSELECT 2;\n", ["SELECT 1;", "SELECT 2;"]),
        ("SELECT\n 1\n;\n", ["SELECT\n 1\n;"]),
        ("SELECT ';\n';\n", ["SELECT ';\n';"]),
        (f"{TRIGGER}\nSELECT 3;\n", [TRIGGER, "SELECT 3;"]),
        ("SELECT 1; -- one\n-- the end\n", ["SELECT 1; -- one"]),
        ("-- first; this\nSELECT 1;", ["-- first; this\nSELECT 1;"]),
    ],
)
def test_a_script_is_cut_into_statements(text, found):
    assert list(statements(text)) == found


def test_a_script_that_ends_within_a_statement_is_an_error():
    with pytest.raises(ValueError, match="ends within a statement"):
        list(statements("SELECT 1;\nSELECT 2"))


# --- killed on the way -------------------------------------------------------------------------------------------------

# Forks once per statement, with no connection open, and kills the child as that statement begins.
DRIVER = """
import json, os, signal, sqlite3, sys
from pathlib import Path
from lumeproxy.store.migrations import migrate

def opened(path):
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = FULL")
    return conn

def state(path):
    conn = opened(path)
    version = conn.execute("PRAGMA user_version").fetchone()[0]
    objects = sorted(row[0] for row in conn.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
    rows = conn.execute("SELECT count(*) FROM accounts").fetchone()[0] if version else 0
    sound = conn.execute("PRAGMA integrity_check").fetchone()[0]
    migrate(conn, texts)
    after = conn.execute("PRAGMA user_version").fetchone()[0]
    conn.close()
    return [version, objects, rows, sound, after]

folder, done, texts = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
found, n, finished = [], 0, False
while not finished:
    path, n = folder / f"{n}.db", n + 1
    child = os.fork()
    if child == 0:
        conn, left = opened(path), [n]
        migrate(conn, texts[:done])
        def count(sql):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        conn.set_trace_callback(count)
        migrate(conn, texts)
        os._exit(0)
    finished = os.waitpid(child, 0)[1] == 0
    found.append(state(path))
print(json.dumps(found))
"""


@pytest.mark.parametrize("done", [0, 1], ids=["fresh", "upgrade"])
def test_a_kill_at_any_statement_leaves_the_old_version_or_the_new(tmp_path, empty, done):
    texts = [known()[0], "CREATE TABLE more (x INTEGER) STRICT;\nUPDATE accounts SET reason = 'x' WHERE id = 1;\n"]
    expected = {}
    if done:
        migrate(empty, texts[:1])
    old = expected[version(empty)] = schema(empty)
    migrate(empty, texts)
    expected[2] = schema(empty)
    if not done:
        first = sqlite3.connect(":memory:", isolation_level=None)
        migrate(first, texts[:1])
        expected[1] = schema(first)
        first.close()

    run = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path), str(done), json.dumps(texts)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert run.stderr == ""
    found = json.loads(run.stdout)

    single = sum(len(list(statements(text))) for text in texts[done:])
    assert len(found) >= single + 4  # BEGIN, the version and COMMIT too, and the run that nobody killed
    assert (found[0][0], found[0][1]) == (done, old)
    for reached, objects, rows, sound, after in found:
        assert objects == expected[reached]
        assert rows == (3 if reached else 0)
        assert (sound, after) == ("ok", 2)
    assert found[-1][0] == 2
    assert [one[0] for one in found] == sorted(one[0] for one in found)
