"""The models, one asset each."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from orchestration import plots
from orchestration.assets.training import OWNERS, opportunities, starting_point, training_set
from orchestration.resources import LakeResource, TrainingSettings
from orchestration.tables import format_table, metric_table, search_table, seen

if TYPE_CHECKING:
    from models_registry.manifest import Component

GROUP = "models"


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"tensorflow", "tflite"},
    deps=[training_set, starting_point],
    description="A window of normalised bars to 16 latents, and how unlike the training data it is. INT8 TFLite where "
    "that passes; without TensorFlow its plain version stands in. Compared with PCA.",
)
def structure_autoencoder(
    context: dg.AssetExecutionContext, lake: LakeResource, training: TrainingSettings
) -> dg.MaterializeResult[None]:
    """`models/structure_autoencoder` in the lake."""
    return _train(context, lake, training)


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"tensorflow", "tflite"},
    deps=[training_set, starting_point],
    description="The decision row to 32 features, learnt from where price went and how candidates ended. The win model "
    "is fitted to features of networks that have not seen its rows. Without TensorFlow 32 indicators stand in. "
    "Compared with the raw row in the same downstream model.",
)
def feature_network(
    context: dg.AssetExecutionContext, lake: LakeResource, training: TrainingSettings
) -> dg.MaterializeResult[None]:
    """`models/feature_network` in the lake."""
    return _train(context, lake, training)


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"tensorflow", "tflite"},
    deps=[training_set, starting_point],
    description="A window of bars to quantiles of how far price will reach below and above within the horizon, in ATR: "
    "an LSTM. Without TensorFlow the volume profile stands in. Compared with it and with constant quantiles.",
)
def liquidity_predictor(
    context: dg.AssetExecutionContext, lake: LakeResource, training: TrainingSettings
) -> dg.MaterializeResult[None]:
    """`models/liquidity_predictor` in the lake."""
    return _train(context, lake, training)


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
    if not training.market_regime_prediction:
        return _off(context, "ENABLE_MARKET_REGIME_PREDICTION is not true: bundles have no regime predictor")
    return _train(context, lake, training)


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
    if not training.dynamic_features:
        return _off(context, "ENABLE_DYNAMIC_FEATURES is not true: the win model is trained without them")
    return _train(
        context, lake, training, more=lambda component: {"search": dg.MetadataValue.md(search_table(component))}
    )


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"xgboost", "onnx"},
    deps=[training_set, starting_point, structure_autoencoder, feature_network, liquidity_predictor, dynamic_features],
    description="The calibrated probability of the target before the stop, from the decision row, the outputs of the "
    "models before it and the candidate. Compared with the base rate and a logistic regression.",
)
def win_classifier(
    context: dg.AssetExecutionContext, lake: LakeResource, training: TrainingSettings
) -> dg.MaterializeResult[None]:
    """`models/win_classifier` in the lake."""
    return _train(context, lake, training)


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"tensorflow", "tflite"},
    deps=[opportunities, starting_point, structure_autoencoder, win_classifier],
    description="What skip, long and short are worth when flat, hold and close in a position: a double DQN over both "
    "directions of every opportunity. Without TensorFlow the rules stand in. Compared with never trading, dice, the "
    "rules and the win model's threshold.",
)
def strategy_dqn(
    context: dg.AssetExecutionContext, lake: LakeResource, training: TrainingSettings
) -> dg.MaterializeResult[None]:
    """`models/strategy_dqn` in the lake."""
    return _train(context, lake, training)


def _train(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    training: TrainingSettings,
    more: "Callable[[Component], Mapping[str, dg.RawMetadataValue]]" = lambda component: {},
) -> dg.MaterializeResult[None]:
    """Train the model that the asset is named after into its folder in the lake, on those that it depends on."""
    from models_registry.assembling import train_model
    from models_registry.manifest import DQN
    from models_registry.training_config import models_of
    from orchestration import training_data
    from orchestration.artifacts import put_folder
    from orchestration.model_folders import KeptCheckpoint, fetch, folder_of, needed
    from orchestration.model_folders import starting_point as start_of

    store, model = lake.open(), context.asset_key.path[-1]
    rows = training_data.load(store)
    config = training.config(int(rows.decided_at[-1]))
    if model not in models_of(config):
        return _off(context, f"the training's settings leave {model} out: bundles have its plain version")
    with tempfile.TemporaryDirectory() as work:
        own = Path(work) / "own"
        unfinished = KeptCheckpoint(store, model, own)
        if unfinished.fetch():
            # It is for the training to say whether it is of the same data and settings, and warns where it is not.
            context.log.info("%s: a training was not finished; its checkpoint is taken up if it fits", model)

        told = ("", 0.0)

        def tell(stage: str, fraction: float) -> None:
            nonlocal told
            # Each line is an event that Dagster stores: not one for every tree.
            if stage != told[0] or fraction >= told[1] + 0.05:
                context.log.info("%s: %.0f %%", stage, 100 * fraction)
                told = stage, fraction
            unfinished.keep()

        below = fetch(store, needed(model, config), Path(work) / "below")
        start = start_of(store, model, Path(work) / "start")
        found = training_data.load_opportunities(store) if model == DQN else None
        component = train_model(model, rows, below, config, own, tell, start=start, opportunities=found)
        digest = put_folder(store, folder_of(model), own)
        unfinished.discard()
    return _trained(model, component, digest, more(component))


def _off(context: dg.AssetExecutionContext, why: str) -> dg.MaterializeResult[None]:
    context.log.info(why)
    return dg.MaterializeResult(metadata={"served": "switched off"}, data_version=dg.DataVersion("off"))


def _trained(
    name: str, component: "Component", digest: str, more: "Mapping[str, dg.RawMetadataValue]"
) -> dg.MaterializeResult[None]:
    """What a trained component shows: metrics beside their baselines, formats, plots."""
    from models_registry.continuing import analyses_of, updates_of
    from models_registry.plots import component_plots

    metadata: dict[str, dg.RawMetadataValue] = {
        "served": component.served or f"the plain version: {component.fallback}",
        "metrics": dg.MetadataValue.md(metric_table(component)),
        "formats": dg.MetadataValue.md(format_table(component)),
        **plots.shown_all(component_plots(name, component)),
        **more,
    }
    updates, analyses = updates_of(component), analyses_of(component)
    if updates:
        metadata |= {"updates": updates, "analyses": analyses}
    if component.provenance is not None:
        metadata |= seen(component.provenance)
        metadata["continued_from"] = component.provenance.continued_from or "nothing"
    if component.note:
        metadata["note"] = component.note
    if component.headline:
        value = component.metrics[component.headline].value
        metadata[component.headline] = value if value is not None else "none"
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(digest))
