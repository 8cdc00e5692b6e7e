"""The bundle: assembled, registered, judged, and made champion or not."""

import dagster as dg

from orchestration import plots, tables
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
from orchestration.gate_settings import GateSettings
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
    from models_registry.trial_log import TrialLog
    from orchestration import training_data, trials
    from orchestration.bundling import register_bundle

    store = lake.open()
    models = registry.open(store)
    for entry in models.reconcile():
        context.log.warning("%s was found at version %s: %s", entry.alias, entry.version, entry.reason)
    rows = training_data.load(store)
    config = training.config(int(rows.decided_at[-1]), parent=models.champion())
    bundle = register_bundle(store, models, rows, config, trials.entering(registry.ledger, context.run.run_id))
    context.log.info("bundle %s is registered", bundle.version)
    manifest = bundle.manifest
    labels_seen = training_data.keep_learnt(store, manifest.training.data_hash)
    tried = TrialLog.beside(registry.ledger).count()
    changed = manifest.quantised
    return dg.MaterializeResult(
        metadata={
            "version": bundle.version,
            "parent": manifest.parent or "none",
            "decision_spec": manifest.decision_spec.id,
            **tables.seen(manifest.training),
            "live_labels": manifest.training.live_labels,
            "live_labels_seen": labels_seen,
            "trials": tried,
            "scores": dg.MetadataValue.md(tables.bundle_table(manifest, tried)),
            "int8_changes_win_probability_p99": "no INT8 is served" if changed is None else changed.win_probability_p99,
            "int8_actions_agreement": "no INT8 is served" if changed is None else changed.actions_agreement,
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
    description="Challenger and champion on one held-out window that neither has seen: its labelled rows scored, its "
    "bars replayed through the engine that trades live.",
)
def bundle_evaluation(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    registry: RegistryResource,
    training: TrainingSettings,
    gate: GateSettings,
) -> dg.MaterializeResult[None]:
    """`evaluations/VERSION.json` in the lake."""
    from models_registry.trial_log import TrialLog
    from orchestration import judging, training_data

    store = lake.open()
    models = registry.open(store)
    bench = judging.Bench(store, training_data.load(store), gate.engine(training), training.seed)
    found = judging.compare(models, bench)
    if found is None:
        context.log.info("there is no challenger: nothing to evaluate")
        return dg.MaterializeResult(metadata={"challenger": "none"})
    path = judging.save(store, found)
    metadata = tables.judged(found, TrialLog.beside(registry.ledger).count())
    metadata["path"] = path
    replays = {name: record.replay for name, record in found.records.items() if record.replay is not None}
    if replays:
        metadata["running_r"] = plots.shown(plots.running_r(replays), "positions of the replayed window")
    return dg.MaterializeResult(metadata=metadata)


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"mlflow"},
    deps=[bundle_evaluation],
    description="The gate: the challenger becomes champion on the evidence of the held-out window (the first one by "
    "the rule `bootstrap`), else it stays challenger. Both are entered in the ledger; no skill is no failure.",
)
def champion(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    registry: RegistryResource,
    training: TrainingSettings,
    gate: GateSettings,
) -> dg.MaterializeResult[None]:
    """The alias `champion` in MLflow."""
    from orchestration import judging

    store = lake.open()
    models = registry.open(store)
    version = models.challenger()
    if version is None:
        context.log.info("there is no challenger: the champion stays")
        return dg.MaterializeResult(metadata={"champion": models.champion() or "none", "promoted": False})
    decision = judging.decide(models, judging.load(store, version), gate.rules(training.seed))
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


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"mlflow"},
    description="How the champion does live, beside the interval that the gate promoted it for: when the live record "
    "lies wholly below it, the champion before takes its place again. Moves of the alias that were made by hand are "
    "entered in the ledger first. A sensor asks for it when either is due.",
)
def live_record(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    registry: RegistryResource,
    training: TrainingSettings,
    gate: GateSettings,
) -> dg.MaterializeResult[None]:
    """The ledger's entries of moves by hand and of demotions."""
    from orchestration import live_records

    store = lake.open()
    models = registry.open(store)
    for moved in models.reconcile():
        context.log.warning("%s was found at version %s: %s", moved.alias, moved.version, moved.reason)
    found = live_records.look(store, models.ledger, gate.demotion(training.seed), training.plan().horizon_minutes)
    if found is None:
        return dg.MaterializeResult(metadata={"champion": "none", "demoted": False})
    context.log.info("bundle %s: %s", found.tenure.version, found.verdict.reason)
    entry = live_records.act(models, found)
    metadata: dict[str, dg.RawMetadataValue] = {
        "champion": models.champion() or "none",
        "judged": found.tenure.version,
        "demoted": entry is not None,
        "reason": found.verdict.reason,
        **{name: value for name, value in found.verdict.numbers.items() if value is not None},
    }
    if found.live is not None:
        metadata["running_r"] = plots.shown(plots.running_r({found.tenure.version: found.live}), "live positions")
    return dg.MaterializeResult(metadata=metadata)
