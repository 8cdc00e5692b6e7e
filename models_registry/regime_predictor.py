"""`regime_predictor`: which regime the market will be in an hour from now, from its last bars.

A multinomial logistic model of what `features.regime_inputs` says of a decision row. First what the live runtime
needs of it, in numpy alone: its weights are plain numbers in a JSON file. Then its training and measure, which import
scikit-learn when they are called.

It is fitted to an earlier block of time, so that what is trained on its outputs meets numbers that were not fitted to
the same rows:

    fit | embargo | validation | ... rows that it has not seen ... | holdout

The validation rows choose the penalty, and whether it is used at all: unless it is better there than persistence (how
often each regime followed each, on the fitted rows) by the whole of its interval, it has shown no skill, and its plain
version stands in: the regime that ADX and Bollinger width say now. The holdout only judges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.regimes import HORIZON_MS, INPUTS, REGIMES, regime_states
from features.splits import holdout
from models_registry.errors import NotEnoughData, TrainingUnavailable
from models_registry.manifest import REGIME, Component, Metric, finite
from models_registry.statistics import Interval, block_index, block_sums, difference_interval, ratio_interval
from models_registry.training_set import TrainingSet

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

WEIGHTS_FILE = f"{REGIME}.json"
UNKNOWN = -1
"""`state` of a row whose regime is not known."""
PREDICTED, PRESENT = "predicted", "adx_bollinger"
"""Where the regime in force comes from."""
CLIP = 8.0
"""Standard deviations beyond which an input counts no further: one wild bar must not decide."""


class RegimeWeights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model as plain numbers: softmax of `intercept + clip((inputs - mean) / std) @ weights`."""

    lookback: int
    """Bars that its inputs look back."""
    horizon_ms: int
    """How far ahead the regime is that it gives probabilities of."""
    inputs: list[str]
    mean: list[float]
    std: list[float]
    weights: list[list[float]]
    """`[inputs, 3]`"""
    intercept: list[float]


class RegimePredictor:
    """The model as the runtime uses it. Raises `ValueError` for weights that do not fit this version's inputs."""

    def __init__(self, weights: RegimeWeights) -> None:
        self.lookback = weights.lookback
        self.horizon_ms = weights.horizon_ms
        self._mean = np.asarray(weights.mean, dtype=np.float64)
        self._std = np.asarray(weights.std, dtype=np.float64)
        self._weights = np.asarray(weights.weights, dtype=np.float64)
        self._intercept = np.asarray(weights.intercept, dtype=np.float64)
        shapes = (self._mean.shape, self._std.shape, self._weights.shape, self._intercept.shape)
        count, regimes = len(INPUTS), len(REGIMES)
        if tuple(weights.inputs) != INPUTS or shapes != ((count,), (count,), (count, regimes), (regimes,)):
            raise ValueError(f"its inputs are not the {count} of this version")
        if not (all(np.isfinite(part).all() for part in (self._mean, self._std, self._weights, self._intercept))):
            raise ValueError("a weight is not finite")
        if not (self._std > 0).all():
            raise ValueError("a standard deviation is not positive")

    @classmethod
    def load(cls, path: Path) -> RegimePredictor:
        """From the file that `train` wrote."""
        return cls(msgspec.json.decode(path.read_bytes(), type=RegimeWeights))

    def run(self, decision: Float32, windows: Float32, names: Sequence[str]) -> Float64:
        """Probabilities `[k, 3]` of each regime `horizon_ms` ahead; NaN for a row of which an input is unknown.

        `names` are the columns of `decision`. A row's result does not depend on the other rows.
        """
        # Its compiled kernels are loaded with it: only by those whose bundle has this model.
        from features.regime_inputs import regime_inputs

        return self.of_inputs(regime_inputs(regime_states(decision, names), windows, self.lookback))

    def of_inputs(self, inputs: Float32) -> Float64:
        """The same from the inputs `[k, 26]`."""
        scaled = np.clip((inputs.astype(np.float64) - self._mean) / self._std, -CLIP, CLIP)
        columns = np.ascontiguousarray(scaled.T)
        total = np.repeat(self._intercept[None, :], len(inputs), axis=0)
        # Not as a product of matrices: its sums are ordered differently for another number of rows.
        for column, weights in zip(columns, self._weights, strict=True):
            total += column[:, None] * weights
        powers = np.exp(total - total.max(axis=1, keepdims=True, initial=-np.inf))
        return np.asarray(powers / (powers[:, 0] + powers[:, 1] + powers[:, 2])[:, None])


