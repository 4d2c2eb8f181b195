"""The admin API over HTTP: its errors, its methods, who may what, and the same answer to a repetition."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import Any

import msgspec
import pytest

from lumeproxy.core import apikey
from lumeproxy.dashboard.routes import ROUTES, Route, Who
from lumeproxy.store import usage
from tests.support.api import Answered, Api, api_of
from tests.support.client import Wire, dial
from tests.support.proxy import Proxy, proxy

NEEDED: dict[str, dict[str, Any]] = {
    "account.create": {"name": "new"},
    "account.suspend": {"reason": "why"},
    "credit.grant": {"amount_nanousd": 5},
}


@pytest.fixture
async def api(lume: Proxy) -> Api:
    return await api_of(lume)


async def asked(api: Api, route: Route, **headers: str) -> Answered:
    """A right request of a route, about the account and the key that are there."""
    key = apikey.id_in(api.lume.key)
    path = route.path.replace("{name}", "tester").replace("{account}", "tester").replace("{id}", key)
    path += "?by=model" if route.operation == "usage.summary" else ""
    body = None if route.method == "GET" else NEEDED.get(route.operation, {})
    return await api.ask(route.method, path, body, **headers)


# --- who may ---------------------------------------------------------------------------------------------------------


async def test_every_route_refuses_whoever_has_no_admin_key_and_does_nothing(api: Api):
    before = await api.lume.run("account.list"), await api.lume.run("key.list")
    wrong = {
        "": (401, "invalid_key"),
        "Bearer sk-ant-api03-secret": (401, "invalid_key"),
        f"Bearer {api.lume.key}": (403, "forbidden"),
        f"Basic {api.key}": (401, "invalid_key"),
        f"Bearer {api.key[:-1]}x": (401, "invalid_key"),
        f"Bearer {apikey.make(os.urandom, apikey.ADMIN_PREFIX).text}": (401, "invalid_key"),
    }
    passed = []
    for route in ROUTES:
        for header, right in wrong.items():
            answer = await asked(api, route, authorization=header)
            if answer.error != right or (answer.status == 401) != ("WWW-Authenticate" in answer.headers):
                passed.append((route.path, header, answer.body))

    assert passed == []
    assert (await api.lume.run("account.list"), await api.lume.run("key.list")) == before
    log = api.lume.log.getvalue()
    assert not any(secret in log for secret in (api.key, api.lume.key, "sk-ant-api03-secret"))


async def test_a_key_that_only_reads_changes_nothing(lume: Proxy):
    reader = await api_of(lume, may_change=False)
    answers = {(route.method, route.path): (await asked(reader, route)).status for route in ROUTES}

    assert answers == {(r.method, r.path): 200 if r.who is Who.READ else 403 for r in ROUTES}
    assert {route.method for route in ROUTES if route.who is Who.READ} == {"GET"}
    assert (await lume.run("account.show", name="tester"))["status"] == "active"


async def test_every_route_answers_exactly_what_the_table_says(api: Api):
    """Each in turn, in the table's order but for what ends an account or a key."""
    last = ("account.close", "account.erase", "key.revoke", "key.rotate")
    for route in sorted(ROUTES, key=lambda route: last.index(route.operation) if route.operation in last else -1):
        answer = await asked(api, route)
        if route.operation == "key.rotate":  # the key was revoked before
            assert answer.error == (404, "missing") or answer.error == (409, "refused")
            continue
        assert (answer.status, answer.headers["Content-Type"]) == (route.status, "application/json"), answer.body
        assert answer.headers["Cache-Control"] == "no-store"
        exact = msgspec.defstruct("Exact", [], bases=(route.answers,), forbid_unknown_fields=True)
        msgspec.json.decode(answer.body, type=exact)
        if route.operation == "account.erase":
            break


async def test_a_revoked_key_opens_nothing_from_then_on(api: Api):
    assert (await api.ask("GET", "/accounts")).status == 200
    await api.lume.run("admin_key.revoke", id=api.key_id)
    assert (await api.ask("GET", "/accounts")).error == (401, "invalid_key")


