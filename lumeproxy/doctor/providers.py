"""Findings about the upstreams: reached, credential, models, routes and prices, and the clock by their time. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lumeproxy.core.patterns import is_pattern
from lumeproxy.core.routing import Route
from lumeproxy.doctor.finding import Finding, failed, ok, spelled, warning
from lumeproxy.upstreams.probe import Probe

# A Date header is cut to the second and some time old. From half a minute on, records are dated wrongly; from five minutes
# on, certificates and keys begin and end at the wrong time.
CLOCK_WARNING_MS = 30_000
CLOCK_FAILED_MS = 300_000
SHOWN_UNLISTED = 5
_NO_LIST = frozenset({404, 405, 501})
_EMPTY_BALANCE = 402


@dataclass(frozen=True, slots=True)
class Asked:
    """An upstream that was asked for its models: where, and where its credential comes from."""

    name: str
    base_url: str
    credential_from: str
    probe: Probe


def upstream(asked: Asked) -> Finding:
    """Whether it can be reached and takes our credential."""
    check, probe = f"upstream:{asked.name}", asked.probe
    # As lumeproxy asks: no proxy of the environment in between.
    look = f"curl --noproxy '*' -v {shlex.quote(asked.base_url + '/models')}"
    where = f"{asked.name} ({asked.base_url})"
    if not probe.reachable:
        return failed(check, f"{where} is not reached: {probe.error}.", look)
    if probe.redirects_to or (probe.status is not None and 300 <= probe.status < 400):
        to = f" to {probe.redirects_to}" if probe.redirects_to else ""
        text = f"{where} redirects{to}, which is not followed: every call fails."
        return failed(check, text, f"set upstreams.{asked.name}.base_url to where it redirects")
    if probe.status == _EMPTY_BALANCE:
        return failed(check, f"{where} says that your balance there is empty (402).", "top it up at the provider")
    if probe.credential_ok is False:
        text = f"{where} refuses the credential ({probe.status})."
        return failed(
            check, text, f"put a valid key into {asked.credential_from}, and restart the server (or kill -HUP it)"
        )
    answered = f"{where} answers in {probe.latency_ms or 0:,} ms"
    if probe.status in _NO_LIST:
        return ok(check, f"{answered}; it has no list of models ({probe.status}), so its credential is not checked.")
    if probe.models is None:
        return warning(check, f"{where} can be reached, but {probe.error}.", look)
    credential = (
        "takes the credential" if probe.credential_ok else "lists its models to anybody (credential not checked)"
    )
    return ok(check, f"{answered}, {credential}, and has {spelled(len(probe.models), 'model')}.")


def clock(probes: Sequence[Asked]) -> Finding | None:
    """This machine's clock beside the upstreams'; of several, the one that is nearest is believed. None where none told its
    time."""
    told = [
        (asked.probe.date_ms - asked.probe.at_ms, asked.name) for asked in probes if asked.probe.date_ms is not None
    ]
    if not told:
        return None
    skew_ms, name = min(told, key=lambda one: abs(one[0]))
    if abs(skew_ms) < CLOCK_WARNING_MS:
        return ok("clock", f"It agrees with {name}'s to {max(1, round(abs(skew_ms) / 1000))} s.")
    off = f"{_span(abs(skew_ms))} {'behind' if skew_ms > 0 else 'ahead of'} {name}'s"
    text = f"It is {off}: prices, expiry and records go by it."
    mend = "sudo timedatectl set-ntp true"
    return (failed if abs(skew_ms) >= CLOCK_FAILED_MS else warning)("clock", text, mend)


def _span(ms: int) -> str:
    seconds = ms // 1000
    # An hour that is measured by a header cut to the second is one of 3,599 s.
    for unit, length, least in (("day", 86_400, 86_340), ("hour", 3_600, 3_540), ("minute", 60, 120)):
        if seconds >= least:
            return spelled(round(seconds / length), unit)
    return spelled(seconds, "second")


def prices(unpriced: Sequence[str]) -> list[Finding]:
    """Routes all of whose calls are refused for want of a price."""
    if not unpriced:
        return [ok("prices", "Every route has a price.")]
    return [
        failed(
            "prices",
            f"No model of the route {model} has a price: its calls are refused.",
            f'add [prices."{model}"] with input and output',
        )
        for model in unpriced
    ]


def unlisted(routes: Sequence[Route], probes: Mapping[str, Probe]) -> list[Finding]:
    """Routes to a model that the upstream does not list; some serve more than they list, hence warnings."""
    findings = []
    for route in routes:
        for name in route.upstreams:
            model = route.model_at(name) or route.pattern
            if is_pattern(model):
                continue
            listed = probes[name].models if name in probes else None
            if listed is not None and listed and model not in listed:
                near = next((one for one in listed if model in one or one in model), None)
                known = f"; it lists {near}" if near else ""
                text = f"The route {route.pattern} asks {name} for {model}, which is not in its list of models{known}."
                findings.append(
                    warning("routes", text, f'set upstream_model of the route "{route.pattern}" to a model of {name}')
                )
    return findings[:SHOWN_UNLISTED]
