"""From when on a column of the decision row does not depend on where its market began, and how large it usually is.

| columns | count from |
|---|---|
| of a timeframe, of the window | as many closed bars of it since the origin as the feature's warm-up says |
| `age_bars` | the first closed bar of the timeframe |
| ranks, breadth | the wave in which what is compared counts for every symbol present, or is unknown to it both ways |
| `cross.btc_beta`, `cross.btc_residual` | `beta_waves` waves after the first |
| calendar | at once |
| `funding.last_rate`, `funding.minutes_to_next` | the first funding since the origin; the second, for the interval |
| `ready` | the warm-up of all that a ready row waits for, and a window of them |

A rank is a step of its values, and breadth of their signs: two values of a wave that differ by less than the tolerance
may come in either order. Such a wave (see `unclear`) is left out for that column; exact ties stay ties and count.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.decision_spec import BETA, CALENDAR, CROSS, CROSS_BASE, FUNDING, DecisionSpec
from features.decision_table import EXTRA, Market, Table, names_of
from features.origins import counts
from features.proofs import TOLERANCE
from market import funding as no_funding
from market.bars import resample

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]


def scales(spec: DecisionSpec) -> NDArray[np.float32]:
    """The usual size of each column of a table, float32 [K]: that of its feature, and declared here for the others."""
    base = {feature.name: feature.scale for feature in spec.base.features}
    declared = {
        **dict.fromkeys((*CROSS, BETA[0], *CALENDAR), 1.0),
        BETA[1]: base["return_1"],
        # Minutes; and the rate that the venue charges in quiet times.
        **dict(zip(FUNDING, (1.0, 1e-4), strict=True)),
        # A price: relative to itself.
        **dict(zip(EXTRA, (0.0, 1.0), strict=True)),
    }

    def scale(name: str) -> float:
        feature = name.rpartition(".")[2]
        return declared.get(name, 1.0 if feature == "age_bars" else base.get(feature, 1.0))

    return np.array([scale(name) for name in names_of(spec)], dtype=np.float32)


def _closed_bars(market: Market, table: Table, spec: DecisionSpec, timeframe: str) -> list[tuple[Counts, Counts]]:
    """Per symbol: bars since the origin at each bar of a timeframe, and the last closed bar at each of its rows."""
    found = []
    for index, minutes in enumerate(market.bars.values()):
        bars = resample(minutes, timeframe)
        times = table.time[table.symbol == index]
        found.append((counts(bars, spec.base.max_gap), np.searchsorted(bars["close_time"], times, side="right") - 1))
    return found


def _at(since: Counts, bar: Counts) -> Counts:
    """Bars since the origin at `bar`; 0 where there is none."""
    return np.where(bar >= 0, since[np.maximum(bar, 0)], 0) if since.size else np.zeros_like(bar)


def _fill_series(out: Mask, market: Market, later: Table, spec: DecisionSpec) -> None:
    """The timeframes' own columns, the window's, `atr` and `ready`."""
    warmups = np.array(spec.base.warmups)
    width, window = len(warmups), np.array([spec.base.warmups[column] for column in spec.window_columns])
    for timeframe in spec.timeframes:
        start = spec.timeframe_block(timeframe).start
        for index, (since, bar) in enumerate(_closed_bars(market, later, spec, timeframe)):
            rows = np.flatnonzero(later.symbol == index)
            now = _at(since, bar)
            out[rows, start : start + width] = now[:, None] >= warmups
            if timeframe != spec.timeframes[0]:
                out[rows, start + width] = now > 0
                continue
            for place in range(spec.window):
                first = len(spec.names) + place * len(window)
                lag = spec.window - 1 - place
                out[rows, first : first + len(window)] = _at(since, bar - lag)[:, None] >= window
            out[rows, later.column("atr")] = now >= warmups[spec.base.index("atr_14_fraction")]
            longest = max(spec.ready_warmup, int(window.max()))
            out[rows, later.column("ready")] = now >= longest + spec.window - 1


def unclear(wave: Counts, values: NDArray[np.float32], scale: float, ranked: bool) -> Mask:
    """Which rows are of a wave where the order (or the sign, unless `ranked`) hangs on less than the tolerance.

    >>> unclear(np.array([0, 0, 1, 1]), np.array([1.0, 1.00001, 1.0, 1.1], np.float32), 1.0, True).tolist()
    [True, True, False, False]
    """
    order = np.lexsort((values, wave))
    value, of = values[order].astype(np.float64), wave[order]
    allowed = TOLERANCE * np.maximum(np.abs(value), scale)
    if ranked:
        with np.errstate(invalid="ignore"):
            apart = np.diff(value)
            near = (of[1:] == of[:-1]) & (apart > 0.0) & (apart <= 2.0 * np.maximum(allowed[1:], allowed[:-1]))
        spoilt = of[1:][near]
    else:
        spoilt = of[(value != 0.0) & (np.abs(value) <= allowed)]
    return np.asarray(np.isin(wave, spoilt))


def _fill_cross_section(out: Mask, expected: Table, later: Table, spec: DecisionSpec) -> None:
    """Ranks and breadth: a wave as a whole counts or does not."""
    _, wave = np.unique(later.time, return_inverse=True)
    first = spec.timeframe_block(spec.timeframes[0]).start
    for place, name in enumerate(CROSS_BASE):
        column = first + spec.base.index(name)
        ours, theirs = later.values[:, column], expected.values[:, column]
        counted = out[:, column] | (np.isnan(ours) & np.isnan(theirs))
        whole = np.ones(wave.max(initial=-1) + 1, dtype=np.bool_)
        np.logical_and.at(whole, wave, counted)
        scale, ranked = spec.base.features[spec.base.index(name)].scale, place < len(CROSS_BASE) - 1
        hazy = unclear(wave, ours, scale, ranked) | unclear(wave, theirs, scale, ranked)
        out[:, later.column(CROSS[place])] = whole[wave] & ~hazy


def warm(market: Market, expected: Table, later: Table, spec: DecisionSpec) -> Mask:
    """Which values of `later`, the table of `market`, count, bool [N, K].

    `expected` are the same rows of a market that began earlier.
    """
    out = np.zeros(later.values.shape, dtype=np.bool_)
    _fill_series(out, market, later, spec)
    _fill_cross_section(out, expected, later, spec)
    step = spec.steps[0]
    origin = int(market.times[0]) - 60_000 + 1 if market.times.size else 0
    first_wave = -(-origin // step) * step + step - 1
    for name in BETA:
        out[:, later.column(name)] = later.time >= first_wave + spec.beta_waves * step
    for name in CALENDAR:
        out[:, later.column(name)] = True
    for index, symbol in enumerate(market.symbols):
        rows = np.flatnonzero(later.symbol == index)
        charged = market.fundings.get(symbol, no_funding.empty())["funding_time"]
        known = np.searchsorted(charged, later.time[rows], side="right")
        for name, fewest in zip(FUNDING, (2, 1), strict=True):
            out[rows, later.column(name)] = known >= fewest
    return out
