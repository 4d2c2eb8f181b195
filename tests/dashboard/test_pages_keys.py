"""A user's own keys: made and shown once, limited, replaced, revoked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lumeproxy.dashboard.pages_keys import state
from tests.dashboard.browser import Site, site

DAY_MS = 86_400_000


def secret(text: str) -> str:
    found = re.findall(r"lume_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}", text)
    assert found and len(set(found)) == 1
    return str(found[0])


async def test_a_new_key_is_shown_once_and_works(pages: Site):
    user = await pages.user()
    page = await user.post(
        "/keys",
        name=" laptop ",
        expires="30",
        models="claude-*, gpt-5*",
        budget_day="1.50",
        budget_total="$2,000",
    )
    key = secret(page.text)
    assert "It is shown only now" in page.told

    await pages.call(key=key)
    listed = await user.get("/keys")
    assert key not in listed.text
    assert "laptop" in listed.told and "claude-*, gpt-5*" in listed.told and "today" in listed.told
    (made,) = [one for one in await pages.lume.run("key.list", account="tester") if one["name"] == "laptop"]
    assert made["expires_ms"] == pages.clock.now_ms() + 30 * DAY_MS
    assert (made["budget_day_nanousd"], made["budget_total_nanousd"]) == (1_500_000_000, 2_000 * 10**9)
    assert made["models"] == ["claude-*", "gpt-5*"]
    (line,) = [one for one in await pages.lume.run("action.list") if one["via"] == "page" and "key" in one["operation"]]
    assert (line["actor"], line["operation"], line["account"]) == ("tester", "key.create", "tester")


WRONG: list[tuple[dict[str, str], str]] = [
    ({"name": "n" * 65}, "at most 64 characters"),
    ({"expires": "31"}, "what is offered"),
    ({"budget_day": "much"}, "'much' is not an amount"),
    ({"budget_week": "-1"}, "can't be negative"),
    ({"models": "m " * 51}, "at most 50 model patterns"),
]


async def test_what_is_wrong_with_a_new_key_is_told_and_what_was_typed_stays(pages: Site):
    user = await pages.user()
    for fields, told in WRONG:
        page = await user.post("/keys", **({"name": "mine", "expires": "30"} | fields))

        assert page.status == 409
        assert told in page.told
        assert f'value="{fields.get("name", "mine")}"' in page.text
    assert len(await pages.lume.run("key.list", account="tester")) == 1


async def test_there_is_a_limit_of_keys_in_force(tmp_path: Path):
    async with site(tmp_path, LUMEPROXY_DASHBOARD__KEYS_OF_ACCOUNT="2") as limited:
        user = await limited.user()
        assert (await user.post("/keys", name="a")).status == 200
        page = await user.post("/keys", name="b")
        assert (page.status, "at most 2 keys in force" in page.told) == (409, True)
        first = next(key["id"] for key in await limited.lume.run("key.list", account="tester") if key["name"] == "a")
        await user.post(f"/keys/{first}/revoke")
        assert (await user.post("/keys", name="b")).status == 200


async def test_a_budget_is_set_shown_and_taken_away(pages: Site):
    user = await pages.user()
    key = pages.lume.key[5:13]
    assert (await user.post(f"/keys/{key}/limit", budget_day="0.25")).to == f"/keys/{key}?said=limited"

    page = await user.get(f"/keys/{key}?said=limited")
    assert "The limits are in force." in page.told
    assert 'name="budget_day" inputmode="decimal" value="0.25"' in page.text
    assert "Budget left $0.2500" in page.told
    assert "is wrong" in (await user.post(f"/keys/{key}/limit", budget_day="x")).told
    await user.post(f"/keys/{key}/limit")
    assert (await pages.lume.run("key.list", account="tester"))[0]["budget_day_nanousd"] is None


async def test_a_key_is_replaced_by_one_of_the_same_limits_and_ends_when_it_was_said(pages: Site):
    user = await pages.user()
    old = secret((await user.post("/keys", name="ci", models="claude-*")).text)
    assert (await user.post(f"/keys/{old[5:13]}/rotate", overlap="5")).status == 409
    new = secret((await user.post(f"/keys/{old[5:13]}/rotate", overlap="60")).text)

    for key in (old, new):
        await pages.call(key=key)
    listed = {one["id"]: one for one in await pages.lume.run("key.list", account="tester")}
    assert listed[new[5:13]]["models"] == ["claude-*"]
    assert listed[old[5:13]]["revoked_ms"] == pages.clock.now_ms() + 3_600_000
    assert "being replaced" in (await user.get("/keys")).told
    page = await user.post(f"/keys/{old[5:13]}/rotate", overlap="0")
    assert (page.status, "replaced already" in page.told) == (409, True)


async def test_a_revoked_key_ends_and_is_shown_for_a_month(pages: Site):
    user = await pages.user()
    key = secret((await user.post("/keys", name="lost")).text)
    assert (await user.post(f"/keys/{key[5:13]}/revoke")).to == "/keys?said=revoked"

    async with pages.lume.post("/v1/messages", b"{}", headers={"Authorization": f"Bearer {key}"}) as response:
        assert response.status == 401
    page = await user.get(f"/keys/{key[5:13]}")
    assert "revoked" in page.told
    assert not any("rotate" in link or "revoke" in link for link in page.links)
    assert "lost" in (await user.get("/keys")).told
    pages.clock.wall_ms += 29 * DAY_MS
    assert "lost" in (await (await pages.user()).get("/keys")).told
    pages.clock.wall_ms += 2 * DAY_MS
    assert "lost" not in (await (await pages.user()).get("/keys")).told


@pytest.mark.parametrize(
    ("revoked", "expires", "told"),
    [(None, None, "in force"), (5, None, "revoked"), (20, None, "being replaced"), (None, 10, "expired"),
     (None, 11, "in force")],
)  # fmt: skip
def test_a_keys_state(revoked, expires, told):
    assert state({"revoked_ms": revoked, "expires_ms": expires}, 10) == told
