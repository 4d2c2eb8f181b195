"""`lumeproxy doctor`: what is printed, what a machine gets, and the exit status."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lumeproxy.cli import doctor
from lumeproxy.cli.main import run
from lumeproxy.doctor.finding import Finding, failed, ok, warning
from tests.cli.support import ROOT, Cli, clean_environment

KEY = "lume_01234567_ABCDEFGHIJKLMNOPQRSTUVWXYZ012345abcdef"
LONG = "word " * 40 + "end."


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What the examination finds: a test fills it."""
    findings: list[Finding] = []

    async def examine(*_: object) -> Any:
        for finding in findings:
            yield finding

    monkeypatch.setattr("lumeproxy.doctor.examination.examine", examine)
    return findings


def test_each_finding_is_a_line_with_its_mend_below_and_a_count_ends_it(cli: Cli, found):
    found += [ok("disk", "Much room."), warning("upstream:main", "Slow.", "curl -v x"), failed("call", "None.")]

    outcome = cli("doctor")

    assert (outcome.status, outcome.err) == (1, "")
    assert outcome.out == (
        "ok       disk           Much room.\n"
        "warning  upstream       Slow.\n"
        "                        → curl -v x\n"
        "failed   call           None.\n"
        "\n1 failed, 1 warning, 1 ok.\n"
    )


@pytest.mark.parametrize(
    ("findings", "status", "told"),
    [
        ([ok("a", "A."), ok("b", "B.")], 0, "All is well."),
        ([ok("a", "A."), warning("b", "B."), warning("c", "C.")], 0, "2 warnings, 1 ok."),
        ([failed("a", "A.")], 1, "1 failed, 0 ok."),
    ],
)
def test_only_a_failure_exits_with_1(cli: Cli, found, findings, status, told):
    found += findings

    outcome = cli("doctor")

    assert (outcome.status, outcome.out.splitlines()[-1]) == (status, told)


def test_a_machine_gets_the_list(cli: Cli, found):
    found += [ok("disk", "Much room."), failed("upstream:main", "Down.", "curl -v x")]

    outcome = cli("doctor", "--json")

    assert outcome.status == 1
    assert outcome.json == [
        {"check": "disk", "state": "ok", "text": "Much room.", "mend": None},
        {"check": "upstream:main", "state": "failed", "text": "Down.", "mend": "curl -v x"},
    ]


def test_sentences_are_wrapped_and_what_is_to_be_typed_is_not(cli: Cli, found):
    found.append(warning("file modes", LONG, LONG))

    *lines, mend, _, _ = cli("doctor").out.splitlines()

    assert len(lines) == 3
    assert max(map(len, lines)) <= 100
    assert [line[:24].strip() for line in lines[1:]] == ["", ""]
    assert mend == " " * 24 + "→ " + LONG


def test_a_key_is_masked_wherever_it_comes_from(cli: Cli, found):
    found.append(failed("configuration", f"The setting {KEY} is wrong.", f"unset {KEY}"))

    person, machine = cli("doctor"), cli("doctor", "--json")

    assert "The setting lume_01234567… is wrong.\n" in person.out
    assert "→ unset lume_01234567…\n" in person.out
    assert machine.json[0]["text"] == "The setting lume_01234567… is wrong."
    assert KEY[14:] not in person.out + machine.out


def test_it_is_given_the_place_and_its_hints_are_spelled_for_it(cli: Cli, monkeypatch, tmp_path):
    given: list[Any] = []

    async def examine(*arguments: Any) -> Any:
        given.extend(arguments)
        yield ok("a", "A.")

    monkeypatch.setattr("lumeproxy.doctor.examination.examine", examine)
    monkeypatch.chdir(tmp_path)
    cli("doctor", "--config", "c.toml")

    patient, _, hint = given
    assert (patient.data, patient.config) == (cli.data, Path("c.toml"))
    assert (patient.around.home, patient.around.here) == (tmp_path, tmp_path)
    assert patient.environ == dict(os.environ)
    assert hint("serve") == f"lumeproxy serve --data {cli.data}"


def test_where_nothing_was_ever_started_it_says_so_and_makes_nothing(cli: Cli, monkeypatch):
    monkeypatch.setenv("LUMEPROXY_SERVER__PORT", "0")

    outcome = cli("doctor")

    assert outcome.status == 0
    assert "does not exist yet; the first start makes it." in " ".join(outcome.out.split())
    assert not cli.data.exists()


def test_beside_a_running_server_it_makes_a_call_and_its_books_stay_in_order(remote: Cli):
    before = {one["account"]: one["balance_nanousd"] for one in remote.json("account", "list")}

    found = {one["check"]: one for one in json.loads(remote("doctor", "--json").out)}

    after = {one["account"]: one["balance_nanousd"] for one in remote.json("account", "list")}
    assert (found["server"]["state"], found["database"]["state"], found["call"]["state"]) == ("ok", "ok", "ok")
    assert {name: after[name] for name in before if name != "lumeproxy-doctor"} == {
        name: balance for name, balance in before.items() if name != "lumeproxy-doctor"
    }
    assert after["lumeproxy-doctor"] < 10_000_000
    assert all(key["revoked_ms"] for key in remote.json("key", "list", "lumeproxy-doctor"))
    assert remote.json("audit") == {"ok": True, "problems": []}


def test_a_wrong_configuration_is_a_finding_and_no_usage_error(cli: Cli):
    cli.data.mkdir(mode=0o700)
    (cli.data / "config.toml").write_text("[server]\nprot = 1")

    outcome = cli("doctor")

    assert (outcome.status, outcome.err) == (1, "")
    assert outcome.out.startswith("failed   configuration  Unknown setting server.prot in")


def on_a_terminal(tmp_path: Path, **environ: str) -> bytes:
    """What the real command writes on a terminal of its own."""
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "lumeproxy", "doctor", "--data", str(tmp_path / "data")]
    env = clean_environment(tmp_path, TERM="xterm", LUMEPROXY_SERVER__PORT="0", **environ)
    written = b""
    with subprocess.Popen(command, stdout=end, cwd=ROOT, env={k: v for k, v in env.items() if k != "CI"}) as process:
        os.close(end)
        try:
            while piece := os.read(terminal, 65536):
                written += piece
        except OSError:  # the other end is closed
            pass
        assert process.wait(20) == 0
    os.close(terminal)
    return written


def test_a_terminal_gets_colours_unless_it_wants_none(tmp_path: Path):
    coloured, plain = on_a_terminal(tmp_path), on_a_terminal(tmp_path, NO_COLOR="1")

    assert b"\x1b[32mok       \x1b[0mconfiguration  No file" in coloured
    assert b"\x1b" not in plain
    assert b"ok       configuration  No file" in plain
    assert re.search(rb"\d warnings?, \d+ ok\.|All is well\.", plain)


def test_no_colour_is_asked_for_where_there_is_no_output(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert doctor._colour() is False


def test_the_options_may_come_before_it(capsys, found, tmp_path):
    found.append(ok("a", "A."))

    assert run(["--data", str(tmp_path), "--json", "doctor"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["check"] == "a"


def test_a_current_folder_that_was_removed_stops_nothing(cli: Cli, found, monkeypatch):
    def gone() -> Path:
        raise FileNotFoundError

    found.append(ok("a", "A."))
    monkeypatch.setattr(Path, "cwd", gone)

    assert cli("doctor").status == 0
