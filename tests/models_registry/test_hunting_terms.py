"""A bundle says whether its win model has learnt from candidates that hunt liquidity, and by which settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from features.candidates import HUNT
from features.liquidity import VERSION, HuntSettings
from models_registry.assembling import assemble
from models_registry.bundle import rewrite_manifest, verify
from models_registry.errors import BundleRejected, TrainingUnavailable
from models_registry.manifest import AUTOENCODER, WIN, Component, Manifest, content_digest
from models_registry.terms import hunting_differs, hunting_terms
from models_registry.training import train_structure_autoencoder, train_win_classifier
from models_registry.training_config import TrainingConfig, split_of
from models_registry.training_set import TrainingSet
from tests.models_registry import planted
from tests.models_registry.conftest import SMALL

HUNTING = replace(SMALL, hunting=hunting_terms(HuntSettings()))


@pytest.fixture(autouse=True)
def _plain_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the models are does not matter here."""

    def unavailable(*_: object, **__: object) -> Component:
        raise TrainingUnavailable("this model", "the library")

    monkeypatch.setattr("models_registry.structure_autoencoder.train", unavailable)
    monkeypatch.setattr("models_registry.win_classifier.train", unavailable)


def rows(hunts: float) -> TrainingSet:
    """Labels of which a share hunts liquidity."""
    found = planted.training_set(rows=400)
    chosen = np.random.default_rng(0).random(len(found)) < hunts
    return replace(found, kind=np.where(chosen, HUNT, found.kind).astype(np.uint8))


def bundle(hunts: float, config: TrainingConfig, folder: Path) -> tuple[Manifest, Path]:
    given, parts = rows(hunts), {name: folder / name for name in (AUTOENCODER, WIN)}
    train_structure_autoencoder(given, config, parts[AUTOENCODER])
    train_win_classifier(given, {AUTOENCODER: parts[AUTOENCODER]}, config, parts[WIN])
    made = assemble(given, config, parts, folder / "bundle")
    return made.manifest, made.folder


def test_what_the_win_model_has_seen_is_recorded(tmp_path: Path) -> None:
    manifest, folder = bundle(0.3, HUNTING, tmp_path)
    split = split_of(rows(0.3), HUNTING)
    seen = rows(0.3).kind[np.concatenate([split.fit, split.validation])] == HUNT
    assert manifest.hunting == {"rows": seen.sum(), "threshold": 0.6, "tolerance": 0.003, "version": VERSION}
    assert verify(folder, None).hunting == manifest.hunting
    record = manifest.components[WIN].provenance
    assert record is not None
    assert record.hunting == manifest.hunting
    assert hunting_differs(manifest.hunting, HuntSettings()) is None


def test_the_switch_alone_is_no_training(tmp_path: Path) -> None:
    manifest, _ = bundle(0.0, HUNTING, tmp_path)
    assert manifest.hunting == {}
    assert hunting_differs(manifest.hunting, HuntSettings()) == "its win model was trained without hunting candidates"


def test_hunts_of_live_labels_count_also_when_the_switch_is_off_now(tmp_path: Path) -> None:
    manifest, _ = bundle(0.3, SMALL, tmp_path)
    assert set(manifest.hunting) == {"rows"}
    assert "threshold nan, not 0.6" in str(hunting_differs(manifest.hunting, HuntSettings()))


def test_it_is_part_of_what_makes_two_bundles_the_same(tmp_path: Path) -> None:
    manifest, _ = bundle(0.3, HUNTING, tmp_path)
    assert content_digest(manifest) != content_digest(msgspec.structs.replace(manifest, hunting={}))


@pytest.mark.parametrize("hunting", [{"depth": 1.0}, {"rows": float("inf")}])
def test_terms_that_mean_nothing_are_refused(hunting: dict[str, float], tmp_path: Path) -> None:
    manifest, folder = bundle(0.3, HUNTING, tmp_path)
    rewrite_manifest(folder, msgspec.structs.replace(manifest, hunting=hunting))
    with pytest.raises(BundleRejected, match=r"hunting"):
        verify(folder, None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threshold": 0.5}, "threshold 0.5, not 0.6"),
        ({"tolerance": 0.01}, "tolerance 0.01, not 0.003"),
        ({"version": 0.0}, f"version 0, not {VERSION}"),
    ],
)
def test_other_hunts_than_the_workers_are_named(change: dict[str, float], said: str) -> None:
    learnt = hunting_terms(HuntSettings()) | {"rows": 5.0} | change
    assert str(hunting_differs(learnt, HuntSettings())).endswith(said)
