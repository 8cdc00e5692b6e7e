from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_registry.assembling import TrainedBundle
from models_registry.errors import BundleRejected, InputRejected
from models_registry.manifest import AUTOENCODER, WIN, Component
from models_registry.runtime import MODELS, Prediction, Predictor
from models_registry.sessions import TILES, plan_tiles
from models_registry.training_set import TrainingSet

ROWS = 150


@pytest.fixture(scope="module")
def predictor(trained: TrainedBundle) -> Predictor:
    return Predictor.load(trained.folder)


@pytest.fixture(scope="module")
def plain(trained: TrainedBundle) -> Predictor:
    """The same manifest with both models replaced by their plain versions."""
    component = Component(version="none", served=None, format=None, fallback="left out by the test")
    return Predictor(trained.folder, with_components(trained, {AUTOENCODER: component, WIN: component}))


def with_components(trained: TrainedBundle, components: dict[str, Component]) -> object:
    import msgspec

    return msgspec.structs.replace(trained.manifest, components=components)


def predict(predictor: Predictor, rows: TrainingSet, part: slice) -> Prediction:
    index = np.arange(len(rows.decided_at[part]), dtype=np.int64)
    return predictor.predict(
        rows.decision[part],
        rows.windows[part],
        index,
        rows.direction[part],
        kind=rows.kind[part],
        quality=rows.quality[part],
    )


@pytest.mark.parametrize("which", ["predictor", "plain"])
@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, ROWS), max_size=6))
def test_results_do_not_depend_on_how_a_batch_is_split(
    which: str, cuts: list[int], predictor: Predictor, plain: Predictor, planted_set: TrainingSet
) -> None:
    chosen = {"predictor": predictor, "plain": plain}[which]
    whole = predict(chosen, planted_set, slice(0, ROWS))
    edges = [0, *sorted(cuts), ROWS]
    parts = [predict(chosen, planted_set, slice(a, b)) for a, b in itertools.pairwise(edges)]
    for name in ("latents", "reconstruction_error", "unlike", "win_probability"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert joined.tobytes() == getattr(whole, name).tobytes(), name


def test_a_candidate_may_stand_on_any_row_and_any_number_of_times(
    predictor: Predictor, planted_set: TrainingSet
) -> None:
    decision, windows = planted_set.decision[:40], planted_set.windows[:40]
    index = np.array([7, 7, 39, 0], dtype=np.int64)
    direction = np.array([1, -1, 1, -1], dtype=np.int8)
    kind, quality = np.full(4, 1, np.uint8), np.full(4, 0.5, np.float32)
    found = predictor.predict(decision, windows, index, direction, kind=kind, quality=quality)
    assert found.latents.shape == (40, 16)
    assert found.win_probability.shape == (4,)
    one = predictor.predict(decision[39:], windows[39:], index[3:], direction[2:3], kind=kind[:1], quality=quality[:1])
    assert one.win_probability[0] == found.win_probability[2]


def test_no_rows_and_no_candidates_are_an_answer(predictor: Predictor, planted_set: TrainingSet) -> None:
    found = predict(predictor, planted_set, slice(0, 0))
    assert found.latents.shape == (0, 16)
    assert found.win_probability.shape == (0,)


def test_probabilities_are_those_of_the_planted_relation(predictor: Predictor, planted_set: TrainingSet) -> None:
    found = predict(predictor, planted_set, slice(0, len(planted_set)))
    strength = planted_set.decision[:, 0] * planted_set.direction
    known = np.isfinite(strength)
    assert np.corrcoef(strength[known], found.win_probability[known])[0, 1] > 0.6


def test_a_window_unlike_the_training_data_is_said_to_be(predictor: Predictor, planted_set: TrainingSet) -> None:
    windows = planted_set.windows[:4].copy()
    windows[2] = np.where(np.arange(32)[:, None] % 2, 60.0, -60.0)
    found = predictor.predict(
        planted_set.decision[:4], windows, np.empty(0, np.int64), np.empty(0, np.int8), **no_candidates()
    )
    assert found.unlike.tolist() == [False, False, True, False]


def test_missing_values_in_a_window_count_as_its_mean(predictor: Predictor, planted_set: TrainingSet) -> None:
    windows = planted_set.windows[:1].copy()
    windows[0, :3] = np.nan
    seen = predictor.see(planted_set.decision[:1], windows)
    assert np.isfinite(seen.latents).all()
    assert np.isfinite(seen.error).all()


def test_plain_versions_stand_in_and_say_why(plain: Predictor, planted_set: TrainingSet) -> None:
    found = predict(plain, planted_set, slice(0, 50))
    for name in (AUTOENCODER, WIN):
        assert plain.fallbacks[name] == "left out by the test"
    assert np.isnan(found.reconstruction_error).all()
    assert not found.unlike.any()
    assert np.isfinite(found.latents).all()
    order = np.argsort(planted_set.quality[:50])
    known = np.isfinite(planted_set.quality[:50][order])
    assert (np.diff(found.win_probability[order][known]) >= 0).all()
    assert plain.needs == frozenset()


def test_a_bundle_without_a_model_uses_its_plain_version(trained: TrainedBundle) -> None:
    with Predictor(trained.folder, with_components(trained, {})) as predictor:
        assert set(predictor.fallbacks) == set(MODELS)


def test_inputs_that_do_not_fit_are_named(predictor: Predictor, planted_set: TrainingSet) -> None:
    rows, index, direction = planted_set.select(np.arange(2)), np.arange(2), np.ones(2, np.int8)
    given_both = {"kind": rows.kind, "quality": rows.quality}
    assert predictor.needs == {"kind", "quality"}
    with pytest.raises(InputRejected, match="trained with 'kind'"):
        predictor.predict(rows.decision, rows.windows, index, direction)
    with pytest.raises(InputRejected, match="11 columns, the bundle's have 12"):
        predictor.predict(rows.decision[:, 1:], rows.windows, index, direction, **given_both)
    with pytest.raises(InputRejected, match=r"\(31, 5\)"):
        predictor.predict(rows.decision, rows.windows[:, 1:], index, direction, **given_both)
    with pytest.raises(InputRejected, match="1 decision rows, but 2 windows"):
        predictor.predict(rows.decision[:1], rows.windows, index, direction, **given_both)


def test_a_closed_predictor_refuses(trained: TrainedBundle, planted_set: TrainingSet) -> None:
    with Predictor.load(trained.folder) as predictor:
        pass
    with pytest.raises(InputRejected, match="closed"):
        predict(predictor, planted_set, slice(0, 1))


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleRejected, match=r"has no manifest\.json"):
        Predictor.load(tmp_path)


