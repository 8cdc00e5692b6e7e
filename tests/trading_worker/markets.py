"""A small market, a small bundle and a worker that can be killed, for the tests of the core."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.decision import DecisionState
from features.decision_spec import DECISION_SPEC
from features.liquidity import Reach
from market.bars import BAR, MINUTE_MS, Bars
from market.funding import Fundings
from market.sources.synthetic import SyntheticMarket
from trading_worker.engine import Engine
from trading_worker.events import AnyEvent, BarRejected
from trading_worker.recorded_waves import Stretch, recorded_waves
from trading_worker.recovery import Recovery
from trading_worker.settings import EngineSettings
from trading_worker.wave import MinuteBars, Wave

WARM_MINUTES = 1800
"""Enough for 5m features and the window; the longer timeframes may still be NaN."""

EAGER = EngineSettings(strategy_mode="self_learning", min_confidence=0.0)


def nothing_foreseen(rows: int) -> dict[str, Any]:
    """What a bundle without strategy and liquidity predictor says of so many rows."""
    return {
        "reach": Reach((0.5,), *(np.full((rows, 1), np.nan, np.float32) for _ in range(2))),
        "action": np.full(rows, -1),
        "action_value": np.full((rows, 5), np.nan, np.float32),
    }


class StubPredictor:
    """A bundle whose probabilities are a plain function of the row, the same however a batch is split."""

    def __init__(self, version: str = "stub-1", *, threshold: float = 0.0, spec_id: str = DECISION_SPEC.id) -> None:
        self.manifest = SimpleNamespace(
            bundle_version=version, decision_spec=SimpleNamespace(id=spec_id), plan={}, costs={}
        )
        self.fallbacks: dict[str, str] = {}
        self.dynamic_columns: Any = None
        self.threshold = threshold
        self.calls: list[int] = []

    def predict(
        self,
        decision: Any,
        windows: Any,
        index: Any,
        direction: Any,
        *,
        kind: Any = None,
        quality: Any = None,
        regime: Any = None,
        dynamic: bool = True,
    ) -> Any:
        self.calls.append(len(index))
        rsi = decision[:, DECISION_SPEC.index("5m.rsi_14")]
        error = np.abs(windows[:, -1, 3]).astype(np.float32)
        probability = (0.5 + direction * (rsi[index] - 50) / 200).astype(np.float32)
        return SimpleNamespace(
            latents=np.zeros((len(decision), 16), np.float32),
            reconstruction_error=error,
            unlike=error < self.threshold,
            win_probability=probability,
            **nothing_foreseen(len(decision)),
        )

    def close(self) -> None:
        """Like the real one."""


@cache
def market(symbols: int = 4, seed: int = 11) -> SyntheticMarket:
    return SyntheticMarket(seed=seed, symbols=symbols)


@cache
def recording(minutes: int, symbols: int = 4, seed: int = 11) -> tuple[dict[str, Bars], dict[str, Fundings]]:
    source = market(symbols, seed)
    start, end = source.start_ms, source.start_ms + minutes * MINUTE_MS
    names = source.symbols()
    return (
        {name: source.klines(name, start, end) for name in names},
        {name: source.funding(name, start, end) for name in names},
    )


def warm_state(minutes: int, symbols: int = 4, seed: int = 11) -> DecisionState:
    """A state that has seen the first `minutes` of the recording."""
    bars, _ = recording(minutes, symbols, seed)
    state = DecisionState(tuple(bars))
    state.catch_up(bars)
    return state


@cache
def live_waves(minutes: int, symbols: int = 4, seed: int = 11) -> tuple[Wave, ...]:
    """The complete waves of the `minutes` after the warm-up."""
    bars, funding = recording(WARM_MINUTES + minutes, symbols, seed)
    start = market(symbols, seed).start_ms + WARM_MINUTES * MINUTE_MS
    return tuple(recorded_waves(bars, funding, tuple(bars), Stretch(start, start + minutes * MINUTE_MS)))


def warm_engine(settings: EngineSettings = EAGER, predictor: Any = None, symbols: int = 4, seed: int = 11) -> Engine:
    names = market(symbols, seed).symbols()
    state = warm_state(WARM_MINUTES, symbols, seed)
    return Engine(names, predictor or StubPredictor(), settings, state=state)


def _without(wave: Wave, gone: NDArray[np.bool_]) -> Wave:
    return replace(wave, rows=wave.rows[~gone], bars=wave.bars[~gone])


def ragged(
    waves: tuple[Wave, ...], symbols: tuple[str, ...], dice: random.Random, rate: float, never: float = 0.2
) -> tuple[list[Wave], list[Wave]]:
    """The same minutes with absentees, whose bars come late or never, as a feed would deliver them (a share `never`
    does); and the minutes as REST has them afterwards."""
    held: dict[int, list[Bars]] = {}
    result, afterwards = [], []
    for wave in waves:
        keep = np.array([dice.random() >= rate for _ in wave.rows], dtype=bool)
        late: dict[int, list[tuple[int, Bars]]] = {}
        for row in wave.rows[keep].tolist():
            for bar in held.pop(row, []):
                late.setdefault(int(bar["close_time"][0]), []).append((row, bar))
        lost = np.zeros(wave.rows.size, dtype=bool)
        for index in np.flatnonzero(~keep):
            if dice.random() < never:
                lost[index] = True
            else:
                held.setdefault(int(wave.rows[index]), []).append(wave.bars[index : index + 1])
        afterwards.append(_without(wave, lost))
        result.append(
            replace(
                _without(wave, ~keep),
                absent=tuple(symbols[row] for row in wave.rows[~keep]),
                late=tuple(
                    MinuteBars(
                        time_ms,
                        np.array([row for row, _ in sorted(found, key=lambda pair: pair[0])]),
                        np.concatenate([bar for _, bar in sorted(found, key=lambda pair: pair[0])]),
                    )
                    for time_ms, found in sorted(late.items())
                ),
            )
        )
    return result, afterwards


def spoiled(wave: Wave, index: int = 0) -> Wave:
    """The wave with one impossible bar."""
    bars = wave.bars.copy()
    bars["high"][index] = bars["low"][index] / 2
    return replace(wave, bars=bars)


def _behind(engine: Engine, before: list[Wave]) -> tuple[MinuteBars, ...]:
    """Bars from before the snapshot that the snapshot's engine had not had yet, as REST gives them."""
    last = engine.last_times
    found = []
    for wave in before:
        due = last[wave.rows] < wave.time_ms
        if due.any():
            found.append(MinuteBars(wave.time_ms, wave.rows[due], wave.bars[due]))
    return tuple(found)


