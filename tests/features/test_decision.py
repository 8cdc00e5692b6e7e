"""Decision rows: live and history agree to the bit, and each column says what it promises."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from features import DECISION_SPEC, SPEC, candidates, compute, quality, rules
from features.decision import DecisionState, DecisionWave
from features.errors import BarOutOfOrder, BarsUnusable, SpecInvalid, StateMismatch
from features.fold import fold_series
from features.funding_clock import funding_known
from features.history import DecisionHistory, decision_history
from market import funding
from market.bars import BAR, Bars, from_columns, resample
from tests.features.series import START_MS, make_bars, make_market, uniforms

MINUTE = 60_000
MINUTES = 60 * 24 * 8


def make_fundings(market: Mapping[str, Bars]) -> dict[str, funding.Fundings]:
    """Every symbol but the second: every four hours, some milliseconds late, one missed."""
    times = START_MS - 14_400_000 + np.arange(40) * 14_400_000 + 5
    times = np.delete(times, 9)
    draws = (funding.from_columns(times, uniforms(i + 3, times.size) * 1e-4) for i in range(len(market)))
    return {symbol: rates for i, (symbol, rates) in enumerate(zip(market, draws, strict=True)) if i != 1}


class Minutes:
    """A market by the minute, as the worker receives it."""

    def __init__(self, market: Mapping[str, Bars], fundings: Mapping[str, funding.Fundings]) -> None:
        self.symbols = tuple(market)
        every = np.concatenate(list(market.values()))
        row = np.repeat(np.arange(len(market)), [bars.size for bars in market.values()])
        order = np.lexsort((row, every["close_time"]))
        self._bars, self._row = every[order], row[order]
        self.times, self._starts = np.unique(self._bars["close_time"], return_index=True)
        known = [funding_known(fundings.get(symbol, funding.empty()), self.times) for symbol in market]
        self._rate = np.array([each.rate for each in known])
        self._next = np.array([each.next_ms for each in known])

    def feed(self, state: DecisionState, start: int, stop: int) -> list[DecisionWave]:
        ends = np.append(self._starts[1:], self._row.size)
        waves = []
        for at in range(start, stop):
            part = slice(self._starts[at], ends[at])
            rate, due = self._rate[:, at].copy(), self._next[:, at].copy()
            wave = state.on_minute(int(self.times[at]), self._row[part], self._bars[part], rate, due)
            if wave is not None:
                waves.append(wave)
        return waves


def assert_same(waves: list[DecisionWave], history: DecisionHistory) -> None:
    """The waves are the history's rows, to the bit."""
    assert np.array_equal(np.concatenate([wave.rows for wave in waves]), history.symbol)
    assert np.array_equal(np.repeat([w.time_ms for w in waves], [len(w.rows) for w in waves]), history.time)
    assert np.concatenate([wave.decision for wave in waves]).tobytes() == history.decision.tobytes()
    windows = history.windows(np.arange(len(history)))
    assert np.concatenate([wave.windows for wave in waves]).tobytes() == windows.tobytes()
    for name in ("close", "atr", "ready"):
        assert np.concatenate([getattr(wave, name) for wave in waves]).tobytes() == getattr(history, name).tobytes()


@pytest.fixture(scope="module")
def market() -> dict[str, Bars]:
    # The first has no holes, so it is the benchmark.
    return {symbol.replace("S0", "BTC"): bars for symbol, bars in make_market(5, MINUTES).items()}


@pytest.fixture(scope="module")
def fundings(market: dict[str, Bars]) -> dict[str, funding.Fundings]:
    return make_fundings(market)


@pytest.fixture(scope="module")
def minutes(market: dict[str, Bars], fundings: dict[str, funding.Fundings]) -> Minutes:
    return Minutes(market, fundings)


@pytest.fixture(scope="module")
def history(market: dict[str, Bars], fundings: dict[str, funding.Fundings]) -> DecisionHistory:
    return decision_history(market, fundings)


