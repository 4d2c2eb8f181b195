"""Signing in by key, password and link; registering; the terms."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lumeproxy.dashboard.pages_sign_in import own_path
from lumeproxy.store import people, sessions
from tests.dashboard.browser import PASSWORD, Browser, Site, site


async def test_a_key_signs_in_once_the_terms_are_accepted(pages: Site):
    browser = pages.browser()
    page = await browser.sign_in(key=pages.lume.key, accept=False)
    assert page.to == "/"
    assert (await browser.get("/")).to == "/accept"
    for path in ("/keys", "/account", "/usage.json"):
        assert (await browser.get(path)).to == "/accept"
    terms = await browser.get("/accept")
    assert "version 1" in terms.told and "Keep your API keys to yourself" in terms.told

    assert (await browser.post("/accept", version="1")).status == 400
    assert (await browser.post("/accept", version="0", accepted="yes")).status == 400
    assert (await browser.post("/accept", version="1", accepted="yes")).to == "/"

    assert (await browser.get("/")).status == 200
    person = await pages.lume.server.database.read(people.of, "tester")
    kept = await pages.lume.server.database.read(people.acceptances, person.account_id)
    assert kept == [{"version": "1", "time_ms": pages.clock.now_ms()}]
    assert (await browser.get("/accept")).to == "/"
    assert (await browser.get("/sign-in")).to == "/"


async def test_new_terms_are_asked_for_once_more(tmp_path: Path):
    async with site(tmp_path) as before:
        await before.user()
    (tmp_path / "terms.md").write_text("# Ours\n\nBe *kind*.")
    more = '[dashboard]\nterms_version = "2"\nterms_file = "terms.md"\n'
    folder = tmp_path
    (folder / "data").rename(folder / "kept")
    async with site(folder, more=more) as after:
        page = await after.browser().get("/terms")
        assert "<em>kind</em>" in page.text and page.told.startswith("Ours Be kind . Version 2")
        user = after.browser()
        await after.lume.server.database.write(lambda tx: people.accept(tx, people.of(tx, "tester").account_id, "1", 1))
        await user.sign_in(key=after.lume.key, accept=False)
        assert "changed since you accepted version 1" in (await user.get("/accept")).told
        await user.accept()
        assert (await user.get("/")).status == 200


NO_KEY, NO_PASSWORD = "This API key is not valid here", "do not belong together"
WRONG: list[tuple[dict[str, str], str]] = [
    ({"key": "lume_nonsense"}, NO_KEY),
    ({"key": "sk-ant-1"}, NO_KEY),
    ({"key": "{other}"}, NO_KEY),
    ({"name": "tester", "password": "wrong words here"}, NO_PASSWORD),
    ({"name": "nobody", "password": PASSWORD}, NO_PASSWORD),
    ({"name": "house:credit", "password": PASSWORD}, NO_PASSWORD),
    ({"name": "<b>", "password": "\x00"}, NO_PASSWORD),
    ({}, NO_PASSWORD),
]


async def test_what_is_wrong_is_told_and_nobody_is_signed_in(pages: Site):
    await pages.password()
    browser = pages.browser()
    other = pages.lume.key[:-1] + ("0" if pages.lume.key[-1] != "0" else "1")
    for given, told in WRONG:
        page = await browser.sign_in(**{name: value.format(other=other) for name, value in given.items()})

        assert page.status == 401
        assert told in page.told
        assert "lume_session" not in browser.cookies


async def test_a_password_signs_in_by_any_letter_case_of_the_name(pages: Site):
    await pages.password()
    browser = pages.browser()

    assert (await browser.sign_in(name="Tester", password=PASSWORD)).to == "/"
    assert "Account tester" in (await browser.get("/account")).told


async def test_a_limited_key_does_not_sign_in_since_it_could_make_one_without_limits(pages: Site):
    for given in ({"expires_ms": 2**45}, {"models": ["claude-*"]}, {"budget_day_nanousd": 5}, {"calls_per_minute": 5}):
        key = (await pages.lume.run("key.create", account="tester", **given))["key"]
        page = await pages.browser().sign_in(key=key)

        assert page.status == 401
        assert "can't sign in" in page.told


async def test_an_expired_or_revoked_key_does_not_sign_in_and_ends_its_sessions(pages: Site):
    made = await pages.lume.run("key.create", account="tester")
    browser = pages.browser()
    await browser.sign_in(key=made["key"])
    assert (await browser.get("/")).status == 200

    await pages.lume.run("key.revoke", id=made["id"])

    assert (await browser.get("/")).to.startswith("/sign-in")
    assert (await pages.browser().sign_in(key=made["key"])).status == 401


async def test_a_suspended_account_is_told_why_where_it_is_signed_in_and_when_it_signs_in(pages: Site):
    await pages.password()
    user = await pages.user()
    await pages.lume.run("account.suspend", name="tester", reason="bill <unpaid>")

    page = await user.get("/")
    assert (page.status, "This account is suspended: bill <unpaid>" in page.told) == (403, True)
    for given in ({"key": pages.lume.key}, {"name": "tester", "password": PASSWORD}):
        page = await pages.browser().sign_in(**given)
        assert page.status == 403
        assert "This account is suspended: bill <unpaid>" in page.told
    page = await pages.browser().sign_in(name="tester", password="not the password")
    assert "unpaid" not in page.text
    await pages.lume.run("account.resume", name="tester")
    assert (await user.get("/")).status == 200


async def test_whoever_tries_out_has_to_wait_by_address_and_by_name(tmp_path: Path):
    async with site(
        tmp_path, LUMEPROXY_LIMITS__FAILED_KEYS_PER_MINUTE="3", LUMEPROXY_SERVER__TRUSTED_PROXIES='["127.0.0.1"]'
    ) as guarded:
        await guarded.password()

        async def attempt(address: str, **given: str) -> int:
            browser = guarded.browser()
            await browser.get("/sign-in")
            page = await browser.post("/sign-in", {"X-Forwarded-For": address}, **given)
            if page.status == 429:
                assert int(page.headers["Retry-After"]) in range(1, 61)
            return page.status

        assert [await attempt("9.9.9.9", key="lume_x") for _ in range(4)] == [401, 401, 401, 429]
        assert await attempt("9.9.9.9", key=guarded.lume.key) == 429
        assert await attempt("8.8.8.8", key=guarded.lume.key) == 303
        wrong = [await attempt(f"7.7.7.{at}", name="tester", password="wrong wrong") for at in range(4)]
        assert wrong == [401, 401, 401, 429]
        assert await attempt("6.6.6.6", name="tester", password=PASSWORD) == 429
        guarded.clock.steady_ms += 61_000
        assert await attempt("6.6.6.6", name="tester", password=PASSWORD) == 303
        assert '"guessing"' in guarded.lume.log.getvalue()


async def test_a_link_signs_in_once_and_looking_at_it_uses_nothing_up(pages: Site):
    link = (await pages.lume.run("account.link", name="tester"))["url"].removeprefix(pages.lume.url)
    for _ in range(2):
        assert "Sign in as tester" in (await pages.browser().get(link)).told
    browser, late = pages.browser(), pages.browser()
    for each in (browser, late):
        await each.get(link)

    secret = link.partition("token=")[2]
    assert (await browser.post("/sign-in/link", link=secret)).to == "/"
    assert (await late.post("/sign-in/link", link=secret)).status == 404
    assert (await late.get(link)).status == 404
    assert (await late.get("/sign-in/link?token=%ff")).status == 404
    kept = await pages.lume.server.database.read(lambda tx: tx.execute("SELECT via FROM sessions").fetchall())
    assert kept == [("link",)]


async def test_signing_out_ends_the_session_at_the_server(pages: Site):
    user = await pages.user()
    copied = Browser(pages.lume, dict(user.cookies))
    assert (await user.post("/sign-out")).to == "/sign-in"

    assert "lume_session" not in user.cookies
    assert (await copied.get("/")).to.startswith("/sign-in")


async def test_signing_in_makes_a_new_token_whatever_the_browser_had(pages: Site):
    browser = pages.browser()
    browser.cookies["lume_session"] = "ab" * 32
    await browser.sign_in(key=pages.lume.key)

    assert browser.cookies["lume_session"] != "ab" * 32
    rows = await pages.lume.server.database.read(lambda tx: tx.execute("SELECT sha256 FROM sessions").fetchall())
    assert browser.cookies["lume_session"].encode() not in rows[0]


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/keys", "/keys"), ("/usage?days=30&model=a%2A", "/usage?days=30&model=a%2A"), ("//evil.test", "/"),
     ("https://evil.test", "/"), ("/\\evil.test", "/"), ("/%2fevil.test", "/"), ("javascript:1", "/"), ("", "/"),
     ("/a\nb", "/"), ("/sign-out", "/"), ("/ evil", "/"), ("/usage?x=//evil.test", "/usage?x=//evil.test")],
)  # fmt: skip
async def test_a_browser_is_sent_on_to_our_own_pages_only(path, expected):
    assert own_path(path) == expected


async def test_after_signing_in_one_is_where_one_wanted_to_be(pages: Site):
    browser = pages.browser()
    await browser.get("/keys")
    await browser.get("/sign-in?next=/keys")

    assert (await browser.post("/sign-in", key=pages.lume.key, next="/keys")).to == "/keys"


# --- registering -------------------------------------------------------------------------------------------------------


async def test_nobody_registers_unless_the_operator_lets_people(pages: Site):
    browser = pages.browser()
    await browser.get("/sign-in")

    assert (await browser.get("/register")).status == 404
    assert (await browser.post("/register", name="eve", password=PASSWORD, again=PASSWORD)).status == 404
    assert "/register" not in (await browser.get("/sign-in")).links


FORM = {"name": "Eve", "password": PASSWORD, "again": PASSWORD, "accepted": "yes", "version": "1"}


async def test_where_it_is_open_anybody_gets_an_account_without_credit(tmp_path: Path):
    async with site(tmp_path, LUMEPROXY_DASHBOARD__REGISTRATION="open") as opened:
        browser = opened.browser()
        assert "/register" in (await browser.get("/sign-in")).links
        await browser.get("/register")

        assert (await browser.post("/register", **FORM)).to == "/"

        assert "$0.00" in (await browser.get("/")).told
        assert (await opened.browser().sign_in(name="eve", password=PASSWORD)).to == "/"
        eve = await opened.lume.server.database.read(people.of, "eve")
        assert (eve.role, eve.accepted) == ("user", "1")


UNFIT = [
    ({"accepted": ""}, "tick the box"),
    ({"version": "0"}, "tick the box"),
    ({"again": "something else"}, "not the same"),
    ({"password": "short", "again": "short"}, "needs 10 to 256"),
    ({"name": "tester"}, "There is an account tester already"),
    ({"name": "a b"}, "is no account name"),
    ({"name": "house:credit"}, "is no account name"),
]


async def test_what_is_wrong_with_a_registration_is_told_and_makes_nothing(tmp_path: Path):
    async with site(tmp_path, LUMEPROXY_DASHBOARD__REGISTRATION="open") as opened:
        browser = opened.browser()
        await browser.get("/register")
        for other, told in UNFIT:
            page = await browser.post("/register", **(FORM | other))

            assert page.status == 409
            assert told in page.told
        assert len(await opened.lume.run("account.list")) == 2


async def test_an_invite_makes_one_account_with_its_credit(tmp_path: Path):
    async with site(tmp_path, LUMEPROXY_DASHBOARD__REGISTRATION="invite") as invited:
        batch = await invited.lume.run("code.create", name="b", kind="invite", amount_nanousd=7 * 10**9, count=1)
        credit = await invited.lume.run("code.create", name="c", amount_nanousd=10**9, count=1)
        browser = invited.browser()
        await browser.get("/register")
        for code in ("", "0000-0000-0000-0000", credit["texts"][0]):
            assert "not valid" in (await browser.post("/register", **FORM, code=code)).told

        code = batch["texts"][0]
        assert (await browser.post("/register", **FORM, code=code.lower().replace("-", " "))).to == "/"
        await (late := invited.browser()).get("/register")
        assert "not valid" in (await late.post("/register", **(FORM | {"name": "max"}), code=code)).told

        balances = {a["account"]: a["balance_nanousd"] for a in await invited.lume.run("account.list")}
        assert balances == {"eve": 7 * 10**9, "me": 10 * 10**9, "tester": 10**9}


async def test_accounts_from_one_address_are_limited(tmp_path: Path):
    environ = {"LUMEPROXY_DASHBOARD__REGISTRATION": "open", "LUMEPROXY_DASHBOARD__REGISTRATIONS_PER_MINUTE": "2"}
    async with site(tmp_path, **environ) as opened:
        for name, status in (("a", 303), ("b", 303), ("c", 429)):
            browser = opened.browser()
            await browser.get("/register")
            page = await browser.post("/register", **(FORM | {"name": name}))
            assert page.status == status
        assert len(await opened.lume.run("account.list")) == 4


async def test_the_oldest_session_ends_beyond_so_many(pages: Site, monkeypatch):
    monkeypatch.setattr(sessions, "SESSIONS_OF_ACCOUNT", 2)
    users = []
    for _ in range(3):
        pages.clock.wall_ms += 1
        users.append(await pages.user())

    statuses = [(await user.get("/")).status for user in users]
    assert statuses == [303, 200, 200]
    assert re.search(r"this one", (await users[1].get("/account")).told)


async def test_no_secret_of_a_browser_is_in_any_file_or_log_line(pages: Site, tmp_path: Path):
    await pages.password()
    made = await pages.lume.run("key.create", account="tester")
    code = (await pages.lume.run("code.create", name="b", amount_nanousd=5, count=1))["texts"][0]
    link = (await pages.lume.run("account.link", name="tester"))["url"].partition("token=")[2]
    browser = pages.browser()
    await browser.sign_in(name="tester", password=PASSWORD)
    await browser.get("/credit")
    await browser.post("/credit/redeem", code=code)
    await browser.get(f"/sign-in/link?token={link}&key={made['key']}", Referer=f"/?{link}")
    await browser.post("/sign-in/link", link=link + "x")
    await browser.post("/credit/redeem", code=made["key"], token="0" * 64)
    wrong = "wrong-password-77"
    await browser.sign_in(name="tester", password=wrong)

    secrets = [
        PASSWORD,
        wrong,
        made["key"],
        code,
        code.replace("-", ""),
        link,
        browser.token,
        *browser.cookies.values(),
    ]
    searched = {file.name: file.read_bytes() for file in (tmp_path / "data").iterdir() if file.is_file()}
    searched["log"] = pages.lume.log.getvalue().encode()
    assert {"lumeproxy.db", "lumeproxy.db-wal", "log"} <= searched.keys()
    for secret in secrets:
        for name, content in searched.items():
            assert secret.encode() not in content, (secret, name)
