"""The synthetic market: one path however it is asked, sane bars, an edge that is there or is not."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from market.bars import DAY_MS, MINUTE_MS, Bars, resample, validate
from market.errors import UnknownSource, UnknownSymbol
from market.funding import Fundings
from market.sources import BarSource, open_source
from market.sources.synthetic import DEFAULT_START_MS, SyntheticMarket
from market.sources.synthetic_symbols import names, profile

START = DEFAULT_START_MS
DAYS = 20


@pytest.fixture(scope="module", params=["planted", "none"])
def market(request: pytest.FixtureRequest) -> SyntheticMarket:
    return SyntheticMarket(seed=11, symbols=8, edge=request.param)


def whole(market: SyntheticMarket, symbol: str, days: int = DAYS) -> Bars:
    return market.klines(symbol, START, START + days * DAY_MS)


def flow_and_future(market: SyntheticMarket, symbol: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Taker imbalance of the last 20 5m bars, and the log return of the 12 bars after them, once an hour."""
    bars = resample(whole(market, symbol), "5m")
    window = np.ones(20)
    bought = np.convolve(2 * bars["taker_buy_base"] - bars["volume"], window, "valid")
    imbalance = bought / np.convolve(bars["volume"], window, "valid")
    close = np.log(bars["close"][19:])
    return imbalance[:-12:12], (close[12:] - close[:-12])[::12]


def test_it_is_a_source(market: SyntheticMarket) -> None:
    assert isinstance(market, BarSource)
    assert market.symbols()[0] == "BTCUSDT"
    assert market.coverage("BTCUSDT") == (START, 4_102_444_800_000)
    with pytest.raises(UnknownSymbol, match="NOUSDT"):
        market.klines("NOUSDT", START, START + DAY_MS)


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(-2000, 4 * 1440), min_size=2, max_size=6, unique=True),
    order=st.randoms(use_true_random=False),
)
def test_a_stretch_is_the_same_however_it_is_cut(cuts: list[int], order: object) -> None:
    reference = SyntheticMarket(seed=3, symbols=("ENAUSDT", "BTCUSDT"))
    other = SyntheticMarket(seed=3, symbols=("BTCUSDT", "ETHUSDT", "ENAUSDT"))
    times = sorted({START + cut * MINUTE_MS for cut in cuts})
    pieces: dict[int, tuple[Bars, Fundings]] = {}
    stretches = list(itertools.pairwise(times))
    order.shuffle(stretches)  # type: ignore[attr-defined]
    for first, last in stretches:
        pieces[first] = other.klines("ENAUSDT", first, last), other.funding("ENAUSDT", first, last)
    bars, fundings = (np.concatenate([pieces[key][i] for key in sorted(pieces)]) for i in (0, 1))
    assert bars.tobytes() == reference.klines("ENAUSDT", times[0], times[-1]).tobytes()
    assert fundings.tobytes() == reference.funding("ENAUSDT", times[0], times[-1]).tobytes()


