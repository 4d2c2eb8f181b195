"""The annotated example: loads as it stands, names every setting, and shows the true defaults."""

from __future__ import annotations

import re
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from lumeproxy import sections, settings

EXAMPLE = Path(__file__).parents[1] / "config.example.toml"
TEXT = EXAMPLE.read_text("utf-8")
# A setting is commented out without a space, prose with one.
ENABLED = re.sub(r"^#(?=[a-z_0-9]+ = |\[)", "", TEXT, flags=re.MULTILINE)
TREE = tomllib.loads(ENABLED, parse_float=Decimal)
SECTIONS: dict[str, tuple[type[BaseModel], dict[str, Any]]] = {
    "server": (settings.Server, TREE["server"]),
    "upstreams": (settings.Upstream, TREE["upstreams"]["example"]),
    "routes": (settings.Route, TREE["routes"][0]),
    "failover": (settings.Failover, TREE["failover"]),
    "prices": (settings.ModelPrice, TREE["prices"]["my-model-*"]),
    "billing": (settings.Billing, TREE["billing"]),
    "limits": (settings.Limits, TREE["limits"]),
    "dashboard": (sections.Dashboard, TREE["dashboard"]),
    "notices": (sections.Notices, TREE["notices"]),
    "retention": (sections.Retention, TREE["retention"]),
    "log": (settings.Log, TREE["log"]),
}


def test_it_loads_as_it_stands_and_changes_nothing(tmp_path):
    given = settings.load(config=EXAMPLE, data=tmp_path, environ={})

    assert given.model_dump() == settings.load(data=tmp_path, environ={}).model_dump()


def test_it_loads_with_every_line_enabled_too(tmp_path):
    file = tmp_path / "all.toml"
    file.write_text(ENABLED)
    given = settings.load(config=file, data=tmp_path, environ={}).model_dump()
    plain = settings.load(data=tmp_path, environ={}).model_dump()

    assert {name for name in plain if given[name] != plain[name]} == {"upstreams", "routes", "aliases", "prices"}


def test_every_section_is_there():
    assert {*SECTIONS, "aliases"} == set(settings.Settings.model_fields)
    assert TREE["aliases"]  # whose names are the operator's own


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_is_named_and_none_that_does_not_exist(section):
    model, shown = SECTIONS[section]

    assert list(shown) == list(model.model_fields)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_value_shown_is_the_default(section):
    model, shown = SECTIONS[section]
    for name, field in model.model_fields.items():
        default = field.get_default()
        if field.is_required() or section == "prices" or name in ("kind", "data"):
            continue
        expected = "" if default is None else list(default) if isinstance(default, tuple) else default
        # A list that may be given as its only element is shown as a text.
        assert shown[name] == expected or (expected == [] and shown[name] == ""), name


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_has_its_reason_in_the_lines_above(section):
    lines = TEXT.splitlines()
    model, _ = SECTIONS[section]
    for name in model.model_fields:
        at = next(i for i, line in enumerate(lines) if line.startswith(f"#{name} = "))
        before = lines[at - 1]
        # A field may share the prose of the one above it.
        assert before.startswith("# ") or re.match(r"#[a-z_0-9]+ = ", before), name
