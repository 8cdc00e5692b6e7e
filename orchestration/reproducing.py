"""Rebuild a registered bundle from the data and settings that it records, and compare what comes out.

Every model is trained again, on the training set or the opportunities under the recorded hash, and on the models that
were rebuilt before it. One that was continued from a champion begins with that champion's model, from the registry.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from market.lake import Lake
from models_registry.assembling import assemble, train_model
from models_registry.bundle import GIVEN_BY, golden_arrays, golden_differences
from models_registry.component_folder import component_of_bundle, save_component
from models_registry.continuing import StartingPoint
from models_registry.errors import BundleRejected, DataGone
from models_registry.manifest import DQN, WIN, Component, Manifest, Provenance
from models_registry.opportunities import Opportunities
from models_registry.provenance import identity
from models_registry.registry import Registry
from models_registry.runtime import Predictor, read_manifest
from models_registry.structure_autoencoder import Progress
from models_registry.training_config import TrainingConfig, models_of, no_progress
from models_registry.training_set import TrainingSet
from orchestration import training_data


@dataclass(frozen=True)
class Rebuilt:
    """One model that was trained again."""

    name: str
    sha256: str | None
    """Of the file that the bundle serves; None for a plain version."""
    same: bool
    """The file that was rebuilt has that sum, too; of a plain version that it is the same one."""
    differences: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Of each golden output of the model the largest difference, and its tolerance."""

    @property
    def reproduced(self) -> bool:
        """The same file, or outputs within their tolerance."""
        if not self.differences:
            return self.same
        return all(difference <= tolerance for difference, tolerance in self.differences.values())

    def __str__(self) -> str:
        if self.same and self.reproduced:
            return f"{self.name}: the same " + ("plain version" if self.sha256 is None else f"file {self.sha256[:12]}")
        shown = [f"{name} differs by {most:.3g}, tolerance {at:g}" for name, (most, at) in self.differences.items()]
        return f"{self.name}: {'; '.join(['the same file' if self.same else 'another file', *shown])}"


def reproduce(lake: Lake, registry: Registry, version: str, progress: Progress = no_progress) -> list[Rebuilt]:
    """Train the models of the registered bundle `version` again and compare them with it, in the order of training.

    Raises `DataGone` when the lake has not what a model was trained on, `TrainingConfigUnreadable` for settings of
    another version, `BundleRejected` for a bundle that does not say what it was trained on.
    """
    with tempfile.TemporaryDirectory() as work:
        return list(_Workshop(lake, registry, version, Path(work), progress).compared())


class _Workshop:
    """Where one bundle is rebuilt."""

    def __init__(self, lake: Lake, registry: Registry, version: str, work: Path, progress: Progress) -> None:
        self._lake, self._registry, self._work, self._progress = lake, registry, work, progress
        self._original = self._bundle(version)
        self.manifest = read_manifest(self._original)
        self.config = TrainingConfig.from_json(self.manifest.config)
        self._records = {name: self._record(name) for name in models_of(self.config)}
        self._rows: dict[str, TrainingSet] = {}
        for name, record in self._records.items():
            self._check_data(name, record)

    def compared(self) -> Iterator[Rebuilt]:
        """Each model, once all are trained."""
        folders: dict[str, Path] = {}
        for name in self._records:
            folders[name] = self._train(name, folders)
        rebuilt = assemble(self._rows_of(WIN), self.config, folders, self._work / "rebuilt")
        differences = self._differences(rebuilt.folder, rebuilt.manifest)
        for name in self._records:
            one, other = self.manifest.components[name], rebuilt.manifest.components[name]
            yield Rebuilt(name, _served(one), _same(one, other), differences.get(name, {}))

    def _train(self, name: str, below: dict[str, Path]) -> Path:
        record, folder = self._records[name], self._work / "models" / name
        config = replace(self.config, seed=record.seed, holdout_start_ms=record.holdout_start_ms)
        start = None
        if record.continued_from is not None:
            parent = self._bundle(record.continued_from)
            part = read_manifest(parent).components[name]
            start = StartingPoint(
                record.continued_from, component_of_bundle(parent, part, self._work / "starts" / name)
            )
        rows = self._rows_of(WIN if name == DQN else name)
        found = self._opportunities(record) if name == DQN else None
        component = train_model(name, rows, below, config, folder, self._progress, start=start, opportunities=found)
        _serve(folder, component, self.manifest.components[name])
        return folder

    def _differences(self, folder: Path, rebuilt: Manifest) -> dict[str, dict[str, tuple[float, float]]]:
        """By model and golden output."""
        golden = self.manifest.golden
        found: dict[str, dict[str, tuple[float, float]]] = {name: {} for name in self._records}
        if golden is None:
            return found
        with Predictor(folder, rebuilt) as predictor:
            differences = golden_differences(predictor, golden_arrays(self._original / golden.file))
        for output, most in differences.items():
            if GIVEN_BY[output] in found:
                found[GIVEN_BY[output]][output] = most, golden.tolerance[output]
        return found

    def _bundle(self, version: str) -> Path:
        folder = self._work / "bundles" / version
        return folder if folder.is_dir() else self._registry.download(version, folder)

    def _record(self, name: str) -> Provenance:
        part = self.manifest.components.get(name)
        if part is None or part.provenance is None:
            raise BundleRejected(self._original, f"{name} does not say what it was trained on")
        return part.provenance

    def _check_data(self, name: str, record: Provenance) -> None:
        kept = training_data.OPPORTUNITIES if name == DQN else training_data.FOLDER
        path = f"{kept}/{record.data_hash}.npz"
        if not self._lake.exists(path):
            raise DataGone(name, record.data_hash, path)

    def _rows_of(self, name: str) -> TrainingSet:
        wanted = self._records[name].data_hash
        if wanted not in self._rows:
            self._rows[wanted] = training_data.load(self._lake, wanted)
        return self._rows[wanted]

    def _opportunities(self, record: Provenance) -> Opportunities:
        return training_data.load_opportunities(self._lake, record.data_hash)


def _served(component: Component) -> str | None:
    return None if component.served is None else component.files[component.served]


def _same(one: Component, other: Component) -> bool:
    return identity(one) == identity(other) if one.served is None else _served(one) == _served(other)


def _serve(folder: Path, rebuilt: Component, recorded: Component) -> None:
    """Serve the format that the bundle serves: which one is faster is measured anew each time, and may turn out so."""
    report = rebuilt.formats.get(recorded.format or "")
    if rebuilt.format != recorded.format and report is not None and report.file is not None:
        save_component(folder, msgspec.structs.replace(rebuilt, served=report.file, format=recorded.format))
