"""The backtest: recorded bars through the same engine as live, as fast as it can.

A replay is complete where live is not: every recorded bar is in its wave, and no price update comes between. So its
digest depends on bars, fundings, bundle and settings alone.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.barriers import OUTCOME, CostModel, TradePlan
from features.decision import DecisionState
from features.decision_spec import DECISION_SPEC, DecisionSpec
from market.bars import DAY_MS, Bars
from market.errors import UnknownSymbol, utc
from market.funding import Fundings
from market.sources import BarSource, open_source
from market.sources.recorded import RecordedMarket
from models_registry.bundle import verify
from models_registry.manifest import Manifest, SpecPin, TrainingRecord
from models_registry.runtime import Predictor
from trading_worker.engine import Engine, PredictorLike
from trading_worker.events import AnyEvent, Digest, PositionClosed, kind
from trading_worker.journal import Journal
from trading_worker.recorded_waves import Stretch, covered, recorded_waves
from trading_worker.settings import EngineSettings

Progress = Callable[[int, int], None]
"""Called now and then with the minutes done and the minutes there are."""

OnEvents = Callable[[list[AnyEvent]], None]
"""Called with the events of a wave."""

PROGRESS_EVERY = 1440

UNBOUNDED_DAYS = 7
"""How many days of a source without an end are replayed when no end is given."""

UNBOUNDED_SPAN_MS = 20 * 365 * DAY_MS
"""A source that covers more than this has no end."""

COMMIT_EVENTS = 4096
"""A replay's journal is committed this often: a replay that dies is simply run again."""


