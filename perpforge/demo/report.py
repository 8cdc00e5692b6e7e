"""The demo's summary, from what it left behind: the bundles' manifests, the ledger and the worker's journal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models_registry.manifest import Component, Manifest, Metric
from perpforge.demo.summary import BundleReport, ModelScore, Score

if TYPE_CHECKING:
    from perpforge.demo.building import GateVerdict

RECONSTRUCTION = "reconstruction_error"


@dataclass(frozen=True)
class Trades:
    """What the worker's journal holds."""

    signals: int
    opened: int
    outcomes: dict[str, int]
    mean_r: float | None
    waves: int


def read_trades(journal: Path) -> Trades:
    """Count signals, positions and outcomes in a worker's journal; the mean R is net of all costs."""
    from features.barriers import OUTCOME
    from trading_worker import events
    from trading_worker.journal import read

    signals = opened = waves = 0
    closed: list[events.PositionClosed] = []
    for entry in read(journal):
        event = entry.event
        signals += isinstance(event, events.Signal)
        opened += isinstance(event, events.PositionOpened)
        waves += isinstance(event, events.WaveClosed) and event.decided
        if isinstance(event, events.PositionClosed):
            closed.append(event)
    return Trades(
        signals=signals,
        opened=opened,
        outcomes=dict(sorted(Counter(OUTCOME[event.outcome] for event in closed).items())),
        mean_r=sum(event.r for event in closed) / len(closed) if closed else None,
        waves=waves,
    )


def score(component: Component) -> ModelScore:
    """A component's headline metric, and an autoencoder's compression beside it."""
    headline = component.headline or ""
    reconstruction = component.metrics.get(RECONSTRUCTION) if headline != RECONSTRUCTION else None
    return ModelScore(
        **_plain(headline, component.metrics.get(headline)),
        served=component.format or f"fallback: {component.fallback}",
        compression=Score(**_plain(RECONSTRUCTION, reconstruction)) if reconstruction else None,
    )


def _plain(name: str, metric: Metric | None) -> dict[str, Any]:
    metric = metric or Metric(value=None)
    return {
        "metric": metric.value,
        "metric_name": name.replace("_", " "),
        "baseline": metric.baseline,
        "baseline_name": metric.baseline_name,
        "interval": metric.interval,
        "rows": metric.rows,
    }


def bundle_report(manifest: Manifest, decision: GateVerdict, override: str | None) -> BundleReport:
    """One bundle as the summary shows it."""
    return BundleReport(
        version=decision.version,
        promoted=decision.promoted,
        rule=decision.rule,
        reasons=decision.reasons,
        override=override,
        training_rows=manifest.training.rows,
        live_labels=manifest.training.live_labels,
        models={name: score(component) for name, component in manifest.components.items()},
    )
