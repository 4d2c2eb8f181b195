"""Which upstream and credential the next try of a call goes to. Pure.

A session stays where its prompt cache is, and is moved only when that target is down. A new one is placed by its own name,
so that it comes to the same place after a restart: on a route in order, at the first upstream that is up; on a weighted
one, by rendezvous hashing, which shares sessions by weight and moves none that need not; of an upstream's credentials, by
the same with equal weights. Where everything is down, the least bad is tried: it may be up again, and somebody has to find
out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lumeproxy.core.failover import Blame, Verdict
from lumeproxy.core.health import Circuit, HealthRules, State

# Sessions whose place is remembered; beyond, the oldest tenth is forgotten and placed by name again.
REMEMBERED_SESSIONS = 50_000


@dataclass(frozen=True, slots=True)
class Target:
    """An upstream by its name and one of its credentials by its number, from 1."""

    upstream: str
    credential: int


@dataclass(slots=True)
class Member:
    """An upstream's health, and that of each of its credentials; `disabled` by the operator."""

    name: str
    circuit: Circuit
    credentials: tuple[Circuit, ...]
    disabled: bool = False

    def takes_calls(self, now_ms: int) -> bool:
        """Whether a call may be sent to it, with some credential."""
        return not self.disabled and self.circuit.available(now_ms)

    @property
    def refused(self) -> int:
        """How many of its credentials are set aside, since it refuses them."""
        return sum(bool(one.refused_status) for one in self.credentials)


class Attempt:
    """One try of a call, from its choice to its report by `failed` or `ended`; a second report changes nothing. Where a
    method returns True, a circuit has changed: that is worth a line in a log."""

    __slots__ = ("_credential", "_credential_probe", "_member", "_probe", "_reported", "begun_ms", "target")

    def __init__(self, target: Target, member: Member, now_ms: int) -> None:
        self.target = target
        self.begun_ms = now_ms
        self._member = member
        self._credential = member.credentials[target.credential - 1]
        self._probe = member.circuit.begin()
        self._credential_probe = self._credential.begin()
        self._reported = False

    def answered(self, now_ms: int) -> bool:
        """A reply has begun that speaks against nobody. Whether a circuit was closed by it."""
        ttfb_ms = now_ms - self.begun_ms
        self._member.circuit.answered(now_ms, ttfb_ms, probe=self._probe)
        self._credential.answered(now_ms, ttfb_ms, probe=self._credential_probe)
        news = self._probe or self._credential_probe
        self._probe = self._credential_probe = False
        return news

    def failed(self, verdict: Verdict, now_ms: int, status: int = 0) -> bool:
        """The try has failed, or its answer broke off. Whether that opened a circuit."""
        if self._reported:
            return False
        self._reported = True
        if verdict.blame is Blame.UPSTREAM:
            self._credential.let_go(probe=self._credential_probe)
            return self._member.circuit.failed(now_ms, probe=self._probe, wait_ms=verdict.wait_ms)
        # The upstream has answered, so it is up; the credential is what is wrong.
        if self._probe:
            self._member.circuit.answered(now_ms, now_ms - self.begun_ms, probe=True)
        if verdict.blame is Blame.REFUSED:
            return self._credential.refused(now_ms, status, probe=self._credential_probe)
        return self._credential.failed(now_ms, probe=self._credential_probe, wait_ms=verdict.wait_ms)

    def ended(self, now_ms: int, *, well: bool) -> None:
        """The call has ended `well`, or in a way that says nothing of the upstream."""
        if self._reported:
            return
        self._reported = True
        for circuit, probe in ((self._member.circuit, self._probe), (self._credential, self._credential_probe)):
            if well:
                circuit.succeeded(now_ms)
            else:
                circuit.let_go(probe=probe)


@dataclass(slots=True)
class _Place:
    """Where a session is; `served`: it has been answered there."""

    target: Target
    served: bool = False


