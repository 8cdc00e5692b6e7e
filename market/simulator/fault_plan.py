"""A plan of faults: some at given minutes, others drawn at random from a seed, so many a minute on average."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from market.bars import MINUTE_MS
from market.simulator.clock import SimulationFailed
from market.simulator.faults import BarName, FaultRequest
from market.simulator.rest_faults import KINDS as REST_KINDS
from market.simulator.rest_faults import RestFault
from market.simulator.stream_faults import KINDS as STREAM_KINDS
from market.simulator.stream_faults import StreamFault

BAR_KINDS = ("drop_closed", "duplicate_closed", "late_closed")
OTHER_KINDS = ("disconnect", "expire_listen_keys")
DEFAULT_KINDS = {
    **dict.fromkeys(BAR_KINDS, 4.0),
    "stream:duplicate": 2.0,
    "stream:cut": 1.0,
    "stream:half_open": 0.5,
    "rest:503_unavailable": 1.0,
    "rest:503_internal": 1.0,
    "rest:502": 1.0,
    "rest:no_answer": 1.0,
    "disconnect": 0.5,
    "expire_listen_keys": 0.5,
}


class At(Struct, forbid_unknown_fields=True):
    """Faults to ask for when a minute begins; `minute` counts from the start of the clock."""

    minute: int
    faults: FaultRequest


class FaultPlan(Struct, forbid_unknown_fields=True):
    """Faults over simulated time.

    at: at given minutes. per_minute: how many are drawn at random in a simulated minute, on average. seed: the same
    seed is the same plan. kinds: weights of what is drawn; names of bar faults, `stream:KIND`, `rest:KIND`,
    `disconnect`, `expire_listen_keys`.
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
                found.append(_request(kind, BarName(symbols[int(rng.integers(len(symbols)))], open_time)))
        return found


def _request(kind: str, bar: BarName) -> FaultRequest:
    family, _, name = kind.partition(":")
    if kind in BAR_KINDS:
        return msgspec.convert({kind: [{"symbol": bar.symbol, "open_time": bar.open_time}]}, FaultRequest)
    if family == "stream":
        return FaultRequest(stream=[StreamFault(name)])
    if family == "rest":
        return FaultRequest(rest=[RestFault(name)])
    return msgspec.convert({kind: True}, FaultRequest)


def read_plan(path: Path) -> FaultPlan:
    """The plan in a JSON file; `SimulationFailed` says what is wrong with it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=FaultPlan)
    except (OSError, msgspec.DecodeError) as error:
        raise SimulationFailed(f"cannot read the plan of faults {path}: {error}") from error