class Regimes(NamedTuple):
    """The regime in force on each of `k` rows."""

    state: NDArray[np.int8]
    """`[k]` 0 ranging, 1 trending, 2 volatile; `UNKNOWN` when neither model nor row says."""
    probability: Float32
    """`[k]` of that regime, where it is predicted; NaN where it is what ADX and Bollinger width say now."""

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """`[k]` whether it is predicted."""
        return np.isfinite(self.probability)

    def source(self, row: int) -> str:
        """`PREDICTED` or `PRESENT`."""
        return PREDICTED if np.isfinite(self.probability[row]) else PRESENT


def in_force(decision: Float32, names: Sequence[str], probabilities: Float64 | None, threshold: float) -> Regimes:
    """The most probable regime ahead where its probability reaches `threshold`; elsewhere the regime of the row.

    `probabilities` `[k, 3]` are those of `RegimePredictor.run`, None without the model.
    """
    now = regime_states(decision, names)[:, 0]
    known = (now == 0) | (now == 1) | (now == 2)
    state = np.where(known, now, np.float32(UNKNOWN)).astype(np.int8)
    probability = np.full(len(decision), np.nan, dtype=np.float32)
    if probabilities is None or not len(decision):
        return Regimes(state, probability)
    ahead = np.argmax(probabilities, axis=1)
    highest = probabilities[np.arange(len(ahead)), ahead]
    sure = highest >= threshold
    return Regimes(np.where(sure, ahead, state).astype(np.int8), np.where(sure, highest, np.nan).astype(np.float32))


@dataclass(frozen=True)
class RegimeConfig:
    """How the model is fitted and judged."""

    lookback: int = 10
    """Bars that its inputs look back, `REGIME_PREDICTION_LOOKBACK`."""
    threshold: float = 0.70
    """The probability from which a forecast is in force, for its share of hits; `REGIME_PREDICTION_THRESHOLD`."""
    earlier: float = 0.5
    """Share of the time before the holdout that it sees: the first."""
    validation: float = 0.25
    """Share of that which validates: the last."""
    penalties: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0)
    """Inverse strengths of the penalty on the weights, the strongest first."""
    fewest_fit: int = 500
    fewest_validation: int = 200
    fewest_each: int = 20
    """Rows of each regime ahead, among the fitted."""


@dataclass(frozen=True)
class _Part:
    """Rows of one part of time."""

    inputs: Float32
    now: NDArray[np.int64]
    ahead: NDArray[np.int64]
    at: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.at)

    def losses(self, probabilities: Float64) -> Float64:
        """Log loss of each row in nats."""
        return np.asarray(-np.log(np.maximum(probabilities[np.arange(len(self)), self.ahead], 1e-7)))


class RegimeSplit(NamedTuple):
    """Indices into the unlabelled rows of a training set whose regime ahead is known."""

    fit: NDArray[np.int64]
    validation: NDArray[np.int64]
    holdout: NDArray[np.int64]


