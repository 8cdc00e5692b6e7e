"""Walk-forward: the models trained from scratch on what came before a stretch of time, and judged on it, fold by fold.

The time from a first share on is cut into folds of equal length. For each, every model is trained as a bundle's are:
fitted and stopped on rows before the fold, purged with the embargo, with upstream outputs of networks that have not
seen the rows. It is judged on the fold alone, on the file that would be served.

All five go on from a champion, and so they are judged prequentially besides: from fold to fold they go on from what
the fold before left, and each fold is predicted before it is learnt from. It is one chain, as live: what reads others'
outputs reads those of the models that went on beside it, by the rules of `continuing`, and of supervised networks, on
fitted rows, the outputs of networks that have not seen them. What searches anew by its nature is the fold's own, from
scratch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models_registry.assembling import train_model, train_models
from models_registry.code_digest import code_digest
from models_registry.component_folder import COMPONENT_FILE, load_component, metrics_by_block
from models_registry.continuing import StartingPoint
from models_registry.errors import NotEnoughData
from models_registry.manifest import AUTOENCODER, DQN, FEATURE_NETWORK, LIQUIDITY, WIN, Metric
from models_registry.opportunities import Opportunities
from models_registry.pooling import PooledMetric, claims_of, pool_all
from models_registry.statistics import BLOCK_MS
from models_registry.structure_autoencoder import Progress
from models_registry.thinning import one_in
from models_registry.training_config import TrainingConfig, models_of, no_progress
from models_registry.training_set import TrainingSet

CONTINUED = (AUTOENCODER, FEATURE_NETWORK, LIQUIDITY, WIN, DQN)
"""The models that are judged prequentially: those that a retraining continues."""


class Fold(msgspec.Struct, frozen=True):
    """A stretch of time that judges: decisions in `[start_ms, end_ms)`."""

    number: int
    start_ms: int
    end_ms: int


@dataclass(frozen=True)
class WalkForward:
    """How time is cut and how much of it is learnt from."""

    folds: int = 4
    first_share: float = 0.4
    """Of the time, before the first fold: learnt from by every fold and judged by none."""
    every: int = 3
    """One in so many decisions before a fold is learnt from; a fold is judged on all of its rows."""
    prequential: bool = True
    """Judge the models of `CONTINUED` so, too."""


class FoldResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one fold showed."""

    fold: Fold
    metrics: dict[str, dict[str, Metric]] = {}
    """By model and name, with their sums by block."""
    headlines: dict[str, str] = {}
    """The metric of each model that a summary shows."""
    fallbacks: dict[str, str] = {}
    """Models that their plain version stood in for: they have no metrics."""
    anew: dict[str, str] = {}
    """Models that were to go on from the fold before and began anew, with the reason."""
    failed: str | None = None
    """Why the fold could not be trained at all."""


class ModelEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """All folds together."""

    key: str
    """What it is of: data, settings, cut and code (`evaluation_key`)."""
    data_hash: str
    opportunities_hash: str | None
    trials: int
    """The bundles that had been trained when this was made: what scores are deflated by."""
    claims: int
    """The headlines of all models, from scratch and prequentially: what the level of a verdict is divided by."""
    folds: list[FoldResult]
    """From scratch in every fold."""
    continued: list[FoldResult] = []
    """Prequentially: the first is that of the first fold."""
    from_scratch: dict[str, dict[str, PooledMetric]] = {}
    prequential: dict[str, dict[str, PooledMetric]] = {}


