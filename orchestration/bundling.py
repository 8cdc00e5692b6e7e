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
from models_registry.manifest import Component, Manifest, component_digest, content_digest
from models_registry.plots import component_plots
from models_registry.registry import Registry, RunRecord
from models_registry.training_config import TrainingConfig, models_of
from models_registry.training_set import TrainingSet
from orchestration.choosing import put_up
from orchestration.model_folders import fetch


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
    on_assembled: Callable[[Manifest], object] = lambda manifest: None,
) -> Registered:
    """Register the current components and the bundle of them, and put it up as challenger unless it is champion.

    `on_assembled` is handed its manifest before the bundle is registered, with the components' own versions.
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
        on_assembled(assembled)
        numbered = _Numbering(folder, assembled, versions)
        version = registry.register(folder, _bundle_record(assembled), numbered, content_digest(assembled))
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
    metrics = {key: metric.value for key, metric in component.metrics.items() if metric.value is not None}
    baselines = {
        f"{key}_baseline": metric.baseline for key, metric in component.metrics.items() if metric.baseline is not None
    }
    return RunRecord(
        metrics=metrics | baselines,
        parameters={"format": component.format or "none", "served": component.served or "plain version"},
        tags={"fallback": component.fallback} if component.fallback else {},
        plots=component_plots(name, component),
    )


def _bundle_record(manifest: Manifest) -> RunRecord:
    training = manifest.training
    plots = {
        f"{name}_{plot}": png
        for name, component in manifest.components.items()
        for plot, png in component_plots(name, component).items()
    }
    return RunRecord(
        metrics={key: metric.value for key, metric in manifest.metrics.items() if metric.value is not None},
        parameters={
            "rows": training.rows,
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