@given(rows=st.integers(0, 1000))
def test_tiles_hold_every_row_and_waste_less_than_one_tile(rows: int) -> None:
    tiles = plan_tiles(rows)
    assert sum(tiles) >= rows
    assert sum(tiles) - rows < TILES[-1]
    assert set(tiles) <= set(TILES)


def test_predicting_needs_nothing_that_trains(trained: TrainedBundle) -> None:
    script = f"""
        import sys

        HEAVY = {{"tensorflow", "keras", "xgboost", "mlflow", "sklearn", "pandas", "onnxmltools", "onnx", "dagster",
                  "matplotlib", "scipy"}}

        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in HEAVY:
                    raise ImportError(f"{{name}} is not for the worker")

        sys.meta_path.insert(0, Refuse())
        import numpy as np
        from models_registry import bundle, evaluation, gate, manifest, runtime

        bundle.verify({str(trained.folder)!r}, None)
        predictor = runtime.Predictor.load({str(trained.folder)!r})
        names = predictor.manifest.decision_spec.names
        found = predictor.predict(
            np.zeros((3, len(names)), np.float32), np.zeros((3, 32, 5), np.float32), np.arange(3),
            np.ones(3, np.int8), kind=np.ones(3, np.uint8), quality=np.ones(3, np.float32),
        )
        assert np.isfinite(found.win_probability).all()
        assert not HEAVY & {{name.partition(".")[0] for name in sys.modules}}
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120)


def no_candidates() -> dict[str, np.ndarray]:
    return {"kind": np.empty(0, np.uint8), "quality": np.empty(0, np.float32)}