async def test_an_address_that_tries_out_keys_is_told_how_long_to_wait(tmp_path):
    async with proxy(tmp_path, {}, environ={"LUMEPROXY_LIMITS__FAILED_KEYS_PER_MINUTE": "2"}) as lume:
        api = await api_of(lume)
        wrong = "Bearer " + apikey.make(os.urandom, apikey.ADMIN_PREFIX).text
        answers = [await api.ask("GET", "/accounts", authorization=wrong) for _ in range(3)]

        assert [answer.status for answer in answers] == [401, 401, 429]
        assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
        assert (await api.ask("GET", "/accounts")).status == 200


# --- methods, paths, bodies --------------------------------------------------------------------------------------------


async def test_each_path_tells_the_methods_it_takes(api: Api):
    paths: dict[str, set[str]] = {}
    for route in ROUTES:
        more = {"HEAD"} if route.method == "GET" else set()
        paths.setdefault(route.path, {"OPTIONS"}).update({route.method}, more)
    for path, methods in paths.items():
        options = await api.ask("OPTIONS", path, authorization="")
        assert (options.status, options.body) == (204, b"")
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "LOCK"):
            answer = await api.ask(method, path, authorization="")
            if method not in methods:
                assert answer.status == 405
                assert answer.headers["Allow"] == options.headers["Allow"] == ", ".join(sorted(methods))


async def test_head_is_get_without_a_body(api: Api):
    get, head = [await api.ask(method, "/accounts") for method in ("GET", "HEAD")]

    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == get.headers["Content-Length"]


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/accounts/", "/accounts//balance", "//accounts", "/accounts/a/b/c", "/Accounts", "/accounts/%ff",
     "/openapi.json/x", "/accounts/..%2f..%2fkeys", "/accounts/a%0Ab/resume"],
)  # fmt: skip
async def test_what_is_not_there_is_404_in_the_apis_own_shape(api: Api, path):
    method = "POST" if path.endswith("resume") else "GET"
    assert (await api.ask(method, path)).error[0] == 404
    assert (await api.ask("POST", "/accounts/nobody/resume")).error == (404, "missing")
    assert (await api.ask("GET", "/keys/nobody00")).error == (404, "missing")


@pytest.mark.parametrize(
    ("method", "path", "body", "error"),
    [
        ("POST", "/accounts", b"", (422, "invalid_arguments")),
        ("POST", "/accounts", b"{", (400, "invalid_request")),
        ("POST", "/accounts", b"[" * 60_000, (400, "invalid_request")),
        ("POST", "/accounts", b"\xff", (400, "invalid_request")),
        ("POST", "/accounts", [], (422, "invalid_arguments")),
        ("POST", "/accounts", {"name": 5}, (422, "invalid_arguments")),
        ("POST", "/accounts", {"name": "x", "idempotency_key": "k"}, (422, "invalid_arguments")),
        ("POST", "/accounts", {"name": "x y"}, (409, "refused")),
        ("POST", "/accounts", {"name": "tester"}, (409, "refused")),
        ("POST", "/accounts/tester/grants", {"amount_nanousd": 5, "account": "other"}, (422, "invalid_arguments")),
        ("POST", "/accounts/tester/grants", {"amount_nanousd": 5.5}, (422, "invalid_arguments")),
        ("POST", "/accounts/tester/grants", {"amount_nanousd": 10**40}, (409, "refused")),
        ("POST", "/accounts/tester/grants", {"amount_nanousd": -5}, (409, "refused")),
        ("PATCH", "/accounts/tester", {"low_balance_nanousd": -1}, (422, "invalid_arguments")),
        ("GET", "/usage?limit=0", None, (422, "invalid_arguments")),
        ("GET", "/usage?limit=x", None, (422, "invalid_arguments")),
        ("GET", "/usage?limit=٣", None, (422, "invalid_arguments")),
        ("GET", "/usage?since_ms=null", None, (422, "invalid_arguments")),
        ("GET", "/usage?since_ms=99999999999999999999", None, (422, "invalid_arguments")),
        ("GET", "/usage?limit=5&limit=6", None, (422, "invalid_arguments")),
        ("GET", "/usage?cursor=abc", None, (422, "invalid_arguments")),
        ("GET", "/usage?unknown=1", None, (422, "invalid_arguments")),
        ("GET", "/usage?account=nobody", None, (404, "missing")),
        ("GET", "/usage/totals", None, (422, "invalid_arguments")),
        ("GET", "/usage/totals?by=client_address", None, (422, "invalid_arguments")),
        ("POST", "/accounts", b" " * 65_537, (413, "body_too_large")),
    ],
)
async def test_a_wrong_request_is_told_what_is_wrong_and_changes_nothing(api: Api, method, path, body, error):
    before = await api.lume.run("account.list")
    answer = await api.ask(method, path, body)

    assert answer.error == error, answer.body
    assert await api.lume.run("account.list") == before


