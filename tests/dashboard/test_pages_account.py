"""A user's own account: password, sessions, all own data, closing it."""

from __future__ import annotations

import json

from lumeproxy.dashboard import exports
from lumeproxy.store import usage
from tests.dashboard.browser import PASSWORD, Site

NEW = "quite different words"


async def test_a_first_password_needs_none_and_a_change_the_old_one(pages: Site):
    user = await pages.user()
    assert (await user.post("/account/password", new=PASSWORD, again=PASSWORD)).to == "/account?said=password"
    other = await pages.user()

    for wrong in ("", "wrong words here"):
        page = await user.post("/account/password", old=wrong, new=NEW, again=NEW)
        assert (page.status, "not the password that is in force" in page.told) == (409, True)
    assert (await user.post("/account/password", old=PASSWORD, new=NEW, again=NEW)).status == 303

    assert (await user.get("/account")).status == 200
    assert (await other.get("/account")).to.startswith("/sign-in")
    assert (await pages.browser().sign_in(name="tester", password=PASSWORD)).status == 401
    assert (await pages.browser().sign_in(name="tester", password=NEW)).status == 303


async def test_a_password_that_is_no_good_is_not_taken(pages: Site):
    user = await pages.user()
    for new, again in (("short", "short"), (NEW, NEW + "x"), ("aaaaaaaaaaaa", "aaaaaaaaaaaa")):
        assert (await user.post("/account/password", new=new, again=again)).status == 409
    assert "There is none yet" in (await user.get("/account")).told


async def test_an_api_key_does_not_give_its_holder_an_operators_password(pages: Site):
    await pages.operator("tester")
    by_key = await pages.user()
    page = await by_key.post("/account/password", new=NEW, again=NEW)

    assert (page.status, "can't be set with an API key" in page.told) == (409, True)


async def test_other_browsers_are_signed_out_one_by_one_or_all(pages: Site):
    first = await pages.user()
    pages.clock.wall_ms += 1
    others = [await pages.user() for _ in range(3)]
    page = await first.get("/account")
    assert page.told.count("this one") == 1
    ends = [link for link in page.links if link.endswith("/end") and link.count("/") == 4]
    assert len(ends) == 3

    assert (await first.post(ends[0])).to == "/account?said=ended"
    assert sorted([(await other.get("/account")).status for other in others]) == [200, 200, 303]
    assert (await first.post(ends[0])).status == 404
    assert (await first.post("/account/sessions/end")).to == "/account?said=ended-all"
    assert [(await other.get("/account")).status for other in others] == [303] * 3
    assert (await first.get("/account")).status == 200


async def test_all_own_data_is_one_document_without_what_is_not_ones_own(pages: Site):
    await pages.call(**{"User-Agent": "tool/1"})
    await pages.lume.run("account.note", name="tester", note="for operators only")
    boss = await pages.operator()
    await boss.post("/operator/accounts/tester/limit", calls_per_minute="9")
    await pages.lume.run("account.create", name="bob")
    user = await pages.user()
    page = await user.get("/account/data.json")
    found = json.loads(page.text)

    assert page.headers["Content-Disposition"] == 'attachment; filename="lumeproxy-tester.json"'
    assert found["account"]["name"] == "tester" and found["account"]["calls_per_minute"] == 9
    records = await pages.lume.server.database.read(usage.find, "tester")
    assert found["usage"] == [{name: record[name] for name in exports.FIELDS} for record in records]
    assert [entry["kind"] for entry in found["entries"]] == ["charge", "grant"]
    assert found["terms"][0]["version"] == "1"
    assert [key["id"] for key in found["keys"]] == [pages.lume.key[5:13]]
    assert found["sessions"][0]["client_address"] == "127.0.0.1"
    assert {action["actor"] for action in found["actions"]} == {"operator", "tester"}
    for word in ("operators only", "bob", "boss", "sha256", pages.lume.key, user.cookies["lume_session"]):
        assert word not in page.text, word


async def test_closing_asks_for_the_name_and_password_and_erases_who_it_was(pages: Site):
    await pages.password()
    await pages.call(**{"User-Agent": "tool/1"})
    user = await pages.user()
    await user.get("/account")
    for fields in ({}, {"name": "someone"}, {"name": "tester"}, {"name": "tester", "old": "wrong words"}):
        assert (await user.post("/account/close", **fields)).status == 409
    assert (await pages.lume.run("account.show", name="tester"))["status"] == "active"

    page = await user.post("/account/close", name=" Tester", old=PASSWORD)

    assert page.to == "/sign-in" and "lume_session" not in user.cookies
    names = {one["account"]: one["status"] for one in await pages.lume.run("account.list")}
    (closed,) = [name for name, status in names.items() if status == "closed"]
    assert "tester" not in names and closed.startswith("erased-")
    (record,) = await pages.lume.server.database.read(usage.find, closed)
    assert (record["client_address"], record["user_agent"]) == ("", "")
    assert record["cost_nanousd"] > 0
    assert (await pages.browser().sign_in(key=pages.lume.key)).status == 401
    async with pages.lume.post("/v1/messages", b"{}") as response:
        assert response.status in (401, 403)
    assert await pages.lume.audit() == []


async def test_an_operators_account_is_not_closed_by_its_own_page(pages: Site):
    boss = await pages.operator()
    page = await boss.post("/account/close", name="boss")

    assert (page.status, "make it a user's again first" in page.told) == (409, True)