def test_it_is_the_same_in_another_process() -> None:
    script = (
        "from market.sources import open_source; import hashlib;"
        f"b = open_source('synthetic:seed=5,symbols=3').klines('ETHUSDT', {START + 2 * DAY_MS}, {START + 3 * DAY_MS});"
        "print(hashlib.sha256(b.tobytes()).hexdigest())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script], check=True, capture_output=True, text=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_forgotten_days_are_drawn_again_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("market.sources.synthetic._KEPT_DAYS", 2)
    market = SyntheticMarket(seed=3, symbols=2)
    once = market.klines("ETHUSDT", START, START + 6 * DAY_MS)
    again = market.klines("ETHUSDT", START + DAY_MS, START + 6 * DAY_MS)
    assert once[1440:].tobytes() == again.tobytes()


def test_bars_are_sane_and_complete(market: SyntheticMarket) -> None:
    for symbol in market.symbols():
        bars = validate(symbol, whole(market, symbol))
        grid = market.profile(symbol)
        assert np.array_equal(bars["open_time"], np.arange(START, START + DAYS * DAY_MS, MINUTE_MS))
        assert np.array_equal(bars["close_time"], bars["open_time"] + MINUTE_MS - 1)
        assert (bars["volume"] > 0).all()
        assert (bars["trades"] >= 1).all()
        assert (bars["taker_buy_base"] <= bars["volume"]).all()
        assert (bars["taker_buy_quote"] <= bars["quote_volume"]).all()
        vwap = bars["quote_volume"] / bars["volume"]
        assert (vwap > bars["low"] * (1 - 1e-6)).all()
        assert (vwap < bars["high"] * (1 + 1e-6)).all()
        for name, step in (("open", grid.tick), ("high", grid.tick), ("low", grid.tick), ("volume", grid.step)):
            multiples = bars[name] / step
            assert np.allclose(multiples, np.rint(multiples), rtol=1e-9, atol=1e-6)
        gap = np.abs(bars["open"][1:] - bars["close"][:-1])
        assert gap.max() <= 1.001 * grid.tick


def test_it_looks_like_a_market(market: SyntheticMarket) -> None:
    returns = []
    for symbol in market.symbols():
        bars = whole(market, symbol)
        change = np.diff(np.log(bars["close"]))
        kurtosis = np.mean((change - change.mean()) ** 4) / change.var() ** 2
        assert kurtosis > 5
        spread = np.log((bars["high"] - bars["low"]) / bars["close"] + 1e-6)
        assert np.corrcoef(spread, np.log(bars["volume"]))[0, 1] > 0.3
        # Volatility clusters: the size of a move tells that of one an hour later.
        size = np.abs(change)
        assert np.corrcoef(size[:-60], size[60:])[0, 1] > 0.05
        # Half of a Brownian minute's range lies outside its body.
        body = np.abs(bars["close"] - bars["open"]).mean()
        assert 1.5 < (bars["high"] - bars["low"]).mean() / body < 2.6
        five = resample(bars, "5m")
        true_range = np.maximum(five["high"][1:], five["close"][:-1]) - np.minimum(five["low"][1:], five["close"][:-1])
        assert 0.0012 < np.mean(true_range / five["close"][1:]) < 0.0045
        returns.append(np.diff(np.log(resample(bars, "15m")["close"])))
    together = np.corrcoef(returns)
    assert together.min() > 0.3
    assert together[np.triu_indices(len(returns), 1)].max() < 0.95


def test_every_regime_occurs_and_only_scales_volatility() -> None:
    market = SyntheticMarket(seed=11, symbols=1, edge="none")
    regime = market.regimes(START, START + DAYS * DAY_MS)
    change = np.diff(np.log(whole(market, "BTCUSDT")["close"]), prepend=np.log(91_350.0))
    shares = np.bincount(regime, minlength=3) / regime.size
    assert (shares > 0.05).all()
    deviation = [change[regime == each].std() for each in range(3)]
    assert deviation[2] > deviation[0] > deviation[1]
    assert market.regimes(START + 7 * MINUTE_MS, START + DAY_MS + MINUTE_MS).tolist() == regime[7:1441].tolist()


def test_the_planted_edge_is_seen_in_taker_flow_and_absent_without(market: SyntheticMarket) -> None:
    pairs = [flow_and_future(market, symbol) for symbol in market.symbols()]
    correlations = np.array([np.corrcoef(flow, future)[0, 1] for flow, future in pairs])
    # One symbol's correlation over n hours has a deviation of n^-½; symbols are not independent of each other.
    deviation = len(pairs[0][0]) ** -0.5
    if market.edge == "planted":
        assert correlations.mean() > 0.2
        assert (correlations > 3 * deviation).all()
    else:
        assert abs(correlations.mean()) < 2 * deviation
        assert np.abs(correlations).max() < 4 * deviation


def test_the_latent_flow_drives_only_the_planted_market(market: SyntheticMarket) -> None:
    scores = []
    for symbol in market.symbols():
        flow = market.latent_flow(symbol, START, START + DAYS * DAY_MS)
        bars = whole(market, symbol)
        change = np.diff(np.log(bars["close"]))
        scores.append(np.corrcoef(flow[:-1], change)[0, 1] * np.sqrt(change.size))
        share = bars["taker_buy_base"] / bars["volume"]
        assert np.corrcoef(flow, share)[0, 1] > 0.15
    if market.edge == "planted":
        assert min(scores) > 6
    else:
        assert np.abs(scores).max() < 4


def test_without_an_edge_nothing_seen_tells_the_direction() -> None:
    market = SyntheticMarket(seed=11, symbols=8, edge="none")
    for symbol in market.symbols():
        bars = resample(whole(market, symbol), "5m")
        change = np.diff(np.log(bars["close"]))
        future = change[1:] / change.std()
        seen = {
            "momentum": change[:-1],
            "volume": np.log(bars["volume"][1:-1]),
            "range": (bars["high"] / bars["low"])[1:-1] - 1,
            "share": (bars["taker_buy_base"] / bars["volume"])[1:-1],
        }
        for name, value in seen.items():
            score = np.corrcoef(value, future)[0, 1] * np.sqrt(future.size)
            # Unequal variances widen the null's deviation to about 1.5.
            assert abs(score) < 6, f"{symbol}: {name} has z = {score:.1f}"
        for hours in (1, 4):
            step = 12 * hours
            ratio = np.var(np.log(bars["close"][step:] / bars["close"][:-step])) / (step * np.var(change))
            assert 0.6 < ratio < 1.45


def test_fundings_have_the_symbol_s_interval_and_are_a_little_late() -> None:
    market = SyntheticMarket(seed=11, symbols=8)
    for symbol in market.symbols():
        hours = market.profile(symbol).funding_hours
        fundings = market.funding(symbol, START, START + 5 * DAY_MS)
        assert fundings.size == 5 * 24 // hours
        late = fundings["funding_time"] % (hours * 3_600_000)
        assert late.max() < 10
        assert np.abs(fundings["funding_rate"]).max() <= 0.003
    assert market.profile("ENAUSDT").funding_hours == 4


def test_names_and_profiles_never_end() -> None:
    listed = names(400)
    assert len(set(listed)) == 400
    for name in listed:
        each = profile(name)
        assert each.tick / each.price < 2e-4
        assert each.market_share + each.sector_share < 1
        assert each.funding_hours in (4, 8)


def test_a_generated_symbol_has_a_market_too() -> None:
    market = SyntheticMarket(seed=1, symbols=("WHATEVERUSDT", "SYN0300USDT"))
    for symbol in market.symbols():
        validate(symbol, whole(market, symbol, 2))


@pytest.mark.parametrize(
    "arguments",
    [{"symbols": 0}, {"symbols": ("A", "A")}, {"seed": -1}, {"start_ms": START + 1}, {"edge": "secret"}],
)
def test_wrong_arguments_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        SyntheticMarket(**arguments)  # type: ignore[arg-type]


def test_specs_open() -> None:
    source = open_source("synthetic:seed=9,symbols=3,edge=none,start=2026-02-01")
    assert isinstance(source, SyntheticMarket)
    assert (source.seed, source.edge, source.symbols()) == (9, "none", names(3))
    assert source.coverage("BTCUSDT") == (1_769_904_000_000, 4_102_444_800_000)
    assert len(open_source("synthetic:").symbols()) == 12


@pytest.mark.parametrize(
    "spec",
    ["", "nowhere:x", "synthetic:seed", "synthetic:speed=1", "synthetic:edge=maybe", "synthetic:seed=a", "recorded:"],
)
def test_wrong_specs_are_refused(spec: str) -> None:
    with pytest.raises(UnknownSource):
        open_source(spec)
