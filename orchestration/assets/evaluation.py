"""What the models are found to know, judged forward in time."""

import dagster as dg

from orchestration import plots
from orchestration.assets.training import OWNERS, opportunities, training_set
from orchestration.resources import LakeResource, RegistryResource, TrainingSettings

GROUP = "models"


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"tensorflow", "xgboost"},
    deps=[training_set, opportunities],
    description="Every model trained from scratch on what came before a fold and judged on the fold; those that go on "
    "from a champion are judged prequentially too. Metrics beside baselines over all folds, deflated by every bundle "
    "that was ever trained. A fold that was judged is kept: a run that was ended goes on with the next.",
)
def model_evaluation(
    context: dg.AssetExecutionContext, lake: LakeResource, registry: RegistryResource, training: TrainingSettings
) -> dg.MaterializeResult[None]:
    """`evaluations/models-HASH.json` in the lake."""
    from models_registry.evaluation_table import evaluation_markdown
    from models_registry.trial_log import TrialLog
    from orchestration import evaluating, training_data

    store = lake.open()
    rows = training_data.load(store)
    found = evaluating.evaluate_models(
        store,
        rows,
        training_data.load_opportunities(store) if training.strategy_dqn else None,
        training.config(int(rows.decided_at[-1])),
        training.walk_forward(),
        TrialLog.beside(registry.ledger).count(),
        lambda stage, done: context.log.info("%s: %.0f %%", stage, 100 * done),
    )
    judged = [fold for fold in found.folds if fold.failed is None]
    return dg.MaterializeResult(
        metadata={
            "folds": len(judged),
            "trials": found.trials,
            "path": evaluating.path_of(found.key),
            "table": dg.MetadataValue.md(evaluation_markdown(found)),
            "improvements": plots.shown(plots.improvements(found.from_scratch), "improvements over the baselines"),
            **plots.shown_all(plots.by_fold(found)),
        },
        data_version=dg.DataVersion(found.key),
    )
