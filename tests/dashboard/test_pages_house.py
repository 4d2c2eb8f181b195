"""The operator's pages of the whole house."""

from __future__ import annotations

import re
from pathlib import Path

from tests.dashboard.browser import Site, site
from tests.support.upstream import ScriptedUpstream


async def test_the_house_shows_what_runs_what_was_spent_and_by_whom(pages: Site):
    for _ in range(2):
        await pages.call()
    page = await (await pages.operator()).get("/operator")

    assert "Running now 0 calls" in page.told
    assert "Today <$0.0001 2 calls, 0 failed" in page.told
    assert "Accounts 3 0 suspended, 0 closed" in page.told
    balance = sum(one["balance_nanousd"] for one in await pages.lume.run("account.list"))
    assert f"Credit of all accounts ${balance / 10**9:,.2f}" in page.told
    assert "Who spent most, 30 days Account Calls Cost tester 2" in page.told
    cost = sum(record["cost_nanousd"] for record in await pages.lume.records())
    assert re.search(r"echo up 0 (–|\d+ ms) 2 0 <\$0\.0001 <\$0\.0001 Disable", page.told)
    assert "Margin, 30 days $0.00 <$0.0001 to providers, $0.00 beyond credit" in page.told and cost == 44_000
    assert "MB on disk" in page.told and "No price" not in page.told


async def test_all_calls_are_listed_with_their_accounts_and_found_by_account(pages: Site):
    await pages.lume.run("account.create", name="bob", credit_nanousd=10**9)
    mine, bobs = await pages.call(), await pages.call(key=(await pages.lume.run("key.create", account="bob"))["key"])
    boss = await pages.operator()

    page = await boss.get("/operator/usage")
    assert {f"/operator/usage/calls/{call}" for call in (mine, bobs)} <= page.links
    assert {"/operator/accounts/tester", "/operator/accounts/bob"} <= page.links
    page = await boss.get("/operator/usage?account=bob")
    assert f"/operator/usage/calls/{bobs}" in page.links and f"/operator/usage/calls/{mine}" not in page.links
    assert "Calls 1 0 failed" in page.told
    assert (await boss.get("/operator/usage?account=nobody")).status == 404
    assert "Account bob" in (await boss.get(f"/operator/usage/calls/{bobs}")).told
    assert (await boss.get("/operator/usage/calls/none")).status == 404


async def test_prices_in_force_and_what_has_none(tmp_path: Path):
    route = '[[routes]]\nmodel = "priceless"\nupstreams = ["echo"]\n'
    async with site(tmp_path, more=route) as priced:
        boss = await priced.operator()
        page = await boss.get("/operator/prices")

        assert "priceless through echo" in page.told
        assert "claude-echo echo $1.000 $1.000 $1.250 $2.000 $5.000 operator" in page.told
        assert "No price, so that calls are refused: priceless." in (await boss.get("/operator")).told


async def test_a_credential_that_is_refused_is_told(tmp_path: Path, upstream: ScriptedUpstream):
    upstream.script = lambda c: c.reply(b"{}", 403)
    more = (
        f'[upstreams.main]\nkind = "anthropic"\nbase_url = "{upstream.url}"\napi_key = ["one", "two"]\n'
        '[[routes]]\nmodel = "claude-test-*"\nupstreams = ["main"]\n[failover]\nattempts = 1\n'
    )
    async with site(tmp_path, more=more) as pages:
        boss = await pages.operator()
        assert "refused" not in (await boss.get("/operator")).told
        async with pages.lume.post("/v1/messages", {"model": "claude-test-1", "messages": []}) as response:
            assert response.status == 502
        assert re.search(r"main up credential [12] refused 0 ", (await boss.get("/operator")).told)


async def test_an_upstream_is_switched_off_and_on_and_the_log_says_by_whom(pages: Site):
    boss = await pages.operator()
    await boss.get("/operator")
    assert (await boss.post("/operator/upstreams/echo/disable")).to == "/operator?said=disabled"
    assert "echo disabled" in (await boss.get("/operator")).told
    async with pages.lume.post("/v1/messages", {"model": "claude-echo", "messages": []}) as response:
        assert response.status == 503
    assert (await boss.post("/operator/upstreams/echo/enable")).to == "/operator?said=enabled"
    await pages.call()
    assert (await boss.post("/operator/upstreams/none/disable")).status == 404
    lines = [one for one in await pages.lume.run("action.list") if one["operation"].startswith("upstream.")]
    assert [(one["operation"], one["actor"], one["given"]) for one in lines] == [
        ("upstream.enable", "boss", {"name": "echo"}),
        ("upstream.disable", "boss", {"name": "echo"}),
    ]