async def test_a_body_is_neither_read_without_end_nor_decompressed(api: Api):
    async def endless():
        for _ in range(100):
            yield b" " * 65_536

    url = api.lume.url + "/api/v1/accounts"
    async with api.lume.session.post(url, data=endless(), headers={"Authorization": f"Bearer {api.key}"}) as response:
        assert response.status == 413
    answer = await api.ask("POST", "/accounts", b"\x1f\x8b", content_encoding="gzip")
    assert answer.error == (415, "unsupported_encoding")


async def test_a_client_that_leaves_in_its_body_costs_nothing(api: Api):
    before = api.lume.log.getvalue()
    wire: Wire = await dial(api.lume, "/api/v1/accounts", b"{", announced=50)
    wire.transport.write(b"")
    wire.transport.abort()
    assert (await api.ask("GET", "/server")).status == 200
    assert "bug" not in api.lume.log.getvalue().removeprefix(before)


async def test_a_whole_number_may_be_written_as_a_float_and_a_query_as_text(api: Api):
    answer = await api.ask("POST", "/accounts/tester/grants", b'{"amount_nanousd": 5.0}')
    assert answer.json["balance_nanousd"] == 10**9 + 5
    assert (await api.ask("POST", "/accounts/tester/grants", b'{"amount_nanousd": 9007199254740994.0}')).status == 422
    await api.ask("POST", "/accounts", {"name": "null"})
    assert (await api.ask("GET", "/keys?account=null&limit=5")).json == {"items": [], "next_cursor": None}
    api.lume.credit_nanousd += 5


