"""Folds forward in time: what they learn from, what they keep, and what comes of them.

The networks are their plain versions here, so that a fold takes a second; `tests/test_walk_forward_controls.py` walks
with all five models.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_registry.component_folder import fresh, load_component, save_component
from models_registry.continuing import StartingPoint
from models_registry.errors import NotEnoughData
from models_registry.evaluation_table import evaluation_markdown, trial_words
from models_registry.feature_network_fitting import NetworkConfig
from models_registry.manifest import AUTOENCODER, FEATURE_NETWORK, WIN, Component, Metric, encode
from models_registry.opportunities import Opportunities
from models_registry.provenance import of_labels
from models_registry.statistics import BLOCK_MS
from models_registry.training_config import TrainingConfig, split_of
from models_registry.training_set import TrainingSet
from models_registry.walk_forward import (
    Evaluating,
    Fold,
    FoldResult,
    ModelEvaluation,
    WalkForward,
    evaluation_key,
    folds_of,
    opportunities_of,
    rows_of,
    walk,
)
from models_registry.win_classifier import WinConfig
from tests.models_registry import made_episodes, plain_networks, planted

PLAN = WalkForward(folds=4, every=1, prequential=False)
CONFIG = TrainingConfig(win=WinConfig(rounds=60, threads=1, learning_rate=0.1, fewest_fit=200))


@pytest.fixture(autouse=True)
def _no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    plain_networks.use(monkeypatch)


def evaluating(rows: TrainingSet, work: Path, config: TrainingConfig = CONFIG, plan: WalkForward = PLAN) -> Evaluating:
    return Evaluating(rows, None, config, plan, work)


@pytest.fixture(scope="module")
def made() -> TrainingSet:
    return planted.training_set(rows=4000, days=40, windows=400)


@given(
    gaps=st.lists(st.integers(0, 6 * planted.HOUR), min_size=20, max_size=200),
    folds=st.integers(1, 6),
    share=st.floats(0.1, 0.8),
)
def test_folds_cut_the_time_from_the_first_share_on_and_share_no_block(
    gaps: list[int], folds: int, share: float
) -> None:
    at = planted.START + np.cumsum(np.asarray(gaps, dtype=np.int64))
    found = folds_of(at, WalkForward(folds=folds, first_share=share))
    assert [fold.number for fold in found] == list(range(folds))
    assert all(one.end_ms == other.start_ms for one, other in itertools.pairwise(found))
    assert all(fold.start_ms % BLOCK_MS == 0 for fold in found)
    assert found[-1].end_ms == at[-1] + 1
    assert abs(found[0].start_ms - (at[0] + share * (at[-1] - at[0]))) <= BLOCK_MS


@settings(max_examples=25)
@given(every=st.integers(1, 5), number=st.integers(0, 3), seed=st.integers(0, 50))
def test_a_fold_learns_from_nothing_that_was_known_in_it(every: int, number: int, seed: int) -> None:
    rows = planted.training_set(rows=300, days=15, windows=120, seed=seed)
    fold = folds_of(rows.decided_at, PLAN)[number]
    own = rows_of(rows, fold, every)
    split = split_of(own, replace(CONFIG, holdout_start_ms=fold.start_ms))
    learnt = np.concatenate([split.fit, split.validation])
    assert (own.known_at[learnt] < fold.start_ms - CONFIG.embargo_ms + 1).all()
    assert (own.decided_at < fold.end_ms).all()
    assert (own.unlabelled_at < fold.end_ms).all()
    judged = (rows.decided_at >= fold.start_ms) & (rows.decided_at < fold.end_ms)
    assert len(split.holdout) == judged.sum()


def test_thinning_leaves_decisions_whole_and_the_fold_alone(made: TrainingSet) -> None:
    both = replace(made, decided_at=np.repeat(made.decided_at[::2], 2), symbol=np.repeat(made.symbol[::2], 2))
    fold = folds_of(both.decided_at, PLAN)[1]
    whole, third = rows_of(both, fold), rows_of(both, fold, 3)
    before = third.decided_at < fold.start_ms
    assert before.sum() == pytest.approx((whole.decided_at < fold.start_ms).sum() / 3, abs=4)
    _, counts = np.unique(np.stack([third.decided_at, third.symbol], axis=1)[before], axis=0, return_counts=True)
    assert set(counts) == {2}
    assert (~before).sum() == (whole.decided_at >= fold.start_ms).sum()


def in_step(symbols: int, decisions: int = 1200) -> TrainingSet:
    """Every symbol is decided on at every time, both ways, and its window says which symbol it is of."""
    rng = np.random.default_rng(symbols)
    made = planted.training_set(rows=2 * symbols * decisions, windows=symbols * decisions)
    time = planted.START + np.arange(decisions) * 300_000
    of_window = np.tile(np.arange(symbols), decisions)
    return replace(
        made,
        decided_at=np.repeat(time, 2 * symbols),
        known_at=np.repeat(time, 2 * symbols) + planted.HOUR * rng.integers(1, 4, len(made)),
        symbol=np.repeat(of_window, 2).astype(np.int32),
        direction=np.tile([1, -1], symbols * decisions).astype(np.int8),
        unlabelled_at=np.repeat(time, symbols),
        unlabelled_windows=np.broadcast_to(of_window[:, None, None], (len(of_window), 1, 1)).astype(np.float32),
        symbols=tuple(f"{number}USDT" for number in range(symbols)),
    )


@pytest.mark.parametrize("every", [2, 3, 4])
@pytest.mark.parametrize("symbols", [2, 3, 6, 12])
def test_of_symbols_in_step_a_fold_learns_of_all_alike(symbols: int, every: int) -> None:
    rows = in_step(symbols)
    for fold in folds_of(rows.decided_at, PLAN)[::3]:
        own = rows_of(rows, fold, every)
        decided, windows = own.decided_at < fold.start_ms, own.unlabelled_at < fold.start_ms
        of_window = own.unlabelled_windows[windows, 0, 0].astype(np.int64)
        for symbol in (own.symbol[decided], of_window):
            share = np.bincount(symbol, minlength=symbols) / len(symbol) * symbols
            assert share == pytest.approx(np.ones(symbols), abs=0.1)
        assert own.direction[decided].sum() == 0
        assert windows.sum() == pytest.approx((rows.unlabelled_at < fold.start_ms).sum() / every, abs=1)


def test_the_next_fold_learns_from_what_the_one_before_did(made: TrainingSet) -> None:
    one, other = (rows_of(made, fold, 3) for fold in folds_of(made.decided_at, PLAN)[:2])
    for name in ("decided_at", "unlabelled_at"):
        before = folds_of(made.decided_at, PLAN)[0].start_ms
        first, second = (getattr(each, name)[getattr(each, name) < before] for each in (one, other))
        assert np.array_equal(first, second)


def opportunities(count: int) -> Opportunities:
    made = made_episodes.experience(count=count)
    rng = np.random.default_rng(1)
    return Opportunities(
        episodes=made.episodes,
        decision=made.decision,
        windows=rng.standard_normal((len(made.decision), 4, 5)).astype(np.float32),
        kind=np.ones((len(made), 2), dtype=np.uint8),
        quality=rng.random((len(made), 2)).astype(np.float32),
        decision_names=made.decision_names,
        decision_spec_id="d",
    )


@pytest.mark.parametrize("symbols", [3, 6])
def test_of_opportunities_of_symbols_in_step_too(symbols: int) -> None:
    whole = opportunities(900)
    time = planted.START + np.arange(900) // symbols * 300_000
    numbers = (np.arange(900) % symbols).astype(np.int32)
    whole = replace(whole, episodes=replace(whole.episodes, decided_at=time, symbol=numbers))
    fold = folds_of(time, PLAN)[3]
    own = opportunities_of(whole, fold, 3).episodes
    learnt = own.symbol[own.decided_at < fold.start_ms]
    assert np.bincount(learnt, minlength=symbols) / len(learnt) * symbols == pytest.approx(np.ones(symbols), abs=0.2)


def test_opportunities_are_cut_the_same_way_over_their_own_rows() -> None:
    whole = opportunities(400)
    fold = folds_of(whole.episodes.decided_at, PLAN)[2]
    found = opportunities_of(whole, fold, 3)
    at = found.episodes.decided_at
    assert (at < fold.end_ms).all()
    assert (at >= fold.start_ms).sum() == ((whole.episodes.decided_at // 1 >= fold.start_ms) & (
        whole.episodes.decided_at < fold.end_ms)).sum()  # fmt: skip
    chosen = np.isin(whole.episodes.decided_at, at)
    for side in (whole.quality[chosen], whole.decision[whole.episodes.row[chosen]]):
        assert side.shape[0] == len(found)
    np.testing.assert_array_equal(found.decision[found.episodes.row], whole.decision[whole.episodes.row[chosen]])
    np.testing.assert_array_equal(found.windows[found.episodes.row], whole.windows[whole.episodes.row[chosen]])
    steps = np.isin(whole.episodes.step_trade // 2, np.flatnonzero(chosen))
    np.testing.assert_array_equal(
        found.decision[found.episodes.step_row], whole.decision[whole.episodes.step_row[steps]]
    )
    np.testing.assert_array_equal(found.quality, whole.quality[chosen])
    assert len(found.decision) == len(np.unique(found.episodes.state_row))


def test_a_planted_relation_is_found_in_every_fold(made: TrainingSet, tmp_path: Path) -> None:
    found = walk(evaluating(made, tmp_path), trials=3)
    metric = found.from_scratch[WIN]["log_loss"]
    assert len(metric.folds) == 4
    assert metric.shown
    assert metric.trials == 3
    assert metric.baseline is not None
    assert all(value is not None and value < metric.baseline for value in metric.folds)
    held = made.decided_at >= found.folds[0].fold.start_ms
    assert metric.rows == held.sum()
    assert found.folds[0].headlines == {AUTOENCODER: "outcome_log_loss", WIN: "log_loss"}
    text = evaluation_markdown(found)
    assert "| log_loss |" in text
    assert ", shown |" in text
    assert "deflated by 3 trials" in text
    assert found.claims == 2
    assert "2 claims here" in text
    assert found.from_scratch[AUTOENCODER]["outcome_log_loss"].shown is not None
    assert {name for name, each in found.from_scratch[WIN].items() if each.shown is not None} == {"log_loss"}
    assert f"Fold 1, {AUTOENCODER}: the plain version stood in" in text


def test_shuffled_outcomes_are_not(made: TrainingSet, tmp_path: Path) -> None:
    order = np.random.default_rng(2).permutation(len(made))
    shuffled = replace(made, outcome=made.outcome[order], r=made.r[order])
    metric = walk(evaluating(shuffled, tmp_path)).from_scratch[WIN]["log_loss"]
    assert not metric.skill
    assert not metric.shown


def test_a_column_that_knows_the_outcome_shows_as_more_than_anything_could(made: TrainingSet, tmp_path: Path) -> None:
    none = planted.training_set(rows=4000, days=40, windows=400, edge=0.0)
    decision = none.decision.copy()
    decision[:, 3] = np.where(none.won, 1.0, -1.0) + np.random.default_rng(5).standard_normal(len(none))
    metric = walk(evaluating(replace(none, decision=decision), tmp_path)).from_scratch[WIN]["log_loss"]
    assert metric.shown
    assert metric.improvement is not None
    assert metric.smallest_detectable is not None
    assert metric.improvement > 5 * metric.smallest_detectable


def test_an_interrupted_walk_goes_on_where_it_was(made: TrainingSet, tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    kept: dict[str, bytes] = {}
    trained: list[str] = []

    def keep(name: str, result: FoldResult) -> None:
        kept[name] = encode(result)
        if len(kept) == 2:
            raise Interrupted

    def known(name: str) -> FoldResult | None:
        return msgspec.json.decode(kept[name], type=FoldResult) if name in kept else None

    running = replace(evaluating(made, tmp_path / "one"), on_trained=trained.append)
    with pytest.raises(Interrupted):
        walk(running, keep=keep)
    found = walk(running, known=known)
    assert trained == [AUTOENCODER, WIN] * 4
    undisturbed = walk(evaluating(made, tmp_path / "other"))
    assert encode(found.from_scratch[WIN]["log_loss"]) == encode(undisturbed.from_scratch[WIN]["log_loss"])
    # What is whole in the folder is not trained again either.
    assert encode(walk(running)) == encode(found)
    assert trained == [AUTOENCODER, WIN] * 4
    assert msgspec.json.decode(encode(found), type=ModelEvaluation) == found


@pytest.mark.deep
def test_a_fold_with_too_little_before_it_is_named_and_left_out(made: TrainingSet, tmp_path: Path) -> None:
    config = replace(CONFIG, win=replace(CONFIG.win, fewest_fit=1500))
    found = walk(evaluating(made, tmp_path, config))
    assert found.folds[0].failed is not None
    assert found.folds[-1].failed is None
    assert "not enough data" in evaluation_markdown(found)
    assert len(found.from_scratch[WIN]["log_loss"].folds) < 4
    with pytest.raises(NotEnoughData, match="folds"):
        walk(evaluating(made, tmp_path / "none", replace(CONFIG, win=replace(CONFIG.win, fewest_fit=10**6))))


def test_trees_go_on_from_fold_to_fold_and_plain_versions_do_not(made: TrainingSet, tmp_path: Path) -> None:
    config, plan = replace(CONFIG, feature_network=NetworkConfig(epochs=1)), replace(PLAN, prequential=True, folds=3)
    running = evaluating(made, tmp_path, config, plan)
    found = walk(running)
    for result in (*found.folds, *found.continued):
        assert set(result.fallbacks) == {AUTOENCODER, FEATURE_NETWORK}
    assert [set(fold.metrics) for fold in found.continued] == [{AUTOENCODER, WIN}] * 3
    assert [fold.anew for fold in found.continued] == [{}] * 3
    assert found.continued[0].metrics == found.folds[0].metrics
    # Trees of the fold before, and what was added to them; each fold judged by trees that have not seen it.
    parts = [load_component(tmp_path / name / WIN) for name in ("fold-0", "continued-1", "continued-2")]
    records = [part.provenance for part in parts]
    assert [record and record.continued_from for record in records] == [None, "fold-0", "continued-1"]
    assert [part.parameters["updates"] for part in parts] == [1, 2, 3]
    trees = [part.parameters["trees"] for part in parts]
    assert trees == sorted(trees)
    for record, fold in zip(records, running.folds, strict=True):
        assert record is not None
        assert record.last_known_at < fold.start_ms
    metric = found.prequential[WIN]["log_loss"]
    assert metric.shown
    assert metric.claims == found.claims == 4, "those from scratch and those that go on"
    assert metric.rows == (made.decided_at >= running.folds[0].start_ms).sum()
    assert "prequentially" in evaluation_markdown(found)


def test_a_chain_without_skill_to_find_shows_none(made: TrainingSet, tmp_path: Path) -> None:
    order = np.random.default_rng(2).permutation(len(made))
    shuffled = replace(made, outcome=made.outcome[order], r=made.r[order])
    found = walk(evaluating(shuffled, tmp_path, plan=replace(PLAN, prequential=True, folds=3)))
    assert not found.prequential[WIN]["log_loss"].skill


def test_a_chain_that_knows_the_outcome_shouts(made: TrainingSet, tmp_path: Path) -> None:
    none = planted.training_set(rows=4000, days=40, windows=400, edge=0.0)
    decision = none.decision.copy()
    decision[:, 3] = np.where(none.won, 1.0, -1.0) + np.random.default_rng(5).standard_normal(len(none))
    plan = replace(PLAN, prequential=True, folds=3)
    metric = walk(evaluating(replace(none, decision=decision), tmp_path, plan=plan)).prequential[WIN]["log_loss"]
    assert metric.shown
    assert metric.improvement is not None
    assert metric.smallest_detectable is not None
    assert metric.improvement > 5 * metric.smallest_detectable


class StandIn:
    """Trainings of networks that note what they began with, and serve nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.begun: list[tuple[int, int | None]] = []
        monkeypatch.setattr(f"models_registry.assembling.train_{name}", self.train)

    def train(
        self,
        rows: TrainingSet,
        config: TrainingConfig,
        folder: Path,
        progress: object,
        *,
        start: StartingPoint | None = None,
    ) -> Component:
        before = None if start is None else int((start.folder / "start").read_text())
        self.begun.append((int(config.holdout_start_ms or 0), before))
        metric = Metric(value=1.0, improvement=0.0, sums=([0.0] * 20, [1.0] * 20, [0.0] * 20, [1.0] * 20))
        fresh(folder)
        (folder / "start").write_text(str(config.holdout_start_ms))
        split = split_of(rows, config)
        record = msgspec.structs.replace(
            of_labels(rows, split, 0),
            validation_start_ms=split.validation_start_ms,
            continued_from=None if start is None else start.bundle,
        )
        component = Component(
            version="1", served="f", format="x", files={"f": str(split.holdout_start_ms)}, provenance=record
        )
        return save_component(folder, msgspec.structs.replace(component, metrics={"loss": metric}))


