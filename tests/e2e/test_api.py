"""schemathesis against a running server's admin API: no fault of ours, no answer that its document does not describe."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.support import Cli, started
from tests.e2e.conftest import missing

pytestmark = pytest.mark.e2e
# `make e2e` installs it beside our own environment.
SCHEMATHESIS = os.environ.get("SCHEMATHESIS") or shutil.which("schemathesis")
# A cursor of the right form may be none, and amounts may be beyond what an operation allows: 409 and 422 are right answers.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422", "429"]
"""


def test_every_answer_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if SCHEMATHESIS is None or not Path(SCHEMATHESIS).exists():
        missing("schemathesis is not installed: `make e2e` does it, or set SCHEMATHESIS to its command")
    assert SCHEMATHESIS is not None
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    cli = Cli(tmp_path / "data", capsys)
    cli("account", "create", "ann", "--credit", "5")
    key = cli.json("admin-key", "create")["key"]
    environ = {"LUMEPROXY_LIMITS__FAILED_KEYS_PER_MINUTE": "0"}
    with started(tmp_path, "--data", str(cli.data), "--port", "0", **environ) as server:
        document = server.url + "/api/v1/openapi.json"
        phases = [
            "--phases",
            "examples,coverage,fuzzing,stateful",
            "--max-examples",
            "60",
            "--checks",
            "all",
            "--no-color",
            "--seed",
            "1",
        ]
        asked = [SCHEMATHESIS, "run", document, "-H", f"Authorization: Bearer {key}", *phases]
        done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        (cases,) = re.findall(r"(\d+) generated", done.stdout)
        assert int(cases) > 1000
        assert cli.json("audit") == {"ok": True, "problems": []}
