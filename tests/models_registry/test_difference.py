"""Two manifests, and what is said of their differences."""

from __future__ import annotations

from msgspec.structs import replace

from models_registry.assembling import TrainedBundle
from models_registry.difference import ABSENT, Difference, differences
from models_registry.manifest import AUTOENCODER, WIN, Metric


def test_a_bundle_does_not_differ_from_itself(trained: TrainedBundle) -> None:
    assert differences(trained.manifest, trained.manifest) == []


def test_other_latencies_are_no_difference(trained: TrainedBundle) -> None:
    one = trained.manifest
    part = one.components[AUTOENCODER]
    formats = {
        name: replace(found, latency_us=1e6, speedup=0.1, original_us=3.0) for name, found in part.formats.items()
    }
    other = replace(one, components={**one.components, AUTOENCODER: replace(part, formats=formats)})
    assert differences(one, other) == []


def test_columns_terms_and_models_that_come_and_go_are_named(trained: TrainedBundle) -> None:
    one = trained.manifest
    names = [*one.decision_spec.names[1:], "5m.new"]
    other = replace(
        one,
        decision_spec=replace(one.decision_spec, id="other", names=names),
        plan={**one.plan, "target_r": 9.0},
        components={WIN: one.components[WIN]},
    )
    found = differences(one, other)
    assert Difference("decision_spec.id", one.decision_spec.id, "other") in found
    assert Difference("decision_spec.names", one.decision_spec.names[0], ABSENT) in found
    assert Difference("decision_spec.names", ABSENT, "5m.new") in found
    assert any(each.where == "plan.target_r" and each.other == "9" for each in found)
    assert Difference(AUTOENCODER, one.components[AUTOENCODER].version, ABSENT) in found


def test_a_model_is_told_by_its_file_its_scores_and_its_parameters(trained: TrainedBundle) -> None:
    one = trained.manifest
    part = one.components[WIN]
    assert part.served is not None
    changed = replace(
        part,
        files={**part.files, part.served: "f" * 64},
        metrics={**part.metrics, "log_loss": Metric(value=0.5, interval=(0.01, 0.02))},
        parameters={**part.parameters, "trees": 12345, "importance": {"column": 0.5}},
    )
    found = {each.where: each for each in differences(one, replace(one, components={**one.components, WIN: changed}))}
    assert found[f"{WIN}.sha256"].other == "f" * 12
    assert found[f"{WIN}.metrics.log_loss"].other == "0.5 (better by +0.01 to +0.02)"
    assert found[f"{WIN}.parameters.trees"].other == "12345"
    assert not any(AUTOENCODER in where or "importance" in where for where in found)
