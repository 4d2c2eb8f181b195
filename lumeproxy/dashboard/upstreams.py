"""What an operator can do with upstreams: look at their health, switch one off and on again, ask one whether it works.

One desk, before a running server or alone on the data folder; what only a server knows is then left open. Must not know how
calls are sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from lumeproxy.clock import Clock
from lumeproxy.core.health import Circuit, State
from lumeproxy.core.selection import Selection
from lumeproxy.dashboard import arguments as args
from lumeproxy.errors import Missing
from lumeproxy.store import disabled
from lumeproxy.store.database import Database

LIST, TEST = "upstream.list", "upstream.test"
REDIRECT = 300
WITHOUT_LIST = frozenset({404, 405, 501})
WORDS = {State.CLOSED: "up", State.OPEN: "resting", State.HALF_OPEN: "on trial"}
DISABLED, UNKNOWN, REFUSED = "disabled", "unknown", "refused"


@dataclass(frozen=True, slots=True)
class Known:
    """An upstream as it is configured: its kind, its address, and how many credentials it has."""

    kind: str
    address: str
    credentials: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking with a credential: `accepted` is None where it was not checked, `models` where it gave no list;
    `error` is a clause, "" when all went well."""

    reachable: bool
    status: int | None
    accepted: bool | None
    latency_ms: int | None
    models: int | None
    error: str

    @property
    def works(self) -> bool:
        """Whether calls may be expected to: a server without a list of models has answered, which is all that can be asked
        for free."""
        answered = self.status is None or self.status < REDIRECT or self.status in WITHOUT_LIST
        return self.reachable and answered and self.accepted is not False


class Fleet(Protocol):
    """The upstreams in force. `selection` is None where no server runs."""

    @property
    def selection(self) -> Selection | None:
        """Their health."""
        ...

    def known(self) -> Mapping[str, Known]:
        """All of them by name."""
        ...

    def places(self, name: str) -> tuple[int, int]:
        """How many calls one has running, and waiting for it."""
        ...

    async def ask(self, name: str) -> Sequence[Asked]:
        """Ask one with each of its credentials. Raises ConfigError where one can't be read."""
        ...


class _Upstream(args.Arguments):
    name: str


class UpstreamDesk:
    """The operations on upstreams."""

    def __init__(self, database: Database, clock: Clock, fleet: Fleet) -> None:
        self._database = database
        self._clock = clock
        self._fleet = fleet

    def operations(self) -> args.Table:
        """By name, as `Operations` takes them."""
        return {
            LIST: (args.Arguments, self._list),
            "upstream.disable": (_Upstream, self._disable),
            "upstream.enable": (_Upstream, self._enable),
            TEST: (_Upstream, self._test),
        }

    async def _list(self, _given: args.Arguments) -> Any:
        off = await self._database.read(disabled.names)
        return [self._shown(name, known, off.get(name)) for name, known in self._fleet.known().items()]

    async def _disable(self, given: _Upstream) -> Any:
        known = self._found(given.name)
        off = await self._database.write(disabled.add, given.name, self._clock.now_ms())
        if self._fleet.selection is not None:
            self._fleet.selection.disable(off)
        return self._shown(given.name, known, off.get(given.name))

    async def _enable(self, given: _Upstream) -> Any:
        known = self._found(given.name)
        off = await self._database.write(disabled.remove, given.name)
        if self._fleet.selection is not None:
            self._fleet.selection.disable(off)
            self._fleet.selection.readmit(given.name)
        return self._shown(given.name, known, None)

    async def _test(self, given: _Upstream) -> Any:
        known = self._found(given.name)
        asked = await self._fleet.ask(given.name)
        return {
            "name": given.name,
            "address": known.address,
            "ok": all(one.works for one in asked),
            "credentials": [{"credential": number, **asdict(one)} for number, one in enumerate(asked, 1)],
        }

    def _found(self, name: str) -> Known:
        known = self._fleet.known()
        if name not in known:
            raise Missing(f"There is no upstream {name[:70]}; there are {', '.join(known)}.")
        return known[name]

    def _shown(self, name: str, known: Known, disabled_since_ms: int | None) -> dict[str, Any]:
        now_ms, selection = self._clock.monotonic_ms(), self._fleet.selection
        member = None if selection is None else selection.members.get(name)
        shown = {
            "name": name,
            "kind": known.kind,
            "address": known.address,
            "state": UNKNOWN,
            "disabled_since_ms": disabled_since_ms,
            "rest_ms": None,
            "failures": None,
            "ttfb_ms": None,
            "running_calls": None,
            "waiting_calls": None,
            "credentials": [{"credential": number, "state": UNKNOWN, "status": None, "rest_ms": None, "ttfb_ms": None}
                            for number in range(1, known.credentials + 1)],
        }  # fmt: skip
        if member is not None:
            running, waiting = self._fleet.places(name)
            shown |= {
                "state": WORDS[member.circuit.state(now_ms)],
                "rest_ms": _rest_ms(member.circuit, now_ms),
                "failures": member.circuit.failures,
                "ttfb_ms": member.circuit.ttfb_ms or None,
                "running_calls": running,
                "waiting_calls": waiting,
                "credentials": [_credential(number, one, now_ms) for number, one in enumerate(member.credentials, 1)],
            }
        if disabled_since_ms is not None:
            shown["state"] = DISABLED
        return shown


def _credential(number: int, circuit: Circuit, now_ms: int) -> dict[str, Any]:
    """A credential by its number; nothing of the secret. One that was refused stays so until it has been tried anew."""
    state = circuit.state(now_ms)
    return {
        "credential": number,
        "state": REFUSED if circuit.refused_status else WORDS[state],
        "status": circuit.refused_status or None,
        "rest_ms": _rest_ms(circuit, now_ms),
        "ttfb_ms": circuit.ttfb_ms or None,
    }


def _rest_ms(circuit: Circuit, now_ms: int) -> int:
    return 0 if circuit.until_ms is None else max(0, circuit.until_ms - now_ms)
