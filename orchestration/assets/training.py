"""The training set and the models, one asset a model."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from orchestration import plots
from orchestration.assets.features import labels, live_labels
from orchestration.resources import LakeResource, TrainingSettings

if TYPE_CHECKING:
    from models_registry.manifest import Component
    from models_registry.structure_autoencoder import Progress

GROUP = "training"
OWNERS = ["team:models"]
AUTOENCODER_FOLDER = "models/structure_autoencoder"
WIN_FOLDER = "models/win_classifier"
DYNAMIC_FOLDER = "models/dynamic_features"
REGIME_FOLDER = "models/regime_predictor"


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"numpy"},
    deps=[labels, live_labels],
    description="Labels with the decision rows and windows they were decided on, and windows without labels. A "
    "position that was followed live stands for the same candidate found again in history. Kept under its hash.",
)
def training_set(
    context: dg.AssetExecutionContext, lake: LakeResource, training: TrainingSettings
) -> dg.MaterializeResult[None]:
    """`training/HASH.npz` in the lake."""
    from features.labels import effective_count
    from models_registry.training_set import LIVE
    from orchestration import training_data
    from orchestration.label_store import count_learnable, read_history

    store = lake.open()
    learnable = count_learnable(store)  # before they are read: what comes in meanwhile is new for the next training
    history = read_history(store, training.history_days)
    joined = training_data.join(
        store, history.rows, training.max_windows, training.half_life(), bars=history.bars, plan=training.plan()
    )
    if joined.unmatched:
        context.log.warning("%d labels have no decision row: their days are not in the klines", joined.unmatched)
    path = training_data.store(store, joined.rows, learnable)
    rows = joined.rows
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(rows),
            "effective_rows": effective_count(rows.weight),
            "half_life_days": training.half_life_days,
            "live_labels": joined.live,
            "live_labels_seen": learnable,
            "unmatched_labels": joined.unmatched,
            "columns": len(rows.decision_names),
            "decision_spec": rows.decision_spec_id,
            "unlabelled_windows": len(rows.unlabelled_at),
            "path": path,
            "labels_a_day": plots.shown(plots.per_day(rows.decided_at, rows.source == LIVE), "labels a day"),
        },
        data_version=dg.DataVersion(rows.data_hash),
    )


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"tensorflow", "tflite"},
    deps=[training_set],
    description="A window of normalised bars to 16 latents, and how unlike the training data it is. INT8 TFLite where "
    "that passes; without TensorFlow its plain version stands in. Compared with PCA.",
)
def structure_autoencoder(
    context: dg.AssetExecutionContext, lake: LakeResource, training: TrainingSettings
) -> dg.MaterializeResult[None]:
    """`models/structure_autoencoder` in the lake."""
    from models_registry.training import train_structure_autoencoder
    from orchestration import training_data
    from orchestration.artifacts import put_folder

    store = lake.open()
    rows = training_data.load(store)
    config = training.config(int(rows.decided_at[-1]))
    with tempfile.TemporaryDirectory() as folder:
        component = train_structure_autoencoder(rows, config, folder, _progress(context))
        digest = put_folder(store, AUTOENCODER_FOLDER, Path(folder))
    return _trained("structure_autoencoder", component, digest)


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"scikitlearn", "numpy"},
    deps=[training_set],
    description="The regime an hour ahead from the last bars, a multinomial logistic model fitted to an earlier block "
    "of time. Compared with persistence; without skill over it, what ADX and Bollinger width say now stands in. Does "
    "nothing unless ENABLE_MARKET_REGIME_PREDICTION is true.",
)
def regime_predictor(
    context: dg.AssetExecutionContext, lake: LakeResource, training: TrainingSettings
) -> dg.MaterializeResult[None]:
    """`models/regime_predictor` in the lake."""
    from models_registry.training import train_regime_predictor
    from orchestration import training_data
    from orchestration.artifacts import put_folder

    if not training.market_regime_prediction:
        context.log.info("ENABLE_MARKET_REGIME_PREDICTION is not true: bundles have no regime predictor")
        return dg.MaterializeResult(metadata={"served": "switched off"}, data_version=dg.DataVersion("off"))
    store = lake.open()
    rows = training_data.load(store)
    config = training.config(int(rows.decided_at[-1]))
    with tempfile.TemporaryDirectory() as folder:
        component = train_regime_predictor(rows, config, folder, _progress(context))
        digest = put_folder(store, REGIME_FOLDER, Path(folder))
    return _trained("regime_predictor", component, digest)


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"numpy"},
    deps=[training_set, regime_predictor],
    description="Expressions over the decision row, tried by regime and kept by their information ratio forward in "
    "time, corrected for the number tried. Does nothing unless ENABLE_DYNAMIC_FEATURES is true.",
)
def dynamic_features(
    context: dg.AssetExecutionContext, lake: LakeResource, training: TrainingSettings
) -> dg.MaterializeResult[None]:
    """`models/dynamic_features` in the lake."""
    from models_registry.training import train_dynamic_features
    from orchestration import training_data
    from orchestration.artifacts import get_folder, put_folder

    if not training.dynamic_features:
        context.log.info("ENABLE_DYNAMIC_FEATURES is not true: the win model is trained without them")
        return dg.MaterializeResult(metadata={"served": "switched off"}, data_version=dg.DataVersion("off"))
    store = lake.open()
    rows = training_data.load(store)
    config = training.config(int(rows.decided_at[-1]))
    with tempfile.TemporaryDirectory() as folder:
        regime, own = None, Path(folder) / "dynamic"
        if training.market_regime_prediction:
            regime = Path(folder) / "regime"
            get_folder(store, REGIME_FOLDER, regime)
        component = train_dynamic_features(rows, config, own, _progress(context), regime=regime)
        digest = put_folder(store, DYNAMIC_FOLDER, own)
    shown = _trained("dynamic_features", component, digest)
    return dg.MaterializeResult(
        metadata={**(shown.metadata or {}), "search": dg.MetadataValue.md(search_table(component))},
        data_version=shown.data_version,
    )


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"xgboost", "onnx"},
    deps=[training_set, structure_autoencoder, dynamic_features],
    description="The calibrated probability of the target before the stop, from the decision row, the autoencoder's "
    "latents and the candidate. Compared with the base rate and a logistic regression.",
)
def win_classifier(
    context: dg.AssetExecutionContext, lake: LakeResource, training: TrainingSettings
) -> dg.MaterializeResult[None]:
    """`models/win_classifier` in the lake."""
    from models_registry.training import train_win_classifier
    from orchestration import training_data
    from orchestration.artifacts import get_folder, put_folder

    store = lake.open()
    rows = training_data.load(store)
    config = training.config(int(rows.decided_at[-1]))
    with tempfile.TemporaryDirectory() as folder:
        autoencoder, own = Path(folder) / "autoencoder", Path(folder) / "win"
        get_folder(store, AUTOENCODER_FOLDER, autoencoder)
        dynamic = regime = None
        if training.dynamic_features:
            dynamic = Path(folder) / "dynamic"
            get_folder(store, DYNAMIC_FOLDER, dynamic)
        if training.dynamic_features and training.market_regime_prediction:
            regime = Path(folder) / "regime"
            get_folder(store, REGIME_FOLDER, regime)
        component = train_win_classifier(
            rows, autoencoder, config, own, _progress(context), dynamic=dynamic, regime=regime
        )
        digest = put_folder(store, WIN_FOLDER, own)
    return _trained("win_classifier", component, digest)


def _progress(context: dg.AssetExecutionContext) -> "Progress":
    """Training's progress as log lines, which the UI and the command line follow."""

    def say(stage: str, fraction: float) -> None:
        context.log.info("%s: %.0f %%", stage, 100 * fraction)

    return say


