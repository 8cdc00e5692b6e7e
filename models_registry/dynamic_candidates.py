"""Expressions to try, by regime: what a trader in each regime looks at, combined by chance and seed.

| regime | direction is read from | and weighed by |
|---|---|---|
| trending | momentum: returns, MACD, distances from and slopes of averages, DI, trend state | strength: ADX, R² |
| ranging | deviation: RSI, Bollinger position, stochastic RSI, CCI, MFI, place in range, VWAP | weak trend, volume |
| volatile | the last moves over ATR, bodies, displacement, sweeps | ATR and volatility, short against long |

Each reading is brought to about ±1 by `squash`, so that sums weigh their parts alike. A reading whose columns the
DecisionSpec does not have is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from features.errors import ColumnUnknown
from features.expression_parser import parse
from features.expressions import Node, text
from features.regimes import RANGING, TRENDING, VOLATILE
from features.regimes import REGIMES as REGIME_NAMES

REGIMES = dict(enumerate(REGIME_NAMES))
"""The regimes' names by their code in the column `5m.regime`."""

TIMEFRAMES = ("5m", "15m", "1h")


class Readings(NamedTuple):
    """What a regime's expressions are made of; `{t}` stands for the timeframe."""

    directed: tuple[str, ...]
    """They tell which way."""
    weights: tuple[str, ...]
    """They tell how much, mostly."""


_MOVES = tuple(f"squash({{t}}.return_{bars} / {{t}}.atr_14_fraction / {size})" for bars, size in ((1, 1), (5, 2)))
_LONGER = tuple(f"squash({{t}}.return_{bars} / {{t}}.atr_14_fraction / {size})" for bars, size in ((20, 4), (60, 7)))

READINGS: dict[int, Readings] = {
    TRENDING: Readings(
        (
            *_MOVES,
            *_LONGER,
            *(f"squash({{t}}.ema_{span}_distance / {size})" for span, size in ((9, 1), (21, 1.5), (50, 2.5), (200, 5))),
            *(f"squash({{t}}.ema_{span}_slope / {size})" for span, size in ((9, 0.15), (21, 0.1), (50, 0.05))),
            "squash({t}.macd_line / 0.5)",
            "squash({t}.macd_histogram / 0.2)",
            "squash(({t}.plus_di_14 - {t}.minus_di_14) / 15)",
            "squash({t}.linreg_slope_20 / 0.1)",
            "{t}.trend_state",
        ),
        ("{t}.adx_14 / 50", "{t}.linreg_r2_20", "squash({t}.range_ratio)"),
    ),
    RANGING: Readings(
        (
            "({t}.rsi_14 - 50) / 50",
            "squash({t}.bollinger_position_20)",
            "({t}.stochastic_rsi_14 - 50) / 50",
            "({t}.stochastic_rsi_14 - {t}.stochastic_rsi_signal_14) / 50",
            "squash({t}.cci_20 / 100)",
            "({t}.mfi_14 - 50) / 50",
            "2 * {t}.range_position_48 - 1",
            "2 * {t}.dealing_range_position - 1",
            "squash({t}.vwap_distance_48 / 2)",
            "squash({t}.profile_poc_distance / 2)",
        ),
        ("1 - {t}.adx_14 / 50", "squash({t}.volume_zscore)", "1 / (1 + {t}.regime_bars / 20)"),
    ),
    VOLATILE: Readings(
        (
            *_MOVES,
            "squash({t}.return_20 / {t}.atr_14_fraction / 4)",
            "squash({t}.bar_close_move)",
            "{t}.body_fraction",
            "squash({t}.displacement)",
            "{t}.sweep",
            "{t}.taker_imbalance",
            "{t}.lower_wick_fraction - {t}.upper_wick_fraction",
        ),
        (
            "squash({t}.atr_14_fraction * 200)",
            "squash({t}.volatility_ratio)",
            "squash({t}.range_ratio)",
            "squash({t}.parkinson_volatility_20 / {t}.realised_volatility_20)",
            "squash({t}.garman_klass_volatility_20 / {t}.realised_volatility_20)",
            "squash({t}.bollinger_width_20 / {t}.atr_14_fraction / 6)",
        ),
    ),
}

_FORMS: tuple[str, ...] = (
    "{a}",
    "{w}",
    "{a} * {w}",
    "{a} - {b}",
    "{a} + {b}",
    "({a} + {b}) * {w}",
    "{a} * ({w} > {level})",
    "{a} * abs({b})",
    "min(abs({a}), abs({b})) * (sign({a}) + sign({b})) / 2",
    "max({a} - {level}, 0) - max(-{a} - {level}, 0)",
)
"""How readings are combined: `a` and `b` directed, `w` a weight, all in parentheses where they need them."""

_LEVELS = ("0.25", "0.4", "0.5", "0.6")


def generate(regime: int, names: Sequence[str], count: int, seed: int) -> list[Node]:
    """At most `count` different expressions of a regime over the columns `names`; the same for the same arguments.

    Half of them are readings alone, as far as there are so many; the rest is drawn.
    """
    rng = np.random.default_rng([seed, regime])
    known = frozenset(names)
    directed, weights = (_available(part, known) for part in READINGS[regime])
    if not directed:
        return []
    found: dict[str, Node] = {}
    singles = [*directed, *(weights if regime == VOLATILE else [])]
    for at in rng.permutation(len(singles))[: count // 2]:
        node = parse(singles[at], known)
        found[text(node)] = node
    for _ in range(50 * count):
        if len(found) >= count:
            break
        node = parse(_drawn(rng, directed, weights or directed), known)
        found.setdefault(text(node), node)
    return list(found.values())


def _available(templates: Sequence[str], known: frozenset[str]) -> list[str]:
    """The readings of every timeframe whose columns there are."""
    found = []
    for template in templates:
        for timeframe in TIMEFRAMES:
            written = template.replace("{t}", timeframe)
            try:
                parse(written, known)
            except ColumnUnknown:
                continue
            found.append(written)
    return found


def _drawn(rng: np.random.Generator, directed: Sequence[str], weights: Sequence[str]) -> str:
    form = _FORMS[int(rng.integers(len(_FORMS)))]
    a, b = (f"({directed[int(at)]})" for at in rng.integers(0, len(directed), 2))
    w = f"({weights[int(rng.integers(len(weights)))]})"
    return form.format(a=a, b=b, w=w, level=_LEVELS[int(rng.integers(len(_LEVELS)))])
