"""Findings about the tools on this machine: whether they come here, with a key in force, and what stands in the way."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lumeproxy.clients.seen import Obstacle, Seen
from lumeproxy.core import apikey
from lumeproxy.doctor.finding import Finding
from lumeproxy.doctor.tools import Home, tools
from lumeproxy.store.keys import StoredKey

URL = "http://127.0.0.1:8787"
NOW_MS = 1_000
NEW, OTHER = apikey.make(lambda count: b"\x01" * count), apikey.make(lambda count: b"\x02" * count)
STORED = StoredKey(NEW.id, 4, "ann", "active", NEW.sha256, NEW.last4, "", 0, None, None, ())
CLAUDE = Seen("claude-code", "Claude Code", "settings.json", URL, NEW.text, "ANTHROPIC_AUTH_TOKEN in settings.json")
SETUP = "./lume setup claude-code"


def hint(command: str) -> str:
    return f"./lume {command}"


def home(*keys: StoredKey, **changes: Any) -> Home:
    known: dict[str, Any] = {
        "base_urls": (URL,),
        "hosts": frozenset(),
        "keys": {key.id: key for key in keys or [STORED]},
    }
    return Home(**{**known, "now_ms": NOW_MS, **changes})


def told(*seen: Seen, at: Home | None = None) -> list[tuple[str, str, str, str | None]]:
    def line(finding: Finding) -> tuple[str, str, str, str | None]:
        assert NEW.text not in repr(finding)
        return finding.check, str(finding.state), finding.text, finding.mend

    return [line(finding) for finding in tools(seen, at or home(), hint)]


def claude(**changes: Any) -> Seen:
    return dataclasses.replace(CLAUDE, **changes)


def stored(**changes: Any) -> StoredKey:
    return dataclasses.replace(STORED, **changes)


@pytest.mark.parametrize(
    "base_url", [URL, URL + "/", URL + "/v1", "http://localhost:8787", "http://[::1]:8787", "http://LOCALHOST:8787/v1"]
)
def test_a_tool_that_comes_here_with_a_key_in_force_is_well(base_url):
    assert told(claude(base_url=base_url)) == [
        ("tool:claude-code", "ok", f"Claude Code comes here (settings.json) with key {NEW.id} of ann.", None)
    ]


def test_no_tool_is_no_line():
    assert told() == []


def test_a_tool_that_goes_its_own_way_is_no_fault():
    assert told(claude(base_url="", key=None)) == [
        ("tool:claude-code", "ok", "Claude Code is there, and not set up for lumeproxy.", SETUP)
    ]


@pytest.mark.parametrize(
    "base_url", ["http://127.0.0.1:9999", "https://proxy.test", "https://me:word@proxy.test/x?k=v"]
)
def test_a_tool_that_points_elsewhere_is_warned_of_with_both_addresses(base_url):
    shown = base_url.replace("me:word@", "").removesuffix("/x?k=v")

    assert told(claude(base_url=base_url, key="other")) == [
        ("tool:claude-code", "warning", f"Claude Code goes to {shown} (settings.json), this proxy is at {URL}.", SETUP)
    ]


@pytest.mark.parametrize("base_url", ["nonsense", "http://[bad"])
def test_an_address_that_is_none_points_elsewhere_too(base_url):
    ((_, state, text, _),) = told(claude(base_url=base_url))

    assert (state, text) == (
        "warning",
        f"Claude Code goes to what is no address (settings.json), this proxy is at {URL}.",
    )


def test_by_another_name_a_key_of_ours_or_the_allowed_hosts_say_that_it_comes_here():
    by_key = claude(base_url="http://proxy.test")
    by_host = told(claude(base_url="http://proxy.test", key=OTHER.text), at=home(hosts=frozenset({"proxy.test"})))

    assert told(by_key)[0][1] == "ok"
    assert by_host[0][2].startswith("Claude Code comes here, but its key")
    assert told(claude(base_url="http://localhost:9"))[0][1] == "warning"  # on this machine, the port says which


@pytest.mark.parametrize(
    ("seen", "keys", "text", "mend"),
    [
        ({"key": None}, (),
         "Claude Code comes here (settings.json) without a key of this proxy, and may send its own login.", SETUP),
        ({"key": "sk-ant-x"}, (), "{at} is none of lumeproxy.", SETUP),
        ({"key": NEW.text[:-1]}, (), "{at} is not whole: a character is missing or wrong.", SETUP),
        ({"key": OTHER.text}, (), f"{{at}}, {OTHER.id}, is not in this database.", SETUP),
        ({}, (stored(sha256=b"x" * 32),), f"{{at}}, {NEW.id}, is not in this database.", SETUP),
        ({}, (stored(revoked_ms=NOW_MS),), f"{{at}}, {NEW.id} of ann, is revoked.", "./lume key create ann"),
        ({}, (stored(expires_ms=NOW_MS),), f"{{at}}, {NEW.id} of ann, has expired.", "./lume key create ann"),
        ({}, (stored(account_status="suspended"),), f"{{at}}, {NEW.id} of ann, is of an account that is suspended.",
         "./lume account show ann"),
    ],
)  # fmt: skip
def test_a_key_that_opens_nothing_fails_with_the_reason(seen, keys, text, mend):
    at = "Claude Code comes here, but its key (ANTHROPIC_AUTH_TOKEN in settings.json)"

    assert told(claude(**seen), at=home(*keys)) == [("tool:claude-code", "failed", text.format(at=at), mend)]


def test_a_key_that_ends_later_is_in_force():
    assert told(CLAUDE, at=home(stored(revoked_ms=NOW_MS + 1, expires_ms=NOW_MS + 1)))[0][1] == "ok"


def test_without_the_database_a_key_is_not_judged():
    assert told(CLAUDE, at=home(keys=None)) == [
        (
            "tool:claude-code",
            "warning",
            f"Claude Code comes here with key {NEW.id}, which can't be looked up now.",
            None,
        )
    ]


def test_what_stands_in_the_way_is_a_line_each():
    helper = Obstacle("apiKeyHelper decides", "remove it", stops=False)
    bedrock = Obstacle("CLAUDE_CODE_USE_BEDROCK sends it past", "unset it", stops=True)

    lines = told(claude(obstacles=(helper, bedrock)))

    assert [line[1:] for line in lines[1:]] == [
        ("warning", "Claude Code: apiKeyHelper decides.", "remove it"),
        ("failed", "Claude Code: CLAUDE_CODE_USE_BEDROCK sends it past.", "unset it"),
    ]
    assert told(claude(key=None, obstacles=(helper,)))[0][1:3] == (
        "warning", "Claude Code comes here (settings.json); its key can't be looked at.",
    )  # fmt: skip
    assert len(told(claude(base_url="https://other.test", key=None, obstacles=(bedrock,)))) == 1


def test_http_where_the_proxy_speaks_https_fails():
    lines = told(CLAUDE, at=home(base_urls=("https://127.0.0.1:8787",)))

    assert lines[1][1:] == ("failed", "Claude Code speaks http and the proxy https.", SETUP)


def test_a_file_that_is_broken_is_told_even_where_another_way_comes_here():
    broken = Seen("codex", "Codex", "config.toml", broken="config.toml is not valid TOML")

    assert told(broken) == [("tool:codex", "failed", "config.toml is not valid TOML.", "mend config.toml")]


def test_of_codexs_ways_those_that_come_here_are_told():
    elsewhere = Seen("codex", "Codex", "config.toml", "https://other.test/v1")
    here = Seen("codex", "Codex with -p lume", "lume.config.toml", URL + "/v1", NEW.text, "LUME_KEY")

    assert [line[2] for line in told(elsewhere, here)] == [
        f"Codex with -p lume comes here (lume.config.toml) with key {NEW.id} of ann."
    ]
    assert [line[1] for line in told(elsewhere)] == ["warning"]


def test_opencodes_other_providers_are_none_of_our_business():
    def provider(name: str, base_url: str) -> Seen:
        return Seen("opencode", f"opencode's provider {name}", "o.json", base_url, NEW.text, "apiKey", chosen=False)

    one, two = provider("a", "https://a.test/v1"), provider("b", "https://b.test/v1")
    elsewhere = [dataclasses.replace(other, key="k") for other in (one, two)]

    assert told(*elsewhere) == [
        ("tool:opencode", "ok", "opencode is there, and not set up for lumeproxy.", "./lume setup opencode")
    ]
    assert [line[2] for line in told(elsewhere[0], provider("lume", URL + "/v1"))] == [
        f"opencode's provider lume comes here (o.json) with key {NEW.id} of ann."
    ]
