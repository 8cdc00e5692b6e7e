"""Which of many expressions are worth a column: tried by regime, judged forward in time, corrected for their number.

What an expression is to foretell is which way the price went: half of what the long candidate on a row earned more
than the short one. So only rows that are candidates in both directions count. On a row with one alone, costs would
pass for a move against the direction that the rules choose, the more the calmer the market; and since an outcome must
be known within its block, of late rows only the quick ones would count, which are stops more often than targets. With
both, either is the same for long and short, and is gone from the difference. Numbers that merely say how large moves
will be are columns of the decision row already.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.expression_program import Program
from features.expressions import Node, text
from models_registry import information_ratio as ratios
from models_registry.dynamic_candidates import REGIMES, generate
from models_registry.information_ratio import Ratio
from models_registry.manifest import finite
from models_registry.training_set import TrainingSet

Float32 = NDArray[np.float32]
Index = NDArray[np.int64]

HOUR_MS = 3_600_000
REGIME_COLUMN = "5m.regime"


@dataclass(frozen=True)
class DynamicConfig:
    """How expressions are searched for."""

    seed: int = 7
    min_sharpe: float = 1.0
    """Least corrected information ratio, a year's."""
    max_count: int = 20
    """Most expressions kept, over all regimes."""
    tries: int = 64
    """Expressions tried in each regime."""
    block_hours: int = 12
    """Length of a block; a multiple of the labels' horizon, as an outcome that leaves its block does not count."""
    alpha: float = ratios.ALPHA
    most_alike: float = 0.9
    """Rank correlation with a kept one from which an expression is redundant."""

    @property
    def block_ms(self) -> int:
        """The same in milliseconds."""
        return self.block_hours * HOUR_MS


class KeptExpression(msgspec.Struct, frozen=True, kw_only=True):
    """An expression that became a column. The ratios are of a year."""

    regime: str
    text: str
    ratio: float
    corrected: float
    """What is left of it when the number of tries is allowed for."""
    coefficient: float
    """Mean information coefficient of the scored blocks, in the direction learnt before each."""
    blocks: int
    later: float | None = None
    """The coefficient on the rows after those that chose it: positive when it still points the way it then did."""


class RegimeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was tried in a regime. The ratios are of a year; null where there were too few blocks."""

    regime: str
    rows: int
    """Decision rows of the search in this regime."""
    tried: int
    untested: int
    """Expressions with too few blocks to be judged; they do not count as tried."""
    blocks: int
    """Most scored blocks of any."""
    best: str | None
    best_ratio: float | None
    best_corrected: float | None
    bar: float | None
    """The ratio that would have been enough in so many blocks; null when none could have been."""
    passed: int
    kept: int


class DynamicReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole search, also when nothing came of it."""

    tried: int
    alpha: float
    min_sharpe: float
    max_count: int
    block_hours: int
    regimes: list[RegimeReport]
    kept: list[KeptExpression]
    redundant: int
    """Passed, but told what a kept one tells."""
    over_count: int
    """Passed, but beyond the most that are kept."""

    @property
    def summary(self) -> str:
        """One sentence."""
        tested = [part for part in self.regimes if part.best_corrected is not None]
        if not tested:
            return "no expression could be judged: too few blocks of outcomes in every regime"
        best = max(tested, key=lambda part: part.best_corrected or -math.inf)
        return (
            f"{len(self.kept)} of {self.tried} expressions kept; the best corrected information ratio is "
            f"{best.best_corrected:.2f} ({best.regime}), and {self.min_sharpe:g} is needed"
        )


@dataclass(frozen=True)
class _Tried:
    regime: int
    node: Node
    ratio: Ratio
    values: Float32
    """On the rows of the search in its regime."""


@dataclass(frozen=True)
class Moves:
    """Decision rows that were candidates both ways, each once, and which way the price went after them."""

    row: Index
    """Into the training set."""
    target: NDArray[np.float64]
    """Half of the long's R less the short's."""
    decided_at: Index
    known_at: Index
    """When the later of both outcomes was known."""

    @classmethod
    def of(cls, rows: TrainingSet, chosen: Index) -> Moves:
        """From the labels `chosen` of the set."""
        keys = np.stack([rows.decided_at[chosen], rows.symbol[chosen]], axis=1)
        _, first, place, count = np.unique(keys, axis=0, return_index=True, return_inverse=True, return_counts=True)
        place = place.reshape(-1)
        target = np.bincount(place, rows.direction[chosen] * rows.r[chosen].astype(np.float64), len(first)) / 2
        known = np.zeros(len(first), dtype=np.int64)
        np.maximum.at(known, place, rows.known_at[chosen])
        return cls(chosen[first], target, rows.decided_at[chosen][first], known).select(count == 2)

    def __len__(self) -> int:
        return len(self.row)

    def select(self, mask: NDArray[np.bool_]) -> Moves:
        """Those of a mask."""
        return Moves(self.row[mask], self.target[mask], self.decided_at[mask], self.known_at[mask])


