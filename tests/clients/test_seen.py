"""What the files of users' tools say: where they go, with which key, and what stands in the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lumeproxy.clients.claude_code import SWITCHES
from lumeproxy.clients.seen import MANAGED, Around, Seen, files, seen

HOME, HERE = Path("/home/ann"), Path("/home/ann/work")
URL = "http://127.0.0.1:8787"
KEY = "lume_01234567_secretsecret"
USER = HOME / ".claude/settings.json"
PROJECT, LOCAL = HERE / ".claude/settings.json", HERE / ".claude/settings.local.json"
CODEX, PROFILE = HOME / ".codex/config.toml", HOME / ".codex/lume.config.toml"
OPENCODE = HOME / ".config/opencode/opencode.json"


def around(**environ: str) -> Around:
    return Around(HOME, HERE, environ)


def look(contents: dict[Path, Any], **environ: str) -> list[Seen]:
    """`contents`: text as it stands, a table as JSON."""
    written = {file: (one if isinstance(one, str) else json.dumps(one)).encode() for file, one in contents.items()}
    known = files(around(**environ))
    assert set(written) <= set(known)
    return seen(written, around(**environ))


def only(contents: dict[Path, Any], **environ: str) -> Seen:
    (found,) = look(contents, **environ)
    return found


def told(found: Seen) -> list[tuple[str, str, bool]]:
    return [(one.text, one.mend, one.stops) for one in found.obstacles]


def test_nothing_there_is_nothing_seen():
    assert look({}) == []


# --- Claude Code ---------------------------------------------------------------------------------------------------------


def claude(**env: str) -> dict[str, Any]:
    return {"env": {"ANTHROPIC_BASE_URL": URL, "ANTHROPIC_AUTH_TOKEN": KEY, **env}}


def test_claude_codes_settings_say_where_it_goes_and_with_which_key():
    found = only({USER: claude()})

    assert (found.command, found.name, found.where, found.base_url) == ("claude-code", "Claude Code", str(USER), URL)
    assert (found.key, found.key_where, found.obstacles) == (KEY, f"ANTHROPIC_AUTH_TOKEN in {USER}", ())
    assert "secret" not in repr(found)


def test_variables_of_the_shell_serve_as_well_and_need_no_file():
    found = only({}, ANTHROPIC_BASE_URL=URL, ANTHROPIC_AUTH_TOKEN=KEY)

    assert (found.where, found.base_url, found.key) == ("the environment", URL, KEY)


@pytest.mark.parametrize("stronger", [PROJECT, LOCAL, MANAGED])
def test_stronger_settings_beat_weaker_ones_and_the_shell(stronger):
    other = {"env": {"ANTHROPIC_BASE_URL": "https://other.test"}}

    found = only({USER: claude(), stronger: other}, ANTHROPIC_BASE_URL="https://third.test")

    assert (found.base_url, found.where, found.key) == ("https://other.test", str(stronger), KEY)


def test_its_folder_may_be_elsewhere():
    assert files(around(CLAUDE_CONFIG_DIR="/etc/c"))[0] == Path("/etc/c/settings.json")


def test_claude_code_without_a_base_url_goes_to_its_own_provider():
    found = only({USER: {"model": "opus"}}, ANTHROPIC_API_KEY="sk-ant-x")

    assert (found.base_url, found.key, found.obstacles) == ("", None, ())


@pytest.mark.parametrize(
    ("token", "api_key", "key", "where"),
    [
        (KEY, "", KEY, "ANTHROPIC_AUTH_TOKEN"),
        ("", KEY, KEY, "ANTHROPIC_API_KEY"),
        ("other", KEY, KEY, "ANTHROPIC_API_KEY"),
        ("other", "", "other", "ANTHROPIC_AUTH_TOKEN"),
        ("", "sk-ant-x", "sk-ant-x", "ANTHROPIC_API_KEY"),
    ],
)
def test_of_two_credentials_the_proxys_own_counts(token, api_key, key, where):
    found = only({USER: claude(ANTHROPIC_AUTH_TOKEN=token, ANTHROPIC_API_KEY=api_key)})

    assert (found.key, found.key_where, found.obstacles) == (key, f"{where} in {USER}", ())


def test_without_a_credential_there_is_no_key():
    assert only({USER: claude(ANTHROPIC_AUTH_TOKEN="")}).key is None


def test_an_exported_providers_key_beside_the_proxys_is_told():
    found = only({USER: claude()}, ANTHROPIC_API_KEY="sk-ant-x")

    told_text = "ANTHROPIC_API_KEY in the environment is another key, which Claude Code asks about and sends along"
    assert (found.key, told(found)) == (KEY, [(told_text, "unset ANTHROPIC_API_KEY", False)])


@pytest.mark.parametrize("name", SWITCHES)
def test_what_sends_it_past_the_proxy_is_told(name):
    assert told(only({USER: claude(**{name: "1"})})) == [
        (f"{name} in {USER} sends it past the proxy", f"remove {name} from {USER}", True)
    ]
    assert told(only({USER: claude(**{name: "0"})})) == []


def test_a_helper_beside_a_token_of_ours_is_in_nobodys_way():
    assert only({USER: {**claude(), "apiKeyHelper": "pass x"}}).obstacles == ()


@pytest.mark.parametrize("token", ["", "another"])
def test_a_helper_that_makes_the_key_is_told(token):
    found = only({USER: {**claude(ANTHROPIC_AUTH_TOKEN=token), "apiKeyHelper": "pass lume"}})

    text = f"apiKeyHelper in {USER} makes the key, which can't be looked at without running it"
    assert (found.key, told(found)) == (None, [(text, "", False)])


@pytest.mark.parametrize("text", ["{not json", "[1]", "\x00", "[" * 100_000])
def test_settings_that_are_no_json_are_told_beside_what_the_shell_says(text):
    found = only({USER: text}, ANTHROPIC_BASE_URL=URL, ANTHROPIC_AUTH_TOKEN=KEY)

    assert (found.base_url, found.key) == (URL, KEY)
    assert told(found) == [(f"{USER} is no JSON, so that Claude Code ignores it", f"mend {USER}", False)]


@pytest.mark.parametrize("env", [None, 3, [], {"ANTHROPIC_BASE_URL": None}])
def test_settings_of_odd_shapes_are_taken_as_they_come(env):
    assert only({USER: {"env": env}}) == Seen("claude-code", "Claude Code")


# --- Codex ---------------------------------------------------------------------------------------------------------------


def codex(more: str = 'env_key = "LUME_KEY"', base_url: str = URL + "/v1") -> str:
    return f'model_provider = "lume"\n[model_providers.lume]\nbase_url = "{base_url}"\n{more}\n'


def test_codex_is_seen_with_the_key_that_its_variable_holds():
    found = only({CODEX: codex()}, LUME_KEY=KEY)

    assert (found.command, found.name, found.base_url, found.where) == ("codex", "Codex", URL + "/v1", str(CODEX))
    assert (found.key, found.key_where, found.obstacles) == (KEY, "LUME_KEY in the environment", ())


def test_codex_by_profile_is_seen_and_that_it_goes_elsewhere_without_is_as_meant():
    found = only({CODEX: 'model = "gpt-5.5"', PROFILE: codex()}, LUME_KEY=KEY)

    assert (found.name, found.base_url, found.where) == ("Codex with -p lume", URL + "/v1", str(PROFILE))


def test_a_profile_lies_over_the_other_file():
    both = {CODEX: codex(base_url="https://other.test/v1"), PROFILE: 'model_provider = "lume"'}

    assert [(one.name, one.base_url) for one in look(both, LUME_KEY=KEY)] == [
        ("Codex", "https://other.test/v1"),
        ("Codex with -p lume", "https://other.test/v1"),
    ]


def test_a_profile_changes_a_provider_field_by_field():
    profile = 'model_provider = "lume"\n[model_providers.lume]\nexperimental_bearer_token = "k"'

    found = look({CODEX: codex(), PROFILE: profile})[1]

    assert (found.base_url, found.key) == (URL + "/v1", "k")


def test_codex_without_a_provider_goes_to_its_own():
    assert (only({CODEX: 'model = "x"'}).base_url, only({CODEX: 'model_provider = "openai"'}).base_url) == ("", "")


@pytest.mark.parametrize(
    ("more", "key", "obstacles"),
    [
        ('experimental_bearer_token = "k"', "k", []),
        (
            'env_key = "LUME_KEY"',
            None,
            [("its key is to come from LUME_KEY, which is not set in this shell", "export LUME_KEY=lume_…", False)],
        ),
        (
            'auth = { command = "x" }',
            None,
            [(f"a command in {CODEX} makes the key, which can't be looked at without running it", "", False)],
        ),
        ("", None, []),
        (
            'experimental_bearer_token = "k"\nwire_api = "chat"',
            "k",
            [(f'wire_api in {CODEX} is not "responses", which Codex refuses', f'set wire_api = "responses" in {CODEX}',
              True)],
        ),
    ],
)  # fmt: skip
def test_codexs_ways_to_a_key(more, key, obstacles):
    found = only({CODEX: codex(more)})

    assert (found.key, told(found)) == (key, obstacles)


def test_a_base_url_without_the_version_is_told():
    found = only({CODEX: codex('experimental_bearer_token = "k"', URL)})

    text = "its base URL lacks /v1, so that every call is answered 404"
    assert told(found) == [(text, f"set it to {URL}/v1 in {CODEX}", True)]


def test_codexs_built_in_provider_with_our_address_is_told():
    found = only({CODEX: f'openai_base_url = "{URL}/v1"'})

    assert (found.base_url, found.key) == (URL + "/v1", None)
    assert told(found) == [
        (
            "openai_base_url brings along the login to OpenAI; a provider of its own does not",
            f"remove openai_base_url from {CODEX}",
            False,
        )
    ]


def test_an_old_profile_table_beside_the_new_file_is_told():
    found = only({CODEX: "[profiles.lume]\nmodel = 'x'", PROFILE: codex()}, LUME_KEY=KEY)

    assert told(found) == [
        (f"[profiles.lume] in {CODEX} makes -p lume an error", f"remove [profiles.lume] from {CODEX}", True)
    ]


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("model = ", f"{CODEX} is not valid TOML, with which Codex does not start"),
        ('model_provider = "x"', f"model_provider in {CODEX} names 'x', which it does not have"),
        ('model_provider = "x"\nmodel_providers = 3', f"model_provider in {CODEX} names 'x', which it does not have"),
    ],
)
def test_what_codex_does_not_start_with_is_told(text, broken):
    assert only({CODEX: text}).broken == broken


def test_codexs_folder_may_be_elsewhere():
    assert Path("/c/lume.config.toml") in files(around(CODEX_HOME="/c"))


# --- opencode ------------------------------------------------------------------------------------------------------------


def opencode(key: Any = "{env:LUME_KEY}", url: str = URL + "/v1") -> dict[str, Any]:
    return {"provider": {"lume": {"npm": "@ai-sdk/anthropic", "options": {"baseURL": url, "apiKey": key}}}}


def test_opencodes_providers_are_seen_each():
    tree = opencode()
    tree["provider"]["other"] = {"options": {"baseURL": "https://other.test/v1", "apiKey": "k"}}
    tree["provider"]["own"] = {"models": {}}

    first, second = look({OPENCODE: tree}, LUME_KEY=KEY)

    assert (first.name, first.base_url, first.key) == ("opencode's provider lume", URL + "/v1", KEY)
    assert (first.where, first.key_where, first.chosen) == (str(OPENCODE), "LUME_KEY in the environment", False)
    assert (second.base_url, second.key, second.key_where) == ("https://other.test/v1", "k", f"apiKey in {OPENCODE}")


@pytest.mark.parametrize(
    ("key", "found_key", "obstacle"),
    [
        ("{env:LUME_KEY}", None, "its key is to come from LUME_KEY, which is not set in this shell"),
        ("{file:~/key}", None, f"its key comes from a file that {OPENCODE} names, which is not looked at"),
        (KEY, KEY, None),
        (None, None, None),
    ],
)
def test_opencodes_ways_to_a_key(key, found_key, obstacle):
    found = only({OPENCODE: opencode(key)})

    assert (found.key, [text for text, _, _ in told(found)]) == (found_key, [obstacle] if obstacle else [])


def test_opencode_reads_comments_and_later_files_win():
    text = f'{{ // mine\n "provider": {{"lume": {{"options": {{"baseURL": "{URL}/v1", "apiKey": "{KEY}",}} }} }} }}'

    found = only({OPENCODE: opencode(url="https://old.test/v1"), HERE / "opencode.jsonc": text})

    assert (found.base_url, found.where) == (URL + "/v1", str(HERE / "opencode.jsonc"))


def test_opencode_without_providers_is_there_and_goes_its_own_way():
    found = only({OPENCODE: {"model": "x", "provider": [1]}})

    assert (found.name, found.base_url) == ("opencode", "")


def test_what_opencode_does_not_start_with_is_told():
    assert only({OPENCODE: "{"}).broken == f"{OPENCODE} is no JSON, with which opencode does not start"


def test_opencodes_files_may_be_elsewhere():
    known = files(around(XDG_CONFIG_HOME="/x", OPENCODE_CONFIG="/y.json"))

    assert {Path("/x/opencode/opencode.json"), Path("/y.json")} <= set(known)


@pytest.mark.parametrize("value", ["[1]", "{}", "3", '""', "true"])
def test_odd_values_are_told_or_taken_and_never_raise(value):
    names = ("model_provider", "openai_base_url", "profiles", "model_providers")
    for name in names:
        assert len(look({CODEX: f"{name} = {value}", PROFILE: codex()}, LUME_KEY=KEY)) in (1, 2)
    for name in ("base_url", "env_key", "experimental_bearer_token", "wire_api", "auth"):
        text = f'model_provider = "x"\n[model_providers.x]\nname = "x"\n{name} = {value}'
        assert len(look({CODEX: text})) == 1
    for name in ("env", "apiKeyHelper"):
        assert len(look({USER: f'{{"{name}": {value}}}'})) == 1
    for text in (f'{{"provider": {value}}}', f'{{"provider": {{"x": {value}}}}}',
                 f'{{"provider": {{"x": {{"options": {value}}}}}}}',
                 f'{{"provider": {{"x": {{"options": {{"baseURL": {value}, "apiKey": {value}}}}}}}}}'):  # fmt: skip
        assert len(look({OPENCODE: text})) == 1
