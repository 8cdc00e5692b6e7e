"""When a training may continue from the champion's model, and what it records of that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models_registry.component_folder import component_of_bundle, load_component, save_component
from models_registry.continuing import Beginning, StartingPoint, analyses_of, refusal, updates_of
from models_registry.errors import ComponentsDiffer
from models_registry.manifest import AUTOENCODER, DQN, FEATURE_NETWORK, LIQUIDITY, WIN, Component, Provenance
from models_registry.provenance import identity
from models_registry.training import train_win_classifier
from models_registry.training_config import TrainingConfig, split_of
from models_registry.training_set import Split
from tests.models_registry import planted

NOTHING = np.arange(0)
SPLIT = Split(NOTHING, NOTHING, NOTHING, validation_start_ms=800, holdout_start_ms=1000)


def model(name: str, *, file: str = "0" * 64, updates: int = 1, **record: object) -> Component:
    """A served model of bundle 3, trained on data before `SPLIT`'s."""
    known = {
        "start_ms": 0, "end_ms": 890, "last_known_at": 900, "rows": 10, "live_labels": 0, "data_hash": "h", "seed": 7,
        "holdout_start_ms": 950, "decision_spec": "d", "validation_start_ms": 700,
    }  # fmt: skip
    return Component(
        version="1",
        served=f"{name}.tflite",
        format="tflite_fp32",
        files={f"{name}.tflite": file},
        parameters={"updates": updates, "analyses": 10 * updates},
        provenance=Provenance(**known | record),  # type: ignore[arg-type]
    )


def test_a_champion_that_was_fitted_to_earlier_data_is_continued_from() -> None:
    assert refusal(FEATURE_NETWORK, model(FEATURE_NETWORK), "3", SPLIT, {}) == ""


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"validation_start_ms": None}, "does not say what it was fitted to"),
        ({"validation_start_ms": 801}, "was fitted to rows that are to calibrate"),
        ({"last_known_at": 1000}, "has seen rows that are to judge"),
    ],
)
def test_what_would_leak_is_not_continued(record: dict[str, object], why: str) -> None:
    assert why in refusal(FEATURE_NETWORK, model(FEATURE_NETWORK, **record), "3", SPLIT, {})


def test_a_champion_on_the_edge_is_continued_from() -> None:
    edge = model(FEATURE_NETWORK, validation_start_ms=800, last_known_at=999)
    assert refusal(FEATURE_NETWORK, edge, "3", SPLIT, {}) == ""


def test_a_plain_version_is_nothing_to_continue_from() -> None:
    plain = Component(version="none", served=None, format=None, fallback="no TensorFlow")
    assert "plain version" in refusal(LIQUIDITY, plain, "3", SPLIT, {})


def test_what_reads_others_is_continued_with_them_only() -> None:
    """Latents of an autoencoder that began anew say nothing to trees that were grown on the champion's."""
    before = model(AUTOENCODER)
    win = model(WIN, reads={AUTOENCODER: identity(before)})
    assert refusal(WIN, win, "3", SPLIT, {AUTOENCODER: before}) == "", "the same network still"
    anew = model(AUTOENCODER, file="1" * 64)
    assert "read another structure_autoencoder" in refusal(WIN, win, "3", SPLIT, {AUTOENCODER: anew})
    on = model(AUTOENCODER, file="1" * 64, updates=2, continued_from="3")
    assert refusal(WIN, win, "3", SPLIT, {AUTOENCODER: on}) == "", "its continuation"
    elsewhere = model(AUTOENCODER, file="1" * 64, updates=2, continued_from="2")
    assert "read another" in refusal(WIN, win, "3", SPLIT, {AUTOENCODER: elsewhere})
    assert "read another" in refusal(WIN, win, "3", SPLIT, {}), "the plain version now"
    more = {AUTOENCODER: before, FEATURE_NETWORK: model(FEATURE_NETWORK)}
    assert "read another feature_network" in refusal(WIN, win, "3", SPLIT, more)
    assert refusal(DQN, model(DQN, reads={AUTOENCODER: identity(before)}), "3", SPLIT, more) == ""


def test_the_record_says_what_was_continued_from(tmp_path: Path) -> None:
    save_component(tmp_path, model(FEATURE_NETWORK))
    begun = Beginning.of(FEATURE_NETWORK, StartingPoint("3", tmp_path), SPLIT)
    assert begun.initial == tmp_path
    trained = model(FEATURE_NETWORK, updates=2)
    assert trained.provenance is not None
    found = begun.recorded(trained, trained.provenance, SPLIT)
    assert found.provenance is not None
    assert (found.provenance.continued_from, found.provenance.validation_start_ms) == ("3", 800)
    assert (updates_of(found), analyses_of(found), found.note) == (2, 20, "")
    # The learner found a network of another shape there, and began anew.
    anew = begun.recorded(model(FEATURE_NETWORK), trained.provenance, SPLIT)
    assert anew.provenance is not None
    assert anew.provenance.continued_from is None


def test_a_refusal_is_noted(tmp_path: Path) -> None:
    save_component(tmp_path, model(FEATURE_NETWORK))
    early = replace(SPLIT, holdout_start_ms=900)
    begun = Beginning.of(FEATURE_NETWORK, StartingPoint("3", tmp_path), early)
    assert begun.initial is None
    trained = msgspec.structs.replace(model(FEATURE_NETWORK), note="served fp32")
    assert trained.provenance is not None
    note = begun.recorded(trained, trained.provenance, early).note
    assert note == "served fp32; trained anew: the champion has seen rows that are to judge"


def test_nothing_to_continue_from_is_no_refusal(tmp_path: Path) -> None:
    assert Beginning.of(WIN, None, SPLIT) == Beginning()
    assert Beginning.of(WIN, StartingPoint("3", tmp_path), SPLIT) == Beginning(), "the champion had no such model"


def test_a_component_comes_out_of_its_bundle(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / f"{WIN}.tflite").write_bytes(b"trees")
    (bundle / "another.tflite").write_bytes(b"not its")
    folder = component_of_bundle(bundle, model(WIN), tmp_path / "own")
    assert load_component(folder) == model(WIN)
    assert sorted(path.name for path in folder.iterdir()) == ["component.json", f"{WIN}.tflite"]


@pytest.mark.parametrize("change", [{"data_hash": "other"}, {"holdout_start_ms": 1}, {"validation_start_ms": 1}])
def test_outputs_of_rows_not_seen_are_those_of_their_own_set(tmp_path: Path, change: dict[str, object]) -> None:
    rows, config = planted.training_set(windows=10), TrainingConfig()
    split = split_of(rows, config)
    network = model(
        FEATURE_NETWORK,
        **{
            "data_hash": rows.data_hash,
            "holdout_start_ms": split.holdout_start_ms,
            "validation_start_ms": split.validation_start_ms,
        }
        | change,
    )
    below = {}
    for name, part in ((AUTOENCODER, Component(version="none", served=None, format=None)), (FEATURE_NETWORK, network)):
        below[name] = tmp_path / name
        below[name].mkdir()
        save_component(below[name], part)
    with pytest.raises(ComponentsDiffer, match="feature_network was trained on another training set") as refused:
        train_win_classifier(rows, below, config, tmp_path / WIN)
    assert refused.value.asset == FEATURE_NETWORK