def folds_of(decided_at: NDArray[np.int64], plan: WalkForward) -> list[Fold]:
    """The folds over decisions in order of time; their edges are those of the blocks that intervals are made of.

    >>> hours = np.arange(100, dtype=np.int64) * 3_600_000
    >>> [(fold.start_ms // 3_600_000, fold.end_ms // 3_600_000) for fold in folds_of(hours, WalkForward(folds=3))]
    [(36, 56), (56, 76), (76, 99)]
    """
    if not len(decided_at):
        raise NotEnoughData("a walk-forward", 0, 1)
    first, last = int(decided_at[0]), int(decided_at[-1]) + 1
    even = np.linspace(first + plan.first_share * (last - first), last, plan.folds + 1)
    edges = [*(int(edge) // BLOCK_MS * BLOCK_MS for edge in even[:-1]), last]
    return [Fold(number, edges[number], edges[number + 1]) for number in range(plan.folds)]


def rows_of(rows: TrainingSet, fold: Fold, every: int = 1) -> TrainingSet:
    """What a fold learns from and is judged on: nothing after it, and of what lies before it one in so many.

    Of labelled rows those are whole decisions: the candidates of one stay together. Of all symbols alike (`one_in`),
    and what a fold learns from the next one learns from, too.
    """
    keys = np.stack([rows.decided_at, rows.symbol.astype(np.int64)], axis=1)
    decision = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    kept = one_in(every, int(decision.max(initial=-1)) + 1)[decision]
    chosen = ((rows.decided_at >= fold.start_ms) | kept) & (rows.decided_at < fold.end_ms)
    at = rows.unlabelled_at
    windows = ((at >= fold.start_ms) | one_in(every, len(at))) & (at < fold.end_ms)
    unlabelled: dict[str, Any] = {
        name: values[windows] for name, values in vars(rows).items() if name.startswith("unlabelled")
    }
    return replace(rows.select(chosen), **unlabelled)


def opportunities_of(opportunities: Opportunities, fold: Fold, every: int = 1) -> Opportunities:
    """The same of opportunities."""
    at = opportunities.episodes.decided_at
    chosen = ((at >= fold.start_ms) | one_in(every, len(at))) & (at < fold.end_ms)
    return opportunities.select(np.flatnonzero(chosen))


def evaluation_key(
    rows: TrainingSet, opportunities: Opportunities | None, config: TrainingConfig, plan: WalkForward
) -> str:
    """What makes two evaluations the same, the code that learns among it.

    Where the bundle's own holdout begins does not matter: folds have theirs.
    """
    settings = replace(config, holdout_start_ms=None).as_json()
    found = None if opportunities is None else opportunities.data_hash
    chain = CONTINUED if plan.prequential else ()
    identity = [rows.data_hash, found, settings, vars(plan), chain, code_digest()]
    content = msgspec.json.encode(identity, order="sorted")
    return hashlib.sha256(content).hexdigest()[:16]


@dataclass(frozen=True)
class Evaluating:
    """One walk-forward under way: its data, and the folder that holds each fold's models."""

    rows: TrainingSet
    opportunities: Opportunities | None
    config: TrainingConfig
    plan: WalkForward
    work: Path
    """It belongs to this evaluation alone (`evaluation_key`): what is whole in it is not trained again."""
    progress: Progress = no_progress
    on_trained: Callable[[str], None] = lambda name: None
    keep_link: Callable[[Path], None] = lambda folder: None
    """Handed the folder that the next fold goes on from, as soon as all in it is trained; with `fetch_link` a chain is
    gone on with although `work` is gone."""
    fetch_link: Callable[[Path], bool] = lambda folder: False
    """Brings back what `keep_link` was handed by that name, where it was."""

    @property
    def folds(self) -> list[Fold]:
        """The folds."""
        return folds_of(self.rows.decided_at, self.plan)

    def from_scratch(self, fold: Fold) -> FoldResult:
        """Train every model on what came before the fold, and judge it there."""
        rows, config, found = self._of(fold)
        try:
            folders = train_models(
                rows,
                config,
                self._folder(fold),
                self._told(fold),
                opportunities=found,
                resume=True,
                on_trained=self.on_trained,
            )
        except NotEnoughData as error:
            return FoldResult(fold=fold, failed=str(error))
        if self.plan.prequential and fold.number == 0:
            self.keep_link(self._chain_folder(0))
        return _result(fold, folders)

    def continued(self, fold: Fold) -> FoldResult:
        """Judge, on a fold after the first, the models that went on from those of the fold before.

        What the folds before it left is trained again where it is not in the work folder, nor kept elsewhere.
        """
        before = self._chain_folder(fold.number - 1)
        if not before.exists() and not self.fetch_link(before):
            earlier = self.folds[fold.number - 1]
            (self.continued if earlier.number else self.from_scratch)(earlier)
        rows, config, found = self._of(fold)
        folders: dict[str, Path] = {}
        try:
            for name in models_of(config):
                if name == DQN and found is None:
                    continue
                goes_on = name in CONTINUED
                folder = (self._chain_folder(fold.number) if goes_on else self._folder(fold)) / name
                if not (folder / COMPONENT_FILE).exists():
                    start = StartingPoint(before.name, before / name) if goes_on else None
                    told = self._told(fold)
                    train_model(name, rows, folders, config, folder, told, start=start, opportunities=found)
                    self.on_trained(name)
                folders[name] = folder
        except NotEnoughData as error:
            return FoldResult(fold=fold, failed=str(error))
        if fold.number + 1 < self.plan.folds:
            self.keep_link(self._chain_folder(fold.number))
        chain = {name: folder for name, folder in folders.items() if name in CONTINUED}
        return msgspec.structs.replace(_result(fold, chain), anew=_begun_anew(chain))

    def _of(self, fold: Fold) -> tuple[TrainingSet, TrainingConfig, Opportunities | None]:
        rows = rows_of(self.rows, fold, self.plan.every)
        found = None if self.opportunities is None else opportunities_of(self.opportunities, fold, self.plan.every)
        return rows, replace(self.config, holdout_start_ms=fold.start_ms), found

    def _told(self, fold: Fold) -> Progress:
        return lambda stage, done: self.progress(f"fold {fold.number + 1} of {self.plan.folds}, {stage}", done)

    def _folder(self, fold: Fold) -> Path:
        return self.work / f"fold-{fold.number}"

    def _chain_folder(self, number: int) -> Path:
        return self.work / (f"continued-{number}" if number else "fold-0")


def _result(fold: Fold, folders: Mapping[str, Path]) -> FoldResult:
    parts = {name: load_component(folder) for name, folder in folders.items()}
    return FoldResult(
        fold=fold,
        metrics={name: metrics_by_block(folders[name]) for name, part in parts.items() if part.metrics},
        headlines={name: part.headline for name, part in parts.items() if part.headline is not None},
        fallbacks={name: part.fallback for name, part in parts.items() if part.fallback is not None},
    )


def _begun_anew(folders: Mapping[str, Path]) -> dict[str, str]:
    """The trained models in the folders that did not go on from another, with what their notes say of it."""
    parts = {name: load_component(folder) for name, folder in folders.items()}
    return {
        name: part.note or "there was none to go on from"
        for name, part in parts.items()
        if part.served is not None and (part.provenance is None or part.provenance.continued_from is None)
    }


def together(
    evaluating: Evaluating, folds: Sequence[FoldResult], continued: Sequence[FoldResult], trials: int
) -> ModelEvaluation:
    """All folds pooled, deflated by `trials`. Raises `NotEnoughData` when no fold could be trained."""
    judged = [fold.metrics for fold in folds if fold.failed is None]
    if not judged:
        raise NotEnoughData("a walk-forward's folds", 0, 1)
    seed, found = evaluating.config.seed, evaluating.opportunities
    chain = [fold.metrics for fold in continued]
    headlines = {model: name for fold in folds for model, name in fold.headlines.items()}
    claims = claims_of(judged, headlines) + claims_of(chain, headlines)
    return ModelEvaluation(
        key=evaluation_key(evaluating.rows, found, evaluating.config, evaluating.plan),
        data_hash=evaluating.rows.data_hash,
        opportunities_hash=None if found is None else found.data_hash,
        trials=trials,
        claims=claims,
        folds=list(folds),
        continued=list(continued),
        from_scratch=pool_all(judged, trials=trials, seed=seed, headlines=headlines, claims=claims),
        prequential=pool_all(chain, trials=trials, seed=seed, headlines=headlines, claims=claims),
    )


def walk(
    evaluating: Evaluating,
    trials: int = 1,
    known: Callable[[str], FoldResult | None] = lambda name: None,
    keep: Callable[[str, FoldResult], None] = lambda name, result: None,
) -> ModelEvaluation:
    """Every fold from scratch and, where the plan says so, prequentially; pooled and deflated by `trials`.

    `known` gives the result of a fold that was judged before, by its name, or None; `keep` is handed each new one.
    """
    folds = [_kept(f"fold-{fold.number}", fold, evaluating.from_scratch, known, keep) for fold in evaluating.folds]
    chain: list[FoldResult] = []
    if evaluating.plan.prequential and any(fold.failed is None for fold in folds):
        chain.append(_first_of_chain(folds[0]))
        for fold in evaluating.folds[1:]:
            name = f"continued-{fold.number}"
            chain.append(_kept(name, fold, evaluating.continued, known, keep))
    return together(evaluating, folds, chain, trials)


def _first_of_chain(result: FoldResult) -> FoldResult:
    """Of the first fold what the models that go on from it begin with, or why there is nothing."""
    return msgspec.structs.replace(
        result,
        metrics={name: metrics for name, metrics in result.metrics.items() if name in CONTINUED},
        fallbacks={name: why for name, why in result.fallbacks.items() if name in CONTINUED},
    )


def _kept(
    name: str,
    fold: Fold,
    judge: Callable[[Fold], FoldResult],
    known: Callable[[str], FoldResult | None],
    keep: Callable[[str, FoldResult], None],
) -> FoldResult:
    result = known(name)
    if result is None:
        result = judge(fold)
        keep(name, result)
    return result
