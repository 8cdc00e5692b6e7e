from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_registry import training_set as sets
from models_registry.assembling import TrainedBundle, assemble
from models_registry.bundle import verify
from models_registry.component_folder import save_component
from models_registry.errors import NotEnoughData, TrainingSetUnreadable
from models_registry.manifest import AUTOENCODER, DQN, FEATURE_NETWORK, LIQUIDITY, WIN, Component
from models_registry.provenance import of_labels
from models_registry.runtime import Predictor
from models_registry.training import train_win_classifier
from models_registry.training_config import TrainingConfig, split_of
from models_registry.training_set import LIVE, TrainingSet, concatenate, split_in_time
from tests.models_registry import planted
from tests.models_registry.conftest import SMALL

HOUR = planted.HOUR


def test_the_manifest_records_what_was_seen(trained: TrainedBundle, planted_set: TrainingSet) -> None:
    record, split = trained.manifest.training, split_of(planted_set, SMALL)
    assert record.data_hash == planted_set.data_hash
    assert record.splits == {"fit": len(split.fit), "validation": len(split.validation), "holdout": len(split.holdout)}
    assert record.last_known_at < record.holdout_start_ms - SMALL.embargo_ms
    assert record.rows == len(split.fit) + len(split.validation)
    assert trained.manifest.parent == "1"
    assert trained.manifest.plan["horizon_minutes"] == 240
    assert trained.manifest.decision_spec.names == list(planted.NAMES)
    assert set(trained.manifest.metrics) == {f"{AUTOENCODER}.outcome_log_loss", f"{WIN}.log_loss"}
    assert not trained.manifest.metrics[f"{AUTOENCODER}.outcome_log_loss"].skill, "nothing is planted in the windows"


def test_a_bundle_of_plain_versions_works(planted_set: TrainingSet, tmp_path: Path) -> None:
    folders, record = {}, of_labels(planted_set, split_of(planted_set, SMALL), SMALL.seed)
    for name in (AUTOENCODER, WIN):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        plain = Component(version="none", served=None, format=None, fallback="not trained", provenance=record)
        save_component(folders[name], plain)
    trained = assemble(planted_set, SMALL, folders, tmp_path / "bundle")
    assert verify(tmp_path / "bundle", planted.SPEC_ID) == trained.manifest
    with Predictor.load(tmp_path / "bundle") as predictor:
        missing = "the bundle has no such model"
        assert predictor.fallbacks == {
            AUTOENCODER: "not trained",
            WIN: "not trained",
            **dict.fromkeys((FEATURE_NETWORK, LIQUIDITY, DQN), missing),
        }


