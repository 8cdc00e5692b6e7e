"""What INT8 changes in the decisions of a whole bundle."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from models_registry.assembling import TrainedBundle
from models_registry.convert import FP32, INT8
from models_registry.fitness import fitness, unquantised
from models_registry.manifest import DQN, DecisionChange
from models_registry.quantised_decisions import decision_change, unfit
from models_registry.runtime import Predictor, in_fp32
from models_registry.training_set import TrainingSet
from tests.models_registry.made_five import in_int8

FAITHFUL = DecisionChange(rows=500, win_probability_p99=0.02, win_probability_max=0.3, actions_agreement=0.98)


def test_it_is_the_distance_to_the_fp32_files_on_rows_that_nothing_was_fitted_to(
    five: TrainedBundle, planted_set: TrainingSet
) -> None:
    manifest = in_int8(five.manifest)
    found = decision_change(five.folder, manifest, planted_set)
    held_out = planted_set.select(np.flatnonzero(planted_set.decided_at >= manifest.training.holdout_start_ms))
    index = np.arange(len(held_out))
    with Predictor(five.folder, manifest) as small, Predictor(five.folder, in_fp32(manifest)) as whole:
        ours, theirs = (
            each.predict(
                held_out.decision,
                held_out.windows,
                index,
                held_out.direction,
                kind=held_out.kind,
                quality=held_out.quality,
            )
            for each in (small, whole)
        )
    moved = np.abs(ours.win_probability - theirs.win_probability)
    assert found is not None
    assert found.rows == len(held_out) > 100
    assert found.win_probability_p99 == pytest.approx(np.quantile(moved, 0.99))
    assert found.win_probability_max == pytest.approx(moved.max())
    assert found.actions_agreement == pytest.approx(np.mean(ours.action == theirs.action))
    assert 0 < found.win_probability_max < 1, "INT8 files that say what fp32 says to the bit were not asked"


def test_a_bundle_says_it_of_itself(five: TrainedBundle, planted_set: TrainingSet) -> None:
    assert five.manifest.quantised == decision_change(five.folder, five.manifest, planted_set)


def test_without_int8_there_is_nothing_to_compare(five: TrainedBundle, planted_set: TrainingSet) -> None:
    whole = in_fp32(in_int8(five.manifest))
    assert decision_change(five.folder, whole, planted_set) is None
    assert unfit(None) is None


def test_without_a_held_out_row_nothing_is_said(five: TrainedBundle, planted_set: TrainingSet) -> None:
    fitted = planted_set.select(np.flatnonzero(planted_set.decided_at < five.manifest.training.holdout_start_ms))
    assert decision_change(five.folder, in_int8(five.manifest), fitted) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"win_probability_p99": math.nextafter(0.02, 1)}, "changes win probabilities by 0.02"),
        ({"actions_agreement": math.nextafter(0.98, 0)}, "agrees with fp32 in 98.0%"),
    ],
)
def test_more_than_the_limits_is_unfit(changes: dict[str, float], words: str | None) -> None:
    found = unfit(msgspec.structs.replace(FAITHFUL, **changes))
    assert found is None if words is None else found is not None and words in found


def test_the_gate_is_told(five: TrainedBundle, planted_set: TrainingSet) -> None:
    unlike = msgspec.structs.replace(FAITHFUL, win_probability_p99=0.1)
    manifest = msgspec.structs.replace(five.manifest, quantised=unlike)
    with Predictor(five.folder, manifest) as predictor:
        assert fitness(predictor, planted_set).unfit_decisions == unfit(unlike)


def test_a_network_without_an_int8_file_that_passed_is_named(five: TrainedBundle) -> None:
    manifest = in_int8(five.manifest)
    assert unquantised(manifest) == {}
    part = manifest.components[DQN]
    failed = msgspec.structs.replace(part.formats[INT8], passed=False, failed="90 % of actions agree")
    for formats, reason in (
        (part.formats | {INT8: failed}, "90 % of actions agree"),
        ({FP32: part.formats[FP32]}, "it was not converted"),
    ):
        changed = msgspec.structs.replace(part, formats=formats)
        parts = {**manifest.components, DQN: changed}
        assert unquantised(msgspec.structs.replace(manifest, components=parts)) == {DQN: reason}
    without = {name: each for name, each in manifest.components.items() if name != DQN}
    assert unquantised(msgspec.structs.replace(manifest, components=without)) == {DQN: "it is not in the bundle"}
