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
    from models_registry.training_set import LIVE
    from orchestration import training_data
    from orchestration.label_store import count_learnable, read_history

    store = lake.open()
    learnable = count_learnable(store)  # before they are read: what comes in meanwhile is new for the next training
    history = read_history(store, training.history_days)
    joined = training_data.join(store, history.rows, training.max_windows)
    if joined.unmatched:
        context.log.warning("%d labels have no decision row: their days are not in the klines", joined.unmatched)
    path = training_data.store(store, joined.rows, learnable)
    rows = joined.rows
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(rows),
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
    kinds={"xgboost", "onnx"},
    deps=[training_set, structure_autoencoder],
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
        component = train_win_classifier(rows, autoencoder, config, own, _progress(context))
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


def format_table(component: "Component") -> str:
    """The exported formats as Markdown."""
    lines = ["| format | passed | bytes | µs a call | largest error |", "|---|---|---|---|---|"]
    for name, found in component.formats.items():
        passed = "yes" if found.passed else f"no: {found.failed}"
        numbers = [found.bytes, found.latency_us, found.max_error]
        lines.append(f"| {name} | {passed} | " + " | ".join("–" if n is None else f"{n:.4g}" for n in numbers) + " |")
    return "\n".join(lines)
