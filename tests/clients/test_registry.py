"""The tools that can be set up, each whole."""

from __future__ import annotations

import pytest

from lumeproxy.clients.base import Tool
from lumeproxy.clients.documents import leaves
from lumeproxy.clients.registry import TOOLS, tool
from lumeproxy.errors import Refused
from tests.clients.support import KEY, URL, machine, target


def test_a_tool_is_found_by_its_name():
    assert [tool(known.name) for known in TOOLS] == list(TOOLS)
    assert [known.name for known in TOOLS] == ["claude-code", "codex", "opencode"]


@pytest.mark.parametrize("known", TOOLS, ids=lambda known: known.name)
def test_each_puts_the_key_in_one_place_paired_with_the_address(tmp_path, known: Tool):
    found = {
        (wish.file, path): value
        for wish in known.wishes(machine(tmp_path), target())
        for path, value in leaves(wish.values)
    }
    paired = {(wish.file, path) for wish in known.wishes(machine(tmp_path), target()) for path in wish.paired}

    assert sorted(str(found[place]).removesuffix("/v1") for place in paired) == sorted([URL, KEY])
    assert [place for place, value in found.items() if value == KEY] == [
        place for place in paired if found[place] == KEY
    ]


@pytest.mark.parametrize("known", TOOLS, ids=lambda known: known.name)
def test_each_tries_with_a_model_that_the_key_may_use_and_says_what_to_type(tmp_path, known: Tool):
    on, to = machine(tmp_path), target()
    trial = known.trial(on, to)

    assert trial.body["model"] in to.models
    assert trial.path.startswith("/v1/")
    assert 1 <= sum(value for key, value in trial.body.items() if key.startswith("max_")) <= 16
    assert known.next_steps(on, to)[0].split()[0] in ("claude", "codex", "opencode")


@pytest.mark.parametrize("known", TOOLS, ids=lambda known: known.name)
def test_a_key_that_may_use_nothing_is_refused_and_a_clean_machine_has_no_warning(tmp_path, known: Tool):
    with pytest.raises(Refused, match="may use no"):
        known.wishes(machine(tmp_path), target(models=()))
    assert known.warnings(machine(tmp_path), target()) == []
