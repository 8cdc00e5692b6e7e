"""`win_classifier`: a candidate and everything known at its decision to the probability of target before stop.

First what the live runtime needs of it: the calibration and the plain version (its inputs are in `win_inputs`).
Then its training, export and measure, which import xgboost when they are called.
A win is the target before the stop; an expiry is none, whatever its R.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.liquidity import Reach
from models_registry.calibration import Calibration, Platt, fit_platt, sigmoid
from models_registry.calibration import fit as fit_calibration
from models_registry.errors import NotEnoughData, TrainingUnavailable
from models_registry.exports import LATENCY_ROWS, Parity, report, sha256_of, with_latencies
from models_registry.logistic import StandardLogistic, fit_logistic
from models_registry.manifest import WIN, Component, FormatReport, Metric, finite
from models_registry.sessions import OnnxSession
from models_registry.statistics import (
    Scored,
    auc,
    base_rate,
    block_index,
    calibration_error,
    improvement,
    log_loss,
    reliability,
    selection,
)
from models_registry.structure_autoencoder import Progress
from models_registry.training_set import Split, TrainingSet
from models_registry.win_inputs import (
    DYNAMIC_INPUTS,
    FEATURE_INPUTS,
    INPUTS,
    REACH_INPUTS,
    Candidates,
    columns,
    fill_matrix,
    medians,
)

Float32 = NDArray[np.float32]

ONNX_FILE = f"{WIN}.onnx"
XGBOOST_FILE = f"{WIN}.ubj"
"""The trees in xgboost's own format: what a later training continues from."""


class QualityLogistic(msgspec.Struct, frozen=True):
    """The plain version: `sigmoid(intercept + slope * quality)`.

    The default is a prior, not a fit: about 0.40 at quality 0.5, between 0.31 and 0.50 at the ends.
    """

    intercept: float = -0.8
    slope: float = 0.8

    def apply(self, quality: Float32) -> NDArray[np.float64]:
        """Probabilities `[m]`; an unknown quality counts as the middle, 0.5."""
        known = np.where(np.isfinite(quality), quality, np.float32(0.5)).astype(np.float64)
        return sigmoid(self.intercept + self.slope * known)


class WinParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What the runtime applies around the trees."""

    inputs: list[str] = msgspec.field(default_factory=lambda: list(INPUTS))
    centre: dict[str, list[float]] = {}
    """Medians of the fitted rows, by group that is aligned: `decision [D]`, `latents [16]`, `features [32]`,
    `dynamic [E]`."""
    dynamic: list[str] = []
    """The dynamic features that it was trained with, by name and in order."""
    quantiles: list[float] = []
    """The quantiles of the reach that it was trained with, in order."""
    calibration: Calibration = Platt()
    fallback: QualityLogistic = QualityLogistic()
    trees: int = 0
    history: dict[str, list[float]] = {}
    """The loss curves of the training."""
    importance: dict[str, float] = {}
    """Share of the total gain by column, the largest thirty."""
    reliability: list[tuple[float, float, int]] = []
    """Held-out calibration bins: mean predicted, share won, rows."""


@dataclass(frozen=True)
class WinConfig:
    """How the trees are grown, calibrated and judged."""

    seed: int = 7
    rounds: int = 600
    """At most: growing stops when the validation loss has not improved for `patience` rounds."""
    patience: int = 50
    depth: int = 3
    learning_rate: float = 0.03
    child_weight: float = 20.0
    """Least sum of hessians in a leaf, in effective rows / 4: weights average one."""
    rows_share: float = 0.7
    columns_share: float = 0.4
    l2: float = 10.0
    threads: int = 2
    """Fixed: the sums of a histogram, and so the trees, depend on it."""
    inputs: tuple[str, ...] = INPUTS
    threshold: float = 0.35
    """The confidence from which a candidate is traded, for the expectancy; `MIN_CONFIDENCE`."""
    isotonic_from: int = 20_000
    """Validation rows from which the calibration is isotonic."""
    parity: float = 1e-5
    """Largest difference of a probability between xgboost and the served file."""
    fewest_fit: int = 500
    fewest_validation: int = 100
    fewest_holdout: int = 100


@dataclass(frozen=True)
class Upstream:
    """What the models below the win model said of the `m` labelled rows: none of it fitted to those rows' labels."""

    latents: Float32
    """`[m, 16]`"""
    error: Float32
    """`[m]` reconstruction error."""
    features: Float32 | None = None
    """`[m, 32]` of the feature network; None trains without any."""
    reach: Reach | None = None
    """Of the liquidity predictor; None trains without any."""
    dynamic: tuple[Sequence[str], Float32] | None = None
    """Names and values `[m, E]` of the dynamic features; None trains without any."""


