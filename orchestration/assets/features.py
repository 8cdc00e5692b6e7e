"""Features and labels: what the market looked like, and how trades would have ended or did."""

from collections.abc import Sequence

import dagster as dg

from orchestration import plots
from orchestration.assets.market import OWNERS, funding, klines
from orchestration.partitions import DAYS, IN_ONE_RUN
from orchestration.resources import LakeResource, MarketResource, TrainingSettings

GROUP = "features"


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"parquet", "numpy"},
    partitions_def=DAYS,
    backfill_policy=IN_ONE_RUN,
    deps=[
        klines,
        dg.AssetDep(
            "features",
            partition_mapping=dg.TimeWindowPartitionMapping(
                start_offset=-1, end_offset=-1, allow_nonexistent_upstream_partitions=True
            ),
        ),
    ],
    description="Feature rows of every series on 5m, 15m and 1h, in order: each day continues from the state that the "
    "day before left, so the rows are the bits of one uninterrupted run. The state at the day's end is kept too. A day "
    "whose klines and whose yesterday are as they were is left as it is. A day whose state comes out otherwise than "
    "before (its klines were mended, or an earlier day was added) takes all later days with it: materialise those "
    "again, too; a day whose yesterday is missing is refused.",
)
def features(
    context: dg.AssetExecutionContext, lake: LakeResource, market: MarketResource
) -> dg.MaterializeResult[None]:
    """The lake's datasets `features`, `feature_state` and `feature_days`."""
    from features import DECISION_SPEC
    from orchestration.feature_days import compute_days, in_words
    from orchestration.soundness import require

    store = lake.open()

    def sound(days: Sequence[str]) -> None:
        # A blocking check stops only runs that it is part of; this one may have been started on its own.
        require(store, market.view(), days, market.most_missing)

    done, dropped = [], set[str]()
    for day in compute_days(store, context.partition_keys, require=sound):
        context.add_asset_metadata(
            {"rows": day.rows, "unchanged": day.unchanged, "restarted": len(day.restarts)}, partition_key=day.date
        )
        done.append(day)
        dropped = {*dropped, *day.dropped} - {day.date}
    again = f"{min(dropped)} to {max(dropped)}" if dropped else "nothing"
    if dropped:
        context.log.warning(
            "%d later days had continued from another state and were dropped: materialise features of %s again",
            len(dropped),
            again,
        )
    restarts = [restart for day in done for restart in day.restarts]
    if restarts:
        context.log.warning("not warm after a gap that is too long to bridge: %s", in_words(restarts))
    columns = list(DECISION_SPEC.base.names)
    return dg.MaterializeResult(
        metadata={
            "rows_of_run": sum(day.rows for day in done),
            "computed_days": sum(not day.unchanged for day in done),
            "unchanged_days": sum(day.unchanged for day in done),
            "dropped_days": len(dropped),
            "materialise_again": again,
            "restarted_series": len(restarts),
            "restarted": in_words(restarts),
            "columns": len(columns),
            "names": columns,
            "spec": DECISION_SPEC.base.id,
        },
    )


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"parquet", "numpy"},
    deps=[klines, funding, features],
    description="How every candidate of the stored history would have ended: stop, target or expiry on 1m bars, net of "
    "costs. The same compiled step follows positions live.",
)
def labels(
    context: dg.AssetExecutionContext, lake: LakeResource, training: TrainingSettings
) -> dg.MaterializeResult[None]:
    """The lake's dataset `labels`, source `history`."""
    from orchestration.label_store import read_history, store_history_labels

    store = lake.open()
    history = read_history(store, training.history_days)
    context.log.info("labelling %d decision rows of %d days", len(history.rows), history.days)
    table = store_history_labels(store, history, training)
    r, outcome = table.labels["r"], table.labels["outcome"]
    metadata: dict[str, dg.RawMetadataValue] = {
        "dagster/row_count": len(table),
        "days": history.days,
        "decision_rows": len(history.rows),
        **{f"dropped_{reason}": count for reason, count in table.dropped.items()},
    }
    if len(table):
        metadata["won"] = float(table.won.mean())
        metadata["mean_r"] = float(r.mean())
        metadata["outcomes"] = plots.shown(plots.outcomes(r, outcome), "outcomes")
    return dg.MaterializeResult(metadata=metadata)


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"parquet"},
    description="How the workers' virtual positions ended, from the journal segments that they publish. Told apart by "
    "(worker, epoch, sequence), so ingesting twice changes nothing.",
)
def live_labels(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult[None]:
    """The lake's dataset `labels`, source `live`."""
    from orchestration.label_store import ingest_journals

    found = ingest_journals(lake.open())
    context.log.info("%d live labels, %d of them new", found.labels, found.added)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.labels,
            "labels": found.labels,
            "new": found.added,
            "segments": found.segments,
            "ticks_disagree": found.ticks_disagree,
            **({"mean_r": found.mean_r} if found.mean_r is not None else {}),
        }
    )