async def test_a_fault_of_ours_is_said_without_its_text(api: Api, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret words")

    monkeypatch.setattr(usage, "page", broken)
    answer = await api.ask("GET", "/usage")

    assert answer.error == (500, "internal_error")
    assert "secret words" not in answer.body.decode() + api.lume.log.getvalue()
    assert '"bug"' in api.lume.log.getvalue()


# --- lists and changes -------------------------------------------------------------------------------------------------


async def test_a_list_is_read_part_by_part(api: Api):
    for number in range(5):
        await api.ask("POST", "/accounts", {"name": f"acc{number}"})
    names, path = [], "/accounts?limit=2"
    while path:
        part = (await api.ask("GET", path)).json
        names += [account["account"] for account in part["items"]]
        path = f"/accounts?limit=2&cursor={part['next_cursor']}" if part["next_cursor"] else ""

    assert names == ["acc0", "acc1", "acc2", "acc3", "acc4", "me", "tester"]


async def test_a_change_is_in_force_at_once_and_its_log_line_names_the_key_by_its_id(api: Api):
    await api.ask("POST", "/accounts/tester/suspend", {"reason": "late"})
    async with api.lume.post("/v1/messages", {"model": "claude-test-1", "messages": []}) as response:
        assert response.status == 403
    answer = await api.ask("PATCH", "/accounts/tester", {"calls_per_minute": 7, "low_balance_nanousd": 10**9})

    assert (answer.json["status"], answer.json["reason"]) == ("suspended", "late")
    assert (answer.json["calls_per_minute"], answer.json["low_balance_nanousd"]) == (7, 10**9)
    lines = [msgspec.json.decode(line) for line in api.lume.log.getvalue().splitlines()]
    done = [(line["name"], line["admin_key"]) for line in lines if line["event"] == "operation"]
    assert done == [("account.suspend", api.key_id), ("account.limit", api.key_id)]


REPEATED = [
    ("/accounts", {"name": "twice", "credit_nanousd": 7}, 201),
    ("/accounts/tester/grants", {"amount_nanousd": 7}, 201),
    ("/accounts/tester/keys", {"name": "laptop"}, 201),
]


@pytest.mark.parametrize(("path", "body", "status"), REPEATED, ids=["account", "grant", "key"])
async def test_a_repetition_gets_the_same_answer_and_does_nothing_more(api: Api, path, body, status):
    word = "550e8400-e29b"
    first = await api.ask("POST", path, body, idempotency_key=word)
    after = await api.lume.run("account.list"), await api.lume.run("key.list")
    later = await api.ask("POST", "/accounts/tester/grants", {"amount_nanousd": 100})
    again = await api.ask("POST", path, body, idempotency_key=word)
    other = await api.ask("POST", path, {**body, "name": "other"} if "name" in body else {"amount_nanousd": 8},
                          idempotency_key=word)  # fmt: skip

    assert (first.status, later.status, again.status) == (status, 201, status)
    assert again.body == first.body
    assert [answer.headers.get("idempotency-replayed") for answer in (first, again)] == [None, "true"]
    assert other.error == (409, "refused")
    before_grant = await api.lume.run("account.list")
    assert len(before_grant) == len(after[0])
    assert await api.lume.run("key.list") == after[1]
    assert await api.lume.audit() == []


async def test_a_new_keys_text_is_not_stored_for_the_repetition_and_works(api: Api):
    made = await api.ask("POST", "/accounts/tester/keys", {}, idempotency_key="one")
    key = made.json["key"]
    again = await api.ask("POST", "/accounts/tester/keys", {}, idempotency_key="one")

    assert again.json["key"] == key
    dump = await api.lume.server.database.read(lambda tx: "\n".join(tx.iterdump()))
    assert key.split("_")[2] not in dump
    assert hashlib.sha256(key.encode()).hexdigest().upper() in dump.upper()
    async with api.lume.session.get(api.lume.url + "/v1/models", headers={"x-api-key": key}) as response:
        assert response.status == 200
    other = await api_of(api.lume)
    fresh = await other.ask("POST", "/accounts/tester/keys", {}, idempotency_key="one")
    assert fresh.json["id"] != made.json["id"]  # another admin key's words are its own


async def test_twenty_at_once_with_one_word_are_one_grant(api: Api):
    asks = [api.ask("POST", "/accounts/tester/grants", {"amount_nanousd": 9}, idempotency_key="w") for _ in range(20)]
    answers = await asyncio.gather(*asks)

    assert {(answer.status, answer.json["balance_nanousd"]) for answer in answers} == {(201, 10**9 + 9)}
    assert [answer.headers.get("idempotency-replayed") for answer in answers].count(None) == 1
    assert (await api.lume.balance()).balance_nanousd == 10**9 + 9


async def test_what_was_refused_may_be_tried_again_with_the_same_word(api: Api):
    refused = await api.ask("POST", "/accounts/new/grants", {"amount_nanousd": 9}, idempotency_key="w")
    await api.ask("POST", "/accounts", {"name": "new"})
    given = await api.ask("POST", "/accounts/new/grants", {"amount_nanousd": 9}, idempotency_key="w")

    assert (refused.status, given.status, given.json["balance_nanousd"]) == (404, 201, 9)


@pytest.mark.parametrize("word", ["two words", "x" * 256, "ünï"])
async def test_a_word_that_is_none_is_refused(api: Api, word):
    answer = await api.ask("POST", "/accounts/tester/grants", {"amount_nanousd": 9}, idempotency_key=word)

    assert answer.error == (422, "invalid_arguments")
    assert (await api.lume.balance()).balance_nanousd == 10**9


# --- the document and the page -----------------------------------------------------------------------------------------


async def test_the_document_and_the_page_are_for_everybody(api: Api):
    for path in ("", "/"):
        page = await api.ask("GET", path, authorization="")
        assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    document = await api.ask("GET", "/openapi.json", authorization="")
    assert document.json["openapi"] == "3.1.0"
    assert (await api.ask("POST", "/openapi.json")).error == (405, "method_not_allowed")
    assert (await api.ask("OPTIONS", "/openapi.json")).headers["Allow"] == "GET, HEAD, OPTIONS"
