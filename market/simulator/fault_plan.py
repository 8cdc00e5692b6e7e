"""A plan of faults: some at given minutes, others drawn at random from a seed, so many a minute on average."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from market.bars import MINUTE_MS
from market.simulator.clock import SimulationFailed
from market.simulator.faults import KINDS as CORRUPTIONS
from market.simulator.faults import BarName, Corruption, FaultRequest
from market.simulator.rest_faults import KINDS as REST_KINDS
from market.simulator.rest_faults import RestFault, When
from market.simulator.stream_faults import KINDS as STREAM_KINDS
from market.simulator.stream_faults import StreamFault

BAR_KINDS = ("drop_closed", "duplicate_closed", "late_closed", "revise_closed", "corrupt")
OTHER_KINDS = ("disconnect", "restart", "expire_listen_keys")
DEFAULT_KINDS = {
    **dict.fromkeys(BAR_KINDS, 3.0),
    **dict.fromkeys(("stream:drop", "stream:duplicate", "stream:reorder", "stream:silence"), 1.0),
    **dict.fromkeys(("stream:cut", "stream:half_open", "stream:mute", "stream:end"), 0.5),
    **dict.fromkeys(("rest:503_unknown", "rest:503_unavailable", "rest:503_internal", "rest:503_overload"), 1.0),
    **dict.fromkeys(("rest:500", "rest:502", "rest:504", "rest:timeout", "rest:unexpected_response"), 1.0),
    **dict.fromkeys(("rest:no_answer", "rest:latency", "rest:too_many_requests"), 1.0),
    **dict.fromkeys(("disconnect", "expire_listen_keys"), 0.5),
    "restart": 0.25,
}
"""Every kind that a client recovers from by itself, with its weight."""

SECONDS = {"latency": 0.05, "too_many_requests": 1.0, "ban": 0.05}
"""How long those REST faults last that last, of the wall clock."""
RESTART_S = 0.02


class At(Struct, forbid_unknown_fields=True):
    """Faults to ask for when a minute begins; `minute` counts from the start of the clock."""

    minute: int
    faults: FaultRequest


class FaultPlan(Struct, forbid_unknown_fields=True):
    """Faults over simulated time.

    at: at given minutes. per_minute: how many are drawn at random in a simulated minute, on average. seed: the same
    seed is the same plan. kinds: weights of what is drawn; names of bar faults, `stream:KIND` (of market streams),
    `rest:KIND` (half of them before the request is carried out, half after), `disconnect`, `restart`,
    `expire_listen_keys`. Bars and streams are those of a symbol that is drawn too.
    """

    seed: int = 0
    per_minute: float = 0.0
    kinds: dict[str, float] = msgspec.field(default_factory=lambda: dict(DEFAULT_KINDS))
    at: list[At] = []

    def __post_init__(self) -> None:
        known = {*BAR_KINDS, *OTHER_KINDS}
        known |= {f"stream:{kind}" for kind in STREAM_KINDS} | {f"rest:{kind}" for kind in REST_KINDS}
        unknown = set(self.kinds) - known
        if unknown:
            raise ValueError(f"unknown kinds of faults {', '.join(sorted(unknown))}: use {', '.join(sorted(known))}")
        if self.per_minute < 0 or any(weight < 0 for weight in self.kinds.values()):
            raise ValueError("numbers of faults and weights are not negative")

    def of_minute(self, number: int, open_time: int, symbols: tuple[str, ...]) -> list[FaultRequest]:
        """What goes wrong in one minute, `number` minutes after the start; random faults depend on its time alone.

        >>> plan = FaultPlan(seed=1, per_minute=1.0)
        >>> requests = [plan.of_minute(i, i * MINUTE_MS, ("BTCUSDT",)) for i in range(1000)]
        >>> 900 < sum(map(len, requests)) < 1100
        True
        """
        found = [item.faults for item in self.at if item.minute == number]
        if self.per_minute > 0:
            rng = np.random.default_rng((self.seed, open_time // MINUTE_MS))
            names, weights = list(self.kinds), np.array(list(self.kinds.values()))
            for _ in range(int(rng.poisson(self.per_minute))):
                kind = names[int(rng.choice(len(names), p=weights / weights.sum()))]
                found.append(_request(kind, BarName(symbols[int(rng.integers(len(symbols)))], open_time), rng))
        return found


def _request(kind: str, bar: BarName, rng: np.random.Generator) -> FaultRequest:
    family, _, name = kind.partition(":")
    if kind == "corrupt":
        spoilt = tuple(CORRUPTIONS)[int(rng.integers(len(CORRUPTIONS)))]
        return FaultRequest(corrupt=[Corruption(bar.symbol, bar.open_time, spoilt)])
    if kind in BAR_KINDS:
        return msgspec.convert({kind: [{"symbol": bar.symbol, "open_time": bar.open_time}]}, FaultRequest)
    if family == "stream":
        whole = name in ("cut", "half_open", "end")
        return FaultRequest(stream=[StreamFault(name, name="" if whole else f"{bar.symbol.lower()}@")])
    if family == "rest":
        when: When = "after" if rng.integers(2) else "before"
        return FaultRequest(rest=[RestFault(name, when=when, seconds=SECONDS.get(name, 0.0))])
    return msgspec.convert({kind: RESTART_S if kind == "restart" else True}, FaultRequest)


def read_plan(path: Path) -> FaultPlan:
    """The plan in a JSON file; `SimulationFailed` says what is wrong with it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=FaultPlan)
    except (OSError, msgspec.DecodeError) as error:
        raise SimulationFailed(f"cannot read the plan of faults {path}: {error}") from error
