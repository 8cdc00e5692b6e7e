"""The decision engine: a wave in, events out. No clock, no socket, no random source, no file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from features.barriers import POSITION, CostModel
from features.decision import DecisionState, DecisionWave
from features.errors import StateMismatch
from market.bars import BAR, MINUTE_MS, Bars
from models_registry.terms import cost_model
from trading_worker import optional_modules, sight, snapshots
from trading_worker.decisions import Decided, PredictionLike, PredictorLike, decide
from trading_worker.errors import SnapshotRefused, SwapRefused, WaveMalformed, WaveOutOfOrder
from trading_worker.events import AnyEvent, BarRejected, BundleSwapped, WaveClosed, kind
from trading_worker.hour_opens import HOUR_OPEN, HourOpens
from trading_worker.screening import NEVER, no_bars, screen
from trading_worker.settings import EngineSettings
from trading_worker.snapshots import About, EngineState
from trading_worker.virtual_positions import DETAIL, Table, VirtualPositions
from trading_worker.wave import MinuteBars, Wave

__all__ = ["Engine", "PredictionLike", "PredictorLike"]


class Engine:
    """Turns waves into events, deterministically: the same bundle, waves and start give the same events.

    Parameters
    ----------
    symbols
        The universe; a symbol's place is its row in every wave.
    predictor
        The loaded bundle.
    settings
        See `EngineSettings`.
    state
        A `DecisionState` of the same symbols and the bundle's DecisionSpec, warmed from earlier bars. None starts
        cold: nothing is decided until it is warm.

    Raises `SwapRefused` when `state` does not fit the bundle.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        predictor: PredictorLike,
        settings: EngineSettings | None = None,
        *,
        state: DecisionState | None = None,
    ) -> None:
        self.symbols = tuple(symbols)
        self.settings = settings or EngineSettings()
        self.counters: Counter[str] = Counter()
        """Events by kind since the engine's first wave, through restarts."""
        self._row = {symbol: row for row, symbol in enumerate(self.symbols)}
        if len(self._row) != len(self.symbols):
            raise ValueError("a symbol stands twice in the universe")
        incremental = self.settings.incremental_cache
        self.state = DecisionState(self.symbols, incremental=incremental) if state is None else state
        _check_fits(predictor, self.state, self.symbols)
        self.predictor = predictor
        self.positions = VirtualPositions(
            self.symbols, self._costs(predictor), self.settings.silence_grace_minutes * MINUTE_MS
        )
        self.time_ms = max(self.state.time_ms, 0)
        """Close time of the last wave, 0 before the first."""
        self._last = no_bars(len(self.symbols))
        self._note_last_times()
        self._owed: dict[tuple[int, int], float] = {}
        self._hours = HourOpens(len(self.symbols))
        self.last_decision: DecisionWave | None = None
        """The last decision wave that this engine has seen with the features in force; nobody may change it."""
        self.seen: dict[str, NDArray[np.float32]] = {}
        """What the models saw of each signal of the last wave, by position; see `sight`."""

    def _note_last_times(self) -> None:
        """Take over from a warmed state when each symbol's last bar was; its values are not known."""
        seen = self.state.last_times
        self._last["open_time"] = np.where(seen < 0, NEVER, seen - MINUTE_MS + 1)
        self._last["close_time"] = seen

    @property
    def bundle(self) -> str:
        """Version of the bundle in force."""
        return str(self.predictor.manifest.bundle_version)

    @property
    def decision_spec(self) -> str:
        """Id of the DecisionSpec in force."""
        return self.state.spec.id

    @property
    def last_times(self) -> NDArray[np.int64]:
        """Close time of each symbol's last bar, int64 [S]; -1 where there was none."""
        return self.state.last_times

    def _costs(self, predictor: PredictorLike) -> CostModel:
        return self.settings.costs or cost_model(predictor.manifest.costs)

    def on_wave(self, wave: Wave) -> list[AnyEvent]:
        """Take one minute's closed bars: positions advance, then features, then decisions on a 5m close.

        The events are in the order in which they are to be journaled: the wave's composition, rejected and revised
        bars, what became of positions, new signals. Raises `WaveOutOfOrder` or `WaveMalformed` before anything
        has changed.
        """
        self._check(wave)
        faults: list[AnyEvent] = [self._unknown(wave.time_ms, *bar) for bar in wave.unknown]
        moves: list[AnyEvent] = []
        late: list[tuple[str, int]] = []
        self._charge_late(wave)
        for minute in wave.late:
            late += self._on_late(wave.time_ms, minute, faults, moves)
        screened = screen(MinuteBars(wave.time_ms, wave.rows, wave.bars), self.symbols, self._last)
        faults += screened.events
        moves += self._advance(wave, screened.rows, screened.bars)
        self.time_ms = wave.time_ms
        decision = self.state.on_minute(
            wave.time_ms, screened.rows, screened.bars, wave.funding_rate, wave.next_funding_ms
        )
        decided, self.seen = Decided(), {}
        if decision is not None:
            self.last_decision = decision
            counts = self.positions.open_count
            decided = decide(decision, self.state.spec, self.symbols, self.predictor, self.settings, counts)
            for signal, line in zip(decided.signals, decided.lines, strict=True):
                self.positions.add(signal)
                self.seen[signal.position_id] = sight.pack(decision, line)
        absent = {self._row[symbol] for symbol in wave.absent if symbol in self._row} | set(screened.refused)
        events: list[AnyEvent] = []
        if decision is not None or absent or late:
            events.append(
                WaveClosed(
                    time_ms=wave.time_ms,
                    decided=decision is not None,
                    present=int(screened.rows.size),
                    absent=tuple(self.symbols[row] for row in sorted(absent)),
                    bundle=self.bundle,
                    late=tuple(late),
                    **decided.counts,
                    signals=len(decided.signals),
                )
            )
        return self._count([*events, *faults, *moves, *decided.signals])

    def _check(self, wave: Wave) -> None:
        if wave.time_ms <= self.time_ms:
            raise WaveOutOfOrder(wave.time_ms, self.time_ms)
        if (wave.time_ms + 1) % MINUTE_MS:
            raise WaveMalformed(wave.time_ms, "a wave closes at the last millisecond of a UTC minute")
        minutes = (MinuteBars(wave.time_ms, wave.rows, wave.bars), *wave.late)
        for minute in minutes:
            if minute.rows.shape != minute.bars.shape or minute.rows.ndim != 1:
                raise WaveMalformed(wave.time_ms, f"{minute.rows.size} rows for {minute.bars.size} bars")
            if (np.diff(minute.rows) < 0).any():
                raise WaveMalformed(wave.time_ms, "rows do not ascend")
        for name in ("funding_rate", "next_funding_ms", "funding_now"):
            size = getattr(wave, name).size
            if size != len(self.symbols):
                raise WaveMalformed(wave.time_ms, f"{name} has {size} entries for {len(self.symbols)} symbols")
        times = [minute.time_ms for minute in wave.late]
        if times != sorted(set(times)) or (times and times[-1] >= wave.time_ms):
            raise WaveMalformed(wave.time_ms, "late bars do not ascend towards the wave")

    @staticmethod
    def _unknown(time_ms: int, symbol: str, open_time: int) -> BarRejected:
        return BarRejected(
            time_ms=time_ms, symbol=symbol, open_time=open_time, reason="it is of no symbol of this worker"
        )

    def _on_late(
        self, time_ms: int, minute: MinuteBars, faults: list[AnyEvent], moves: list[AnyEvent]
    ) -> list[tuple[str, int]]:
        """Feed bars that were absent from an earlier wave; returns which. Their events are of the wave `time_ms`."""
        screened = screen(minute, self.symbols, self._last)
        faults += screened.events
        self._hours.note(screened.rows, screened.bars)
        funding = np.full(len(self.symbols), np.nan)
        for row in screened.rows:
            funding[row] = self._owed.pop((int(row), minute.time_ms), np.nan)
        moves += self.positions.advance(time_ms, screened.rows, screened.bars, funding)
        fed = [
            (self.symbols[row], int(bar["open_time"])) for row, bar in zip(screened.rows, screened.bars, strict=True)
        ]
        self.state.catch_up({symbol: screened.bars[index : index + 1] for index, (symbol, _) in enumerate(fed)})
        return fed

    def _advance(self, wave: Wave, rows: NDArray[np.int64], bars: Bars) -> list[AnyEvent]:
        """Positions by this minute's bars. Funding of a minute without bar is kept until the bar comes late."""
        self._hours.note(rows, bars)
        charged = np.flatnonzero(~np.isnan(wave.funding_now))
        if charged.size or self._owed:
            present = set(rows.tolist())
            self._owed = {key: rate for key, rate in self._owed.items() if key[0] not in present}
            for row in charged.tolist():
                if row not in present:
                    self._owed[row, wave.time_ms] = float(wave.funding_now[row])
        moves = self.positions.advance(wave.time_ms, rows, bars, wave.funding_now)
        return moves + self.positions.lose_silent(wave.time_ms)

    def _charge_late(self, wave: Wave) -> None:
        """Fundings of earlier minutes that are known only now: at the price of their own time, to who held then.

        Where the bar of that minute is still to come the rate waits for it. A position that ended in between ended
        without it, and so does one whose minute nobody has the price of.
        """
        for row, time_ms, rate in wave.late_funding:
            minute_ms = time_ms // MINUTE_MS * MINUTE_MS
            price = self._hours.at(row, minute_ms)
            if price is not None:
                self.positions.charge(row, minute_ms, rate * price)
            elif self._last["open_time"][row] < minute_ms:
                self._owed[row, minute_ms + MINUTE_MS - 1] = rate

    def _count(self, events: list[AnyEvent]) -> list[AnyEvent]:
        self.counters.update(kind(event) for event in events)
        return events

    def on_prices(self, time_ms: int, rows: NDArray[np.int64], prices: NDArray[np.float64]) -> list[AnyEvent]:
        """Note last trade prices between bars: `rows` int64[k] and `prices` float64[k], at venue time `time_ms`.

        Only what the ticks said of each position is kept, for its `PositionClosed`; outcomes come from bars. So
        there is nothing to journal yet, and the list is empty.
        """
        self.positions.on_prices(time_ms, rows, prices)
        return []

    def swap(self, predictor: PredictorLike, state: DecisionState | None = None) -> list[AnyEvent]:
        """Decide with another bundle from the next wave on. Open positions go on as they are, at their own costs.

        A bundle with another DecisionSpec needs a `state` of it that was warmed up to the last wave. Raises
        `SwapRefused` with the reason; then the old bundle stays and nothing has changed.
        """
        new = self.state if state is None else state
        _check_fits(predictor, new, self.symbols)
        if state is not None and self.time_ms and state.time_ms != self.time_ms:
            raise SwapRefused(
                str(predictor.manifest.bundle_version),
                f"its features are warm up to {state.time_ms}, the last wave closed at {self.time_ms}",
            )
        event = BundleSwapped(
            time_ms=self.time_ms,
            old=self.bundle,
            new=str(predictor.manifest.bundle_version),
            decision_spec=new.spec.id,
            fallbacks=tuple(sorted(optional_modules.fallbacks(predictor, self.settings))),
            warmed=state is not None,
        )
        self.positions.costs = self._costs(predictor)
        if state is not None:
            self.last_decision = None
        self.predictor, self.state = predictor, new
        return self._count([event])

    def capture(self) -> EngineState:
        """Everything needed to continue except the bundle, between two waves. The next wave changes its arrays."""
        table = self.positions.table()
        arrays = {f"state.{name}": array for name, array in self.state.arrays().items()}
        return EngineState(
            About(
                time_ms=self.time_ms,
                symbols=self.symbols,
                decision_spec=self.decision_spec,
                bundle=self.bundle,
                names=table.names,
                costs=list(table.costs),
                counters=dict(self.counters),
                owed=[(row, time_ms, rate) for (row, time_ms), rate in sorted(self._owed.items())],
            ),
            arrays
            | {"position": table.position, "detail": table.detail, "last": self._last, "hours": self._hours.table},
        )

    def snapshot(self) -> bytes:
        """What `capture` gives as bytes, versioned and checksummed."""
        return snapshots.encode(self.capture())

    def restore(self, snapshot: bytes) -> None:
        """Continue from the bytes of a `snapshot`; see `resume`."""
        self.resume(snapshots.decode(snapshot))

    def resume(self, stored: EngineState) -> None:
        """Continue from a state of the same symbols and DecisionSpec, whatever bundle made it; it is copied.

        Raises `SnapshotRefused` with the reason; then nothing has changed.
        """
        about, arrays = stored.about, stored.arrays
        if about.symbols != self.symbols:
            raise SnapshotRefused(_other_symbols(about.symbols, self.symbols))
        if about.decision_spec != self.decision_spec:
            raise SnapshotRefused(
                f"it is of DecisionSpec {about.decision_spec}, the bundle in force needs {self.decision_spec}"
            )
        for name, dtype in (("position", POSITION), ("detail", DETAIL), ("last", BAR), ("hours", HOUR_OPEN)):
            if name not in arrays or arrays[name].dtype != dtype:
                raise SnapshotRefused(f"its {name} is not what this program keeps")
        state = self.state.blank()
        try:
            state.restore({name.removeprefix("state."): a for name, a in arrays.items() if name.startswith("state.")})
        except (StateMismatch, KeyError) as error:
            raise SnapshotRefused(f"its feature state does not fit: {error}") from error
        self.state, self._last = state, arrays["last"].copy()
        self._hours.table = arrays["hours"].copy()
        self.positions.load(Table(arrays["position"], arrays["detail"], about.names, tuple(about.costs)))
        self.time_ms = about.time_ms
        self._owed = {(row, time_ms): rate for row, time_ms, rate in about.owed}
        self.counters = Counter(about.counters)
        self.last_decision, self.seen = None, {}


def _check_fits(predictor: PredictorLike, state: DecisionState, symbols: tuple[str, ...]) -> None:
    """Raise `SwapRefused` when bundle, feature state and universe do not belong together."""
    manifest = predictor.manifest
    if state.symbols != symbols:
        raise SwapRefused(str(manifest.bundle_version), _other_symbols(state.symbols, symbols))
    if manifest.decision_spec.id != state.spec.id:
        raise SwapRefused(
            str(manifest.bundle_version),
            f"it needs DecisionSpec {manifest.decision_spec.id}, the features are of {state.spec.id}",
        )


def _other_symbols(found: Iterable[str], expected: Iterable[str]) -> str:
    found, expected = tuple(found), tuple(expected)
    missing, surplus = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if not missing and not surplus:
        return "its symbols are in another order"
    return f"its universe differs: {len(missing)} missing {missing[:5]}, {len(surplus)} too many {surplus[:5]}"
