"""`win_classifier`: a candidate and everything known at its decision to the probability of target before stop.

First what the live runtime needs of it: the calibration and the plain version (its inputs are in `win_inputs`).
Then its training, export and measure, which import xgboost when they are called.
A win is the target before the stop; an expiry is none, whatever its R.

The one format is ONNX, in fp32: decisions agree when xgboost and it put a held-out row on the same side of the
threshold. Beside its latency stands that of xgboost's own prediction of the same rows, with one thread as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.reach import Reach
from models_registry.calibration import Calibration, Platt, sigmoid
from models_registry.calibration import fit as fit_calibration
from models_registry.checkpoints import Checkpoint, training_key
from models_registry.convert import ONNX, convert
from models_registry.errors import TrainingUnavailable, check_parts
from models_registry.exports import LATENCY_ROWS, Parity, report, sha256_of, with_latencies
from models_registry.logistic import fit_logistic
from models_registry.manifest import WIN, Component, FormatReport
from models_registry.network_export import Metadata, NetworkFiles, champion, origin, representative, write_records
from models_registry.sessions import OnnxSession
from models_registry.statistics import Scored, reliability
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
from models_registry.win_judging import importance, logistic, win_metrics
from models_registry.win_trees import Grown, GrowthPlan, TreeRows, grow

Float32 = NDArray[np.float32]

FILES = NetworkFiles(WIN)
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
    updates: int = 0
    """Trainings that the trees have been through."""
    analyses: int = 0
    """Rows that they were fitted to, altogether."""
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
    continued_rounds: int = 150
    """At most, when it continues from the champion; its rate then is half."""
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
    agreement: float = 0.98
    """Least share of held-out rows that the two put on the same side of the threshold."""
    time_limit_s: float = 600.0
    """Of the conversion subprocess."""
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
    given: Candidates | None = None
    """What the matrix was filled from."""

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
        return cls(matrix, centre, rows, split, inputs, tuple(names), tuple(quantiles), given)

    def about(self, centre: dict[str, Float32]) -> WinRows:
        """The rows aligned about another centre: the champion's, whose trees were grown about it."""
        matrix = self.matrix.copy()
        if self.given is not None:
            fill_matrix(matrix, self.inputs, self.given, centre)
        return replace(self, matrix=matrix, centre=centre)

    @property
    def columns(self) -> list[str]:
        """The names of the matrix' columns."""
        return columns(self.inputs, self.rows.decision_names, self.dynamic, self.quantiles)


def train(
    data: WinRows, config: WinConfig, folder: Path, progress: Progress, *, initial: Path | None = None
) -> Component:
    """Grow, calibrate, export and judge the trees; their files are written to `folder`.

    Fitted to the split's fit part, stopped early and calibrated on its validation part, judged on its holdout.
    `initial` is a folder with a champion's files: if its columns are these, new trees are added to its own. Raises
    `NotEnoughData`, and `TrainingUnavailable` without xgboost or onnxmltools. An export that does not agree with
    xgboost makes the component its plain version, with that reason. Interrupted, it goes on from its checkpoint.
    """
    for library in ("xgboost", "onnxmltools"):
        if find_spec(library) is None:
            raise TrainingUnavailable(WIN, library)
    split = data.split
    check_parts(
        WIN,
        fit=(len(split.fit), config.fewest_fit),
        validation=(len(split.validation), config.fewest_validation),
        holdout=(len(split.holdout), config.fewest_holdout),
    )
    known = _champion(initial, data)
    if initial is not None and known is not None:
        data = data.about({name: np.asarray(values, dtype=np.float32) for name, values in known.centre.items()})
    grown = _grow(data, config, folder, progress, initial if known else None)
    grown.booster.save_model(folder / XGBOOST_FILE)
    before = known or WinParameters()
    parameters = WinParameters(
        inputs=list(data.inputs),
        dynamic=list(data.dynamic),
        quantiles=list(data.quantiles),
        centre={name: values.tolist() for name, values in data.centre.items()},
        fallback=fit_plain(data.rows, split),
        trees=grown.booster.num_boosted_rounds(),
        updates=before.updates + 1,
        analyses=before.analyses + len(split.fit),
        history=grown.curves,
        importance=importance(grown.booster, data.columns),
    )
    found = convert(
        folder / XGBOOST_FILE, representative(data.matrix), folder, (ONNX,), time_limit_s=config.time_limit_s
    )[ONNX]
    note = origin(initial, known is not None)
    if found.path is None:
        component = _without_onnx(FormatReport(passed=False, failed=found.failed), parameters)
    else:
        progress(f"{WIN}: judging", 0.9)
        component = _judged(found.path.rename(folder / ONNX_FILE), grown.booster, data, config, parameters)
    metadata = Metadata(
        inputs=data.columns,
        outputs=["win_probability"],
        parameters=component.parameters,
        decision_spec=data.rows.decision_spec_id,
    )
    write_records(folder, FILES, metadata, grown.curves)
    files = [XGBOOST_FILE, FILES.metadata, FILES.curves, *([] if found.path is None else [ONNX_FILE])]
    Checkpoint(folder, "").discard()
    progress(WIN, 1.0)
    return msgspec.structs.replace(component, files={file: sha256_of(folder / file) for file in files}, note=note)


