"""From trained components in the lake to a registered bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from market.lake import Lake
from models_registry.assembling import assemble
from models_registry.bundle import rewrite_manifest
from models_registry.component_folder import load_component
from models_registry.manifest import Component, Manifest, Metric, component_digest, content_digest
from models_registry.plots import component_plots
from models_registry.registry import Registry, RunRecord
from models_registry.training_config import TrainingConfig, models_of
from models_registry.training_set import TrainingSet
from models_registry.trials import deflate
from orchestration.choosing import put_up
from orchestration.model_folders import fetch
from orchestration.tables import seen


@dataclass(frozen=True)
class Registered:
    """A bundle in the registry."""

    version: str
    manifest: Manifest

    def as_json(self) -> dict[str, Any]:
        """The manifest as plain values."""
        plain: dict[str, Any] = msgspec.to_builtins(self.manifest)
        return plain


def register_bundle(
    lake: Lake,
    registry: Registry,
    rows: TrainingSet,
    config: TrainingConfig,
    on_assembled: Callable[[Manifest], int] = lambda manifest: 1,
) -> Registered:
    """Register the current components and the bundle of them, and put it up as challenger unless it is champion.

    `on_assembled` is handed its manifest before the bundle is registered, with the components' own versions, and says
    how many bundles were trained so far, this one counted.
    Where a candidate of the other kind waits for the gate, the better of both is put up (`choosing`).
    """
    with tempfile.TemporaryDirectory() as work:
        folders = fetch(lake, models_of(config), Path(work))
        versions = {}
        for name, folder in folders.items():
            part = load_component(folder)
            record = _component_record(name, part)
            versions[name] = registry.register_component(name, folder, record, component_digest(part))
        folder = Path(work) / "bundle"
        assembled = assemble(rows, config, folders, folder).manifest
        trials = on_assembled(assembled)
        numbered = _Numbering(folder, assembled, versions)
        version = registry.register(folder, _bundle_record(assembled, trials), numbered, content_digest(assembled))
        if numbered.manifest.bundle_version != version:
            numbered(version)  # it was registered before
        if version not in (registry.champion(), registry.challenger()):
            put_up(registry, version, folder, rows, config.win.threshold, config.seed)
    return Registered(version, numbered.manifest)


class _Numbering:
    """Writes the registry's numbers into the manifest of the bundle in `folder`."""

    def __init__(self, folder: Path, assembled: Manifest, components: Mapping[str, str]) -> None:
        self._folder = folder
        self._components = {
            name: msgspec.structs.replace(part, version=components[name]) for name, part in assembled.components.items()
        }
        self.manifest = assembled

    def __call__(self, version: str) -> None:
        self.manifest = msgspec.structs.replace(self.manifest, bundle_version=version, components=self._components)
        rewrite_manifest(self._folder, self.manifest)


def _component_record(name: str, component: Component) -> RunRecord:
    record = component.provenance
    return RunRecord(
        metrics=_scores(component.metrics),
        parameters={
            "format": component.format or "none",
            "served": component.served or "plain version",
            **({} if record is None else seen(record)),
        },
        tags={"fallback": component.fallback} if component.fallback else {},
        plots=component_plots(name, component),
    )


def _scores(metrics: Mapping[str, Metric], trials: int | None = None) -> dict[str, float]:
    """Each metric with its baseline, the ends of its improvement's interval, and the smallest improvement that the
    sample would have shown. As claims, the newest of so many `trials`, with the deflated improvement too."""
    claims = 1 if trials is None else max(1, len(metrics))
    found: dict[str, float | None] = {}
    for name, metric in metrics.items():
        found |= {name: metric.value, f"{name}_baseline": metric.baseline, f"{name}_improvement": metric.improvement}
        if metric.interval is None or metric.improvement is None:
            continue
        found |= {f"{name}_low": metric.interval[0], f"{name}_high": metric.interval[1]}
        worth = deflate(metric.improvement, metric.interval, trials or 1, claims)
        found[f"{name}_smallest_detectable"] = worth.smallest_detectable
        found |= {} if trials is None else {f"{name}_deflated": worth.deflated}
    return {name: value for name, value in found.items() if value is not None}


def _bundle_record(manifest: Manifest, trials: int) -> RunRecord:
    training = manifest.training
    plots = {
        f"{name}_{plot}": png
        for name, component in manifest.components.items()
        for plot, png in component_plots(name, component).items()
    }
    return RunRecord(
        metrics=_scores(manifest.metrics, trials) | _quantised(manifest),
        parameters={
            **seen(training),
            "trials": trials,
            "live_labels": training.live_labels,
            "seed": training.seed,
            "code_version": manifest.code_version,
        },
        tags={
            "decision_spec": manifest.decision_spec.id,
            "parent": manifest.parent or "none",
            "data_hash": training.data_hash,
        },
        plots=plots,
    )


def _quantised(manifest: Manifest) -> dict[str, float]:
    found = manifest.quantised
    if found is None:
        return {}
    return {
        "quantised.win_probability_p99": found.win_probability_p99,
        "quantised.actions_agreement": found.actions_agreement,
    }
