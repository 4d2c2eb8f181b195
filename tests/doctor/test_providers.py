"""Findings about upstreams, routes, prices and the clock: each fault is told with its mend."""

from __future__ import annotations

from typing import Any

import pytest

from lumeproxy.core.routing import Route
from lumeproxy.doctor import providers
from lumeproxy.doctor.finding import Finding
from lumeproxy.doctor.providers import Asked
from lumeproxy.upstreams.probe import Probe

URL = "https://api.test/v1"
LOOK = f"curl --noproxy '*' -v {URL}/models"
NOW_MS = 1_790_000_000_000
HOUR_MS = 3_600_000


def asked(name: str = "prod", **fields: Any) -> Asked:
    known: dict[str, Any] = {"reachable": True, "status": 200, "latency_ms": 120, "at_ms": NOW_MS} | fields
    return Asked(name, URL, "the variable PROD_KEY", Probe(**known))


def told(finding: Finding) -> tuple[str, str, str | None]:
    return str(finding.state), finding.text, finding.mend


@pytest.mark.parametrize(
    ("fields", "state", "text", "mend"),
    [
        ({"credential_ok": True, "models": ("a", "b")}, "ok",
         "answers in 120 ms, takes the credential, and has 2 models.", None),
        ({"models": ("a",)}, "ok",
         "answers in 120 ms, lists its models to anybody (credential not checked), and has 1 model.", None),
        ({"status": 404, "error": "it answers 404"}, "ok",
         "answers in 120 ms; it has no list of models (404), so its credential is not checked.", None),
        ({"reachable": False, "status": None, "error": "can't connect: Connection refused"}, "failed",
         "is not reached: can't connect: Connection refused.", LOOK),
        ({"reachable": False, "status": None, "error": "its certificate is not trusted: certificate has expired"}, "failed",
         "is not reached: its certificate is not trusted: certificate has expired.", LOOK),
        ({"status": 401, "credential_ok": False}, "failed", "refuses the credential (401).",
         "put a valid key into the variable PROD_KEY, and restart the server (or kill -HUP it)"),
        ({"status": 403, "credential_ok": False}, "failed", "refuses the credential (403).",
         "put a valid key into the variable PROD_KEY, and restart the server (or kill -HUP it)"),
        ({"status": 402, "credential_ok": False}, "failed", "says that your balance there is empty (402).",
         "top it up at the provider"),
        ({"status": 301, "redirects_to": "https://other.test"}, "failed",
         "redirects to https://other.test, which is not followed: every call fails.",
         "set upstreams.prod.base_url to where it redirects"),
        ({"status": 308}, "failed", "redirects, which is not followed: every call fails.",
         "set upstreams.prod.base_url to where it redirects"),
        ({"status": 503, "error": "it answers 503"}, "warning", "can be reached, but it answers 503.",
         LOOK),
        ({"status": 429, "error": "it answers 429"}, "warning", "can be reached, but it answers 429.",
         LOOK),
        ({"error": "what it answered is no list of models"}, "warning",
         "can be reached, but what it answered is no list of models.", LOOK),
    ],
)  # fmt: skip
def test_an_upstream_is_told_by_what_it_answered(fields, state, text, mend):
    finding = providers.upstream(asked(**fields))

    assert finding.check == "upstream:prod"
    assert told(finding) == (state, f"prod ({URL}) {text}", mend)


# --- the clock -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("skew_ms", "state", "text"),
    [
        (-900, "ok", "It agrees with prod's to 1 s."),
        (29_000, "ok", "It agrees with prod's to 29 s."),
        (-31_000, "warning", "It is 31 seconds ahead of prod's: prices, expiry and records go by it."),
        (240_000, "warning", "It is 4 minutes behind prod's: prices, expiry and records go by it."),
        (HOUR_MS, "failed", "It is 1 hour behind prod's: prices, expiry and records go by it."),
        (-49 * HOUR_MS, "failed", "It is 2 days ahead of prod's: prices, expiry and records go by it."),
    ],
)
def test_a_clock_is_judged_by_the_upstreams_time(skew_ms, state, text):
    finding = providers.clock([asked(date_ms=NOW_MS + skew_ms)])

    assert finding is not None
    assert told(finding) == (state, text, None if state == "ok" else "sudo timedatectl set-ntp true")


def test_of_several_clocks_the_nearest_is_believed():
    wrong, right, silent = asked("a", date_ms=NOW_MS + HOUR_MS), asked("b", date_ms=NOW_MS - 1_000), asked("c")

    assert told(providers.clock([wrong, right, silent]))[:2] == ("ok", "It agrees with b's to 1 s.")  # type: ignore[arg-type]


def test_where_none_tells_its_time_nothing_is_said():
    assert providers.clock([asked(), asked(reachable=False)]) is None
    assert providers.clock([]) is None


# --- routes and prices ---------------------------------------------------------------------------------------------------


def test_each_route_without_a_price_fails_with_what_to_add():
    assert [told(finding) for finding in providers.prices(["q-*", "r"])] == [
        ("failed", "No model of the route q-* has a price: its calls are refused.",
         'add [prices."q-*"] with input and output'),
        ("failed", "No model of the route r has a price: its calls are refused.", 'add [prices."r"] with input and output'),
    ]  # fmt: skip
    assert [told(finding) for finding in providers.prices([])] == [("ok", "Every route has a price.", None)]


@pytest.mark.parametrize(
    ("route", "text"),
    [
        (Route("qwen", ("prod",)), None),
        (Route("qwen-*", ("prod",)), None),
        (Route("x", ("prod",), "qwen"), None),
        (Route("x", ("other",)), None),
        (Route("x", ("silent",)), None),
        (Route("x", ("empty",)), None),
        (Route("mine", ("other", "prod"), "llama"),
         "The route mine asks prod for llama, which is not in its list of models; it lists llama-3."),
        (Route("x", ("prod",)), "The route x asks prod for x, which is not in its list of models."),
    ],
)  # fmt: skip
def test_a_route_to_a_model_that_is_not_listed_is_warned_of(route, text):
    probes = {
        "prod": asked(models=("qwen", "llama-3")).probe,
        "silent": asked().probe,
        "empty": asked(models=()).probe,
    }
    expected = ("warning", text, f'set upstream_model of the route "{route.pattern}" to a model of prod')

    assert [told(finding) for finding in providers.unlisted([route], probes)] == ([expected] if text else [])


def test_no_more_than_a_few_routes_are_told():
    routes = [Route(f"x{number}", ("prod",)) for number in range(20)]

    assert len(providers.unlisted(routes, {"prod": asked(models=("a",)).probe})) == 5
