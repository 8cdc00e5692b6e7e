"""The market: which symbols, their klines, their fundings. One partition a day, all symbols inside."""

import dagster as dg

from orchestration import plots
from orchestration.partitions import DAYS, IN_ONE_RUN
from orchestration.resources import LakeResource, MarketResource

GROUP = "market"
OWNERS = ["team:data"]


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"parquet"},
    partitions_def=DAYS,
    backfill_policy=IN_ONE_RUN,
    description="The symbols that trade on a day, ranked by the value traded on the day before: as they could be known "
    "when it began, so that history has no survivors only.",
)
def universe(
    context: dg.AssetExecutionContext, lake: LakeResource, market: MarketResource
) -> dg.MaterializeResult[None]:
    """The lake's dataset `universe`."""
    from orchestration.ingest import store_universe

    for date in context.partition_keys:
        table = store_universe(lake.open(), market.view(), date, market.universe_size)
        symbols = table.column("symbol").to_pylist()
        context.add_asset_metadata({"symbols": len(symbols), "first": symbols[:10]}, partition_key=date)
    return dg.MaterializeResult(metadata={"source": market.view().source.name})


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"parquet"},
    partitions_def=DAYS,
    backfill_policy=IN_ONE_RUN,
    deps=[universe],
    description="Closed 1m bars of the day's universe. Minutes that the source does not have are asked for twice, then "
    "recorded as gaps; nothing is filled.",
)
def klines(context: dg.AssetExecutionContext, lake: LakeResource, market: MarketResource) -> dg.MaterializeResult[None]:
    """The lake's datasets `klines` and `gaps`."""
    from orchestration.ingest import ingest_klines, universes

    store, view, days = lake.open(), market.view(), context.partition_keys
    symbols = universes(store, days)
    reports = []
    for number, date in enumerate(days, start=1):
        report = ingest_klines(store, view, date, symbols[date])
        reports.append(report)
        context.add_asset_metadata(
            {"bars": report.bars, "symbols": report.symbols, "gaps": len(report.gaps)}, partition_key=date
        )
        if number % 7 == 0 or number == len(days):
            context.log.info("klines of %s: day %d of %d", date, number, len(days))
    bars = sum(report.bars for report in reports)
    gaps = sum(len(report.gaps) for report in reports)
    plot = plots.shown(plots.closes([report.closes for report in reports]), "closes")
    return dg.MaterializeResult(
        metadata={"dagster/row_count": bars, "bars_of_run": bars, "gaps_of_run": gaps, "closes": plot}
    )


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"parquet"},
    partitions_def=DAYS,
    backfill_policy=IN_ONE_RUN,
    deps=[universe],
    description="What longs paid shorts, at the times at which the venue charged it.",
)
def funding(
    context: dg.AssetExecutionContext, lake: LakeResource, market: MarketResource
) -> dg.MaterializeResult[None]:
    """The lake's dataset `funding`."""
    from orchestration.ingest import ingest_funding, universes

    store, days = lake.open(), context.partition_keys
    count = ingest_funding(store, market.view(), days, universes(store, days))
    return dg.MaterializeResult(metadata={"fundings_of_run": count})