@dataclass
class MortalWorker:
    """An engine, a journal and snapshots as a worker has them, which can be killed at any event.

    `stored` is what survives a kill; what was journaled but not committed may survive in part, as a prefix.
    """

    make: Any
    """Builds an engine as it is at a start."""
    dice: random.Random
    snapshot_every: int = 30
    stored: list[AnyEvent] = field(default_factory=list)
    snapshot: bytes | None = None
    kills: int = 0

    def start(self) -> Engine:
        engine: Engine = self.make()
        if self.snapshot is not None:
            engine.restore(self.snapshot)
        return engine

    def run(self, waves: list[Wave], complete: list[Wave], kill_rate: float) -> None:
        """Go through `waves`, killed with `kill_rate` at each; after a kill the minutes come `complete` from REST."""
        at = 0
        engine, step = self.start(), None
        recovery: Recovery | None = None
        while at < len(waves):
            wave = waves[at]
            if recovery is not None and wave.time_ms <= recovery.until_ms:
                wave = complete[at]
            if recovery is not None and not recovery.report.minutes:
                wave = replace(wave, late=_behind(engine, complete[:at]) + wave.late)
            events = (step or engine.on_wave)(wave)
            if self.dice.random() < kill_rate:
                self.kills += 1
                written = [event for event in events if not isinstance(event, BarRejected)]
                self.stored += written[: self.dice.randint(0, len(written))]
                engine = self.start()
                recovery = Recovery(engine, self.stored)
                step = recovery.on_wave
                at = next(i for i, each in enumerate(waves) if each.time_ms > engine.time_ms)
                continue
            self.stored += events
            at += 1
            if recovery is not None and wave.time_ms > recovery.until_ms and self.dice.random() < 0.2:
                recovery = step = None
            if self.dice.randrange(self.snapshot_every) == 0:
                self.snapshot = engine.snapshot()


def bar(open_time: int, open_: float, high: float, low: float, close: float, volume: float = 10.0) -> np.void:
    made = np.zeros(1, dtype=BAR)
    made["open_time"], made["close_time"] = open_time, open_time + MINUTE_MS - 1
    made["open"], made["high"], made["low"], made["close"] = open_, high, low, close
    made["volume"], made["quote_volume"] = volume, volume * close
    scalar: np.void = made[0]
    return scalar
