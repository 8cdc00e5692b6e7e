"""What a bundle says it has seen is what its models have seen, and models of different families are kept apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models_registry.assembling import TrainedBundle, assemble
from models_registry.component_folder import load_component, save_component
from models_registry.errors import ComponentsDiffer
from models_registry.evaluation import evaluate
from models_registry.manifest import (
    AUTOENCODER,
    WIN,
    Component,
    Manifest,
    component_digest,
    content_digest,
    decode,
    encode,
)
from models_registry.provenance import PLAIN, identity, together
from models_registry.runtime import Predictor
from models_registry.training import train_win_classifier
from models_registry.training_config import TrainingConfig, split_of
from models_registry.training_set import TrainingSet
from tests.models_registry import planted
from tests.models_registry.conftest import SMALL

QUICK = replace(SMALL, win=replace(SMALL.win, rounds=10))


def models_of(bundle: TrainedBundle) -> dict[str, Path]:
    """The folders that the bundle was assembled from."""
    return {name: bundle.folder.with_name(f"{bundle.folder.name}.models") / name for name in (AUTOENCODER, WIN)}


def changed(folder: Path, to: Path, **values: object) -> Path:
    """A copy of a component's folder with other values in its `component.json`."""
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    save_component(to, msgspec.structs.replace(load_component(folder), **values))
    return to


def win_on(folders: Mapping[str, Path], rows: TrainingSet, config: TrainingConfig, to: Path) -> dict[str, Path]:
    """The folders with a win model trained anew."""
    train_win_classifier(rows, {AUTOENCODER: folders[AUTOENCODER]}, config, to)
    return {**folders, WIN: to}


def test_each_component_records_what_it_has_seen(trained: TrainedBundle, planted_set: TrainingSet) -> None:
    split = split_of(planted_set, SMALL)
    autoencoder, win = (trained.manifest.components[name] for name in (AUTOENCODER, WIN))
    labels, windows = win.provenance, autoencoder.provenance
    assert labels is not None
    assert windows is not None
    seen = np.concatenate([split.fit, split.validation])
    assert labels.last_known_at == planted_set.known_at[seen].max()
    assert (labels.start_ms, labels.end_ms) == (planted_set.decided_at[seen].min(), planted_set.decided_at[seen].max())
    assert labels.splits == {"fit": len(split.fit), "validation": len(split.validation), "holdout": len(split.holdout)}
    assert labels.plan["horizon_minutes"] == 240
    assert labels.reads == {AUTOENCODER: identity(autoencoder)}
    early = planted_set.unlabelled_at < split.holdout_start_ms - SMALL.embargo_ms
    assert windows.last_known_at == planted_set.unlabelled_at[early].max()
    assert windows.rows == windows.splits["fit"] + windows.splits["validation"] <= early.sum()
    assert windows.reads == {}
    for record in (labels, windows):
        assert record.data_hash == planted_set.data_hash
        assert record.holdout_start_ms == split.holdout_start_ms
        assert (record.seed, record.decision_spec) == (SMALL.seed, planted.SPEC_ID)


def test_a_win_model_of_another_autoencoder_is_refused(
    trained: TrainedBundle, planted_set: TrainingSet, tmp_path: Path
) -> None:
    folders = models_of(trained)
    served = load_component(folders[AUTOENCODER])
    mean = [value + 0.1 for value in served.parameters["mean"]]
    other = changed(folders[AUTOENCODER], tmp_path / "other", parameters={**served.parameters, "mean": mean})
    with pytest.raises(ComponentsDiffer, match="another structure_autoencoder") as refused:
        assemble(planted_set, SMALL, {**folders, AUTOENCODER: other}, tmp_path / "bundle")
    assert refused.value.asset == WIN
    assert str(refused.value).endswith("materialise win_classifier again")
    assert not (tmp_path / "bundle").exists()
    # Trained again on it, it belongs.
    mended = win_on({**folders, AUTOENCODER: other}, planted_set, QUICK, tmp_path / "win")
    assert assemble(planted_set, QUICK, mended, tmp_path / "bundle").manifest.components[WIN].served


def test_a_win_model_belongs_to_the_plain_version_only_when_trained_on_it(
    trained: TrainedBundle, planted_set: TrainingSet, tmp_path: Path
) -> None:
    folders = models_of(trained)
    plain = changed(folders[AUTOENCODER], tmp_path / "plain", served=None, format=None, fallback="not trained")
    for others in ({**folders, AUTOENCODER: plain}, {WIN: folders[WIN]}):
        with pytest.raises(ComponentsDiffer, match="materialise win_classifier again"):
            assemble(planted_set, SMALL, others, tmp_path / "bundle")
    mended = win_on({**folders, AUTOENCODER: plain}, planted_set, QUICK, tmp_path / "win")
    assert load_component(mended[WIN]).provenance.reads == {}
    assemble(planted_set, QUICK, mended, tmp_path / "both")
    assemble(planted_set, QUICK, {WIN: mended[WIN]}, tmp_path / "alone")


