"""The settings of notices and retention, and where the webhook's secret comes from."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from lumeproxy.errors import ConfigError
from lumeproxy.sections import webhook_secret
from lumeproxy.settings import load

KEY = bytes(range(32))
TEXT = "whsec_" + base64.b64encode(KEY).decode()


def given(tmp_path: Path, *lines: str):
    file = tmp_path / "config.toml"
    file.write_text("\n".join(["[notices]", *lines]))
    return load(config=file, data=tmp_path, environ={}).notices


def test_the_secret_comes_from_the_file_the_environment_or_another_file(tmp_path: Path):
    (tmp_path / "secret").write_text(TEXT + "\n")

    assert webhook_secret(given(tmp_path, f'webhook_secret = "{TEXT}"'), {}) == KEY
    assert webhook_secret(given(tmp_path, 'webhook_secret_env = "HOOK"'), {"HOOK": TEXT}) == KEY
    assert webhook_secret(given(tmp_path, 'webhook_secret_file = "secret"'), {}) == KEY
    assert TEXT not in repr(given(tmp_path, f'webhook_secret = "{TEXT}"'))


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ((), "it has none"),
        ((f'webhook_secret = "{TEXT}"', 'webhook_secret_env = "X"'), "webhook_secret and webhook_secret_env"),
        (('webhook_secret_file = "nowhere"',), "nowhere can't be read: No such file"),
        ((f'webhook_secret = "{TEXT.removeprefix("whsec_")}"',), "is not whsec_"),
        (('webhook_secret = "whsec_c2hvcnQ="',), "is not whsec_"),
        (('webhook_secret = "whsec_!!"',), "is not whsec_"),
    ],
)
def test_what_is_no_secret_is_told_without_its_value(tmp_path: Path, lines, told):
    with pytest.raises(ConfigError, match=told) as refused:
        webhook_secret(given(tmp_path, *lines), {})
    assert TEXT[6:] not in refused.value.message
    assert "c2hvcnQ" not in refused.value.message


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('webhook_url = "hooks.test"', "notices.webhook_url"),
        ("low_balance = -1", "notices.low_balance"),
        ("give_up_h = 0", "notices.give_up_h"),
        ("[retention]\nusage_days = -1", "retention.usage_days"),
        ("[retention]\nanswer_days = 0", "retention.answer_days"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, line, told):
    with pytest.raises(ConfigError, match=told):
        given(tmp_path, line)
