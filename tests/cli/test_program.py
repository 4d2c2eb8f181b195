"""What a hint on screen begins with: what the user typed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lumeproxy.cli.program import hint, program


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """An installed script that is not on the PATH."""
    file = tmp_path / "bin" / "lumeproxy"
    file.parent.mkdir()
    file.write_text("#!/bin/sh")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize(
    ("python", "shown"),
    [
        ("python", "python -m lumeproxy"),
        (".venv/bin/python", ".venv/bin/python -m lumeproxy"),
        ("/my tools/python", "'/my tools/python' -m lumeproxy"),
    ],
)
def test_the_module_is_run_by_the_same_python(monkeypatch, python, shown):
    monkeypatch.setattr(sys, "argv", ["/site-packages/lumeproxy/__main__.py"])
    monkeypatch.setattr(sys, "orig_argv", [python, "-m", "lumeproxy"])

    assert program() == shown


def test_the_script_is_named_by_its_path_unless_it_is_on_the_path(monkeypatch, script):
    monkeypatch.chdir(script.parent.parent)
    for typed in ("bin/lumeproxy", str(script)):
        monkeypatch.setattr(sys, "argv", [typed])
        monkeypatch.setenv("PATH", "/nowhere")
        assert program() == typed
        monkeypatch.setenv("PATH", str(script.parent))
        assert program() == "lumeproxy"


def test_another_script_of_the_name_on_the_path_is_not_taken_for_this_one(monkeypatch, script, tmp_path):
    other = tmp_path / "other" / "lumeproxy"
    other.parent.mkdir()
    other.write_text("#!/bin/sh")
    other.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setenv("PATH", str(other.parent))

    assert program() == str(script)


@pytest.mark.parametrize("started", ["/x/pytest/__main__.py", "serve.py", ""])
def test_in_another_program_it_has_its_name(monkeypatch, started):
    monkeypatch.setattr(sys, "argv", [started])

    assert program() == "lumeproxy"


@pytest.mark.parametrize(
    ("data", "config", "shown"),
    [
        (None, None, "lumeproxy key list"),
        (Path("d"), None, "lumeproxy key list --data d"),
        (Path("my d"), Path("c"), "lumeproxy key list --data 'my d'"),
        (None, Path("c.toml"), "lumeproxy key list --config c.toml"),
    ],
)
def test_a_hint_is_about_the_same_data(monkeypatch, data, config, shown):
    monkeypatch.setattr(sys, "argv", ["x"])

    assert hint("key list", data, config) == shown