class Selection:
    """All targets with their health, and where each session is."""

    def __init__(self, rules: HealthRules) -> None:
        self._rules = rules
        self._identities: dict[str, tuple[str, ...]] = {}
        self._places: dict[Hashable, _Place] = {}
        self.members: dict[str, Member] = {}

    def offer(self, upstreams: Mapping[str, Sequence[str]]) -> None:
        """These upstreams are in force from now on: by name, an identity for each credential (something that changes
        with the address or the secret). What stays the same keeps its health, but for a credential that was set aside.
        """
        members = {}
        for name, identities in upstreams.items():
            old = self.members.get(name)
            before = self._identities.get(name, ())
            kept = {} if old is None else dict(zip(before, old.credentials, strict=True))
            fresh = {identity: Circuit(self._rules) for identity in identities}
            found = tuple(kept[i] if i in kept and not kept[i].refused_status else fresh[i] for i in identities)
            circuit = old.circuit if old is not None and set(before) & set(identities) else Circuit(self._rules)
            members[name] = Member(name, circuit, found, old is not None and old.disabled)
        self._identities = {name: tuple(identities) for name, identities in upstreams.items()}
        self.members = members

    @property
    def disabled(self) -> frozenset[str]:
        """The upstreams that get no calls."""
        return frozenset([member.name for member in self.members.values() if member.disabled])

    def disable(self, names: Collection[str]) -> None:
        """Exactly these upstreams get no calls."""
        for member in self.members.values():
            member.disabled = member.name in names

    def readmit(self, name: str) -> None:
        """Forget what speaks against an upstream and its credentials: the operator says that it is well again."""
        member = self.members[name]
        member.circuit = Circuit(self._rules)
        member.credentials = tuple(Circuit(self._rules) for _ in member.credentials)

    def choose(
        self,
        names: Sequence[str],
        weights: Sequence[int],
        session: Hashable,
        tried: Collection[Target],
        now_ms: int,
        *,
        busy: bool = False,
    ) -> Attempt | None:
        """The next try among the upstreams named, tried already `tried`; None where there is none worth it.

        `weights` are empty for upstreams in order. A later try goes only where nothing speaks against it. `busy`: the
        ones tried had no place, which is no reason to move a session.
        """
        place = self._places.get(session)
        stays = False
        if place is not None and place.target.upstream in names:
            member = self.members.get(place.target.upstream)
            if member is not None and self._is_up(member, place.target, now_ms):
                if place.target not in tried:
                    return Attempt(place.target, member, now_ms)
                stays = place.served or busy
        target = self._first_up(names, weights, session, tried, now_ms)
        if target is None:
            return None if tried else self._least_bad(names, now_ms)
        if not stays:  # else only this call goes elsewhere: its place is busy, or has failed it once
            self._remember(session, target)
        return Attempt(target, self.members[target.upstream], now_ms)

    def served(self, session: Hashable, target: Target) -> None:
        """A call of the session was answered there, so that its prompt cache is."""
        place = self._places.get(session)
        if place is not None and place.target == target:
            place.served = True

    def move(
        self, names: Sequence[str], weights: Sequence[int], session: Hashable, target: Target, now_ms: int
    ) -> None:
        """Let the session's next call go elsewhere, if it can: this target has just failed it beyond repeat."""
        elsewhere = self._first_up(names, weights, session, (target,), now_ms)
        if elsewhere is not None:
            self._remember(session, elsewhere)

    def targets(self, name: str) -> list[Target]:
        """An upstream with each of its credentials."""
        member = self.members.get(name)
        return [] if member is None else [Target(name, number) for number in range(1, len(member.credentials) + 1)]

    def _first_up(
        self,
        names: Sequence[str],
        weights: Sequence[int],
        session: Hashable,
        tried: Collection[Target],
        now_ms: int,
    ) -> Target | None:
        for name in _ranked(names, weights, session) if weights else names:
            member = self.members.get(name)
            if member is None or not member.takes_calls(now_ms):
                continue
            up = [
                target
                for number, circuit in enumerate(member.credentials, 1)
                if (target := Target(name, number)) not in tried and circuit.available(now_ms)
            ]
            if up:
                return up[0] if len(up) == 1 else max(up, key=lambda one: _draw(session, name, one.credential))
        return None

    def _is_up(self, member: Member, target: Target, now_ms: int) -> bool:
        return (
            not member.disabled
            and target.credential <= len(member.credentials)
            and member.circuit.available(now_ms)
            and member.credentials[target.credential - 1].available(now_ms)
        )

    def _least_bad(self, names: Iterable[str], now_ms: int) -> Attempt | None:
        """The target that is soonest up again, refused credentials last."""
        found = [
            ((circuit.refused_status != 0, max(member.circuit.until_ms or 0, circuit.until_ms or 0)), target, member)
            for name in names
            if (member := self.members.get(name)) is not None and not member.disabled
            for number, circuit in enumerate(member.credentials, 1)
            for target in (Target(name, number),)
        ]
        if not found:
            return None
        _, target, member = min(found, key=lambda one: one[0])
        return Attempt(target, member, now_ms)

    def _remember(self, session: Hashable, target: Target) -> None:
        self._places[session] = _Place(target)
        if len(self._places) > REMEMBERED_SESSIONS:
            for oldest in tuple(self._places)[: REMEMBERED_SESSIONS // 10]:
                del self._places[oldest]

    def shown(self, name: str, now_ms: int) -> tuple[State, tuple[State, ...]]:
        """Where an upstream and its credentials stand."""
        member = self.members[name]
        return member.circuit.state(now_ms), tuple(circuit.state(now_ms) for circuit in member.credentials)


def _ranked(names: Sequence[str], weights: Sequence[int], session: Hashable) -> list[str]:
    """Weighted rendezvous: the share of sessions that have an upstream first is its weight's."""
    drawn = {name: weight / -math.log(_draw(session, name, 0)) for name, weight in zip(names, weights, strict=True)}
    return sorted(names, key=drawn.__getitem__, reverse=True)


def _draw(session: Hashable, name: str, number: int) -> float:
    """A number between 0 and 1, both excluded, that is the same for the same session and target in every process."""
    digest = hashlib.blake2b(f"{session!r} {name} {number}".encode(), digest_size=6).digest()
    return (int.from_bytes(digest, "big") + 0.5) / 2**48
