"""What the API sends: all fields of an operation's answer, none besides, and nothing secret."""

from __future__ import annotations

import msgspec
import pytest

from lumeproxy.dashboard import answers
from lumeproxy.store.usage import SHOWN, TOKEN_CLASSES

KINDS = [kind for kind in vars(answers).values() if isinstance(kind, type) and issubclass(kind, answers.Answer)]


def names(kind: type) -> list[str]:
    return [field.name for field in msgspec.structs.fields(kind)]


def test_a_record_has_the_names_of_usage_json():
    assert names(answers.Record) == list(SHOWN)


def test_a_group_has_every_class_of_tokens():
    assert names(answers.Group) == ["name", "calls", *TOKEN_CLASSES, "cost_nanousd", "upstream_cost_nanousd"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_field_is_left_out_or_holds_a_digest(kind: type):
    assert all(field.required for field in msgspec.structs.fields(kind))
    assert not {"sha256", "secret", "account_id"} & set(names(kind))
    assert ("key" in names(kind)) == (kind in (answers.NewKey, answers.ReplacedKey))
