"""The operator's redeem codes."""

from __future__ import annotations

import csv
import io
import re

from tests.dashboard.browser import Site

CODE = r"[0-9A-HJKMNP-TV-Z]{4}(?:-[0-9A-HJKMNP-TV-Z]{4}){3}"
FORM = {"name": "spring", "kind": "credit", "amount": "2.50", "count": "3", "expires": "30"}


async def test_codes_are_shown_once_and_then_only_by_their_end(pages: Site):
    boss = await pages.operator()
    page = await boss.post("/operator/codes", **FORM)
    codes = re.findall(CODE, page.text)
    assert len(codes) == len(set(codes)) == 3

    user = await pages.user()
    assert (await user.post("/credit/redeem", code=codes[0])).status == 303
    assert "spring credit $2.50 1 of 3" in (await boss.get("/operator/codes")).told
    shown = await boss.get("/operator/codes/1")
    assert not re.findall(CODE, shown.text)
    assert f"…{codes[0][-4:]}" in shown.text and "/operator/accounts/tester" in shown.links
    assert shown.told.count("not yet") == 2

    assert (await boss.post("/operator/codes/1/withdraw")).to == "/operator/codes/1?said=withdrawn"
    assert (await user.post("/credit/redeem", code=codes[1])).status == 409
    assert (await pages.lume.balance()).balance_nanousd == 3_500_000_000


async def test_codes_come_as_a_file_too(pages: Site):
    boss = await pages.operator()
    page = await boss.post("/operator/codes", **FORM, **{"as": "csv"})
    rows = list(csv.reader(io.StringIO(page.text)))

    assert page.headers["Content-Disposition"] == 'attachment; filename="codes-1.csv"'
    assert rows[0] == ["code"] and len(rows) == 4
    user = await pages.user()
    assert (await user.post("/credit/redeem", code=rows[1][0])).status == 303


WRONG = [
    {"name": " "}, {"name": "n" * 65}, {"count": "0"}, {"count": "1001"}, {"count": "x"}, {"amount": ""}, {"amount": "x"},
    {"amount": "-1"}, {"expires": "5"},
]  # fmt: skip


async def test_what_is_wrong_is_told_and_makes_no_codes(pages: Site):
    boss = await pages.operator()
    for wrong in WRONG:
        page = await boss.post("/operator/codes", **(FORM | wrong))

        assert page.status == 409
        assert 'role="alert"' in page.text
    assert await pages.lume.run("code.list") == []


async def test_there_is_no_other_batch(pages: Site):
    boss = await pages.operator()
    for batch in ("9", "x", "-1", "1" * 20):
        assert (await boss.get(f"/operator/codes/{batch}")).status == 404
        assert (await boss.post(f"/operator/codes/{batch}/withdraw")).status == 404
