"""The bundle: assembled, registered, judged, and made champion or not."""

import dagster as dg

from orchestration import plots
from orchestration.assets.models import (
    dynamic_features,
    feature_network,
    liquidity_predictor,
    regime_predictor,
    strategy_dqn,
    structure_autoencoder,
    win_classifier,
)
from orchestration.assets.training import OWNERS, training_set
from orchestration.resources import LakeResource, RegistryResource, TrainingSettings

GROUP = "bundle"


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"mlflow"},
    deps=[
        training_set,
        structure_autoencoder,
        feature_network,
        liquidity_predictor,
        regime_predictor,
        dynamic_features,
        win_classifier,
        strategy_dqn,
    ],
    description="The models as one bundle with its manifest, registered in MLflow with its components, and put up as "
    "challenger. The same models again give the version that they already have.",
)
def trading_bundle(
    context: dg.AssetExecutionContext, lake: LakeResource, registry: RegistryResource, training: TrainingSettings
) -> dg.MaterializeResult[None]:
    """A version of the registered model `trading_bundle`."""
    from orchestration import training_data
    from orchestration.bundling import register_bundle

    store, models = lake.open(), registry.open()
    for entry in models.reconcile():
        context.log.warning("%s was found at version %s: %s", entry.alias, entry.version, entry.reason)
    rows = training_data.load(store)
    config = training.config(int(rows.decided_at[-1]), parent=models.champion())
    bundle = register_bundle(store, models, rows, config)
    context.log.info("bundle %s is registered", bundle.version)
    manifest = bundle.manifest
    seen = training_data.keep_learnt(store, manifest.training.data_hash)
    return dg.MaterializeResult(
        metadata={
            "version": bundle.version,
            "parent": manifest.parent or "none",
            "decision_spec": manifest.decision_spec.id,
            "rows": manifest.training.rows,
            "live_labels": manifest.training.live_labels,
            "live_labels_seen": seen,
            "fallbacks": manifest.fallbacks,
            "manifest": dg.MetadataValue.json(bundle.as_json()),
            "mlflow": dg.MetadataValue.url(f"{models.tracking_uri}/#/models/trading_bundle/versions/{bundle.version}"),
        },
        data_version=dg.DataVersion(bundle.version),
    )


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"python"},
    deps=[trading_bundle],
    description="Challenger and champion on the same held-out rows, none of which either has seen.",
)
def bundle_evaluation(
    context: dg.AssetExecutionContext, lake: LakeResource, registry: RegistryResource, training: TrainingSettings
) -> dg.MaterializeResult[None]:
    """`evaluations/VERSION.json` in the lake."""
    from orchestration import judging, training_data

    store, models = lake.open(), registry.open()
    found = judging.compare(models, training_data.load(store), training.min_confidence, training.seed)
    if found is None:
        context.log.info("there is no challenger: nothing to evaluate")
        return dg.MaterializeResult(metadata={"challenger": "none"})
    path = judging.save(store, found)
    records = {
        name: record for name, record in (("champion", found.champion), ("challenger", found.challenger)) if record
    }
    metadata: dict[str, dg.RawMetadataValue] = {
        "challenger": found.challenger_version,
        "champion": found.champion_version or "none",
        "path": path,
        **({"unjudged": found.unjudged} if found.unjudged else {}),
    }
    for name, record in records.items():
        metadata |= {
            f"{name}_rows": record.rows,
            f"{name}_log_loss": record.log_loss,
            f"{name}_trades": record.trades,
            f"{name}_expectancy": record.expectancy if record.expectancy is not None else "no trades",
        }
    if records:
        metadata["running_r"] = plots.shown(plots.running_r(records), "trades on the held-out window")
    return dg.MaterializeResult(metadata=metadata)


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"mlflow"},
    deps=[bundle_evaluation],
    description="The gate: the challenger becomes champion when it is not worse on the held-out window (the first one "
    "by the rule `bootstrap`), else it stays challenger. Both are entered in the ledger; no skill is no failure.",
)
def champion(
    context: dg.AssetExecutionContext, lake: LakeResource, registry: RegistryResource
) -> dg.MaterializeResult[None]:
    """The alias `champion` in MLflow."""
    from orchestration import judging

    store, models = lake.open(), registry.open()
    version = models.challenger()
    if version is None:
        context.log.info("there is no challenger: the champion stays")
        return dg.MaterializeResult(metadata={"champion": models.champion() or "none", "promoted": False})
    decision = judging.decide(models, judging.load(store, version))
    for reason in decision.reasons:
        context.log.info("gate: %s", reason)
    return dg.MaterializeResult(
        metadata={
            "champion": decision.champion or "none",
            "challenger": decision.version,
            "promoted": decision.promoted,
            "rule": decision.rule,
            "reasons": dg.MetadataValue.md("\n".join(f"- {reason}" for reason in decision.reasons)),
        },
        data_version=dg.DataVersion(decision.champion or "none"),
    )
