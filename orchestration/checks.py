"""Checks: what must hold of an asset before others are built on it."""

import dagster as dg

from orchestration.assets.bundle import trading_bundle
from orchestration.assets.market import klines
from orchestration.partitions import DAYS
from orchestration.resources import LakeResource, MarketResource, RegistryResource


@dg.asset_check(
    asset=klines,
    blocking=True,
    description="Bars ascend and are possible klines, and every minute inside a symbol's coverage has a bar or is "
    "accounted for in the gaps, which may hold a twentieth of a day at most. Blocks what is built on the klines.",
)
def klines_are_sound(
    context: dg.AssetCheckExecutionContext, lake: LakeResource, market: MarketResource
) -> dg.AssetCheckResult:
    """Looks at the days of the run; without any, at all that are stored."""
    from market.klines_store import stored_dates
    from orchestration.soundness import examine, words

    store = lake.open()
    run = context.op_execution_context
    days = DAYS.get_partition_keys_in_range(run.partition_key_range) if run.has_partition_key_range else None
    found = examine(store, market.view(), days if days is not None else stored_dates(store), market.most_missing)
    return dg.AssetCheckResult(
        passed=not found.faults,
        severity=dg.AssetCheckSeverity.ERROR,
        description=words(found.faults) or f"{found.bars} bars of {found.days} days are sound",
        metadata={
            "days": found.days,
            "bars": found.bars,
            "known_gap_minutes": found.known_gaps,
            "faults": len(found.faults),
        },
    )


@dg.asset_check(
    asset=trading_bundle,
    blocking=True,
    description="The bundle that was just registered, downloaded again: every hash, the DecisionSpec and the golden "
    "outputs. Blocks its evaluation.",
)
def bundle_is_whole(context: dg.AssetCheckExecutionContext, registry: RegistryResource) -> dg.AssetCheckResult:
    """What a worker checks before it lets a bundle decide, of the version that the asset last said it made."""
    import tempfile
    from pathlib import Path

    from models_registry.errors import BundleRejected
    from models_registry.registry import verify_bundle

    made = context.op_execution_context.instance.get_latest_materialization_event(trading_bundle.key)
    if made is None or made.asset_materialization is None:
        return dg.AssetCheckResult(passed=False, description="no bundle has been materialised yet")
    version = str(made.asset_materialization.metadata["version"].value)
    with tempfile.TemporaryDirectory() as folder:
        try:
            verify_bundle(registry.open().download(version, Path(folder) / "bundle"))
        except BundleRejected as rejected:
            return dg.AssetCheckResult(passed=False, description=str(rejected), metadata={"version": version})
    return dg.AssetCheckResult(passed=True, description=f"bundle {version} is whole", metadata={"version": version})


@dg.asset_check(
    asset=trading_bundle,
    description="Each of the four networks has an INT8 file that passed its parity, and together they decide as their "
    "fp32 files do. Warns: where one has not, fp32 or the plain version is served, and its table of formats says why.",
)
def networks_are_quantised(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Of the bundle that the asset last said it made."""
    import msgspec

    from models_registry.fitness import unquantised
    from models_registry.manifest import Manifest
    from models_registry.quantised_decisions import unfit

    made = context.op_execution_context.instance.get_latest_materialization_event(trading_bundle.key)
    if made is None or made.asset_materialization is None:
        return dg.AssetCheckResult(
            passed=False, severity=dg.AssetCheckSeverity.WARN, description="no bundle has been materialised yet"
        )
    manifest = msgspec.convert(made.asset_materialization.metadata["manifest"].value, Manifest)
    found = [f"{name}: {reason}" for name, reason in unquantised(manifest).items()]
    together = unfit(manifest.quantised)
    return dg.AssetCheckResult(
        passed=not found and together is None,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join([*found, *([together] if together else [])]) or "all four networks passed as INT8",
        metadata={"version": manifest.bundle_version},
    )