@dataclass(frozen=True)
class WinRows:
    """The labelled rows as the trees take them."""

    matrix: Float32
    """`[m, columns]`, NaN for missing."""
    centre: dict[str, Float32]
    """Of the fitted rows, by group."""
    rows: TrainingSet
    split: Split
    inputs: tuple[str, ...]
    """The groups of its columns."""
    dynamic: tuple[str, ...] = ()
    """The names of the dynamic features among them."""
    quantiles: tuple[float, ...] = ()
    """The quantiles of the reach among them."""

    @classmethod
    def build(cls, rows: TrainingSet, split: Split, upstream: Upstream, config: WinConfig) -> WinRows:
        """From the set and what the models below say of its rows."""
        names, values = upstream.dynamic or ((), None)
        quantiles = () if upstream.reach is None else upstream.reach.quantiles
        inputs = (
            *config.inputs,
            *(FEATURE_INPUTS if upstream.features is not None else ()),
            *(REACH_INPUTS if quantiles else ()),
            *(DYNAMIC_INPUTS if values is not None else ()),
        )
        width = len(columns(inputs, rows.decision_names, names, quantiles))
        groups = {"decision": rows.decision, "latents": upstream.latents}
        more = {"features": upstream.features, "dynamic": values}
        groups |= {name: group for name, group in more.items() if group is not None}
        centre = {name: medians(group[split.fit]) for name, group in groups.items()}
        given = Candidates(
            decision=rows.decision,
            latents=upstream.latents,
            error=upstream.error,
            row=np.arange(len(rows), dtype=np.int64),
            direction=rows.direction,
            kind=rows.kind,
            quality=rows.quality,
            features=upstream.features,
            reach=upstream.reach,
            dynamic=values,
        )
        matrix = np.empty((len(rows), width), dtype=np.float32)
        fill_matrix(matrix, inputs, given, centre)
        return cls(matrix, centre, rows, split, inputs, tuple(names), tuple(quantiles))

    @property
    def columns(self) -> list[str]:
        """The names of the matrix' columns."""
        return columns(self.inputs, self.rows.decision_names, self.dynamic, self.quantiles)


def train(data: WinRows, config: WinConfig, folder: Path, progress: Progress) -> Component:
    """Grow, calibrate, export and judge the trees; their files are written to `folder`.

    Fitted to the split's fit part, stopped early and calibrated on its validation part, judged on its holdout.
    Raises `NotEnoughData`, and `TrainingUnavailable` without xgboost or onnxmltools. An export that does not
    agree with xgboost makes the component its plain version, with that reason.
    """
    for library in ("xgboost", "onnxmltools"):
        if find_spec(library) is None:
            raise TrainingUnavailable(WIN, library)
    split = data.split
    for what, have, need in (
        ("fit", len(split.fit), config.fewest_fit),
        ("be calibrated", len(split.validation), config.fewest_validation),
        ("be judged", len(split.holdout), config.fewest_holdout),
    ):
        if have < need:
            raise NotEnoughData(f"{WIN} to {what}", have, need)
    booster, history = _grow(data, config, progress)
    booster.save_model(folder / XGBOOST_FILE)
    found = _export(booster, data.matrix, config, folder / ONNX_FILE)
    files = {XGBOOST_FILE: sha256_of(folder / XGBOOST_FILE)}
    plain = fit_plain(data.rows, split)
    if not found.passed:
        parameters = WinParameters(
            inputs=list(data.inputs), dynamic=list(data.dynamic), quantiles=list(data.quantiles), fallback=plain
        )
        why = f"the ONNX file is not usable: {found.failed}"
        return _component({"onnx": found}, files, parameters, None, {}, why)
    files[ONNX_FILE] = str(found.sha256)
    raw = OnnxSession(folder / ONNX_FILE).run(data.matrix)
    v = split.validation
    fitted = fit_calibration(raw[v], data.rows.won[v], data.rows.weight[v], config.isotonic_from)
    held = data.rows.select(split.holdout)
    probability = fitted.apply(raw[split.holdout])
    scored = Scored(held.decided_at, held.known_at, held.won, held.r, probability)
    parameters = WinParameters(
        inputs=list(data.inputs),
        dynamic=list(data.dynamic),
        quantiles=list(data.quantiles),
        centre={name: values.tolist() for name, values in data.centre.items()},
        calibration=fitted,
        fallback=plain,
        trees=booster.num_boosted_rounds(),
        history=history,
        importance=_importance(booster, data.columns),
        reliability=reliability(scored.won, probability),
    )
    progress(f"{WIN}: judging", 0.9)
    metrics = _metrics(scored, _logistic(data), config)
    progress(WIN, 1.0)
    return _component({"onnx": found}, files, parameters, ONNX_FILE, metrics, None)


