"""A circuit breaker for each kind of request: it stops this client from adding to the venue's trouble, and its own.

Each kind has a circuit of its own: market data that fails must not hold up an order. A circuit is *closed* (all pass),
*throttled* after some failures in a row (one request in a while), *open* after more (none), and then *half open*: one
probe at a time, and after enough of them closed again, or open for twice as long. Requests that reduce risk (exits,
cancels, protective stops) are counted and never held back: they are worth trying exactly when all else fails.

Pure: time is handed in, seconds of a clock that only goes forward.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from market.binance.errors import CircuitOpen


class Kind(Enum):
    """Kinds of request, each with its own circuit."""

    RISK_REDUCING = "risk_reducing"
    ENTRY = "entry"
    ACCOUNT = "account"
    MARKET_DATA = "market_data"


class State(Enum):
    """How a circuit stands."""

    CLOSED = "closed"
    THROTTLED = "throttled"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When a circuit changes. Failures are counted in a row."""

    throttle_after: int = 3
    open_after: int = 6
    spacing_s: float = 1.0
    """Between two requests while throttled."""
    recover_after: int = 2
    """Successes in a row that close a circuit that is throttled or half open."""
    open_s: float = 5.0
    """How long it is open first; doubled each time that a probe fails."""
    most_open_s: float = 300.0
    probe_s: float = 60.0
    """A probe of which nothing was heard for so long counts as failed."""


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to send one request. `era` tells whether the circuit has changed since."""

    kind: Kind
    era: int
    probe: bool


@dataclass(slots=True)
class _Circuit:
    state: State = State.CLOSED
    failures: int = 0
    successes: int = 0
    next_s: float = 0.0
    """Throttled: when the next may pass. Open: when it becomes half open. Half open: when the probe is given up."""
    open_s: float = 0.0
    era: int = 0
    probing: bool = field(default=False)


class Breaker:
    """All circuits. Use: `permit`, send, then `record` what came of it."""

    def __init__(self, settings: BreakerSettings | None = None) -> None:
        self._settings = settings or BreakerSettings()
        self._circuits = {kind: _Circuit() for kind in Kind}

    def state(self, kind: Kind, now_s: float) -> State:
        """How a circuit stands at `now_s`."""
        self._pass_time(self._circuits[kind], now_s)
        return self._circuits[kind].state

    def permit(self, kind: Kind, now_s: float) -> Permit:
        """Leave to send a request; `CircuitOpen` says how long there is none."""
        circuit, settings = self._circuits[kind], self._settings
        self._pass_time(circuit, now_s)
        if kind is not Kind.RISK_REDUCING:
            if circuit.state is State.OPEN or circuit.probing:
                raise CircuitOpen(kind.value, circuit.next_s - now_s)
            if circuit.state is State.THROTTLED:
                if now_s < circuit.next_s:
                    raise CircuitOpen(kind.value, circuit.next_s - now_s)
                circuit.next_s = now_s + settings.spacing_s
            if circuit.state is State.HALF_OPEN:
                circuit.probing, circuit.next_s = True, now_s + settings.probe_s
        return Permit(kind, circuit.era, circuit.probing)

    def record(self, permit: Permit, *, ok: bool, now_s: float) -> None:
        """What came of a request: `ok` if the venue answered sensibly, a refusal included."""
        circuit = self._circuits[permit.kind]
        self._pass_time(circuit, now_s)
        if permit.era != circuit.era:
            # It was sent before the circuit opened or closed, and says nothing of the time since.
            return
        if permit.probe:
            circuit.probing = False
        circuit.failures, circuit.successes = (0, circuit.successes + 1) if ok else (circuit.failures + 1, 0)
        if ok:
            self._succeeded(circuit)
        else:
            self._failed(circuit, now_s)

    def forget(self, permit: Permit) -> None:
        """Nothing was sent after all: a probe may be tried again."""
        circuit = self._circuits[permit.kind]
        if permit.probe and permit.era == circuit.era:
            circuit.probing = False

    def _succeeded(self, circuit: _Circuit) -> None:
        if circuit.state is State.CLOSED or circuit.successes < self._settings.recover_after:
            return
        circuit.state, circuit.open_s, circuit.successes = State.CLOSED, 0.0, 0
        circuit.era += 1

    def _failed(self, circuit: _Circuit, now_s: float) -> None:
        settings = self._settings
        if circuit.state is State.HALF_OPEN or circuit.failures >= settings.open_after:
            circuit.open_s = min(settings.most_open_s, 2 * circuit.open_s if circuit.open_s else settings.open_s)
            circuit.state, circuit.next_s = State.OPEN, now_s + circuit.open_s
            circuit.era += 1
        elif circuit.state is State.CLOSED and circuit.failures >= settings.throttle_after:
            circuit.state, circuit.next_s = State.THROTTLED, now_s + settings.spacing_s

    def _pass_time(self, circuit: _Circuit, now_s: float) -> None:
        if circuit.state is State.OPEN and now_s >= circuit.next_s:
            circuit.state, circuit.probing = State.HALF_OPEN, False
            circuit.failures = circuit.successes = 0
            circuit.era += 1
        elif circuit.probing and now_s >= circuit.next_s:
            circuit.probing = False
            self._failed(circuit, now_s)