def search(
    rows: TrainingSet, fit: Index, later: Index, regime: NDArray[np.int8], config: DynamicConfig
) -> DynamicReport:
    """Try expressions on the labels `fit` of the set, and show how those kept do on `later` ones.

    `regime [m]` is that of every row of the set, as `regime_codes` has it. Nothing is chosen by the later labels.
    """
    moves, after = Moves.of(rows, fit), Moves.of(rows, later)
    tried: list[_Tried] = []
    for code in REGIMES:
        inside = moves.select(regime[moves.row] == code)
        tried += _try(rows, inside, code, config)
    judged = sum(each.ratio.known for each in tried)
    passed = [each for each in tried if _corrected(each, judged, config) > config.min_sharpe]
    passed.sort(key=lambda each: (-_corrected(each, judged, config), text(each.node)))
    unlike = _distinct(passed, config)
    kept = unlike[: config.max_count]
    return DynamicReport(
        tried=judged,
        alpha=config.alpha,
        min_sharpe=config.min_sharpe,
        max_count=config.max_count,
        block_hours=config.block_hours,
        regimes=[_report(code, moves, regime, tried, passed, kept, judged, config) for code in REGIMES],
        kept=[
            KeptExpression(
                regime=REGIMES[each.regime],
                text=text(each.node),
                ratio=ratios.annual(each.ratio.per_block, config.block_ms),
                corrected=_corrected(each, judged, config),
                coefficient=each.ratio.mean,
                blocks=each.ratio.blocks,
                later=_later(rows, _inside(moves, regime, each), _inside(after, regime, each), each),
            )
            for each in kept
        ],
        redundant=len(passed) - len(unlike),
        over_count=len(unlike) - len(kept),
    )


def regime_codes(decision: Float32, names: list[str] | tuple[str, ...]) -> NDArray[np.int8]:
    """The regime of decision rows `[k, D]`, int8 `[k]`; -1 where it is not known or there is no such column.

    >>> regime_codes(np.array([[2.0], [np.nan]], dtype=np.float32), ["5m.regime"]).tolist()
    [2, -1]
    """
    if REGIME_COLUMN not in names:
        return np.full(len(decision), -1, dtype=np.int8)
    column = decision[:, list(names).index(REGIME_COLUMN)]
    return np.where(np.isin(column, list(REGIMES)), column, np.float32(-1)).astype(np.int8)


def _try(rows: TrainingSet, moves: Moves, code: int, config: DynamicConfig) -> list[_Tried]:
    nodes = generate(code, rows.decision_names, config.tries, config.seed)
    values = Program(nodes, rows.decision_names).run(rows.decision[moves.row])
    blocks = ratios.whole_blocks(moves.decided_at, moves.known_at, config.block_ms)
    return [
        _Tried(code, node, ratios.walk_forward(ratios.coefficients(column, moves.target, blocks)), column)
        for node, column in zip(nodes, values.T, strict=True)
    ]


def _corrected(each: _Tried, tries: int, config: DynamicConfig) -> float:
    """A year's, minus infinity where there is none."""
    found = ratios.corrected(each.ratio, max(tries, 1), config.alpha)
    return ratios.annual(found, config.block_ms) if math.isfinite(found) else -math.inf


def _distinct(ordered: list[_Tried], config: DynamicConfig) -> list[_Tried]:
    """Without those that say what a better one of their regime says, upright or reversed."""
    kept: list[_Tried] = []
    for each in ordered:
        if all(other.regime != each.regime or _alike(each, other) < config.most_alike for other in kept):
            kept.append(each)
    return kept


def _alike(first: _Tried, second: _Tried) -> float:
    known = np.isfinite(first.values) & np.isfinite(second.values)
    return abs(ratios.rank_correlation(first.values[known], second.values[known])) if known.sum() > 2 else 0.0


def _inside(moves: Moves, regime: NDArray[np.int8], each: _Tried) -> Moves:
    """Those in the regime of an expression."""
    return moves.select(regime[moves.row] == each.regime)


def _later(rows: TrainingSet, before: Moves, after: Moves, each: _Tried) -> float | None:
    values = Program([each.node], rows.decision_names).run(rows.decision[after.row])[:, 0]
    known, past = np.isfinite(values), np.isfinite(each.values)
    if known.sum() < ratios.FEWEST_ROWS:
        return None
    found = ratios.coefficient(values[known], after.target[known], each.values[past], before.target[past])
    return finite(each.ratio.sign * found)


def _report(
    code: int,
    moves: Moves,
    regime: NDArray[np.int8],
    tried: list[_Tried],
    passed: list[_Tried],
    kept: list[_Tried],
    judged: int,
    config: DynamicConfig,
) -> RegimeReport:
    mine = [each for each in tried if each.regime == code]
    known = [each for each in mine if each.ratio.known]
    best = max(known, key=lambda each: _corrected(each, judged, config), default=None)
    best_corrected = None if best is None else finite(_corrected(best, judged, config))
    blocks = max((each.ratio.blocks for each in mine), default=0)
    least = config.min_sharpe / ratios.annual(1.0, config.block_ms)
    return RegimeReport(
        regime=REGIMES[code],
        rows=int((regime[moves.row] == code).sum()),
        tried=len(known),
        untested=len(mine) - len(known),
        blocks=blocks,
        best=None if best is None else text(best.node),
        best_ratio=None if best is None else ratios.annual(best.ratio.per_block, config.block_ms),
        best_corrected=best_corrected,
        bar=finite(ratios.annual(ratios.bar(blocks, max(judged, 1), least, config.alpha), config.block_ms)),
        passed=sum(each.regime == code for each in passed),
        kept=sum(each.regime == code for each in kept),
    )