def _champion(initial: Path | None, data: WinRows) -> WinParameters | None:
    """The parameters of the champion to continue from; None when there is none, or its columns are others."""
    stored = champion(initial, FILES, XGBOOST_FILE)
    if stored is None or (stored.inputs, stored.decision_spec) != (data.columns, data.rows.decision_spec_id):
        return None
    return msgspec.convert(stored.parameters, WinParameters)


def plain_component(rows: TrainingSet, split: Split, why: str) -> Component:
    """The component of a win model that could not be trained: the plain version, fitted, and why."""
    parameters = WinParameters(fallback=fit_plain(rows, split))
    return Component(version="none", served=None, format=None, fallback=why, parameters=msgspec.to_builtins(parameters))


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


def _grow(data: WinRows, config: WinConfig, folder: Path, progress: Progress, initial: Path | None) -> Grown:
    won, weight, split = data.rows.won, data.rows.weight, data.split
    # Weights average one, so that the leaf limit means the same at any uniqueness.
    mean = float(weight[split.fit].mean()) or 1.0
    fit, validation = (
        TreeRows(data.matrix[rows], won[rows], weight[rows] / mean) for rows in (split.fit, split.validation)
    )
    start = None if initial is None else (initial / XGBOOST_FILE).read_bytes()
    plan = GrowthPlan(
        settings={
            "objective": "binary:logistic",
            "eval_metric": "logloss",
            "tree_method": "hist",
            "max_depth": config.depth,
            "eta": config.learning_rate if start is None else config.learning_rate / 2,
            "min_child_weight": config.child_weight,
            "subsample": config.rows_share,
            "colsample_bytree": config.columns_share,
            "lambda": config.l2,
            "seed": config.seed,
        },
        rounds=config.rounds if start is None else config.continued_rounds,
        patience=config.patience,
        threads=config.threads,
    )
    arrays: dict[str, NDArray[Any] | None] = {
        f"{name}.{field}": values
        for name, rows in (("fit", fit), ("validation", validation))
        for field, values in vars(rows).items()
    }
    weights = "" if initial is None else sha256_of(initial / XGBOOST_FILE)
    checkpoint = Checkpoint(folder, training_key(WIN, asdict(plan), arrays, weights))

    def tell(done: int) -> None:
        if done % 10 == 0:
            progress(f"{WIN}: fitting", 0.8 * done / plan.rounds)

    return grow(fit, validation, plan, checkpoint, start, tell)


def _without_onnx(found: FormatReport, parameters: WinParameters) -> Component:
    """The plain version, when there is no file that says what the trees say."""
    return Component(
        version="none",
        served=None,
        format=None,
        formats={ONNX: found},
        fallback=f"the ONNX file is not usable: {found.failed}",
        parameters=msgspec.to_builtins(parameters),
    )


def _judged(path: Path, booster: Any, data: WinRows, config: WinConfig, parameters: WinParameters) -> Component:
    """The component that serves the ONNX file: calibrated, measured against xgboost, judged on held-out rows."""
    raw, split = OnnxSession(path).run(data.matrix), data.split
    v = split.validation
    fitted = fit_calibration(raw[v], data.rows.won[v], data.rows.weight[v], config.isotonic_from)
    found = _format(path, booster, data, raw, fitted, config)
    if not found.passed:
        return _without_onnx(found, parameters)
    held = data.rows.select(split.holdout)
    probability = fitted.apply(raw[split.holdout])
    scored = Scored(held.decided_at, held.known_at, held.won, held.r, probability)
    parameters = msgspec.structs.replace(
        parameters, calibration=fitted, reliability=reliability(scored.won, probability)
    )
    return Component(
        version=str(found.sha256)[:12],
        served=path.name,
        format=ONNX,
        formats={ONNX: found},
        metrics=win_metrics(scored, logistic(data.matrix, data.rows, split), config.threshold, config.seed),
        headline="log_loss",
        parameters=msgspec.to_builtins(parameters),
    )


def _format(
    path: Path, booster: Any, data: WinRows, raw: Float32, fitted: Calibration, config: WinConfig
) -> FormatReport:
    """The ONNX file against xgboost on every row, and on one of which nothing is known."""
    session, matrix = OnnxSession(path), data.matrix
    booster.set_param({"nthread": 1})
    nothing_known = np.full((1, matrix.shape[1]), np.nan, dtype=np.float32)
    expected = booster.inplace_predict(matrix)
    unknown = np.abs(session.run(nothing_known) - booster.inplace_predict(nothing_known))
    held = data.split.holdout
    sides = [fitted.apply(values[held]) >= config.threshold for values in (raw, expected)]
    errors = {"max_error": float(max(np.abs(raw - expected).max(), unknown.max()))}
    limits = {"max_error": config.parity}
    found = report(path, Parity(errors, limits, float((sides[0] == sides[1]).mean()), config.agreement))
    batch = np.resize(matrix, (LATENCY_ROWS, matrix.shape[1]))
    calls = {ONNX: partial(session.run, batch), "xgboost": partial(booster.inplace_predict, batch)}
    return with_latencies({ONNX: found}, calls, base=ONNX, original="xgboost")[ONNX]