def column(rows: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    return rows[:, DECISION_SPEC.index(name)]


class TestLiveEqualsHistory:
    def test_minute_by_minute(self, minutes: Minutes, history: DecisionHistory) -> None:
        state = DecisionState(minutes.symbols)
        waves = minutes.feed(state, 0, minutes.times.size)
        assert_same([wave for wave in waves if wave.rows.size], history)
        assert history.ready.mean() > 0.5
        assert state.time_ms == minutes.times[-1]

    @pytest.mark.parametrize("seed", [1, 2])
    def test_through_restarts_at_any_minute(self, minutes: Minutes, history: DecisionHistory, seed: int) -> None:
        cuts = sorted({int(draw * minutes.times.size) for draw in uniforms(seed, 15)})
        waves: list[DecisionWave] = []
        stored = DecisionState(minutes.symbols).snapshot()
        for start, stop in zip([0, *cuts], [*cuts, minutes.times.size], strict=True):
            # Through a file, as a worker would keep it.
            file = io.BytesIO()
            np.savez(file, **stored)  # type: ignore[arg-type]
            file.seek(0)
            state = DecisionState(minutes.symbols)
            state.restore(np.load(file))
            waves += minutes.feed(state, start, stop)
            stored = state.snapshot()
        assert_same([wave for wave in waves if wave.rows.size], history)

    @pytest.mark.parametrize("share", [0.2, 0.503, 0.9])
    def test_after_catching_up(
        self, market: dict[str, Bars], minutes: Minutes, history: DecisionHistory, share: float
    ) -> None:
        cut = int(minutes.times.size * share)
        until = minutes.times[cut]
        state = DecisionState(minutes.symbols)
        half = minutes.times[cut // 2]
        for start, stop in ((0, half), (half, until)):
            state.catch_up({s: b[(b["close_time"] >= start) & (b["close_time"] < stop)] for s, b in market.items()})
        direct = DecisionState(minutes.symbols)
        minutes.feed(direct, 0, cut)
        expected = direct.snapshot()
        for name, array in state.snapshot().items():
            assert array.tobytes() == expected[name].tobytes(), name
        waves = minutes.feed(state, cut, minutes.times.size)
        later = history.time >= until
        found = np.concatenate([wave.decision for wave in waves if wave.rows.size])
        assert found.tobytes() == history.decision[later].tobytes()

    def test_on_recorded_bars(self, shared_data: Path) -> None:
        import pyarrow.parquet as pq

        market = {}
        for symbol in ("BTCUSDT", "DOGEUSDT"):
            path = shared_data / f"klines/um2025/{symbol}-1m-um2025.parquet"
            # DOGE begins later, and the recordings overlap by some days only.
            table = pq.read_table(path).slice(25_000 if symbol == "BTCUSDT" else 0, 8_000)
            market[symbol] = from_columns({name: table[name].to_numpy() for name in table.column_names})
        minutes = Minutes(market, {})
        waves = minutes.feed(DecisionState(minutes.symbols), 0, minutes.times.size)
        assert_same([wave for wave in waves if wave.rows.size], decision_history(market, {}))


class TestCausality:
    def test_a_prefix_gives_the_same_rows(
        self, market: dict[str, Bars], fundings: dict[str, funding.Fundings], history: DecisionHistory
    ) -> None:
        for draw in uniforms(8, 25):
            until = START_MS + int(draw * MINUTES) * MINUTE
            bars = {symbol: minutes[minutes["close_time"] < until] for symbol, minutes in market.items()}
            known = {symbol: rates[rates["funding_time"] < until] for symbol, rates in fundings.items()}
            early = decision_history(bars, known)
            assert early.decision.tobytes() == history.decision[: len(early)].tobytes()
            assert early.time.tobytes() == history.time[history.time < until].tobytes()
            rows = np.arange(0, len(early), 50)
            assert early.windows(rows).tobytes() == history.windows(rows).tobytes()

    def test_later_bars_and_fundings_change_nothing(
        self, market: dict[str, Bars], fundings: dict[str, funding.Fundings], history: DecisionHistory
    ) -> None:
        until = START_MS + MINUTES // 2 * MINUTE
        bars = {symbol: minutes.copy() for symbol, minutes in market.items()}
        rates = {symbol: known.copy() for symbol, known in fundings.items()}
        for minutes in bars.values():
            for name in ("open", "high", "low", "close"):
                minutes[name][minutes["close_time"] >= until] *= 7
        for known in rates.values():
            known["funding_rate"][known["funding_time"] >= until] = 1e6
        poisoned = decision_history(bars, rates)
        before = history.time < until
        assert poisoned.decision[before].tobytes() == history.decision[before].tobytes()
        assert poisoned.decision[~before].tobytes() != history.decision[~before].tobytes()


class TestColumns:
    def test_each_timeframe_is_its_last_closed_row(self, market: dict[str, Bars], history: DecisionHistory) -> None:
        for index, symbol in enumerate(history.symbols):
            mine = history.symbol == index
            for timeframe in DECISION_SPEC.timeframes:
                bars = resample(market[symbol], timeframe)
                rows = compute(bars, SPEC)
                block = history.decision[mine][:, DECISION_SPEC.timeframe_block(timeframe)]
                step = DECISION_SPEC.steps[DECISION_SPEC.timeframes.index(timeframe)]
                for time, found in list(zip(history.time[mine], block, strict=True))[::17]:
                    at = np.searchsorted(bars["close_time"], time, side="right") - 1
                    fresh = at >= 0 and time - bars["close_time"][at] < 3 * step
                    expected = rows[at] if fresh else np.full(len(SPEC.names), np.nan, dtype=np.float32)
                    assert np.array_equal(found, expected, equal_nan=True)

    def test_ages_of_the_longer_timeframes(self, history: DecisionHistory) -> None:
        first = history.symbol == 0  # without holes
        age = column(history.decision[first], "15m.age_bars")
        assert np.array_equal(age[:6], [np.nan, np.nan, 0, 1, 2, 0], equal_nan=True)
        hours = column(history.decision[first], "1h.age_bars")
        assert np.array_equal(hours[11:25], [*range(12), 0, 1])
        assert np.isnan(hours[:11]).all()
        every = column(history.decision, "1h.age_bars")
        assert np.nanmax(every) <= 35

    def test_ranks_and_breadth_of_one_wave(self, history: DecisionHistory) -> None:
        for time in np.unique(history.time)[::97]:
            wave = history.decision[history.time == time]
            for name, of in (
                ("cross.return_rank", "5m.return_1"),
                ("cross.return_20_rank", "5m.return_20"),
                ("cross.volatility_rank", "5m.realised_volatility_20"),
            ):
                values = column(wave, of)
                known = values[~np.isnan(values)]
                for value, rank in zip(values, column(wave, name), strict=True):
                    if np.isnan(value):
                        assert np.isnan(rank)
                    elif known.size == 1:
                        assert rank == 0.5
                    else:
                        below, equal = (known < value).sum(), (known == value).sum()
                        assert rank == pytest.approx((below + (equal - 1) / 2) / (known.size - 1))
            distance = column(wave, "5m.ema_21_distance")
            above = distance[~np.isnan(distance)] > 0
            expected = np.full(len(wave), above.mean() if above.size else np.nan, dtype=np.float32)
            assert np.array_equal(column(wave, "cross.breadth"), expected, equal_nan=True)

    def test_the_calendar_is_that_of_the_moment_after_the_close(self, history: DecisionHistory) -> None:
        # The market begins on a Monday at midnight.
        for time, row in zip(history.time[::311], history.decision[::311], strict=True):
            minutes = (time + 1 - START_MS) // MINUTE
            hour, day = 2 * math.pi * (minutes % 1440) / 1440, 2 * math.pi * (minutes // 1440 % 7) / 7
            found = row[DECISION_SPEC.block("calendar.hour_sin", 4)]
            assert found == pytest.approx([math.sin(hour), math.cos(hour), math.sin(day), math.cos(day)], abs=1e-6)
            of_day = minutes % 1440 / 60
            sessions = [0 <= of_day < 9, 8 <= of_day < 17, 13 <= of_day < 22]
            assert row[DECISION_SPEC.block("calendar.session_asia", 3)].tolist() == sessions

    def test_funding(self, history: DecisionHistory, fundings: dict[str, funding.Fundings]) -> None:
        first = history.symbol == 0
        due, rate = (column(history.decision[first], f"funding.{name}") for name in ("minutes_to_next", "last_rate"))
        rates = fundings["BTCUSDT"]["funding_rate"]
        # Charged four hours before the start and at its first minute; the next is due after four hours.
        assert due[:3].tolist() == [235, 230, 225]
        assert due[46:49].tolist() == [5, 0, 235]
        assert rate[[0, 47, 48]].tolist() == pytest.approx([rates[1], rates[1], rates[2]])
        without = history.decision[history.symbol == 1]
        assert np.isnan(column(without, "funding.minutes_to_next")).all()
        assert np.isnan(column(without, "funding.last_rate")).all()

    def test_windows_are_the_last_bars(self, history: DecisionHistory) -> None:
        mine = np.flatnonzero(history.symbol == 2)
        windows = history.windows(mine)
        bars = np.stack([column(history.decision[mine], f"5m.{name}") for name in DECISION_SPEC.window_names], axis=1)
        assert windows.shape == (mine.size, 32, 5)
        for at in range(0, mine.size, 41):
            expected = np.full((32, 5), np.nan, dtype=np.float32)
            part = bars[max(0, at - 31) : at + 1]
            expected[32 - len(part) :] = part
            assert np.array_equal(windows[at], expected, equal_nan=True)

    def test_ready_means_warm_with_a_full_window(self, history: DecisionHistory) -> None:
        first = np.flatnonzero(history.symbol == 0)
        assert history.ready[first].argmax() == DECISION_SPEC.ready_warmup - 1 == 319
        assert DECISION_SPEC.ready_warmup < SPEC.warmup
        assert np.isfinite(history.windows(np.flatnonzero(history.ready))).all()
        assert np.isfinite(history.atr[history.ready]).all()

    def test_atr_is_in_price(self, history: DecisionHistory) -> None:
        fraction = column(history.decision, "5m.atr_14_fraction").astype(np.float64)
        assert np.array_equal(history.atr, fraction * history.close, equal_nan=True)


def test_bars_are_folded_as_resample_folds_them(market: dict[str, Bars]) -> None:
    for bars in market.values():
        folded = fold_series(np.zeros(3, BAR), np.zeros(3, np.int64), bars, DECISION_SPEC.steps)
        for timeframe, found in zip(DECISION_SPEC.timeframes, folded, strict=True):
            assert found.tobytes() == resample(bars, timeframe).tobytes()


def test_a_wave_names_its_absentees() -> None:
    state = DecisionState(("A", "B", "C"))
    bars = make_bars(5, interval="1m")
    nothing = np.full(3, np.nan), np.full(3, -1)
    for at in range(5):
        rows = [0, 1, 2] if at != 2 else [0, 2]
        wave = state.on_minute(int(bars["close_time"][at]), np.array(rows), bars[[at] * len(rows)], *nothing)
        assert (wave is not None) == (at == 4)
    assert wave is not None
    assert wave.rows.tolist() == [0, 2]
    assert wave.absent.tolist() == [1]


def test_a_wave_without_any_bar_is_still_a_wave() -> None:
    state = DecisionState(("A",))
    none = np.empty(0, np.int64), np.empty(0, BAR)
    wave = state.on_minute(START_MS + 5 * MINUTE - 1, *none, np.full(1, np.nan), np.full(1, -1))
    assert wave is not None
    assert wave.decision.shape == (0, len(DECISION_SPEC.names))
    assert wave.windows.shape == (0, 32, 5)
    assert wave.absent.tolist() == [0]


@pytest.mark.parametrize("incremental", [True, False])
def test_it_says_which_series_are_not_warm_since_a_gap(incremental: bool) -> None:
    """Of a symbol that lacks 66 minutes: 14 bars of 5m, more than are bridged; 6 of 15m and 2 hours are."""
    bars = make_bars(2 * 1440, interval="1m", missing=list(range(2002, 2068)))
    state = DecisionState(("A", "B"), incremental=incremental)
    state.catch_up({"A": bars})
    told = {cold.series: cold for cold in state.not_warm()}
    assert set(told) == {f"{symbol} {timeframe}" for symbol in "AB" for timeframe in DECISION_SPEC.timeframes}
    assert {name for name, cold in told.items() if cold.missing} == {"A 5m"}
    assert str(told["A 5m"]) == "A 5m has 162 of 320 bars since 2026-01-06T10:30:00Z, before which 14 bars were missing"
    assert str(told["B 1h"]) == "B 1h has had no bar"


class TestRefusals:
    def test_minutes_that_are_late_wrong_or_unknown(self) -> None:
        state = DecisionState(("A", "B"))
        bars = make_bars(3, interval="1m")
        nothing = np.full(2, np.nan), np.full(2, -1)
        now = int(bars["close_time"][1])
        state.on_minute(now, np.array([0]), bars[1:2], *nothing)
        before = state.snapshot()
        refused = [
            (now, [0], bars[1:2], BarOutOfOrder, "A at 2026-01-05T00:01:00Z"),
            (int(bars["close_time"][0]), [1], bars[:1], BarOutOfOrder, "B"),
            (now + MINUTE, [0], bars[1:2], BarsUnusable, "not the minute"),
            (now + MINUTE, [0, 0], bars[[2, 2]], BarsUnusable, "ascend"),
            (now + MINUTE, [2], bars[2:], BarsUnusable, "2 symbols"),
            (now + MINUTE, [0, 1], bars[2:], BarsUnusable, "2 rows for 1 bars"),
            (now + MINUTE, [0], bars[2:]["open"], BarsUnusable, "BAR"),
        ]
        for time, rows, minutes, error, message in refused:
            with pytest.raises(error, match=message):
                state.on_minute(time, np.array(rows), minutes, *nothing)
        for name, array in state.snapshot().items():
            assert array.tobytes() == before[name].tobytes()

    def test_catching_up_with_what_is_late_or_unknown(self) -> None:
        state = DecisionState(("A",))
        bars = make_bars(10, interval="1m")
        state.catch_up({"A": bars[:5]})
        with pytest.raises(BarOutOfOrder, match="A at"):
            state.catch_up({"A": bars[4:]})
        with pytest.raises(BarsUnusable, match="B is none"):
            state.catch_up({"B": bars})
        with pytest.raises(BarsUnusable, match="1m"):
            state.catch_up({"A": make_bars(10)})

    def test_history_of_what_are_not_ascending_minutes(self) -> None:
        with pytest.raises(BarsUnusable, match="1m"):
            decision_history({"A": make_bars(10)}, {})
        with pytest.raises(BarsUnusable, match="bar 1"):
            decision_history({"A": make_bars(10, interval="1m")[::-1]}, {})

    def test_snapshots_of_something_else(self) -> None:
        from dataclasses import replace

        snapshot = DecisionState(("A",)).snapshot()
        with pytest.raises(StateMismatch, match="universe"):
            DecisionState(("B",)).restore(snapshot)
        with pytest.raises(StateMismatch, match="specification"):
            DecisionState(("A",), replace(DECISION_SPEC, version=3)).restore(snapshot)
        with pytest.raises(StateMismatch, match="ring"):
            DecisionState(("A",)).restore({**snapshot, "ring": np.zeros(3)})


def test_history_of_nothing() -> None:
    for bars in ({}, {"A": np.empty(0, BAR)}, {"A": make_bars(3, interval="1m")}):
        history = decision_history(bars, {})
        assert len(history) == 0
        assert history.decision.shape == (0, len(DECISION_SPEC.names))
        assert history.windows(np.empty(0, np.int64)).shape == (0, 32, 5)


class TestSpec:
    def test_names(self) -> None:
        names = DECISION_SPEC.names
        assert len(names) == len(set(names)) == 3 * len(SPEC.names) + 2 + 6 + 7 + 2
        assert DECISION_SPEC.index("1h.rsi_14") == names.index("1h.rsi_14")
        with pytest.raises(SpecInvalid, match=r"5m\.nothing"):
            DECISION_SPEC.index("5m.nothing")

    def test_the_id_is_of_names_parameters_and_versions(self) -> None:
        from dataclasses import replace

        ids = {
            DECISION_SPEC.id,
            replace(DECISION_SPEC, version=3).id,
            replace(DECISION_SPEC, window=48).id,
            replace(DECISION_SPEC, stale_after=4).id,
            replace(DECISION_SPEC, benchmark="ETHUSDT").id,
            replace(DECISION_SPEC, beta_waves=48).id,
            replace(DECISION_SPEC, beta_fewest=24).id,
            replace(DECISION_SPEC, timeframes=("5m", "1h")).id,
            replace(DECISION_SPEC, base=replace(SPEC, max_gap=3)).id,
        }
        assert len(ids) == 9
        assert replace(DECISION_SPEC).id == DECISION_SPEC.id

    @pytest.mark.parametrize("module", [candidates, quality, rules])
    def test_the_id_covers_what_follows_from_the_columns(
        self, module: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from dataclasses import replace

        monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
        assert replace(DECISION_SPEC).id != DECISION_SPEC.id

    def test_timeframes_that_do_not_nest_are_refused(self) -> None:
        from dataclasses import replace

        with pytest.raises(SpecInvalid, match="ascend"):
            replace(DECISION_SPEC, timeframes=("15m", "5m"))

    def test_the_numbers_are_those_of_their_version(self, history: DecisionHistory) -> None:
        """Of the columns beyond the base. On a change of numbers raise the version of the spec, then the digest."""
        base = {f"{timeframe}.{name}" for timeframe in DECISION_SPEC.timeframes for name in SPEC.names}
        rows = history.decision[:, [name not in base for name in DECISION_SPEC.names]].copy()
        rows[np.isnan(rows)] = np.nan
        assert rows.shape[1] == 17
        assert (DECISION_SPEC.version, hashlib.sha256(rows.tobytes()).hexdigest()[:16]) == (2, "598be31285b9a3c1")
