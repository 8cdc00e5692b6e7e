"""How one day of the synthetic market is drawn (the model itself is described in `synthetic`).

A day is a pure function of (seed, day, name) and of the state that the day before left. The
market's day is common to all symbols; a symbol's day needs it and nothing of the other symbols,
so that a symbol's path does not depend on which others are asked for.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from market.bars import BAR, DAY_MS, MINUTE_MS, Bars
from market.funding import FUNDING, Fundings
from market.sources.synthetic_symbols import SECTORS, SymbolProfile

MINUTES = 1440
Floats = NDArray[np.float64]

FLOW_HALF_LIFE = 100.0
"""Minutes in which the latent order flow forgets half of itself."""
FLOW_COMMON_SHARE = 0.2
"""Part of the latent flow's variance that all symbols share."""
FLOW_DRIFT = 0.08
"""Planted edge: drift of the next minute, in units of its volatility, for a latent flow of one."""
FLOW_SHARE = 0.2
"""Shift of the taker-buy share's logit for a latent flow of one."""

REGIMES = ("trend", "range", "volatile")
REGIME_VOLATILITY = np.array([1.0, 0.78, 1.55])
REGIME_EDGE = np.array([1.25, 0.8, 1.0])
REGIME_MINUTES = np.array([300.0, 360.0, 100.0])
"""Mean length of a stay in each regime."""
REGIME_NEXT = np.array([[0.0, 0.65, 0.35], [0.6, 0.0, 0.4], [0.55, 0.45, 0.0]])

_VOLATILITY_HALF_LIFE, _VOLATILITY_SPREAD = 300.0, 0.22
_ACTIVITY_HALF_LIFE, _ACTIVITY_SPREAD = 30.0, 0.45
_FUNDING_HALF_LIFE = 240.0
_TAIL = 5.0
"""Degrees of freedom of the Student-t returns."""


@dataclass(frozen=True)
class MarketState:
    """What the market's day leaves to the next: common flow, common log volatility, regime."""

    flow: float
    log_volatility: float
    regime: int


@dataclass(frozen=True)
class MarketDay:
    """One day of what all symbols share, each an array over its 1440 minutes.

    `flow` has one more, first, value: that of the last minute before the day.
    """

    flow: Floats
    log_volatility: Floats
    regime: NDArray[np.int8]
    market_return: Floats
    market_variance: Floats
    sector_return: Floats
    pattern: Floats
    weekend: bool
    end: MarketState


@dataclass(frozen=True)
class SymbolState:
    """What a symbol's day leaves to the next."""

    price: float
    close: float
    own_flow: float
    log_volatility: float
    activity: float
    flow_average: float


@dataclass(frozen=True)
class SymbolDay:
    """One day of one symbol. `flow` is the latent order flow at the end of each minute."""

    bars: Bars
    funding: Fundings
    flow: Floats
    end: SymbolState