def plain_component(rows: TrainingSet, split: Split, why: str) -> Component:
    """The component of a win model that could not be trained: the plain version, fitted, and why."""
    parameters = WinParameters(fallback=fit_plain(rows, split))
    return _component({}, {}, parameters, None, {}, why)


def fit_plain(rows: TrainingSet, split: Split) -> QualityLogistic:
    """The logistic model of the quality score on every row before the holdout; the prior when there are none.

    Better quality never means less confidence: a relation that points the other way gives slope 0.
    """
    seen = np.concatenate([split.fit, split.validation])
    seen = seen[np.isfinite(rows.quality[seen])]
    if len(seen) < 50:
        return QualityLogistic()
    quality, won, weight = rows.quality[seen].astype(np.float64), rows.won[seen], rows.weight[seen]
    intercept, slope = fit_logistic(quality[:, None], won, weight, ridge=1e-3)
    if slope >= 0:
        return QualityLogistic(float(intercept), float(slope))
    return QualityLogistic(float(fit_logistic(quality[:, None][:, :0], won, weight, ridge=0.0)[0]), 0.0)


def _component(
    formats: dict[str, FormatReport],
    files: dict[str, str],
    parameters: WinParameters,
    served: str | None,
    metrics: dict[str, Metric],
    fallback: str | None,
) -> Component:
    return Component(
        version="none" if served is None else files[served][:12],
        served=served,
        format=None if served is None else "onnx",
        formats=formats,
        files=files,
        metrics=metrics,
        headline="log_loss" if metrics else None,
        fallback=fallback,
        parameters=msgspec.to_builtins(parameters),
    )


def _grow(data: WinRows, config: WinConfig, progress: Progress) -> tuple[Any, dict[str, list[float]]]:
    import xgboost

    class Tell(xgboost.callback.TrainingCallback):
        """Passes the rounds on as progress."""

        def after_iteration(self, model: object, epoch: int, evals_log: object) -> bool:
            """Never asks to stop."""
            if epoch % 10 == 0:
                progress(f"{WIN}: fitting", 0.8 * (epoch + 1) / config.rounds)
            return False

    won, weight = data.rows.won, data.rows.weight
    # Weights average one, so that the leaf limit means the same at any uniqueness.
    mean = float(weight[data.split.fit].mean()) or 1.0
    fit, validation = (
        xgboost.DMatrix(data.matrix[rows], label=won[rows], weight=weight[rows] / mean, nthread=config.threads)
        for rows in (data.split.fit, data.split.validation)
    )
    losses: dict[str, dict[str, list[float]]] = {}
    booster = xgboost.train(
        {
            "objective": "binary:logistic",
            "eval_metric": "logloss",
            "tree_method": "hist",
            "max_depth": config.depth,
            "eta": config.learning_rate,
            "min_child_weight": config.child_weight,
            "subsample": config.rows_share,
            "colsample_bytree": config.columns_share,
            "lambda": config.l2,
            "base_score": float(np.clip(np.average(won[data.split.fit], weights=weight[data.split.fit]), 0.01, 0.99)),
            "seed": config.seed,
            "nthread": config.threads,
        },
        fit,
        config.rounds,
        evals=[(fit, "fit"), (validation, "validation")],
        early_stopping_rounds=config.patience,
        evals_result=losses,
        verbose_eval=False,
        callbacks=[Tell()],
    )
    history = {part: [float(loss) for loss in found["logloss"]] for part, found in losses.items()}
    return booster[: booster.best_iteration + 1], history


