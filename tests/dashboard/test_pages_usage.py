"""What was called: filters, totals, one call, a session, files that equal the command's."""

from __future__ import annotations

import csv
import io
import json

from lumeproxy.dashboard import exports, pages_usage
from lumeproxy.store.usage import SHOWN
from tests.dashboard.browser import Site

DAY_MS = 86_400_000


async def filled(pages: Site) -> None:
    """Five calls over two days, by two keys, one of a session with an agent."""
    other = (await pages.lume.run("key.create", account="tester", name="other"))["key"]
    await pages.call(text="first")
    pages.clock.wall_ms += DAY_MS
    await pages.call(model="claude-echo", key=other)
    await pages.call(**{"x-claude-code-session-id": "s-1"})
    await pages.call(**{"x-claude-code-session-id": "s-1", "x-claude-code-agent-id": "agent-7"})
    pages.clock.wall_ms += 1
    await pages.call(text="last words of all")


async def test_calls_are_listed_with_their_totals(pages: Site):
    await filled(pages)
    user = await pages.user()
    records = (await pages.lume.records())[::-1]
    page = await user.get("/usage")

    assert sum(link.startswith("/usage/calls/") for link in page.links) == 5
    assert f"Calls 5 0 failed Tokens in {sum(r['input_tokens'] for r in records)} 0 % from cache" in page.told
    assert f"Tokens out {sum(r['output_tokens'] for r in records)}" in page.told
    positions = [page.text.index(record["call_id"]) for record in records]
    assert positions == sorted(positions)
    assert page.text.count('<svg class="chart') == 4
    assert "Half of the newest 5 calls began to answer within" in page.told


FILTERS = {
    "days=1": 4, "days=30": 5, "days=all": 5, "key={other}": 1, "model=claude-echo": 5, "model=none": 0, "session=s-1": 2,
    "outcome=complete": 5, "outcome=failed": 0, "days=x&outcome=x": 5, "days=1&session=s-1&outcome=complete": 2,
    "before=5.x": 0, "before=x": 5,
}  # fmt: skip


async def test_filters(pages: Site):
    await filled(pages)
    user = await pages.user()
    other = next(key["id"] for key in await pages.lume.run("key.list", account="tester") if key["name"] == "other")
    for query, calls in FILTERS.items():
        query = query.format(other=other)
        page = await user.get(f"/usage?{query}")

        assert page.status == 200
        assert sum(link.startswith("/usage/calls/") for link in page.links) == calls, query
        if "before" not in query:
            assert f"Calls {calls} 0 failed" in page.told
            assert len(json.loads((await user.get(f"/usage.json?{query}")).text)) == calls
        if not calls:
            assert "No such calls" in page.told


async def test_pages_follow_each_other(pages: Site, monkeypatch):
    monkeypatch.setattr(pages_usage, "PAGE_CALLS", 2)
    await filled(pages)
    user = await pages.user()
    seen, path = [], "/usage?days=30&model=claude-echo"
    while path:
        page = await user.get(path)
        seen += [link for link in page.links if link.startswith("/usage/calls/")]
        path = next((link for link in page.links if "before=" in link), "")
        assert not path or "days=30" in path and "model=claude-echo" in path
    assert len(seen) == len(set(seen)) == 5


async def test_the_json_file_is_what_the_command_prints_and_the_csv_the_same(pages: Site, monkeypatch):
    monkeypatch.setattr(exports, "PIECE_ROWS", 2)
    await filled(pages)
    user = await pages.user()
    command = [
        {name: value for name, value in record.items() if name not in exports.OPERATORS}
        for record in await pages.lume.run("usage.list", account="tester")
    ]
    assert set(SHOWN) > exports.OPERATORS
    page = await user.get("/usage.json?days=all")

    assert json.loads(page.text) == command
    assert list(json.loads(page.text)[0]) == list(exports.FIELDS) == [n for n in SHOWN if n in exports.FIELDS]
    assert page.headers["Content-Disposition"] == 'attachment; filename="usage.json"'
    rows = list(csv.DictReader(io.StringIO((await user.get("/usage.csv?days=all")).text)))
    assert [{name: "" if value is None else str(value) for name, value in record.items()} for record in command] == rows
    assert (await user.get("/usage.json?model=none")).text == "[]\n"


async def test_a_call_is_shown_with_all_that_is_kept_of_it(pages: Site):
    call = await pages.call(**{"User-Agent": "my-tool/1", "x-claude-code-session-id": "s-1"})
    user = await pages.user()
    page = await user.get(f"/usage/calls/{call}")
    (record,) = await pages.lume.records()

    for word in (
        "claude-echo",
        "my-tool/1, 127.0.0.1",
        "complete",
        f"{record['output_tokens']} tokens",
        "reported",
        call,
    ):
        assert word in page.told, word
    assert f"${record['cost_nanousd'] / 10**9:.9f}" in page.told
    assert {"/usage/sessions/s-1", f"/keys/{record['key_id']}"} <= page.links


async def test_a_session_is_shown_with_its_agents(pages: Site):
    await filled(pages)
    page = await (await pages.user()).get("/usage/sessions/s-1")
    records = [record for record in await pages.lume.records() if record["session_id"] == "s-1"]

    assert "the session itself 1" in page.told and "agent-7 1" in page.told
    assert f"${sum(r['cost_nanousd'] for r in records) / 10**9:.6f}" in page.told
    assert sum(link.startswith("/usage/calls/") for link in page.links) == 2


def test_waits_are_counted_in_their_bars():
    made = pages_usage._first_byte([0, 249, 250, 999, 31_999, 32_000, 10**6])

    assert made is not None
    assert [cells[0] for _, cells in made["table"]] == ["2", "1", "1", "0", "0", "0", "0", "1", "2"]
    assert (made["median"], made["slow"], made["calls"]) == (999, 10**6, 7)
    assert pages_usage._first_byte([]) is None