def generator(seed: int, day: int, name: str) -> np.random.Generator:
    """The random numbers of one day (−1: the start) of one symbol, or of `market`."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, day + 1, zlib.crc32(name.encode())])))


def _autoregress(start: float, shocks: Floats, half_life: float) -> Floats:
    """The values x[t] = φ x[t-1] + shocks[t], where φ halves x in `half_life` steps."""
    # φ^-t grows to 2^(1440 / half_life), far from overflow, and recent terms dominate the sum.
    decay = np.exp2(-np.arange(1, shocks.size + 1) / half_life)
    values: Floats = decay * (start + np.cumsum(shocks / decay))
    return values


def _stationary(start: float, normals: Floats, half_life: float, spread: float = 1.0) -> Floats:
    """An autoregression of standard deviation `spread`, driven by standard normals."""
    return _autoregress(start, normals * (spread * np.sqrt(1 - np.exp2(-2 / half_life))), half_life)


def _student_variance(random: np.random.Generator) -> Floats:
    """Variances of mean one which turn normals into Student-t; capped, as an exchange halts at some point."""
    return np.minimum((_TAIL - 2) / (2 * random.standard_gamma(_TAIL / 2, MINUTES)), 40.0)


def daily_pattern() -> Floats:
    """Volatility by minute of the UTC day: quiet at 04:00, busy in the American afternoon, a bump at funding."""
    hour = np.arange(MINUTES) / 60
    pattern = 1 + 0.28 * np.cos((hour - 15.0) * np.pi / 12) + 0.08 * np.cos((hour - 14.0) * np.pi / 6)
    for funding_hour in (0, 8, 16):
        since = (hour - funding_hour) % 24
        pattern = pattern + 0.25 * np.exp(-since * 6)
    values: Floats = pattern / pattern.mean()
    return values


_PATTERN = daily_pattern()


def market_start(seed: int) -> MarketState:
    """The state before the first day."""
    random = generator(seed, -1, "market")
    return MarketState(float(random.normal()), float(random.normal(0, _VOLATILITY_SPREAD)), 1)


def market_day(seed: int, day: int, weekday: int, state: MarketState) -> MarketDay:
    """One day of the market, `day` days after the start; `weekday` is 0 on Mondays."""
    random = generator(seed, day, "market")
    flow = _stationary(state.flow, random.standard_normal(MINUTES), FLOW_HALF_LIFE)
    log_volatility = _stationary(
        state.log_volatility, random.standard_normal(MINUTES), _VOLATILITY_HALF_LIFE, _VOLATILITY_SPREAD
    )
    variance = _student_variance(random)
    market_return = np.sqrt(variance) * random.standard_normal(MINUTES)
    sector_return = random.standard_normal((len(SECTORS), MINUTES))
    leave, where = random.random((2, MINUTES))
    regime = np.empty(MINUTES, dtype=np.int8)
    current = state.regime
    chance, order = 1 / REGIME_MINUTES, np.cumsum(REGIME_NEXT, axis=1)
    for minute in range(MINUTES):
        if leave[minute] < chance[current]:
            current = int(np.searchsorted(order[current], where[minute], side="right"))
        regime[minute] = current
    return MarketDay(
        flow=np.concatenate(([state.flow], flow)),
        log_volatility=log_volatility,
        regime=regime,
        market_return=market_return,
        market_variance=variance,
        sector_return=sector_return,
        pattern=_PATTERN,
        weekend=weekday >= 5,
        end=MarketState(float(flow[-1]), float(log_volatility[-1]), current),
    )


def symbol_start(seed: int, symbol: SymbolProfile) -> SymbolState:
    """The state of a symbol before its first day: the listed price, everything else as if it had always run."""
    own_flow, log_volatility, activity = generator(seed, -1, symbol.name).standard_normal(3)
    return SymbolState(
        price=symbol.price,
        close=symbol.price,
        own_flow=float(own_flow),
        log_volatility=float(log_volatility) * _VOLATILITY_SPREAD,
        activity=float(activity) * _ACTIVITY_SPREAD,
        flow_average=0.0,
    )


def symbol_day(
    seed: int, day: int, day_ms: int, symbol: SymbolProfile, market: MarketDay, state: SymbolState, planted: bool
) -> SymbolDay:
    """One day of one symbol, whose first minute opens at `day_ms`."""
    random = generator(seed, day, symbol.name)
    own_flow = _stationary(state.own_flow, random.standard_normal(MINUTES), FLOW_HALF_LIFE)
    flow = np.sqrt(FLOW_COMMON_SHARE) * market.flow
    flow += np.sqrt(1 - FLOW_COMMON_SHARE) * np.concatenate(([state.own_flow], own_flow))
    log_volatility = _stationary(
        state.log_volatility, random.standard_normal(MINUTES), _VOLATILITY_HALF_LIFE, _VOLATILITY_SPREAD
    )
    level = market.pattern * REGIME_VOLATILITY[market.regime] * (0.8 if market.weekend else 1.0)
    level = level * np.exp(log_volatility + market.log_volatility - 2 * _VOLATILITY_SPREAD**2)

    own_share = 1 - symbol.market_share - symbol.sector_share
    own_variance = _student_variance(random)
    shock = np.sqrt(symbol.market_share) * market.market_return
    shock += np.sqrt(symbol.sector_share) * market.sector_return[SECTORS.index(symbol.sector)]
    shock += np.sqrt(own_share * own_variance) * random.standard_normal(MINUTES)
    # What the minute's range and volume respond to: its realised, not its expected, volatility.
    burst = np.sqrt(symbol.market_share * market.market_variance + symbol.sector_share + own_share * own_variance)

    volatility = symbol.volatility * level
    returns = np.clip(volatility * shock, -0.2, 0.2)
    if planted:
        returns = returns + FLOW_DRIFT * REGIME_EDGE[market.regime] * volatility * flow[:-1]
    path = state.price * np.cumprod(1 + returns)

    bars = np.empty(MINUTES, dtype=BAR)
    bars["open_time"] = day_ms + MINUTE_MS * np.arange(MINUTES, dtype=np.int64)
    bars["close_time"] = bars["open_time"] + MINUTE_MS - 1
    _draw_prices(random, bars, symbol, state, path, volatility * burst)
    activity = _stationary(state.activity, random.standard_normal(MINUTES), _ACTIVITY_HALF_LIFE, _ACTIVITY_SPREAD)
    traded = symbol.turnover * level * burst**1.3 * np.exp(activity - _ACTIVITY_SPREAD**2)
    _draw_flows(random, bars, symbol, traded, flow[1:], shock)
    average = _autoregress(state.flow_average, flow[1:] * (1 - np.exp2(-1 / _FUNDING_HALF_LIFE)), _FUNDING_HALF_LIFE)
    end = SymbolState(
        price=float(path[-1]),
        close=float(bars["close"][-1]),
        own_flow=float(own_flow[-1]),
        log_volatility=float(log_volatility[-1]),
        activity=float(activity[-1]),
        flow_average=float(average[-1]),
    )
    averages = np.concatenate(([state.flow_average], average))
    return SymbolDay(bars, _draw_funding(random, day_ms, symbol, averages), flow[1:], end)


def _on_grid(values: Floats, grid: float) -> Floats:
    """`values` on the nearest multiple of a decimal `grid`, free of binary crumbs such as 0.30000000000000004."""
    decimals = max(0, round(-np.log10(grid)))
    rounded: Floats = np.round(np.rint(values / grid) * grid, decimals)
    return rounded


def _draw_prices(
    random: np.random.Generator, bars: Bars, symbol: SymbolProfile, state: SymbolState, path: Floats, spread: Floats
) -> None:
    """Open, high, low and close around the path of closes; `spread` is each minute's realised volatility.

    Given where a Brownian path begins and ends, its highest value is (a + b + √((b − a)² − 2σ² ln U)) / 2 with
    U uniform (the reflection principle); the lowest is its mirror image.
    """
    close = np.maximum(_on_grid(path, symbol.tick), symbol.tick)
    before = np.concatenate(([state.close], close[:-1]))
    # One open in five is a tick beside the last close, as the first trade may be on the other side of the book.
    beside = random.integers(-1, 9, MINUTES)
    open_ = before + np.where(beside <= 1, beside, 0) * symbol.tick
    open_ = np.maximum(_on_grid(open_, symbol.tick), symbol.tick)
    variance = 2 * (spread * path) ** 2
    up, down = random.standard_exponential((2, MINUTES))
    middle, reach = (open_ + close) / 2, (close - open_) ** 2
    high = _on_grid(middle + np.sqrt(reach + variance * up) / 2, symbol.tick)
    low = _on_grid(middle - np.sqrt(reach + variance * down) / 2, symbol.tick)
    bars["open"], bars["close"] = open_, close
    bars["high"] = np.maximum(high, np.maximum(open_, close))
    bars["low"] = np.maximum(np.minimum(low, np.minimum(open_, close)), symbol.tick)


def _draw_flows(
    random: np.random.Generator, bars: Bars, symbol: SymbolProfile, traded: Floats, flow: Floats, shock: Floats
) -> None:
    """Volumes, trades and taker flow; `traded` is each minute's expected traded value."""
    value = traded * np.exp(0.4 * random.standard_normal(MINUTES))
    price = (bars["open"] + bars["high"] + bars["low"] + bars["close"]) / 4
    volume = np.maximum(_on_grid(value / price, symbol.step), symbol.step)
    logit = FLOW_SHARE * flow + 0.3 * shock + 0.5 * random.standard_normal(MINUTES)
    taker = np.minimum(_on_grid(volume / (1 + np.exp(-logit)), symbol.step), volume)
    per_trade = 350.0 * np.exp(0.25 * random.standard_normal(MINUTES))
    bars["volume"], bars["taker_buy_base"] = volume, taker
    bars["quote_volume"] = np.round(volume * price, 7)
    bars["taker_buy_quote"] = np.minimum(np.round(taker * price, 7), bars["quote_volume"])
    bars["trades"] = np.ceil(volume * price / per_trade)


def _draw_funding(random: np.random.Generator, day_ms: int, symbol: SymbolProfile, averages: Floats) -> Fundings:
    """The day's fundings. The rate follows the flow of the hours before it; the venue is a few ms late."""
    hours = np.arange(0, 24, symbol.funding_hours)
    fundings = np.empty(hours.size, dtype=FUNDING)
    fundings["funding_time"] = day_ms + hours * 60 * MINUTE_MS + random.integers(0, 10, hours.size)
    rate = 1e-4 + 2e-4 * averages[hours * 60] + 3e-5 * random.standard_normal(hours.size)
    fundings["funding_rate"] = np.round(np.clip(rate, -3e-3, 3e-3) * symbol.funding_hours / 8, 8)
    return fundings


def day_index(time_ms: int, start_ms: int) -> int:
    """How many days after the start a time lies."""
    return (time_ms - start_ms) // DAY_MS


def weekday(time_ms: int) -> int:
    """0 on Mondays; the epoch was a Thursday."""
    return (time_ms // DAY_MS + 3) % 7
