"""The evaluation as an asset: its result in the lake, its folds kept, its table and plots in the UI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from market.lake import Lake
from models_registry import assembling, walk_forward
from models_registry.manifest import AUTOENCODER, WIN, Component, encode
from models_registry.training_config import TrainingConfig, no_progress
from models_registry.trial_log import Trial, TrialLog
from models_registry.walk_forward import Evaluating, Fold, FoldResult, ModelEvaluation, WalkForward
from models_registry.win_classifier import WinConfig
from orchestration import evaluating, training_data
from orchestration.definitions import defs
from orchestration.resources import TrainingSettings
from orchestration.run import Materialised, materialise, resources
from tests.models_registry import plain_networks, planted

SMALL = TrainingSettings(
    rounds=40, fewest_rows=300, feature_network=False, liquidity_predictor=False, strategy_dqn=False, evaluation_every=1
)


@pytest.fixture(autouse=True)
def _no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    plain_networks.use(monkeypatch)


def run(home: Path) -> Materialised:
    given = resources(home, source="synthetic:seed=1,symbols=1", tracking_uri="http://127.0.0.1:9", training=SMALL)
    return materialise(("model_evaluation",), home=home, resources=given)


def trained(home: Path, bundles: int) -> None:
    log = TrialLog.beside(home / "registry" / "ledger.jsonl")
    for number in range(bundles):
        log.enter(Trial(run=str(number), content="c", data_hash="d", settings="s"), time_ms=number)


def test_the_models_are_judged_and_a_second_run_goes_on_from_the_folds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    training_data.store(lake, planted.training_set(rows=4000, days=40, windows=400))
    judged: list[int] = []
    whole = Evaluating.from_scratch

    def until_the_third(self: Evaluating, fold: Fold) -> FoldResult:
        judged.append(fold.number)
        if judged == [0, 1, 2]:
            raise RuntimeError("interrupted")
        return whole(self, fold)

    monkeypatch.setattr(Evaluating, "from_scratch", until_the_third)
    with pytest.raises(Exception, match="interrupted"):
        run(tmp_path)
    trained(tmp_path, 5)
    said = run(tmp_path).metadata["model_evaluation"]
    # The folds that were judged are not trained again, nor is the first for what goes on from it.
    assert judged == [0, 1, 2, 2, 3]
    assert (said["folds"], said["trials"]) == (4, 5)
    found = msgspec.json.decode(lake.get_bytes(str(said["path"])), type=ModelEvaluation)
    metric = found.from_scratch[WIN]["log_loss"]
    assert metric.shown
    assert metric.trials == 5
    assert "| log_loss |" in str(said["table"])
    assert "deflated by 5 trials" in str(said["table"])
    assert f"{AUTOENCODER}: the plain version stood in" in str(said["table"])
    assert str(said["improvements"]).startswith("![")
    assert str(said[f"plot_{WIN}"]).startswith("![")


def test_a_chain_that_was_interrupted_goes_on_from_its_last_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = planted.training_set(rows=1500, days=40, windows=100)
    config = TrainingConfig(win=WinConfig(rounds=10, fewest_fit=100, fewest_validation=30))
    trained_in: list[str] = []
    train, begin, judge = assembling.train_model, assembling.train_models, Evaluating.continued

    def one(*given: Any, **more: Any) -> Component:
        trained_in.append(Path(given[4]).parent.name)
        return train(*given, **more)

    def every(*given: Any, **more: Any) -> dict[str, Path]:
        trained_in.append(Path(given[2]).name)
        return begin(*given, **more)

    def until_the_last(self: Evaluating, fold: Fold) -> FoldResult:
        if fold.number == 3 and trained_in:
            trained_in.clear()
            raise RuntimeError("interrupted")
        return judge(self, fold)

    def evaluated(lake: Lake) -> bytes:
        plan = WalkForward(folds=4, every=1)
        return encode(evaluating.evaluate_models(lake, rows, None, config, plan, 1, no_progress))

    undisturbed = evaluated(Lake(str(tmp_path / "one")))
    monkeypatch.setattr(walk_forward, "train_model", one)
    monkeypatch.setattr(walk_forward, "train_models", every)
    monkeypatch.setattr(Evaluating, "continued", until_the_last)
    lake = Lake(str(tmp_path / "other"))
    with pytest.raises(RuntimeError, match="interrupted"):
        evaluated(lake)
    assert evaluated(lake) == undisturbed
    assert trained_in == ["continued-3"] * 2, "the two models of the last fold, and of no other"
    # The models are of no use any more.
    links = [each for each in lake.list("evaluations") if "/links/" in each]
    assert links
    assert {lake.get_bytes(each) for each in links} == {b""}


def test_there_is_a_job_of_it_and_a_retraining_does_not_wait_for_it() -> None:
    graph = defs.resolve_job_def("evaluate").asset_layer.executable_asset_keys
    assert {key.to_user_string() for key in graph} == {"model_evaluation"}
    learnt = defs.resolve_job_def("retrain").asset_layer.executable_asset_keys
    assert "model_evaluation" not in {key.to_user_string() for key in learnt}