def test_a_chain_goes_on_from_the_fold_before_each_time(
    made: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = StandIn(monkeypatch, FEATURE_NETWORK)
    monkeypatch.setattr("models_registry.training.training_features", lambda *given: None)
    config, plan = replace(CONFIG, feature_network=NetworkConfig()), replace(PLAN, prequential=True, folds=3)
    running = evaluating(made, tmp_path, config, plan)
    starts = [fold.start_ms for fold in running.folds]
    found = walk(running)
    scratch = [(start, None) for start in starts]
    chain = [(starts[1], starts[0]), (starts[2], starts[1])]
    assert network.begun == scratch + chain
    assert found.prequential[FEATURE_NETWORK]["loss"].blocks == 60
    # Trees go on although the network beside them is another: it went on too.
    assert [fold.anew for fold in found.continued] == [{}] * 3
    # What the chain needs of the folds before is made again where it is gone.
    network.begun.clear()
    last = replace(running, work=tmp_path / "elsewhere").continued(running.folds[2])
    assert network.begun == [scratch[0], *chain]
    assert encode(last) == encode(found.continued[2])


def test_trees_that_read_a_network_which_began_anew_begin_anew_too(
    made: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = StandIn(monkeypatch, FEATURE_NETWORK)
    monkeypatch.setattr("models_registry.training.training_features", lambda *given: None)

    def anew(*given: object, start: StartingPoint | None = None) -> Component:
        return network.train(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("models_registry.assembling.train_feature_network", anew)
    config, plan = replace(CONFIG, feature_network=NetworkConfig()), replace(PLAN, prequential=True, folds=2)
    found = walk(evaluating(made, tmp_path, config, plan))
    assert set(found.continued[1].anew) == {FEATURE_NETWORK, WIN}
    assert f"the champion read another {FEATURE_NETWORK}" in found.continued[1].anew[WIN]
    assert f"Fold 2, {WIN}: began anew, " in evaluation_markdown(found)


@pytest.mark.deep
def test_a_chain_begins_with_the_first_fold_that_can_be_trained(made: TrainingSet, tmp_path: Path) -> None:
    config = replace(CONFIG, win=replace(CONFIG.win, fewest_fit=1500))
    found = walk(evaluating(made, tmp_path, config, replace(PLAN, prequential=True)))
    assert found.continued[0].failed is not None
    began = [fold.fold.number for fold in found.continued if WIN in fold.anew]
    judged = [fold.fold.number for fold in found.continued if WIN in fold.metrics]
    assert began == judged[:1]
    assert found.prequential[WIN]["log_loss"].rows == sum(
        fold.metrics[WIN]["log_loss"].rows for fold in found.continued if WIN in fold.metrics
    )
    _, told = evaluation_markdown(found).split("Judged prequentially")
    assert "- Fold 1: not enough data for win_classifier" in told
    assert f"- Fold {judged[0] + 1}, {WIN}: began anew, there was none to go on from" in told


def test_a_chain_of_which_no_fold_could_be_trained_says_so(
    made: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_little(self: Evaluating, fold: Fold) -> FoldResult:
        return FoldResult(fold=fold, failed="not enough data to go on")

    running = evaluating(made, tmp_path, plan=replace(PLAN, prequential=True, folds=2))
    last = running.folds[1]
    monkeypatch.setattr(Evaluating, "continued", too_little)
    whole = Evaluating.from_scratch
    monkeypatch.setattr(
        Evaluating, "from_scratch", lambda self, fold: whole(self, fold) if fold == last else too_little(self, fold)
    )
    found = walk(running)
    assert found.prequential == {}
    _, told = evaluation_markdown(found).split("Judged prequentially")
    assert "- Fold 1: not enough data to go on" in told
    assert "- Fold 2: not enough data to go on" in told


def test_equal_evaluations_have_equal_keys(made: TrainingSet, monkeypatch: pytest.MonkeyPatch) -> None:
    key = evaluation_key(made, None, CONFIG, PLAN)
    assert evaluation_key(made, None, replace(CONFIG, holdout_start_ms=5, parent="3"), PLAN) == key
    others = [
        evaluation_key(made.select(np.arange(100)), None, CONFIG, PLAN),
        evaluation_key(made, None, replace(CONFIG, seed=8), PLAN),
        evaluation_key(made, None, CONFIG, replace(PLAN, every=2)),
        evaluation_key(made, None, CONFIG, replace(PLAN, prequential=True)),
    ]
    monkeypatch.setattr("models_registry.walk_forward.code_digest", lambda: "of a model that was mended")
    others.append(evaluation_key(made, None, CONFIG, PLAN))
    assert len({key, *others}) == 6


def test_words_of_what_a_score_is_worth() -> None:
    assert trial_words(Metric(value=0.5), 3) == ""
    assert "too few blocks" in trial_words(Metric(value=0.5, improvement=0.1), 3)
    words = trial_words(Metric(value=0.5, improvement=0.1, interval=(0.09, 0.11)), 1)
    assert words.startswith("deflated by 1 trial +0.1, shown; ")
    score = Metric(value=0.5, improvement=0.1, interval=(0.01, 0.19))
    assert "+0.1, not shown as one of 5 claims; " in trial_words(score, 1, claims=5)
    assert trial_words(score, 1, claims=5, claimed=False).startswith("deflated by 1 trial +0.1; ")
