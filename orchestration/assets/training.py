"""What is learnt from: the training set, the opportunities of the strategy, and the models to continue from."""

import tempfile
from pathlib import Path

import dagster as dg
from pydantic import Field

from orchestration import plots
from orchestration.assets.features import features, labels, live_labels
from orchestration.assets.market import funding, klines
from orchestration.resources import LakeResource, RegistryResource, TrainingSettings

GROUP = "training"
OWNERS = ["team:models"]


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
    kinds={"numpy"},
    deps=[klines, funding, features],
    description="Every opportunity of the stored history with both its trades, what they are worth at each decision in "
    "them, and the rows that are seen there: what the strategy learns from. Kept under its hash.",
)
def opportunities(
    context: dg.AssetExecutionContext, lake: LakeResource, training: TrainingSettings
) -> dg.MaterializeResult[None]:
    """`opportunities/HASH.npz` in the lake."""
    from models_registry.opportunities import Opportunities
    from orchestration import training_data
    from orchestration.label_store import read_history

    if not training.strategy_dqn:
        context.log.info("the training's settings leave the strategy out: nothing is followed for it")
        return dg.MaterializeResult(metadata={"opportunities": 0}, data_version=dg.DataVersion("off"))
    store = lake.open()
    history = read_history(store, training.history_days)
    found = Opportunities.of(
        history.rows,
        history.bars,
        history.funding,
        training.plan(),
        training.costs(),
        hunting=training.hunting(),
        most=training.most_opportunities,
    )
    path = training_data.store_opportunities(store, found)
    taken = found.episodes.r[found.episodes.outcome != 0]
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(found),
            "decisions_in_trades": int(found.episodes.step_row.size),
            "decision_rows": len(found.decision),
            "mean_r_of_every_trade": float(taken.mean()) if taken.size else "none",
            "path": path,
        },
        data_version=dg.DataVersion(found.data_hash),
    )


class Beginning(dg.Config):
    """What the models' training begins with."""

    champion: bool = Field(
        default=False, description="Continue from the champion's models where that is allowed; else all begin anew."
    )


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"mlflow"},
    deps=[training_set],
    description="The champion's models with all that their training left, for the next to continue from; or nothing, "
    "so that all begin anew.",
)
def starting_point(
    context: dg.AssetExecutionContext, config: Beginning, lake: LakeResource, registry: RegistryResource
) -> dg.MaterializeResult[None]:
    """`starting_point/current.json` in the lake, and the files that it names."""
    from models_registry.component_folder import component_of_bundle
    from models_registry.runtime import read_manifest
    from orchestration.model_folders import keep_starting_point

    store = lake.open()
    models = registry.open() if config.champion else None
    version = None if models is None else models.champion()
    folders = {}
    with tempfile.TemporaryDirectory() as work:
        if models is not None and version is not None:
            bundle = models.download(version, Path(work) / "bundle")
            parts = read_manifest(bundle).components
            folders = {name: component_of_bundle(bundle, part, Path(work) / name) for name, part in parts.items()}
        keep_starting_point(store, version, folders)
    if models is not None and version is None:
        context.log.info("there is no champion to continue from: every model begins anew")
    return dg.MaterializeResult(
        metadata={"continue_from": version or "nothing", "models": ", ".join(sorted(folders)) or "none"},
        data_version=dg.DataVersion(version or "none"),
    )
