"""Labels: how each candidate of a stretch of history would have ended, and how much each one counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features import barriers
from features.barriers import EXPIRY, OPEN, OUTCOME, STOP, TARGET, UNKNOWN, VOID, CostModel, Positions, TradePlan
from features.candidates import candidates
from features.history import DecisionHistory
from features.liquidity import HuntSettings
from features.quality import NEUTRAL, quality
from market import funding as no_funding
from market.bars import DAY_MS, MINUTE_MS, Bars
from market.funding import Fundings

LABEL = np.dtype(
    [
        ("row", "<i8"),  # decision row of the history
        ("symbol", "<i4"),  # index into the table's symbols
        ("direction", "i1"),
        ("kind", "u1"),  # candidates.RULE, EVENT or HUNT
        ("outcome", "i1"),  # barriers.TARGET, STOP or EXPIRY
        ("decided_at", "<i8"),
        ("opened_at", "<i8"),
        ("known_at", "<i8"),  # close_time of the minute that ended it
        ("entry", "<f8"),
        ("stop", "<f8"),
        ("target", "<f8"),
        ("exit_price", "<f8"),
        ("r", "<f8"),  # net of fee and funding
        ("best", "<f8"),
        ("worst", "<f8"),
        ("quality", "<f4"),
        ("uniqueness", "<f8"),
        ("weight", "<f8"),
    ]
)
"""One label."""

Labels = NDArray[np.void]
"""An array of `LABEL`."""


LEAST_QUALITY = 0.05
"""What a label of no quality at all counts, as a share of a perfect one."""
MOST_HALF_LIVES = 100.0
"""Older labels count no less than one of this age: a weight is a number above zero."""


def position_id(symbol: str, decided_at: int, direction: int) -> str:
    """The name of a position: the same for the same decision, live and in history.

    >>> position_id("BTCUSDT", 1746403499999, -1)
    'BTCUSDT-1746403499999--1'
    """
    return f"{symbol}-{decided_at}-{direction}"


@dataclass(frozen=True)
class LabelTable:
    """Labels in order of (decided_at, symbol, long first), and what became of the other candidates."""

    symbols: tuple[str, ...]
    labels: Labels
    dropped: Mapping[str, int]
    """Candidates without a label: `void` never taken, `unknown` a minute was missing, `open` not ended by the end."""

    def __len__(self) -> int:
        """How many labels there are."""
        return int(self.labels.size)

    @property
    def won(self) -> NDArray[np.bool_]:
        """[m] whether the target came first."""
        return np.asarray(self.labels["outcome"] == TARGET)

    def columns(self, bundle: str = "") -> dict[str, Any]:
        """The columns of the `labels` dataset; `bundle` is what decided, empty for history."""
        names = [self.symbols[row] for row in self.labels["symbol"]]
        keys = zip(names, self.labels["decided_at"].tolist(), self.labels["direction"].tolist(), strict=True)
        kept = ("opened_at", "known_at", "decided_at", "direction", "kind", "entry", "stop", "target", "outcome")
        more = ("r", "best", "worst", "quality", "weight")
        return {
            "position_id": [position_id(*key) for key in keys],
            "symbol": names,
            **{name: self.labels[name] for name in (*kept, *more)},
            "bundle": [bundle] * len(self),
        }


def label_history(
    history: DecisionHistory,
    bars: Mapping[str, Bars],
    funding: Mapping[str, Fundings],
    plan: TradePlan,
    costs: CostModel,
    *,
    half_life_days: float | None = None,
    hunting: HuntSettings | None = None,
) -> LabelTable:
    """Every candidate of `history` followed through the 1m `bars` to its end, by the step that live uses.

    A candidate that was void, whose minutes have a hole, or whose end the bars do not reach has no label.
    Weight = quality x uniqueness x recency; recency halves every `half_life_days` before the last label,
    and is 1 without it. `hunting` adds the candidates that hunt liquidity; their pools are scored without a liquidity
    model, as what one says of the time that it was fitted to would choose candidates by how they ended.
    """
    chosen = candidates(history.decision, history.spec, history.ready, hunting)
    rows = chosen.index
    positions = plan.positions(
        history.symbol[rows], chosen.direction, history.time[rows], history.close[rows], history.atr[rows]
    )
    for index, symbol in enumerate(history.symbols):
        mine = np.flatnonzero(positions["symbol"] == index)
        followed = positions[mine]
        barriers.run(followed, bars[symbol], funding.get(symbol, no_funding.empty()), costs)
        positions[mine] = followed
    ended = np.isin(positions["outcome"], (TARGET, STOP, EXPIRY))
    dropped = {OUTCOME[code]: int((positions["outcome"] == code).sum()) for code in (VOID, UNKNOWN, OPEN)}
    labels = _labels(positions[ended])
    labels["row"], labels["kind"] = rows[ended], chosen.kind[ended]
    labels["quality"] = quality(history.decision[labels["row"]], labels["direction"], history.spec, plan)
    labels["uniqueness"] = uniqueness(labels["symbol"], labels["opened_at"], labels["known_at"])
    labels["weight"] = sample_weight(labels["quality"], labels["uniqueness"], labels["known_at"], half_life_days)
    return LabelTable(history.symbols, labels, dropped)


def _labels(positions: Positions) -> Labels:
    """Labels with what the positions themselves tell."""
    labels = np.zeros(positions.size, dtype=LABEL)
    for name in ("symbol", "direction", "outcome", "decided_at", "opened_at", "entry", "stop", "target"):
        labels[name] = positions[name]
    for name in ("exit_price", "r", "best", "worst"):
        labels[name] = positions[name]
    labels["known_at"] = positions["exit_time"]
    return labels


def sample_weight(
    quality: NDArray[np.floating[Any]],
    uniqueness: NDArray[np.float64],
    known_at: NDArray[np.int64],
    half_life_days: float | None = None,
) -> NDArray[np.float64]:
    """How much each label counts in a training: quality x uniqueness x recency, float64 [m] in (0, 1].

    One rule for labels of history and live ones. Quality counts as at least `LEAST_QUALITY`: that a poor
    candidate lost is worth knowing too, if not much. Quality that nobody knows (NaN) is neutral.

    The weights are shares of a whole label and not brought to a mean of 1: who fits a model does that over
    the rows that it is fitted to, so that neither the rows held out nor a set of poor quality change how
    strongly the model is held back.

    >>> import numpy as np
    >>> known = np.array([0, 10, 20]) * 86_400_000
    >>> sample_weight(np.array([0.5, 0.8, 0.0]), np.array([1.0, 0.5, 0.5]), known, 10.0).tolist()
    [0.125, 0.2, 0.025]
    """
    good = np.where(np.isnan(quality), NEUTRAL, quality).astype(np.float64)
    return np.asarray(np.maximum(good, LEAST_QUALITY) * uniqueness * recency(known_at, half_life_days))


def uniqueness(
    symbol: NDArray[np.int32], opened_at: NDArray[np.int64], known_at: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How much of each label's time is its own: the mean over its minutes of 1 / (labels open in that minute).

    float64 [m] in (0, 1]; only labels of the same symbol count against each other. Source: López de
    Prado (2018), 4.2.

    >>> import numpy as np
    >>> minutes = np.array([0, 60_000])
    >>> uniqueness(np.zeros(2, dtype=np.int32), minutes, np.array([119_999, 119_999])).tolist()
    [0.75, 0.5]
    """
    result = np.ones(len(symbol))
    for index in np.unique(symbol):
        mine = np.flatnonzero(symbol == index)
        start, stop = opened_at[mine] // MINUTE_MS, known_at[mine] // MINUTE_MS + 1
        base = start.min()
        changes = np.zeros(stop.max() - base + 1)
        np.add.at(changes, start - base, 1.0)
        np.add.at(changes, stop - base, -1.0)
        open_count = np.cumsum(changes)[:-1]
        share = np.divide(1.0, open_count, out=np.zeros_like(open_count), where=open_count > 0)
        total = np.concatenate(([0.0], np.cumsum(share)))
        result[mine] = (total[stop - base] - total[start - base]) / (stop - start)
    return np.clip(result, 0.0, 1.0)


def recency(known_at: NDArray[np.int64], half_life_days: float | None) -> NDArray[np.float64]:
    """1 for the last label, half of it for every half-life before, never quite 0; all 1 without a half-life."""
    if half_life_days is None or not known_at.size:
        return np.ones(known_at.size)
    age = (known_at.max() - known_at) / (half_life_days * DAY_MS)
    return np.asarray(np.exp2(-np.minimum(age, MOST_HALF_LIVES)))


def effective_count(weight: NDArray[np.floating[Any]]) -> float:
    """How many labels of equal weight tell as much: (sum of w)^2 / sum of w^2, 0 without any. Source: Kish (1965).

    >>> import numpy as np
    >>> effective_count(np.array([1.0, 1.0, 0.0])), effective_count(np.empty(0))
    (2.0, 0.0)
    """
    exact = weight.astype(np.float64)
    return float(exact.sum() ** 2 / np.square(exact).sum()) if exact.size else 0.0
