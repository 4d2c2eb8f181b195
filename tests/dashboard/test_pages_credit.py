"""Credit: entries and codes."""

from __future__ import annotations

from pathlib import Path

from lumeproxy.dashboard import pages_credit
from tests.dashboard.browser import Site, site


async def test_a_code_is_redeemed_once_and_its_entry_is_shown(pages: Site):
    code = (await pages.lume.run("code.create", name="spring", amount_nanousd=5 * 10**9, count=1))["texts"][0]
    user = await pages.user()
    await user.get("/credit")
    assert (await user.post("/credit/redeem", code=code.lower())).to == "/credit?said=redeemed"

    page = await user.get("/credit?said=redeemed")
    assert "The code was redeemed" in page.told and "Balance $6.00" in page.told
    assert "grant code of spring +$5.000000" in page.told
    for wrong in (code, "", "0000-0000-0000-0000", "x" * 501):
        again = await user.post("/credit/redeem", code=wrong)
        assert again.status == 409
    assert (await pages.lume.balance()).balance_nanousd == 6 * 10**9
    (line,) = [one for one in await pages.lume.run("action.list") if one["operation"] == "code.redeem"]
    assert (line["actor"], line["before"], line["after"]) == (
        "tester", {"balance_nanousd": 10**9}, {"balance_nanousd": 6 * 10**9},
    )  # fmt: skip
    assert code.replace("-", "") not in str(line) and code not in str(line)


async def test_entries_are_listed_in_pages_charges_with_their_call(pages: Site, monkeypatch):
    monkeypatch.setattr(pages_credit, "PAGE_ENTRIES", 2)
    calls = [await pages.call() for _ in range(3)]
    user = await pages.user()
    first = await user.get("/credit")
    older = next(link for link in first.links if "before=" in link)
    second = await user.get(older)

    assert {f"/usage/calls/{call}" for call in calls[1:]} <= first.links
    assert f"/usage/calls/{calls[0]}" in second.links and "first credit +$1.000000" in second.told
    assert not any("before=" in link for link in second.links)
    assert (await user.get("/credit?before=x")).told == first.told


async def test_whoever_tries_out_codes_has_to_wait(tmp_path: Path):
    async with site(tmp_path, LUMEPROXY_LIMITS__FAILED_KEYS_PER_MINUTE="3") as guarded:
        code = (await guarded.lume.run("code.create", name="c", amount_nanousd=1, count=1))["texts"][0]
        user = await guarded.user()
        statuses = [(await user.post("/credit/redeem", code=f"x{at}")).status for at in range(4)]
        assert statuses == [409, 409, 409, 429]
        assert (await user.post("/credit/redeem", code=code)).status == 429
        guarded.clock.steady_ms += 61_000
        assert (await user.post("/credit/redeem", code=code)).status == 303
