"""Try after try: what is repeated and what is not, what the client sees, what is charged, and who is left alone after it.
Two providers on real sockets; the first one fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest

from lumeproxy.proxy import dispatch
from tests.support.calls import ANTHROPIC, BILL, CHAT, FINAL, ask, ending, events, settled, until, whole
from tests.support.client import dial, take
from tests.support.clock import FakeClock
from tests.support.proxy import Proxy, proxy
from tests.support.upstream import Connection, Script, ScriptedUpstream

BOTH = '[[routes]]\nmodel = "*"\nupstreams = ["anthropic", "anthropic-2"]\n'
ERROR = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
BUSY_HEADERS = {"retry-after": "60", "request-id": "req_1"}


@pytest.fixture
async def second() -> AsyncIterator[ScriptedUpstream]:
    made = ScriptedUpstream(script=lambda c: c.reply(whole(ANTHROPIC)))
    await made.start()
    yield made
    await made.stop()


@contextlib.asynccontextmanager
async def two(
    folder: Path, first: ScriptedUpstream, second: ScriptedUpstream, more: str = "", routes: str = BOTH, **options: Any
) -> AsyncIterator[Proxy]:
    async with proxy(folder, {"anthropic": first, "anthropic-2": second}, more=more, routes=routes, **options) as lume:
        yield lume


@pytest.fixture
async def lume(tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream, clock: FakeClock) -> Any:
    async with two(tmp_path, upstream, second, clock=clock) as made:
        yield made


async def closing(c: Connection) -> None:
    c.abort()


async def broken(c: Connection) -> None:
    await c.stream_head()
    await c.chunk(b"".join(events(ANTHROPIC)[:4]))
    c.abort()


def tried(record: dict[str, Any]) -> list[tuple[str, int | None, str]]:
    return [(one["upstream"], one["status"], one["error"]) for one in record["attempts"]]


# --- what is repeated --------------------------------------------------------------------------------------------------

FAULTS: list[tuple[str, Script, int | None, bool]] = [
    ("rate limit without a wait", lambda c: c.reply(ERROR, 429), 429, True),
    ("rate limit with a long wait", lambda c: c.reply(ERROR, 429, {"retry-after": "6"}), 429, True),
    ("rate limit with a brief wait", lambda c: c.reply(ERROR, 429, {"retry-after": "5"}), 429, False),
    ("internal error", lambda c: c.reply(ERROR, 500), 500, True),
    ("html of a gateway", lambda c: c.reply(b"<html>Bad gateway", 502, {"content-type": "text/html"}), 502, True),
    ("unavailable", lambda c: c.reply(ERROR, 503), 503, True),
    ("gateway timeout", lambda c: c.reply(ERROR, 504), 504, False),
    ("overloaded", lambda c: c.reply(ERROR, 529), 529, True),
    ("our credential unknown", lambda c: c.reply(ERROR, 401), 401, True),
    ("our balance empty", lambda c: c.reply(ERROR, 402), 402, True),
    ("our credential forbidden", lambda c: c.reply(ERROR, 403), 403, True),
    ("the request at fault", lambda c: c.reply(ERROR, 400), 400, False),
    ("an unknown model", lambda c: c.reply(ERROR, 404), 404, False),
    ("closed without a word", closing, None, False),
]


@pytest.mark.parametrize(("script", "status", "repeated"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_fault_before_the_first_byte_is_repeated_where_it_can_not_have_been_billed(
    lume: Proxy,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    script: Script,
    status: int | None,
    repeated: bool,
    stream: bool,
) -> None:
    upstream.script = script
    answer = b"".join(events(ANTHROPIC)) if stream else whole(ANTHROPIC)
    second.script = lambda c: c.stream(events(ANTHROPIC)) if stream else c.reply(answer)

    taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC, stream=stream)))
    record = await settled(lume)

    assert (len(upstream.received), len(second.received)) == (1, int(repeated))
    first = ("anthropic", status, "" if status else "no_answer")
    if repeated:
        assert (taken.status, taken.body, taken.clean) == (200, answer, True)
        assert second.received[0].body == upstream.received[0].body
        assert tried(record) == [first, ("anthropic-2", 200, "")]
        assert (record["upstream"], record["cost_nanousd"]) == ("anthropic-2", BILL[ANTHROPIC])
        assert ending(record) == ("complete", "reported", False)
    else:
        assert taken.status == (status or 503)
        assert tried(record) == [first]
        assert (record["upstream"], record["cost_nanousd"]) == ("anthropic", 0)


async def test_an_upstream_that_begins_late_serves_its_calls_and_rests_after_a_few(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream, clock: FakeClock
) -> None:
    async def late(c: Connection) -> None:
        clock.advance(3_001)
        await c.reply(whole(ANTHROPIC))

    upstream.script = late
    async with two(tmp_path, upstream, second, "[failover]\nslow_ms = 3_000\nfailures = 2", clock=clock) as lume:
        for expected in ("anthropic", "anthropic", "anthropic-2"):
            taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC, stream=False)))
            assert (taken.status, taken.body) == (200, whole(ANTHROPIC))
            record = (await lume.records())[-1]
            assert tried(record) == [(expected, 200, "")]
        assert '"event":"upstream_down"' in lume.log.getvalue()


async def test_what_broke_off_after_its_first_byte_is_not_repeated(
    lume: Proxy, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.script = broken
    taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC)))

    assert not taken.clean or FINAL[ANTHROPIC] not in taken.body
    assert second.received == []
    assert (await settled(lume))["ending"] == "cut_by_upstream"


async def test_an_upstream_that_can_not_be_reached_costs_no_repeat_of_the_budget(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    await upstream.stop()
    more = "[failover]\nrepeat_percent = 0\nrepeat_burst = 0\n"
    async with two(tmp_path, upstream, second, more) as lume:
        taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC, stream=False)))

        assert (taken.status, taken.body) == (200, whole(ANTHROPIC))
        assert tried(await settled(lume)) == [("anthropic", None, "unreachable"), ("anthropic-2", 200, "")]


@pytest.mark.parametrize(
    ("more", "received"),
    [("repeat_percent = 0\nrepeat_burst = 0", 0), ("attempts = 1", 0), ("repeat_percent = 0\nrepeat_burst = 1", 1)],
)
async def test_the_budget_of_tries_is_kept(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream, more: str, received: int
) -> None:
    upstream.script = lambda c: c.reply(ERROR, 503)
    async with two(tmp_path, upstream, second, f"[failover]\n{more}\n") as lume:
        statuses = []
        for number in range(3):
            headers = {"x-claude-code-session-id": f"s{number}"}
            taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC, stream=False), headers=headers))
            statuses.append(taken.status)

        assert sorted(statuses) == [200] * received + [503] * (3 - received)
        assert len(second.received) == received
        assert len(await lume.records()) == 3


async def test_no_further_try_begins_when_the_client_has_waited_long_enough(
    lume: Proxy, upstream: ScriptedUpstream, second: ScriptedUpstream, clock: FakeClock
) -> None:
    async def slow(c: Connection) -> None:
        clock.advance(30_000)
        await c.reply(ERROR, 503)

    upstream.script = slow
    assert (await take(lume.post(ANTHROPIC, ask(ANTHROPIC, stream=False)))).status == 503
    assert second.received == []
    assert (await settled(lume))["attempts"][0]["ms"] == 30_000


# --- the last word -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "two_", "passed"),
    [
        (lambda c: c.reply(b"first", 429, {"retry-after": "60"}), lambda c: c.reply(b"second", 500), (429, b"first")),
        (lambda c: c.reply(b"first", 500), lambda c: c.reply(b"second", 529), (529, b"second")),
        (lambda c: c.reply(b"first", 529), lambda c: c.reply(b"second", 401), (529, b"first")),
        (lambda c: c.reply(b"first", 401), lambda c: c.reply(b"second", 500), (500, b"second")),
        (lambda c: c.reply(b"first", 503), lambda c: c.reply(b"second", 529), (529, b"second")),
    ],
)
async def test_of_several_failures_the_most_useful_is_passed_on_unchanged(
    lume: Proxy,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: Script,
    two_: Script,
    passed: tuple[int, bytes],
) -> None:
    upstream.script, second.script = one, two_
    taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC)))

    assert (taken.status, taken.body) == passed
    assert taken.headers.get("retry-after") == ("60" if passed[0] == 429 else None)
    record = await settled(lume)
    assert (record["cost_nanousd"], record["status"], len(record["attempts"])) == (0, passed[0], 2)
    assert ending(record) == ("refused", "none", False)


@pytest.mark.parametrize("reached", [True, False])
async def test_the_record_names_the_upstream_whose_answer_was_passed_on(
    lume: Proxy, upstream: ScriptedUpstream, second: ScriptedUpstream, reached: bool
) -> None:
    upstream.script = lambda c: c.reply(ERROR, 429, BUSY_HEADERS)
    second.script = lambda c: c.reply(ERROR, 500)
    if not reached:
        await second.stop()

    taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC)))
    record = await settled(lume)

    assert (taken.status, record["status"], record["upstream_request_id"]) == (429, 429, "req_1")
    assert [one["upstream"] for one in record["attempts"]] == ["anthropic", "anthropic-2"]
    assert (record["upstream"], record["credential"], record["cost_nanousd"]) == ("anthropic", 1, 0)


async def test_where_every_credential_is_refused_the_client_is_not_told_the_providers_401(
    lume: Proxy, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.script = second.script = lambda c: c.reply(ERROR, 401)
    taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC)))

    assert taken.status == 502
    assert "operator" in taken.json()["error"]["message"]
    assert [one["status"] for one in (await settled(lume))["attempts"]] == [401, 401]


@pytest.mark.parametrize("status", [429, 500, 503, 529])
async def test_a_single_upstreams_error_passes_unchanged_every_time(
    tmp_path: Path, upstream: ScriptedUpstream, status: int
) -> None:
    upstream.script = lambda c: c.reply(ERROR, status, BUSY_HEADERS)
    async with proxy(tmp_path, {"anthropic": upstream}) as lume:
        for _ in range(8):  # its circuit opens in between: where there is no other, it is tried all the same
            taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC)))
            assert (taken.status, taken.body) == (status, ERROR)
            assert (taken.headers["retry-after"], taken.headers["request-id"]) == ("60", "req_1")
        assert len(upstream.received) == 8
        upstream.script = lambda c: c.reply(whole(ANTHROPIC))
        assert (await take(lume.post(ANTHROPIC, ask(ANTHROPIC, stream=False)))).status == 200


async def test_an_error_body_that_never_ends_does_not_hold_the_next_try_up(
    lume: Proxy, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "ERROR_BODY_S", 0.05)

    async def endless(c: Connection) -> None:
        await c.head(503, {"content-length": "100"})
        await c.send(b"Overl")
        await c.closed_by_peer()

    upstream.script = endless
    assert (await take(lume.post(ANTHROPIC, ask(ANTHROPIC, stream=False)))).status == 200


# --- who leaves in between ---------------------------------------------------------------------------------------------


async def test_who_leaves_between_two_tries_pays_nothing(
    lume: Proxy, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    left = asyncio.Event()

    async def slow(c: Connection) -> None:
        await c.head(503, {"content-length": "10"})
        await left.wait()
        await c.send(b"Overloaded")

    upstream.script = slow
    wire = await dial(lume, ANTHROPIC, ask(ANTHROPIC))
    await until(lambda: len(upstream.received) == 1)
    wire.transport.abort()
    await until(lambda: any(call.gone() for call in lume.server.live._calls.values()))
    left.set()

    record = await settled(lume)
    assert (record["cost_nanousd"], len(second.received)) == (0, 0)


# --- health ------------------------------------------------------------------------------------------------------------


async def call(lume: Proxy, session: str = "", status: int = 200) -> str:
    """A whole call; the upstream that served it."""
    headers = {"x-claude-code-session-id": session} if session else {}
    taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC, stream=False), headers=headers))
    assert taken.status == status, taken.body
    return str((await settled(lume))["upstream"])


async def test_an_upstream_that_failed_five_times_is_left_alone_and_tried_by_one_call_later(
    lume: Proxy, upstream: ScriptedUpstream, second: ScriptedUpstream, clock: FakeClock
) -> None:
    upstream.script = lambda c: c.reply(ERROR, 500)
    assert [await call(lume, f"s{n}") for n in range(20)] == ["anthropic-2"] * 20
    assert len(upstream.received) == 5
    (line,) = [json.loads(line) for line in lume.log.getvalue().splitlines() if '"upstream_down"' in line]
    assert (line["upstream"], line["status"], line["rest_ms"]) == ("anthropic", 500, 30_000)

    clock.advance(30_000)
    upstream.script = lambda c: c.reply(whole(ANTHROPIC))
    assert await call(lume, "new") == "anthropic"
    assert '"upstream_up"' in lume.log.getvalue()
    assert await call(lume, "s3") == "anthropic-2", "a session stays where its prompt cache is now"


async def test_answers_that_break_off_count_as_failures(
    lume: Proxy, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.script = broken
    second.script = lambda c: c.stream(events(ANTHROPIC))
    served = []
    for number in range(8):
        await take(lume.post(ANTHROPIC, ask(ANTHROPIC), headers={"x-claude-code-session-id": f"s{number}"}))
        served.append((await settled(lume))["upstream"])

    assert served == ["anthropic"] * 5 + ["anthropic-2"] * 3


async def test_a_session_is_moved_by_the_second_answer_in_a_row_that_breaks_off(
    lume: Proxy, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.script = broken
    second.script = lambda c: c.stream(events(ANTHROPIC))
    served = []
    for _ in range(4):
        await take(lume.post(ANTHROPIC, ask(ANTHROPIC), headers={"x-claude-code-session-id": "s"}))
        served.append((await settled(lume))["upstream"])

    assert served == ["anthropic", "anthropic", "anthropic-2", "anthropic-2"]


async def test_a_client_that_asks_again_after_no_answer_came_is_served_elsewhere(
    lume: Proxy, upstream: ScriptedUpstream
) -> None:
    upstream.script = closing

    assert await call(lume, "s", status=503) == "anthropic"
    assert await call(lume, "s") == "anthropic-2"


async def test_a_silent_upstream_is_given_up_and_the_client_served_elsewhere_when_it_asks_again(
    lume: Proxy, upstream: ScriptedUpstream, second: ScriptedUpstream, clock: FakeClock
) -> None:
    upstream.script = Connection.closed_by_peer
    asking = asyncio.ensure_future(take(lume.post(ANTHROPIC, ask(ANTHROPIC, stream=False))))
    await until(lambda: len(upstream.received) == 1)
    clock.advance(600_001)
    taken = await asyncio.wait_for(asking, 5)

    assert (taken.status, second.received) == (503, [])
    record = await settled(lume)
    assert (tried(record), record["cost_nanousd"]) == ([("anthropic", None, "no_answer")], 0)
    assert await call(lume) == "anthropic-2"


async def test_a_call_that_is_ended_from_outside_says_nothing_of_its_upstream(
    lume: Proxy, upstream: ScriptedUpstream
) -> None:
    upstream.script = Connection.closed_by_peer
    asking = asyncio.ensure_future(take(lume.post(ANTHROPIC, ask(ANTHROPIC, stream=False))))
    await until(lambda: len(upstream.received) == 1)
    await lume.run("account.suspend", name="tester", reason="test")
    await asyncio.wait_for(asking, 5)

    assert tried(await settled(lume)) == [("anthropic", None, "interrupted")]
    (first, *_) = await lume.run("upstream.list")
    assert (first["state"], first["failures"], first["running_calls"]) == ("up", 0, 0)


async def test_a_wait_that_an_upstream_asks_for_is_granted_at_once(
    lume: Proxy, upstream: ScriptedUpstream, clock: FakeClock
) -> None:
    upstream.script = lambda c: c.reply(ERROR, 529, {"retry-after": "90"})
    assert [await call(lume, f"s{n}") for n in range(3)] == ["anthropic-2"] * 3
    assert len(upstream.received) == 1
    clock.advance(89_999)
    await call(lume, "t")
    assert len(upstream.received) == 1
    clock.advance(1)
    await call(lume, "u")
    assert len(upstream.received) == 2


# --- several credentials -----------------------------------------------------------------------------------------------

THREE = (
    '[upstreams.main]\nkind = "anthropic"\nbase_url = "{url}"\napi_key = ["secret-one", "secret-two", "secret-three"]\n'
)


def by_key(answers: dict[str, Script], otherwise: Script) -> Script:
    def play(c: Connection) -> Awaitable[None]:
        return answers.get(c.received.header("x-api-key") or "", otherwise)(c)

    return play


async def test_fifty_sessions_keep_to_their_credentials_and_move_when_one_is_revoked(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    fine: Script = lambda c: c.reply(whole(ANTHROPIC))  # noqa: E731
    upstream.script = fine
    async with proxy(tmp_path, {}, more=THREE.format(url=upstream.url)) as lume:

        async def round_() -> dict[str, int]:
            places = {}
            for number in range(50):
                await call(lume, f"session-{number}")
                places[f"session-{number}"] = (await lume.records())[-1]["credential"]
            return places

        before = await round_()
        assert await round_() == before
        # Placed by the hash of a random key's id: less than three of fifty at one of them happens once in 10⁶ runs.
        assert all(list(before.values()).count(number) >= 3 for number in (1, 2, 3))
        upstream.script = by_key({"secret-two": lambda c: c.reply(ERROR, 401)}, fine)
        upstream.received.clear()
        after = await round_()

        assert len(upstream.received) == 51, "one call learns that it is revoked, and no client does"
        assert {session for session in after if after[session] != before[session]} == {
            session for session in before if before[session] == 2
        }
        assert 2 not in after.values()
        assert await round_() == after
        (line,) = [json.loads(line) for line in lume.log.getvalue().splitlines() if '"credential_set_aside"' in line]
        assert (line["upstream"], line["credential"], line["status"], line["level"]) == ("main", 2, 401, "error")
        assert "secret" not in lume.log.getvalue()


# --- places ------------------------------------------------------------------------------------------------------------


async def test_calls_beyond_an_upstreams_limit_wait_and_then_go_elsewhere(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    release = asyncio.Event()

    async def slow(c: Connection) -> None:
        await release.wait()
        await c.reply(whole(ANTHROPIC))

    upstream.script = slow
    more = f'[failover]\nqueue_ms = 50\n[upstreams.a]\nkind = "anthropic"\nbase_url = "{upstream.url}"\napi_key = "k"\n'
    more += "concurrent_calls = 2\n"
    routes = '[[routes]]\nmodel = "claude-test-1"\nupstreams = ["a", "anthropic-2"]\n'
    async with two(tmp_path, upstream, second, more, routes) as lume:
        body = ask(ANTHROPIC, stream=False)
        calls = [asyncio.ensure_future(take(lume.post(ANTHROPIC, body))) for _ in range(3)]
        await until(lambda: len(upstream.received) == 2)
        elsewhere = await asyncio.wait_for(asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED), 5)
        assert [task.result().status for task in elsewhere[0]] == [200]
        assert (len(upstream.received), len(second.received)) == (2, 1)
        release.set()
        assert [taken.status for taken in await asyncio.gather(*calls)] == [200] * 3
        records = await lume.records()
        assert sorted(map(tried, records), key=len) == [
            [("a", 200, "")],
            [("a", 200, "")],
            [("a", None, "busy"), ("anthropic-2", 200, "")],
        ]
        assert (await take(lume.post(ANTHROPIC, body))).status == 200
        assert len(upstream.received) == 3, "its places are free again"


async def test_where_every_place_is_taken_the_client_is_told_to_come_again(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    release = asyncio.Event()

    async def slow(c: Connection) -> None:
        await release.wait()
        await c.reply(whole(ANTHROPIC))

    upstream.script = slow
    more = f'[failover]\nqueue_ms = 0\n[upstreams.a]\nkind = "anthropic"\nbase_url = "{upstream.url}"\napi_key = "k"\n'
    more += "concurrent_calls = 1\n"
    async with proxy(tmp_path, {}, more=more) as lume:
        body = ask(ANTHROPIC, stream=False)
        first = asyncio.ensure_future(take(lume.post(ANTHROPIC, body)))
        await until(lambda: len(upstream.received) == 1)
        taken = await take(lume.post(ANTHROPIC, body))
        release.set()

        assert (taken.status, taken.headers["retry-after"]) == (503, "5")
        assert (await first).status == 200
        assert [record["ending"] for record in await lume.records()] == ["complete", "unreachable"]


# --- which model -------------------------------------------------------------------------------------------------------


async def test_each_upstream_is_asked_for_its_own_name_of_the_model(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.script = lambda c: c.reply(ERROR, 529)
    routes = (
        '[[routes]]\nmodel = "claude-test-*"\nupstreams = ["anthropic", { name = "anthropic-2", model = "vendor/other" }]\n'
        '[aliases]\nsonnet = "claude-test-1"\n'
    )
    async with two(tmp_path, upstream, second, routes=routes) as lume:
        for asked, at_first in (("claude-test-1", "claude-test-1"), ("sonnet", "claude-test-1"),
                                ("claude-test-1[1m]", "claude-test-1")):  # fmt: skip
            taken = await take(lume.post(ANTHROPIC, ask(ANTHROPIC, model=asked, stream=False)))
            assert taken.status == 200
            assert json.loads(upstream.received[-1].body)["model"] == at_first
            assert json.loads(second.received[-1].body)["model"] == "vendor/other"
            record = await settled(lume)
            assert (record["model"], record["cost_nanousd"]) == (asked, BILL[ANTHROPIC])


async def test_what_the_provider_bills_stands_beside_what_was_charged(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.script = lambda c: c.reply(ERROR, 529)
    more = (
        f'[billing]\nmultiplier = 2\n[upstreams.cheap]\nkind = "anthropic"\nbase_url = "{second.url}"\napi_key = "k"\n'
    )
    more += '[upstreams.cheap.prices."claude-*"]\ninput = 0.5\noutput = 3\n'
    routes = '[[routes]]\nmodel = "claude-test-1"\nupstreams = ["anthropic", "cheap"]\n'
    async with two(tmp_path, upstream, second, more, routes) as lume:
        await take(lume.post(ANTHROPIC, ask(ANTHROPIC, stream=False)))
        cheap = await settled(lume)
        upstream.script = lambda c: c.reply(whole(ANTHROPIC))
        await lume.run("upstream.disable", name="cheap")
        await take(lume.post(ANTHROPIC, ask(ANTHROPIC, stream=False)))
        dear = await settled(lume)

        assert (cheap["upstream"], cheap["cost_nanousd"]) == ("cheap", 2 * BILL[ANTHROPIC])
        assert cheap["upstream_cost_nanousd"] == 100 * 500 + 20 * 3_000
        assert (dear["cost_nanousd"], dear["upstream_cost_nanousd"]) == (2 * BILL[ANTHROPIC], BILL[ANTHROPIC])
        assert dear["upstream_price_version"] == dear["price_version"] != cheap["upstream_price_version"]
        sums = await lume.run("usage.totals", by="upstream")
        assert {one["upstream"]: one["cost_nanousd"] - one["upstream_cost_nanousd"] for one in sums} == {
            "cheap": 2 * BILL[ANTHROPIC] - 110_000, "anthropic": BILL[ANTHROPIC],
        }  # fmt: skip
        assert await lume.audit() == []


async def test_routes_of_one_model_are_told_apart_by_the_api(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.script = lambda c: c.reply(whole(ANTHROPIC))
    second.script = lambda c: c.reply(whole(CHAT))
    routes = "".join(f'[[routes]]\nmodel = "gpt-test-1"\nupstreams = ["{name}"]\n' for name in ("anthropic", "openai"))
    async with proxy(tmp_path, {"anthropic": upstream, "openai": second}, routes=routes) as lume:
        served = {}
        for path in (ANTHROPIC, CHAT):
            assert (await take(lume.post(path, ask(path, model="gpt-test-1", stream=False)))).status == 200
            served[path] = (await settled(lume))["upstream"]

    assert served == {ANTHROPIC: "anthropic", CHAT: "openai"}