def test_the_win_model_trains_on_the_plain_latents_when_there_is_no_network(
    planted_set: TrainingSet, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    save_component(tmp_path / "a", Component(version="none", served=None, format=None, fallback="not trained"))
    stages: list[tuple[str, float]] = []
    component = train_win_classifier(
        planted_set,
        {AUTOENCODER: tmp_path / "a"},
        SMALL,
        tmp_path / "w",
        lambda stage, done: stages.append((stage, done)),
    )
    assert component.metrics["log_loss"].skill
    assert stages[-1] == ("win_classifier", 1.0)
    assert [done for _, done in stages] == sorted(done for _, done in stages)


def test_an_interrupted_training_leaves_no_component(planted_set: TrainingSet, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(stage: str, done: float) -> None:
        raise Stopped

    (tmp_path / "a").mkdir()
    plain = Component(version="none", served=None, format=None, fallback="not trained")
    save_component(tmp_path / "a", plain)
    (tmp_path / "w").mkdir()
    save_component(tmp_path / "w", plain)
    with pytest.raises(Stopped):
        train_win_classifier(planted_set, {AUTOENCODER: tmp_path / "a"}, SMALL, tmp_path / "w", stop)
    assert not (tmp_path / "w" / "component.json").exists()


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(NotEnoughData, match="a training: 0 rows"):
        split_of(planted.training_set(rows=10).select(np.arange(0)), TrainingConfig())


def test_the_holdout_may_be_given_as_a_time(planted_set: TrainingSet) -> None:
    start = int(planted_set.decided_at[1000])
    split = split_of(planted_set, replace(SMALL, holdout_start_ms=start))
    assert planted_set.decided_at[split.holdout[0]] == start
    assert of_labels(planted_set, split, 7).holdout_start_ms == start


@given(
    gaps=st.lists(st.integers(0, 3 * HOUR), min_size=1, max_size=120),
    seed=st.integers(0, 1000),
    cut=st.floats(0.1, 0.95),
    fraction=st.floats(0.05, 0.6),
    embargo=st.integers(0, 6 * HOUR),
)
def test_no_outcome_of_one_part_is_known_near_or_in_the_next(
    gaps: list[int], seed: int, cut: float, fraction: float, embargo: int
) -> None:
    decided = np.cumsum(np.asarray(gaps, dtype=np.int64))
    known = decided + np.random.default_rng(seed).integers(0, 4 * HOUR, len(decided))
    start = int(decided[int(cut * (len(decided) - 1))])
    split = split_in_time(decided, known, holdout_start_ms=start, validation_fraction=fraction, embargo_ms=embargo)
    parts = (split.fit, split.validation, split.holdout)
    assert len(np.unique(np.concatenate(parts))) == sum(len(part) for part in parts)
    # Nothing is left out that may be in.
    assert len(split.fit) == int((known < split.validation_start_ms - embargo).sum())
    assert len(split.validation) == int(
        ((decided >= split.validation_start_ms) & (known < start - embargo) & (decided < start)).sum()
    )
    assert (known[split.fit] < split.validation_start_ms - embargo).all()
    assert (decided[split.validation] >= split.validation_start_ms).all()
    assert (known[split.validation] < start - embargo).all()
    assert (decided[split.holdout] >= start).all()
    assert len(split.holdout) == int((decided >= start).sum())


def test_the_codes_are_those_of_the_barriers() -> None:
    from features import barriers

    assert (sets.TARGET, sets.STOP, sets.EXPIRY) == (barriers.TARGET, barriers.STOP, barriers.EXPIRY)


def test_a_training_set_survives_the_disk(planted_set: TrainingSet, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "set.npz"
    planted_set.save(path)
    again = TrainingSet.load(path)
    assert again.data_hash == planted_set.data_hash
    assert again.symbols == planted_set.symbols
    assert planted_set.to_bytes() == again.to_bytes()
    assert list(path.parent.iterdir()) == [path]


def test_every_part_of_the_content_is_in_the_hash(planted_set: TrainingSet) -> None:
    hashes = {planted_set.data_hash}
    for name in sets.TYPES:
        changed = getattr(planted_set, name).copy()
        changed.flat[0] = np.nan_to_num(changed.flat[0]) + 1
        hashes.add(replace(planted_set, **{name: changed}).data_hash)
    hashes.add(replace(planted_set, symbols=("A", "B", "C", "D")).data_hash)
    assert len(hashes) == len(sets.TYPES) + 2


@pytest.mark.parametrize("data", [b"", b"not an archive", None])
def test_a_spoilt_training_set_is_refused(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "set.npz"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(TrainingSetUnreadable, match=r"set\.npz"):
        TrainingSet.load(path)
    buffer = io.BytesIO()
    np.savez(buffer, decision=np.zeros(3))
    with pytest.raises(TrainingSetUnreadable):
        TrainingSet.from_bytes(buffer.getvalue())


def test_rows_are_put_in_order() -> None:
    rows = planted.training_set(rows=50)
    values = {name: getattr(rows, name) for name in sets.TYPES}
    backwards = {name: v if name.startswith("unlabelled") else v[::-1] for name, v in values.items()}
    again = TrainingSet.of(
        **backwards, symbols=rows.symbols, decision_spec_id=rows.decision_spec_id, decision_names=rows.decision_names
    )
    assert again.data_hash == rows.data_hash


def test_rows_that_cannot_be_are_refused(planted_set: TrainingSet) -> None:
    with pytest.raises(ValueError, match="known before its decision"):
        replace(planted_set, known_at=planted_set.decided_at - 1)
    with pytest.raises(ValueError, match="direction has 2 rows"):
        replace(planted_set, direction=planted_set.direction[:2])
    with pytest.raises(ValueError, match="the names are 1"):
        replace(planted_set, decision_names=("one",))


def test_live_labels_replace_the_same_candidates_of_history() -> None:
    history = planted.training_set(rows=60)
    shared = history.select(np.arange(40, 60))
    live = replace(
        shared, source=np.full(20, LIVE, np.uint8), r=shared.r + 1, symbols=("ZUSDT", "BTCUSDT", "ETHUSDT", "SOLUSDT")
    )
    joined = concatenate([history, live])
    # Symbol 0 is another one live, so its rows are new; the others replace.
    new = int((live.symbol == 0).sum())
    assert len(joined) == 60 + new
    assert int((joined.source == LIVE).sum()) == 20
    assert joined.symbols == ("ADAUSDT", "BTCUSDT", "ETHUSDT", "SOLUSDT", "ZUSDT")
    names = np.asarray(joined.symbols)[joined.symbol]
    assert set(names[joined.source == LIVE]) <= {"ZUSDT", "BTCUSDT", "ETHUSDT", "SOLUSDT"}
    assert (np.diff(joined.decided_at) >= 0).all()
    with pytest.raises(ValueError, match="DecisionSpecs differ"):
        concatenate([history, replace(live, decision_spec_id="other")])