def test_what_the_file_says_is_another_autoencoder_and_its_number_is_not(trained: TrainedBundle) -> None:
    component = trained.manifest.components[AUTOENCODER]
    assert identity(msgspec.structs.replace(component, version="12")) == identity(component)
    retrained = {**component.files, str(component.served): "0" * 64}
    assert identity(msgspec.structs.replace(component, files=retrained)) != identity(component)
    assert identity(None) == PLAIN != identity(component)


@pytest.mark.parametrize("late", [AUTOENCODER, WIN])
def test_a_bundle_has_seen_all_that_any_of_its_models_has(
    trained: TrainedBundle, planted_set: TrainingSet, tmp_path: Path, late: str
) -> None:
    """The settings at assembly say an early holdout; one of the models was trained up to a later one."""
    folders = models_of(trained)
    early = replace(QUICK, holdout_start_ms=int(planted_set.decided_at[1200]))
    if late == AUTOENCODER:
        folders = win_on(folders, planted_set, early, tmp_path / "win")
    seen = {name: load_component(folder).provenance for name, folder in folders.items()}
    other = WIN if late == AUTOENCODER else AUTOENCODER
    bundle = assemble(planted_set, early, folders, tmp_path / "bundle")
    record = bundle.manifest.training
    assert record.last_known_at == max(part.last_known_at for part in seen.values()) > early.holdout_start_ms
    assert record.holdout_start_ms == seen[late].holdout_start_ms >= seen[other].holdout_start_ms
    assert record.rows == seen[WIN].rows
    with Predictor.load(bundle.folder) as predictor:
        assert evaluate(predictor, planted_set, start_ms=record.holdout_start_ms).rows > 0


def test_a_later_training_set_changes_nothing_of_what_was_seen(
    trained: TrainedBundle, planted_set: TrainingSet, tmp_path: Path
) -> None:
    later = planted.training_set(rows=2600, seed=9, days=25.0)
    plan = {"stop_atr": 9.0}
    bundle = assemble(later, replace(SMALL, seed=99, plan=plan), models_of(trained), tmp_path / "bundle")
    assert bundle.manifest.training == trained.manifest.training
    assert bundle.manifest.training.data_hash == planted_set.data_hash != later.data_hash
    assert bundle.manifest.plan == trained.manifest.plan


def test_models_of_another_specification_or_of_unknown_data_are_refused(
    trained: TrainedBundle, planted_set: TrainingSet, tmp_path: Path
) -> None:
    components = trained.manifest.components
    with pytest.raises(ComponentsDiffer, match="decision-test-1, the training set is decision-2") as refused:
        assemble(replace(planted_set, decision_spec_id="decision-2"), SMALL, models_of(trained), tmp_path / "bundle")
    assert refused.value.asset == AUTOENCODER
    nameless = msgspec.structs.replace(components[WIN], provenance=None)
    with pytest.raises(ComponentsDiffer, match="does not say what it was trained on: materialise win_classifier"):
        together({**components, WIN: nameless}, planted.SPEC_ID)


def slower(component: Component) -> Component:
    """The same model, measured on a busy machine and numbered by a registry."""
    formats = {
        name: msgspec.structs.replace(found, latency_us=1e4, speedup=0.5, original_us=3.0)
        for name, found in component.formats.items()
    }
    return msgspec.structs.replace(component, formats=formats, version="7")


def test_the_digest_is_of_the_content_not_of_the_circumstances(trained: TrainedBundle) -> None:
    manifest = trained.manifest
    components = {name: slower(part) for name, part in manifest.components.items()}
    same = msgspec.structs.replace(
        manifest, components=components, parent="other", bundle_version="12", code_version="of another commit"
    )
    assert encode(same) != encode(manifest)
    assert content_digest(same) == content_digest(manifest) == content_digest(decode(encode(manifest)))
    keras = {**components[AUTOENCODER].files, "structure_autoencoder.keras": "0" * 64}
    assert component_digest(msgspec.structs.replace(components[AUTOENCODER], files=keras)) == component_digest(
        manifest.components[AUTOENCODER]
    )


def test_whatever_decides_differently_is_another_content(trained: TrainedBundle) -> None:
    manifest = trained.manifest
    win = manifest.components[WIN]

    def of_win(**values: object) -> Manifest:
        components = {**manifest.components, WIN: msgspec.structs.replace(win, **values)}
        return msgspec.structs.replace(manifest, components=components)

    others = [
        of_win(files={**win.files, str(win.served): "0" * 64}),
        of_win(served=None, fallback="not trained"),
        of_win(parameters={**win.parameters, "trees": 1}),
        of_win(provenance=msgspec.structs.replace(win.provenance, last_known_at=1)),
        msgspec.structs.replace(manifest, plan={}),
        msgspec.structs.replace(manifest, training=msgspec.structs.replace(manifest.training, last_known_at=1)),
    ]
    digests = {content_digest(other) for other in [manifest, *others]}
    assert len(digests) == 1 + len(others)