def split_regimes(rows: TrainingSet, holdout_start_ms: int, config: RegimeConfig, embargo_ms: int) -> RegimeSplit:
    """The unlabelled rows cut in time, purged: no regime of an earlier part is known within a later one."""
    known = np.flatnonzero((rows.unlabelled_ahead >= 0) & np.isfinite(rows.unlabelled_states).all(axis=1))
    at = rows.unlabelled_at[known]
    start = int(at.min(initial=holdout_start_ms))
    end = start + int((holdout_start_ms - start) * config.earlier)
    middle = start + int((end - start) * (1 - config.validation))
    early = holdout(at, at + HORIZON_MS, end).train
    fit, validation = holdout(at[early], at[early] + HORIZON_MS, middle, embargo_ms)
    return RegimeSplit(known[early[fit]], known[early[validation]], known[at >= holdout_start_ms])


def train(rows: TrainingSet, split: RegimeSplit, config: RegimeConfig, seed: int, folder: Path) -> Component:
    """Fit, choose and judge the model; its weights are written to `folder`.

    Raises `NotEnoughData`, and `TrainingUnavailable` without scikit-learn. A model without skill over persistence on
    the validation rows gives its plain version, with that reason and what was measured.
    """
    if find_spec("sklearn") is None:
        raise TrainingUnavailable(REGIME, "scikit-learn")
    fit, validation, held = (_part(rows, index, config.lookback) for index in split)
    fewest = int(np.bincount(fit.ahead, minlength=len(REGIMES)).min()) if len(fit) else 0
    for what, have, need in (
        ("fit", len(fit), config.fewest_fit),
        ("be validated", len(validation), config.fewest_validation),
        ("know every regime", fewest, config.fewest_each),
    ):
        if have < need:
            raise NotEnoughData(f"{REGIME} to {what}", have, need)
    persistence = transitions(fit.now, fit.ahead)
    model, weights, penalty = _choose(fit, validation, config)
    found = _improvement(validation, model.of_inputs(validation.inputs), persistence, seed)
    metrics = _metrics(held, model, persistence, config, seed) if len(held) else {}
    parameters = {
        "lookback": config.lookback,
        "horizon_ms": HORIZON_MS,
        "penalty": penalty,
        "persistence": persistence.tolist(),
        "validation_improvement": [finite(found.value), list(found.pair) if found.pair else None],
    }
    if not (found.known and found.low > 0):
        return _plain(_no_skill(found), parameters, metrics)
    data = msgspec.json.format(msgspec.json.encode(weights, order="sorted"), indent=1) + b"\n"
    (folder / WEIGHTS_FILE).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    return Component(
        version=digest[:12],
        served=WEIGHTS_FILE,
        format="json",
        files={WEIGHTS_FILE: digest},
        metrics=metrics,
        headline="log_loss" if metrics else None,
        parameters=parameters,
    )


def plain_component(why: str) -> Component:
    """The component of a model that could not be trained: the regime of the row stands in."""
    return _plain(why, {}, {})


def _plain(why: str, parameters: dict[str, Any], metrics: dict[str, Metric]) -> Component:
    return Component(
        version="none",
        served=None,
        format=None,
        metrics=metrics,
        headline="log_loss" if metrics else None,
        fallback=why,
        parameters=parameters,
    )


def _no_skill(found: Interval) -> str:
    if not found.known:
        return f"it could not show skill: {found.blocks} blocks of time to validate on are too few"
    return (
        f"it showed no skill: log loss better than persistence by {found.value:.4f} "
        f"({found.low:.4f} to {found.high:.4f}) on the validation rows"
    )


def transitions(now: NDArray[np.int64], ahead: NDArray[np.int64]) -> Float64:
    """How often each regime followed each, `[3, 3]`; one of each is added, so that none is impossible.

    >>> transitions(np.array([0, 0, 1]), np.array([0, 0, 1])).round(2).tolist()
    [[0.6, 0.2, 0.2], [0.25, 0.5, 0.25], [0.33, 0.33, 0.33]]
    """
    size = len(REGIMES)
    counts = 1.0 + np.bincount(now * size + ahead, minlength=size * size).reshape(size, size)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def _part(rows: TrainingSet, index: NDArray[np.int64], lookback: int) -> _Part:
    from features.regime_inputs import regime_inputs

    states = rows.unlabelled_states[index]
    inputs = regime_inputs(states, rows.unlabelled_windows[index], lookback)
    whole = np.isfinite(inputs[:, 0])
    return _Part(
        inputs[whole],
        states[whole, 0].astype(np.int64),
        rows.unlabelled_ahead[index][whole].astype(np.int64),
        rows.unlabelled_at[index][whole],
    )


