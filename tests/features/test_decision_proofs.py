"""Causality, live = history and forgetting of whole decision rows, and rows that cheat, which must be caught."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from features import DECISION_SPEC, SPEC
from features import decision_proofs as proofs
from features.decision import DecisionState
from features.decision_controls import CONTROLS, cheating
from features.decision_proofs import ROW, cut_times
from features.decision_spec import BETA, CROSS, DecisionSpec
from features.decision_table import Market, Table, history_table, names_of
from features.decision_warmth import unclear, warm
from features.proofs import TOLERANCE
from features.spec import Feature
from market import funding
from market.bars import DAY_MS, MINUTE_MS, PRICES, Bars, read
from tests.features.series import START_MS, make_market, uniforms

MADE_MINUTES = 60 * 24 * 5
CUTS = 200
HOUR_MS = 60 * MINUTE_MS
FIRST_ORIGINS = (1, 2, 7, 37, 61, 500, 1441)
"""Minutes after a market's start: in the midst of bars of every timeframe, and at their close."""


def made() -> Market:
    """Holes of one to 300 minutes, a late listing, a symbol that dies, one without fundings; BTC is whole."""
    bars = {symbol.replace("S0", "BTC"): each for symbol, each in make_market(5, MADE_MINUTES).items()}
    times = START_MS - 4 * HOUR_MS + np.arange(40) * 4 * HOUR_MS + 5
    draws = {s: funding.from_columns(times, uniforms(i + 3, 40) * 1e-4) for i, s in enumerate(bars) if i != 1}
    return Market(bars, draws)


def recorded(data: Path, source: str, days: float, symbols: tuple[str, ...]) -> Market:
    """The last days of some recorded symbols with their fundings."""
    bars = {each: read(data / f"klines/{source}/{each}-1m-{source}.parquet") for each in symbols}
    end = min(int(each["close_time"][-1]) for each in bars.values()) + 1
    tables = {each: parquet.read_table(data / f"funding/{each}-funding.parquet") for each in symbols}
    rates = {s: funding.from_columns(t["funding_time"], t["funding_rate"]) for s, t in tables.items()}
    everything = Market(bars, rates)
    return everything.between(end - int(days * DAY_MS), end)


def with_absentees(market: Market) -> Market:
    """The first symbol misses a wave now and then, the second hours once, the third is listed later."""
    first, second, third, *_ = market.symbols
    start = int(market.times[0]) - MINUTE_MS + 1

    def without(bars: Bars, *missing: tuple[float, float]) -> Bars:
        hours = (bars["open_time"] - start) / HOUR_MS
        kept: Bars = bars[~np.any([(begin <= hours) & (hours < end) for begin, end in missing], axis=0)]
        return kept

    bars = dict(market.bars)
    bars[first] = without(bars[first], *((at, at + 0.05) for at in np.arange(3.3, 90.0, 17.1)), (100.0, 100.5))
    bars[second] = without(bars[second], (60.2, 66.7))
    bars[third] = without(bars[third], (0.0, 40.4))
    return Market(bars, market.fundings)


UM = ("BTCUSDT", "ETHUSDT", "DOGEUSDT")
VISION = ("LINKUSDT", "LTCUSDT", "AVAXUSDT")
"""With trades and takers, which the others lack; without BTC, so another benchmark is named."""
VISION_SPEC = replace(DECISION_SPEC, benchmark="LINKUSDT")


@pytest.fixture(scope="module")
def market() -> Market:
    return made()


@pytest.fixture(scope="module")
def um(shared_data: Path) -> Market:
    return with_absentees(recorded(shared_data, "um2025", 10, UM))


@pytest.fixture(scope="module")
def whole(shared_data: Path) -> Market:
    return recorded(shared_data, "um2025", 51, ("BTCUSDT", "ETHUSDT", "SOLUSDT"))


def origins(market: Market, minutes: tuple[int, ...] = FIRST_ORIGINS) -> list[int]:
    """Times so many minutes after a market's start, and a day apart through all of it."""
    start = int(market.times[0]) - MINUTE_MS + 1
    spread = range(start + 2 * DAY_MS + 23 * MINUTE_MS, int(market.times[-1]) - DAY_MS, 2 * DAY_MS)
    return [*(start + minute * MINUTE_MS for minute in minutes), *spread]


