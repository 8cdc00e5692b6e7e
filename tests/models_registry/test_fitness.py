"""Whether a bundle may decide at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models_registry.assembling import TrainedBundle
from models_registry.fitness import WAVE_ROWS, fitness, integrity, latency_ms, unfit_formats
from models_registry.manifest import WIN, Manifest
from models_registry.runtime import Predictor
from models_registry.training_set import TrainingSet
from tests.models_registry.planted import NAMES, SPEC_ID


class Spec:
    id = SPEC_ID
    names = NAMES


def changed(manifest: Manifest, **fields: object) -> Manifest:
    component = msgspec.structs.replace(manifest.components[WIN], **fields)
    return msgspec.structs.replace(manifest, components={**manifest.components, WIN: component})


def test_a_whole_bundle_is_fit(trained: TrainedBundle, planted_set: TrainingSet) -> None:
    assert integrity(trained.folder, Spec()) is None
    with Predictor.load(trained.folder) as predictor:
        found = fitness(predictor, planted_set)
    assert (found.integrity, found.unfit_formats, found.latency_rows) == (None, {}, WAVE_ROWS)
    assert found.latency_ms is not None
    assert found.latency_ms > 0


def test_a_bundle_whose_files_were_changed_is_not_whole(trained: TrainedBundle, tmp_path: Path) -> None:
    folder = shutil.copytree(trained.folder, tmp_path / "bundle")
    served = trained.manifest.components[WIN].served
    assert served is not None
    (folder / served).unlink()
    assert integrity(folder, Spec()) == f"{served} is missing"


def test_a_served_format_that_did_not_pass_is_named(trained: TrainedBundle) -> None:
    manifest, part = trained.manifest, trained.manifest.components[WIN]
    assert part.format is not None
    failed = msgspec.structs.replace(part.formats[part.format], passed=False, failed="it differs by 0.3")
    assert unfit_formats(changed(manifest, formats={part.format: failed})) == {
        WIN: f"{part.format} did not pass: it differs by 0.3"
    }
    assert unfit_formats(changed(manifest, format="other")) == {
        WIN: "it serves other, which was never compared with the original"
    }
    assert unfit_formats(changed(manifest, formats={})) == {}, "nothing was converted"
    plain = changed(manifest, served=None, format=None, fallback="left out", formats={part.format: failed})
    assert unfit_formats(plain) == {}, "the plain version stands in"


def test_a_wave_is_filled_from_fewer_rows(trained: TrainedBundle, planted_set: TrainingSet) -> None:
    asked: list[int] = []

    class Asked(Predictor):
        def predict(self, decision, *rest, **more):  # type: ignore[no-untyped-def]
            asked.append(len(decision))
            return super().predict(decision, *rest, **more)

    with Asked.load(trained.folder) as predictor:
        latency_ms(predictor, planted_set.select(np.arange(len(planted_set)) < 7), repeats=3)
        assert asked == [WAVE_ROWS] * 3
        with pytest.raises(ValueError, match="no rows"):
            latency_ms(predictor, planted_set.select(np.zeros(len(planted_set), dtype=bool)))