def _choose(fit: _Part, validation: _Part, config: RegimeConfig) -> tuple[RegimePredictor, RegimeWeights, float]:
    """The penalty that does best on the validation rows, and the model fitted with it."""
    best: tuple[float, RegimePredictor, RegimeWeights, float] | None = None
    for penalty in config.penalties:
        weights = _fit(fit, penalty, config.lookback)
        model = RegimePredictor(weights)
        loss = float(validation.losses(model.of_inputs(validation.inputs)).mean())
        if best is None or loss < best[0]:
            best = (loss, model, weights, penalty)
    assert best is not None
    return best[1:]


def _fit(part: _Part, penalty: float, lookback: int) -> RegimeWeights:
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    values = part.inputs.astype(np.float64)
    mean, std = values.mean(axis=0), values.std(axis=0)
    std = np.where(std > 1e-9, std, 1.0)
    scaled = np.clip((values - mean) / std, -CLIP, CLIP)
    # One thread: the order of sums, and with it the weights, depends on their number.
    with threadpool_limits(1):
        fitted = LogisticRegression(C=penalty, max_iter=500, tol=1e-6).fit(scaled, part.ahead)
    return RegimeWeights(
        lookback=lookback,
        horizon_ms=HORIZON_MS,
        inputs=list(INPUTS),
        mean=mean.tolist(),
        std=std.tolist(),
        weights=fitted.coef_.T.tolist(),
        intercept=fitted.intercept_.tolist(),
    )


def _improvement(part: _Part, probabilities: Float64, persistence: Float64, seed: int) -> Interval:
    """Mean log loss of persistence less that of the model, over blocks of time."""
    difference = part.losses(persistence[part.now]) - part.losses(probabilities)
    starts, block = block_index(part.at)
    count = block_sums(block, np.ones(len(part)), len(starts))
    return ratio_interval(block_sums(block, difference, len(starts)), count, seed=seed)


def _metrics(
    part: _Part, model: RegimePredictor, persistence: Float64, config: RegimeConfig, seed: int
) -> dict[str, Metric]:
    probabilities = model.of_inputs(part.inputs)
    found = _improvement(part, probabilities, persistence, seed)
    starts, block = block_index(part.at)
    rows, blocks = len(part), len(starts)
    sure = probabilities.max(axis=1) >= config.threshold
    right = sure & (probabilities.argmax(axis=1) == part.ahead)
    stayed = sure & (part.now == part.ahead)
    sums = [block_sums(block, values, blocks) for values in (right, stayed, sure)]
    gain = difference_interval((sums[0], sums[2]), (sums[1], sums[2]), seed=seed)
    return {
        "log_loss": Metric(
            value=float(part.losses(probabilities).mean()),
            baseline=float(part.losses(persistence[part.now]).mean()),
            baseline_name="persistence: how often each regime followed each",
            improvement=found.value,
            interval=found.pair,
            sums=found.sums,
            rows=rows,
            blocks=blocks,
        ),
        "hits": Metric(
            value=finite(float(right.sum()) / sure.sum()) if sure.any() else None,
            baseline=finite(float(stayed.sum()) / sure.sum()) if sure.any() else None,
            baseline_name="it stays as it is, on the same rows",
            improvement=finite(gain.value),
            interval=gain.pair,
            sums=gain.sums,
            rows=int(sure.sum()),
            blocks=blocks,
            note=f"share right where the probability is at least {config.threshold:g}",
        ),
        "sure": Metric(
            value=float(sure.mean()),
            rows=rows,
            blocks=blocks,
            note=f"share of the rows whose probability is at least {config.threshold:g}",
        ),
    }