@dataclass(frozen=True, slots=True)
class OutcomeSummary:
    """Positions that ended in one way."""

    count: int
    mean_r: float


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What a replay gave."""

    events: list[AnyEvent]
    digest: str
    """Of the events; the same input gives the same digest."""
    stretch: Stretch
    bars: int
    """1m bars that were fed, warming included."""
    symbols: int
    seconds: float
    """How long it took, with all that were replayed together; not part of the digest."""

    @property
    def counts(self) -> dict[str, int]:
        """Events by kind, in order of name."""
        return dict(sorted(Counter(kind(event) for event in self.events).items()))

    @property
    def closed(self) -> list[PositionClosed]:
        """The positions that ended, in order."""
        return [event for event in self.events if isinstance(event, PositionClosed)]

    @property
    def mean_r(self) -> float:
        """Mean R of all closed positions, net of costs; NaN when there is none."""
        return _mean_r(self.closed)

    @property
    def outcomes(self) -> dict[str, OutcomeSummary]:
        """Count and mean R by outcome, in order of code."""
        closed = self.closed
        found: dict[str, OutcomeSummary] = {}
        for code in sorted({event.outcome for event in closed}):
            ended = [event for event in closed if event.outcome == code]
            found[OUTCOME[code]] = OutcomeSummary(len(ended), _mean_r(ended))
        return found

    @property
    def bars_per_second(self) -> float:
        """Throughput."""
        return self.bars / self.seconds if self.seconds else float("nan")

    def summary(self) -> dict[str, Any]:
        """The result as plain values, for JSON; a mean over nothing is null."""
        mean_r = self.mean_r
        return {
            "digest": self.digest,
            "start": utc(self.stretch.start_ms),
            "end": utc(self.stretch.end_ms),
            "symbols": self.symbols,
            "bars": self.bars,
            "waves": self.stretch.minutes,
            "events": self.counts,
            "outcomes": {name: {"count": o.count, "mean_r": o.mean_r} for name, o in self.outcomes.items()},
            "mean_r": mean_r if np.isfinite(mean_r) else None,
            "seconds": self.seconds,
            "bars_per_second": self.bars_per_second,
        }


def _mean_r(closed: list[PositionClosed]) -> float:
    return float(np.mean([event.r for event in closed])) if closed else float("nan")


def plain_predictor(spec: DecisionSpec = DECISION_SPEC, plan: TradePlan | None = None) -> Predictor:
    """A bundle without any model: every component is its plain version. Its version is `plain`."""
    plan, costs = plan or TradePlan(), CostModel()
    manifest = Manifest(
        bundle_version="plain",
        created_ms=0,
        parent=None,
        code_version="",
        decision_spec=SpecPin(id=spec.id, names=list(spec.names)),
        plan={
            "stop_atr": plan.stop_atr,
            "target_atr": plan.target_atr,
            "horizon_minutes": float(plan.horizon_minutes),
        },
        costs={"fee_bps": costs.fee_bps, "spread_bps": costs.spread_bps, "slippage_bps": costs.slippage_bps},
        training=TrainingRecord(
            start_ms=0, end_ms=0, last_known_at=0, rows=0, live_labels=0, data_hash="", seed=0, holdout_start_ms=0
        ),
        components={},
        golden=None,
    )
    return Predictor(Path(), manifest)


def replay(
    bars: Mapping[str, Bars],
    funding: Mapping[str, Fundings],
    predictor: PredictorLike,
    settings: EngineSettings | None = None,
    *,
    start_ms: int | None = None,
    end_ms: int | None = None,
    progress: Progress | None = None,
    on_events: OnEvents | None = None,
) -> ReplayResult:
    """Run 1m `bars` of some symbols, and their `funding`, through an engine.

    Minutes that open in [start_ms, end_ms) are replayed; earlier ones only warm the features. The universe is
    the keys of `bars`, in their order. `on_events` is given each wave's events as they come, for a journal.
    Raises `NothingRecorded` when no bar lies in the stretch, `SwapRefused` when the bundle needs another
    DecisionSpec than this program computes.
    """
    began, symbols = time.perf_counter(), tuple(bars)
    stretch = covered(bars, start_ms, end_ms)
    state = DecisionState(symbols, incremental=settings is None or settings.incremental_cache)
    state.catch_up(
        {symbol: minutes[: np.searchsorted(minutes["open_time"], stretch.start_ms)] for symbol, minutes in bars.items()}
    )
    engine = Engine(symbols, predictor, settings, state=state)
    return _run(bars, funding, {engine: on_events}, stretch, progress, began)[0]


def replay_together(
    bars: Mapping[str, Bars],
    funding: Mapping[str, Fundings],
    predictors: Sequence[PredictorLike],
    settings: EngineSettings | None = None,
    *,
    state: DecisionState,
    start_ms: int,
    end_ms: int | None = None,
    progress: Progress | None = None,
) -> list[ReplayResult]:
    """Run the same minutes through an engine for each of `predictors`; what each gives is what `replay` gives it.

    All begin from a copy of `state`, which was warmed up to `start_ms` for the symbols of `bars`: it is warmed once,
    and each wave is put together once. `bars` need not hold what came before. Raises what `replay` raises.
    """
    began, symbols = time.perf_counter(), tuple(bars)
    engines = []
    for predictor in predictors:
        own = state.blank()
        own.restore(state.arrays())
        engines.append(Engine(symbols, predictor, settings, state=own))
    return _run(bars, funding, dict.fromkeys(engines), covered(bars, start_ms, end_ms), progress, began)


def _run(
    bars: Mapping[str, Bars],
    funding: Mapping[str, Fundings],
    engines: Mapping[Engine, OnEvents | None],
    stretch: Stretch,
    progress: Progress | None,
    began: float,
) -> list[ReplayResult]:
    """The waves of `stretch` through all engines side by side, each with who is told of its events."""
    digests, events = [Digest() for _ in engines], [list[AnyEvent]() for _ in engines]
    for done, wave in enumerate(recorded_waves(bars, funding, tuple(bars), stretch)):
        for (engine, on_events), digest, kept in zip(engines.items(), digests, events, strict=True):
            came = engine.on_wave(wave)
            if came:
                digest.update(came)
                kept += came
                if on_events is not None:
                    on_events(came)
        if progress is not None and done % PROGRESS_EVERY == 0:
            progress(done, stretch.minutes)
    if progress is not None:
        progress(stretch.minutes, stretch.minutes)
    fed = sum(int(np.searchsorted(minutes["open_time"], stretch.end_ms)) for minutes in bars.values())
    seconds = time.perf_counter() - began
    return [
        ReplayResult(
            events=kept, digest=digest.hexdigest(), stretch=stretch, bars=fed, symbols=len(bars), seconds=seconds
        )
        for digest, kept in zip(digests, events, strict=True)
    ]


def replay_command(
    klines: str | Path,
    bundle: Path | None = None,
    *,
    start_ms: int | None = None,
    end_ms: int | None = None,
    symbols: Sequence[str] = (),
    settings: EngineSettings | None = None,
    quantised: bool = True,
    journal: Path | None = None,
    progress: Progress | None = None,
) -> ReplayResult:
    """What `perpforge replay` does: replay a recording with a bundle.

    Parameters
    ----------
    klines
        A folder of recorded 1m files (fundings in or beside it), or what `market.sources.open_source` takes.
    bundle
        A bundle's folder, verified first; None replays with the plain versions of all models.
    start_ms, end_ms
        Open times to replay; all that there is before the start warms the features. A source without an end is
        replayed for `UNBOUNDED_DAYS`.
    symbols
        Which symbols, in this order; none means all of them.
    quantised
        False runs the fp32 files of the bundle's networks, as a worker with `ENABLE_QUANTIZATION=false` does.
    journal
        A folder to write the events to, as a worker named `replay`.

    Raises `UnknownSymbol`, `NothingRecorded`, `SourceUnreadable`, `BundleRejected` or `JournalError`.
    """
    source = open_source(klines) if isinstance(klines, str) and ":" in klines else RecordedMarket(Path(klines))
    chosen = tuple(symbols) or source.symbols()
    for symbol in chosen:
        if symbol not in source.symbols():
            raise UnknownSymbol(symbol, source.name)
    bars, funding = _load(source, chosen, start_ms, end_ms)
    if bundle is None:
        predictor = plain_predictor()
    else:
        verify(bundle, DECISION_SPEC)
        predictor = Predictor.load(bundle, quantised=quantised)
    with predictor:
        if journal is None:
            return replay(bars, funding, predictor, settings, start_ms=start_ms, end_ms=end_ms, progress=progress)
        with Journal(journal, "replay") as written:
            result = replay(bars, funding, predictor, settings, start_ms=start_ms, end_ms=end_ms, progress=progress)
            for first in range(0, len(result.events), COMMIT_EVENTS):
                written.extend(result.events[first : first + COMMIT_EVENTS])
                written.commit()
            return result


def _load(
    source: BarSource, symbols: Sequence[str], start_ms: int | None, end_ms: int | None
) -> tuple[dict[str, Bars], dict[str, Fundings]]:
    """Bars and fundings of the source up to the end."""
    bars: dict[str, Bars] = {}
    funding: dict[str, Fundings] = {}
    for symbol in symbols:
        first, end = source.coverage(symbol) or (0, 0)
        if end_ms is not None:
            end = min(end, end_ms)
        elif end - first > UNBOUNDED_SPAN_MS:
            end = max(first, start_ms or first) + UNBOUNDED_DAYS * DAY_MS
        bars[symbol] = source.klines(symbol, first, end)
        funding[symbol] = source.funding(symbol, first, end)
    return bars, funding