def _trained(name: str, component: "Component", digest: str) -> dg.MaterializeResult[None]:
    """What a trained component shows: metrics beside their baselines, formats, plots."""
    from models_registry.plots import component_plots

    metadata: dict[str, dg.RawMetadataValue] = {
        "served": component.served or f"the plain version: {component.fallback}",
        "metrics": dg.MetadataValue.md(metric_table(component)),
        "formats": dg.MetadataValue.md(format_table(component)),
        **plots.shown_all(component_plots(name, component)),
    }
    if component.headline:
        value = component.metrics[component.headline].value
        metadata[component.headline] = value if value is not None else "none"
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(digest))


def metric_table(component: "Component") -> str:
    """The metrics as Markdown: each beside its baseline, with the interval of the improvement."""
    lines = ["| metric | value | baseline | improvement, 95 % | rows |", "|---|---|---|---|---|"]
    for name, metric in component.metrics.items():
        span = "–" if metric.interval is None else f"{metric.interval[0]:+.4g} to {metric.interval[1]:+.4g}"
        baseline = "–" if metric.baseline is None else f"{metric.baseline:.4g} ({metric.baseline_name})"
        value = "–" if metric.value is None else f"{metric.value:.4g}"
        lines.append(f"| {name} | {value} | {baseline} | {span} | {metric.rows} |")
    return "\n".join(lines)


def search_table(component: "Component") -> str:
    """What was tried for dynamic features in each regime, as Markdown, and what was kept."""
    from models_registry.dynamic_features import report_of

    report = report_of(component)
    lines = [
        "| regime | rows | blocks | tried | best ratio | enough would be | kept |",
        "|---|---|---|---|---|---|---|",
    ]
    for part in report.regimes:
        best, bar = ("–" if n is None else f"{n:.2f}" for n in (part.best_ratio, part.bar))
        lines.append(f"| {part.regime} | {part.rows} | {part.blocks} | {part.tried} | {best} | {bar} | {part.kept} |")
    lines += ["", *(f"- {each.regime}, {each.corrected:.2f}: `{each.text}`" for each in report.kept)]
    return "\n".join(lines)


def format_table(component: "Component") -> str:
    """The exported formats as Markdown."""
    lines = ["| format | passed | bytes | µs a call | largest error |", "|---|---|---|---|---|"]
    for name, found in component.formats.items():
        passed = "yes" if found.passed else f"no: {found.failed}"
        numbers = [found.bytes, found.latency_us, found.max_error]
        lines.append(f"| {name} | {passed} | " + " | ".join("–" if n is None else f"{n:.4g}" for n in numbers) + " |")
    return "\n".join(lines)