def counted(market: Market, spec: DecisionSpec = DECISION_SPEC) -> dict[str, int]:
    """Rows of a market at which each column counts, and has a value."""
    table = history_table(market, spec)
    rows = warm(market, table, table, spec) & np.isfinite(table.values)
    return dict(zip(table.names, rows.sum(axis=0).tolist(), strict=True))


class TestOnRecordedData:
    def test_a_prefix_gives_the_same_rows(self, um: Market) -> None:
        cuts = cut_times(um, CUTS)
        assert len(cuts) >= 200
        assert len({cut % HOUR_MS // MINUTE_MS for cut in cuts}) > 40
        assert proofs.prefix(history_table, um, cuts) == []

    def test_what_comes_changes_nothing(self, um: Market) -> None:
        assert proofs.poison(history_table, um, cut_times(um, 42, seed=2)) == []

    def test_live_equals_history_through_restarts(self, um: Market) -> None:
        assert proofs.live(um, cut_times(um, 20, seed=3)) == []

    def test_origins_are_forgotten(self, um: Market) -> None:
        assert proofs.forgetting(um, origins(um)) == []

    def test_with_trades_and_takers(self, shared_data: Path) -> None:
        market = recorded(shared_data, "vision2026-02", 6, VISION)
        table_of = partial(history_table, spec=VISION_SPEC)
        assert proofs.prefix(table_of, market, cut_times(market, 25)) == []
        assert proofs.poison(table_of, market, cut_times(market, 21, seed=2)) == []
        assert proofs.live(market, cut_times(market, 8), VISION_SPEC) == []
        assert proofs.forgetting(market, origins(market), VISION_SPEC) == []
        rows = counted(market, VISION_SPEC)
        assert min(rows[name] for name in names_of(VISION_SPEC) if "trades" in name and name.startswith("5m.")) > 3000

    def test_the_columns_are_measured(self, um: Market) -> None:
        rows = counted(um)
        hours = 10 * 24
        needed = {f"{tf}.{f.name}": f.warmup * (12 if tf == "1h" else 3) // 12 for tf, f in _longer()}
        flows = {f.name for f in SPEC.features if "taker" in f.name or "trades" in f.name}
        for name, found in rows.items():
            if name.rpartition(".")[2] not in flows and needed.get(name, 0) < hours - 70:
                assert found >= 100, name
        assert min(rows[name] for name in (*CROSS, *BETA)) > 5_000


def _longer() -> list[tuple[str, Feature]]:
    return [(timeframe, feature) for timeframe in DECISION_SPEC.timeframes[1:] for feature in SPEC.features]


@pytest.mark.deep
class TestAtLength:
    """Long enough for every column of every timeframe, the 1h EMA200 too, and for the cheats one by one."""

    def test_all_that_a_recording_has_counts(self, whole: Market) -> None:
        flows = {f.name for f in SPEC.features if "taker" in f.name or "trades" in f.name}
        assert {n for n, found in counted(whole).items() if found < 100 and n.rpartition(".")[2] not in flows} == set()

    def test_prefix(self, whole: Market) -> None:
        assert proofs.prefix(history_table, whole, cut_times(whole, CUTS, seed=5)) == []

    def test_poison(self, whole: Market) -> None:
        assert proofs.poison(history_table, whole, cut_times(whole, CUTS, seed=6)) == []

    def test_live(self, whole: Market) -> None:
        assert proofs.live(whole, cut_times(whole, 60, seed=7)) == []

    def test_forgetting(self, whole: Market) -> None:
        assert proofs.forgetting(whole, origins(whole)) == []

    @pytest.mark.parametrize("cheat", CONTROLS)
    def test_cheats(self, whole: Market, cheat: str) -> None:
        for proof in (proofs.prefix, proofs.poison):
            caught = {failure.feature for failure in proof(partial(cheating, cheat), whole, cut_times(whole, 21))}
            assert caught
            assert all(CONTROLS[cheat].cheats(DECISION_SPEC, name) for name in caught)


class TestOnAMadeMarket:
    def test_a_prefix_gives_the_same_rows(self, market: Market) -> None:
        assert proofs.prefix(history_table, market, cut_times(market, 60, seed=8)) == []

    def test_what_comes_changes_nothing(self, market: Market) -> None:
        assert proofs.poison(history_table, market, cut_times(market, 42, seed=9)) == []

    @pytest.mark.parametrize("seed", [1, 2])
    def test_live_equals_history_through_restarts(self, market: Market, seed: int) -> None:
        assert proofs.live(market, cut_times(market, 30, seed)) == []

    def test_origins_are_forgotten(self, market: Market) -> None:
        assert proofs.forgetting(market, origins(market)) == []

    def test_prices_1024_times_as_large_change_no_bit(self, market: Market) -> None:
        bars = {symbol: each.copy() for symbol, each in market.bars.items()}
        for each in bars.values():
            for name in (*PRICES, "quote_volume", "taker_buy_quote"):
                each[name] *= 1024.0
        true, found = history_table(market), history_table(Market(bars, market.fundings))
        true.values[:, true.column("atr")] *= 1024.0
        assert found.values.tobytes() == true.values.tobytes()

    def test_the_state_does_not_grow(self, market: Market) -> None:
        state = DecisionState(market.symbols)
        sizes = {name: array.nbytes for name, array in state.snapshot().items()}
        state.catch_up(market.bars)
        assert {name: array.nbytes for name, array in state.snapshot().items()} == sizes

    def test_it_has_absentees(self, market: Market) -> None:
        table = history_table(market)
        present = np.unique(np.unique(table.time, return_counts=True)[1])
        assert {3, 4, 5} <= set(present.tolist())


class TestCheats:
    """The proofs can fail: whatever reads what is not known yet is caught, and nothing else is blamed."""

    @pytest.mark.parametrize("cheat", CONTROLS)
    def test_reading_ahead_is_caught_by_prefix_and_by_poison(self, market: Market, cheat: str) -> None:
        control = CONTROLS[cheat]
        for proof in (proofs.prefix, proofs.poison):
            caught = {failure.feature for failure in proof(partial(cheating, cheat), market, cut_times(market, 14))}
            assert caught
            assert all(control.cheats(DECISION_SPEC, name) for name in caught)
            if cheat == "a longer bar before it closed":
                assert len(caught) > 20

    @pytest.mark.parametrize("cheat", CONTROLS)
    def test_a_history_that_differs_from_live_is_caught(self, market: Market, cheat: str) -> None:
        early = market.before(START_MS + DAY_MS)
        caught = {failure.feature for failure in proofs.live(early, [], table_of=partial(cheating, cheat))}
        assert caught
        assert all(CONTROLS[cheat].cheats(DECISION_SPEC, name) for name in caught)

    @pytest.mark.parametrize("garbage", proofs.GARBAGE)
    def test_each_kind_of_garbage_is_felt_by_what_comes(self, market: Market, garbage: proofs.Spoil) -> None:
        cut = START_MS + 3 * DAY_MS
        spoilt, true = history_table(garbage(market, cut)), history_table(market)
        later = true.take(true.time >= cut)
        found = spoilt.take(spoilt.time >= cut)
        assert found.values.tobytes() != later.values.tobytes()

    def test_a_scale_of_the_whole_market_is_caught(self, market: Market) -> None:
        def centred(some: Market) -> Table:
            table = history_table(some)
            table.values[:, table.column("atr")] -= np.nansum(table.values[:, table.column("atr")])
            return table

        for proof in (proofs.prefix, proofs.poison):
            assert [failure.feature for failure in proof(centred, market, cut_times(market, 3))] == ["atr"]

    def test_rows_that_come_and_go_are_caught(self, market: Market) -> None:
        def survivors(some: Market) -> Table:
            """Only the symbols that are still there at the end."""
            alive = [bars.size > 0 and bars["close_time"][-1] == some.times[-1] for bars in some.bars.values()]
            table = history_table(some)
            return table.take(np.array(alive)[table.symbol])

        cuts = cut_times(market, len(proofs.GARBAGE))
        for proof in (proofs.prefix, proofs.poison):
            (caught,) = proof(survivors, market, cuts)
            assert caught.feature == ROW
            assert caught.symbol in market.symbols
        assert ROW in {failure.feature for failure in proofs.live(market, [], table_of=survivors)}

    @pytest.mark.parametrize("lost", ["ring", "beta.returns", "latest", "partial", "15m.state"])
    def test_a_snapshot_that_loses_something_is_caught(self, market: Market, lost: str) -> None:
        def without(snapshot: proofs.Snapshot) -> Mapping[str, NDArray[np.generic]]:
            return {name: np.zeros_like(array) if name == lost else array for name, array in snapshot.items()}

        early = market.before(START_MS + DAY_MS)
        assert proofs.live(early, [START_MS + 600 * MINUTE_MS + 7 * MINUTE_MS], stored=without)

    def test_a_column_that_remembers_its_origin_is_caught(self, market: Market) -> None:
        def since_the_start(some: Market) -> Table:
            table = history_table(some)
            days = (table.time - table.time[0]) / DAY_MS
            table.values[:, table.column("calendar.hour_sin")] = days
            return table

        caught = proofs.forgetting(market, origins(market, (60,))[:1], table_of=since_the_start)
        assert [failure.feature for failure in caught] == ["calendar.hour_sin"]

    def test_a_beta_that_counts_too_soon_is_caught(self, market: Market) -> None:
        longer = replace(DECISION_SPEC, beta_waves=192)
        caught = proofs.forgetting(market, origins(market), table_of=partial(history_table, spec=longer))
        assert {failure.feature for failure in caught} == set(BETA)

    def test_a_warm_up_that_is_too_short_is_caught(self, market: Market) -> None:
        families = tuple(
            replace(family, features=tuple(replace(feature, warmup=2) for feature in family.features))
            for family in SPEC.families
        )
        hasty = replace(DECISION_SPEC, base=replace(SPEC, families=families))
        start = int(market.times[0]) - MINUTE_MS + 1
        caught = {f.feature for f in proofs.forgetting(market, [start + 1441 * MINUTE_MS], hasty)}
        assert {f"{timeframe}.ema_50_distance" for timeframe in DECISION_SPEC.timeframes} <= caught


class TestWhatCounts:
    def test_hardly_a_wave_is_unclear(self, um: Market) -> None:
        table = history_table(um)
        rows = warm(um, table, table, DECISION_SPEC)
        for name, of in zip(CROSS, ("return_1", "return_20", "realised_volatility_20", "ema_21_distance"), strict=True):
            warmth = rows[:, table.column(f"5m.{of}")]
            assert rows[:, table.column(name)].sum() > 0.93 * warmth.sum(), name

    def test_values_within_the_tolerance_of_each_other_are_unclear(self) -> None:
        wave = np.array([0, 0, 1, 1, 2, 2, 3])
        values = np.array([1.0, 1.0 + TOLERANCE, 1.0, 1.0, 0.5, np.nan, TOLERANCE / 2], dtype=np.float32)
        assert unclear(wave, values, 1.0, ranked=True).tolist() == [True, True, *[False] * 5]
        assert unclear(wave, values, 1.0, ranked=False).tolist() == [*[False] * 6, True]

    def test_a_symbol_that_is_not_warm_holds_back_the_wave(self, market: Market) -> None:
        since = market.since(START_MS + DAY_MS)
        whole, later = history_table(market), history_table(since)
        expected = whole.take(whole.time + 1 - 5 * MINUTE_MS >= START_MS + DAY_MS)
        rows = warm(since, expected, later, DECISION_SPEC)
        volatility = rows[:, later.column("cross.volatility_rank")]
        wave = (later.time - START_MS - DAY_MS) // (5 * MINUTE_MS)
        warmup = SPEC.features[SPEC.index("realised_volatility_20")].warmup
        assert not volatility[wave < warmup - 1].any()
        assert volatility[wave == warmup - 1].all()


def test_a_market_of_nothing() -> None:
    empty = Market({}, {})
    assert cut_times(empty, 10) == []
    nobody = Market({"BTCUSDT": made().bars["BTCUSDT"][:0]}, {})
    assert cut_times(nobody, 10) == []
    assert proofs.prefix(history_table, nobody, []) == []
    assert proofs.live(nobody, []) == []
    assert history_table(nobody).values.shape == (0, len(names_of(DECISION_SPEC)))


def test_a_failure_says_where(market: Market) -> None:
    cut = START_MS + DAY_MS
    (caught,) = proofs.prefix(partial(cheating, "a column one wave ahead"), market, [cut])
    assert (caught.symbol, caught.time_ms) == ("BTCUSDT", cut - 1)
    assert str(caught).startswith("prefix: 5m.return_1 of BTCUSDT at 2026-01-06T00:00:00Z is ")