def _export(booster: Any, matrix: Float32, config: WinConfig, path: Path) -> FormatReport:
    """The trees as ONNX, compared with xgboost on every row, missing values included."""
    import xgboost
    from onnxmltools.convert import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    kinds = [("input", FloatTensorType([None, matrix.shape[1]]))]
    path.write_bytes(convert_xgboost(booster, WIN, kinds, target_opset=15).SerializeToString())
    session = OnnxSession(path)
    nothing_known = np.full((1, matrix.shape[1]), np.nan, dtype=np.float32)
    rows = np.concatenate([matrix, nothing_known])
    expected = booster.predict(xgboost.DMatrix(rows, nthread=config.threads))
    errors = {"max_error": float(np.abs(session.run(rows) - expected).max())}
    found = report(path, Parity(errors, {"max_error": config.parity}, 1.0, 1.0))
    batch = np.resize(matrix, (LATENCY_ROWS, matrix.shape[1]))
    return with_latencies({"onnx": found}, {"onnx": partial(session.run, batch)})["onnx"]


def _importance(booster: Any, names: list[str]) -> dict[str, float]:
    gains = {names[int(key[1:])]: float(gain) for key, gain in booster.get_score(importance_type="total_gain").items()}
    total = sum(gains.values()) or 1.0
    largest = sorted(gains.items(), key=lambda item: (-item[1], item[0]))[:30]
    return {name: gain / total for name, gain in largest}


def _logistic(data: WinRows) -> NDArray[np.float64]:
    """Held-out probabilities of the logistic regression on the same columns.

    It has what the trees have: the validation rows choose its penalty and calibrate it.
    """
    split, won, weight = data.split, data.rows.won, data.rows.weight
    fit = split.fit[np.unique(np.linspace(0, len(split.fit) - 1, 8000).astype(np.int64))]
    models = [StandardLogistic(data.matrix[fit], won[fit], weight[fit], ridge) for ridge in (0.01, 0.1, 1.0)]
    v = split.validation
    found = [model.predict(data.matrix[v]) for model in models]
    best = int(np.argmin([np.average(log_loss(won[v], p), weights=weight[v]) for p in found]))
    return fit_platt(found[best], won[v], weight[v]).apply(models[best].predict(data.matrix[split.holdout]))


def _metrics(scored: Scored, logistic: NDArray[np.float64], config: WinConfig) -> dict[str, Metric]:
    base = base_rate(scored.won)
    value = float(log_loss(scored.won, scored.probability).mean())
    rows, blocks = len(scored.won), len(block_index(scored.decided_at)[0])

    def against(name: str, baseline: NDArray[np.float64]) -> Metric:
        found = improvement(scored, baseline, config.seed)
        loss = float(log_loss(scored.won, baseline).mean())
        return Metric(
            value=value,
            baseline=loss,
            baseline_name=name,
            improvement=found.value,
            interval=found.pair,
            rows=rows,
            blocks=blocks,
        )

    def trades(chosen: NDArray[np.bool_], note: str) -> Metric:
        taken, gain = selection(scored, chosen, config.seed)
        return Metric(
            value=finite(taken.value),
            baseline=float(scored.r.mean()),
            baseline_name="every candidate",
            improvement=finite(gain.value),
            interval=gain.pair,
            rows=int(chosen.sum()),
            blocks=blocks,
            note=f"mean R net of costs {note}",
        )

    best_fifth = scored.probability >= np.quantile(scored.probability, 0.8)
    return {
        "log_loss": against("the held-out base rate", base),
        "log_loss_logistic": against("logistic regression on the same columns", logistic),
        "auc": Metric(
            value=finite(auc(scored.won, scored.probability)),
            baseline=finite(auc(scored.won, logistic)),
            baseline_name="logistic regression on the same columns",
            rows=rows,
            blocks=blocks,
        ),
        "calibration_error": Metric(value=calibration_error(scored.won, scored.probability), rows=rows, blocks=blocks),
        "expectancy": trades(scored.probability >= config.threshold, f"from probability {config.threshold:g}"),
        "expectancy_best_fifth": trades(best_fifth, "of the fifth with the highest probability"),
    }
