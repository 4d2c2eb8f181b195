"""The operator's pages of accounts, and the log of what was done."""

from __future__ import annotations

import re

from lumeproxy.dashboard import pages_accounts
from tests.dashboard.browser import Site


def mark(text: str) -> str:
    found = re.search(r'name="mark" value="([0-9a-f]{24})"', text)
    assert found
    return found[1]


async def test_accounts_are_found_by_a_part_of_their_name_in_pages(pages: Site, monkeypatch):
    monkeypatch.setattr(pages_accounts, "PAGE_ACCOUNTS", 2)
    for name in ("ann", "anna", "hanna", "bob"):
        await pages.lume.run("account.create", name=name)
    boss = await pages.operator()

    first = await boss.get("/operator/accounts?q=ANN")
    assert {"/operator/accounts/ann", "/operator/accounts/anna"} <= first.links
    following = next(link for link in first.links if "after=" in link)
    second = await boss.get(following)
    assert "/operator/accounts/hanna" in second.links and not any("after=" in link for link in second.links)
    assert "No account has that in its name" in (await boss.get("/operator/accounts?q=%25")).told


async def test_an_account_is_made_with_credit_once_however_often_the_form_is_sent(pages: Site):
    boss = await pages.operator()
    form = {"name": "Ann", "credit": "12.50", "mark": mark((await boss.get("/operator/accounts")).text)}

    assert (await boss.post("/operator/accounts", **form)).to == "/operator/accounts/ann?said=created"
    again = await boss.post("/operator/accounts", **form)
    assert (again.status, "There is an account ann already" in again.told) == (409, True)
    assert 'value="Ann"' in again.text
    for wrong in ({"name": ""}, {"credit": "x"}, {"credit": "-1"}):
        assert (await boss.post("/operator/accounts", **(form | {"name": "new"} | wrong))).status == 409
    assert (await pages.lume.run("credit.balance", account="ann"))["balance_nanousd"] == 12_500_000_000


async def test_credit_is_given_once_for_each_time_that_the_form_was_shown(pages: Site):
    boss = await pages.operator()
    form = {"amount": "5", "note": "invoice 17", "mark": mark((await boss.get("/operator/accounts/tester")).text)}
    for _ in range(2):
        assert (await boss.post("/operator/accounts/tester/grant", **form)).to.endswith("said=granted")
    assert (await pages.lume.balance()).balance_nanousd == 6 * 10**9

    fresh = mark((await boss.get("/operator/accounts/tester")).text)
    assert (await boss.post("/operator/accounts/tester/grant", amount="1", mark=fresh)).status == 303
    assert (await pages.lume.balance()).balance_nanousd == 7 * 10**9
    for amount in ("", "0", "x", "1000001"):
        page = await boss.post("/operator/accounts/tester/grant", amount=amount, mark=fresh[::-1])
        assert page.status == 409, amount
    assert "invoice 17 $5.000000" in (await boss.get("/operator/accounts/tester")).told


async def test_limits_are_set_and_taken_away(pages: Site):
    boss = await pages.operator()
    path = "/operator/accounts/tester/limit"
    assert (await boss.post(path, calls_per_minute="60", concurrent_calls="0")).to.endswith("said=limited")

    shown = await pages.lume.run("account.show", name="tester")
    assert (shown["calls_per_minute"], shown["concurrent_calls"]) == (60, 0)
    assert (
        'name="calls_per_minute" inputmode="numeric" value="60"' in (await boss.get("/operator/accounts/tester")).text
    )
    for wrong in ("x", "-1", "1.5", "1" * 10):
        assert (await boss.post(path, calls_per_minute=wrong)).status == 409
    await boss.post(path)
    assert (await pages.lume.run("account.show", name="tester"))["calls_per_minute"] is None


async def test_a_suspension_has_a_reason_and_ends(pages: Site):
    boss = await pages.operator()
    path = "/operator/accounts/tester"
    assert (await boss.post(path + "/suspend", reason=" ")).status == 409
    assert (await boss.post(path + "/suspend", reason="unpaid")).to.endswith("said=suspended")
    page = await boss.get(path)
    assert "Status suspended : unpaid" in page.told
    async with pages.lume.post("/v1/messages", b"{}") as response:
        assert response.status == 403
    assert (await boss.post(path + "/resume")).to.endswith("said=resumed")
    await pages.call()


async def test_a_note_is_for_operators_and_everybody_is_signed_out(pages: Site):
    boss, user = await pages.operator(), await pages.user()
    path = "/operator/accounts/tester"
    assert (await boss.post(path + "/note", note="pays late")).to.endswith("said=noted")
    assert "pays late" in (await boss.get(path)).text
    assert "pays late" not in (await user.get("/account")).text

    assert (await boss.post(path + "/sessions")).to.endswith("said=ended-all")
    assert (await user.get("/")).to.startswith("/sign-in")
    assert (await boss.get("/")).status == 200


async def test_a_link_is_shown_once_and_signs_the_account_in(pages: Site):
    boss = await pages.operator()
    page = await boss.post("/operator/accounts/tester/link")
    (link,) = re.findall(r"http://127\.0\.0\.1:\d+(/sign-in/link\?token=[0-9a-f]{48})", page.text)

    assert "Sign in as tester" in (await pages.browser().get(link)).told
    await pages.lume.run("account.suspend", name="tester", reason="x")
    assert (await boss.post("/operator/accounts/tester/link")).status == 409


async def test_there_is_no_other_account(pages: Site):
    boss = await pages.operator()
    for action in ("grant", "limit", "suspend", "resume", "note", "sessions", "link"):
        page = await boss.post(f"/operator/accounts/nobody/{action}", amount="1", reason="x")

        assert (page.status, "no account nobody" in page.told) == (404, True)


async def test_the_log_tells_who_did_what_and_what_changed(pages: Site, monkeypatch):
    monkeypatch.setattr(pages_accounts, "PAGE_ACTIONS", 3)
    boss = await pages.operator()
    await boss.post("/operator/accounts/tester/suspend", reason="unpaid")
    await pages.lume.run("account.resume", name="tester")
    page = await boss.get("/operator/log")

    assert "the server itself command account.resume tester" in page.told
    assert (
        "boss page account.suspend reason unpaid tester status active , reason – status suspended , reason unpaid"
        in (page.told)
    )
    older = next(link for link in page.links if "before=" in link)
    assert "account.suspend" not in (await boss.get(older)).told
    assert "account.suspend" in (await boss.get("/operator/accounts/tester")).told
