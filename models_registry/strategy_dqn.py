"""`strategy_dqn`: a state to the value of skip, long and short when flat, of hold and close when a position is open.

Its training, export and measure, which import TensorFlow when they are called. What the live runtime needs of it is in
`dqn_policy`, what it learns from in `features.episodes` and `dqn_experience`, how in `dqn_learner`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.barriers import VOID
from features.episodes import ACTIONS, CLOSE, LONG, SHORT, Episodes, action_mask
from models_registry.checkpoints import Checkpoint, training_key
from models_registry.dqn_experience import Experience
from models_registry.dqn_learner import LearnerConfig, Learnt, Problem, learn, values_of
from models_registry.dqn_policy import DqnParameters, normalise
from models_registry.errors import ReplayUnreadable, check_split
from models_registry.exports import sha256_of
from models_registry.keras_setup import require
from models_registry.manifest import DQN, Component, Metric, finite
from models_registry.network_export import ExportConfig, NetworkExport, NetworkFiles, champion, origin, representative
from models_registry.policy_value import (
    Played,
    always_skip,
    by_probability,
    greedy,
    masked,
    mean_values,
    policy_metrics,
    rules,
    uniform,
)
from models_registry.replay_buffer import ReplayBuffer
from models_registry.structure_autoencoder import Progress
from models_registry.thinning import evenly
from models_registry.training_set import Split

Float32 = NDArray[np.float32]

FILES = NetworkFiles(DQN)
REPLAY_FILE = f"{DQN}.replay.npz"
"""What a later training continues from, besides the network."""

HEADLINE = "r_per_opportunity_vs_always_skip"
FEWEST_CALIBRATED = 50


@dataclass(frozen=True)
class DqnConfig(ExportConfig):
    """How the network is trained, exported and judged."""

    learner: LearnerConfig = field(default_factory=LearnerConfig)
    most_opportunities: int = 20_000
    """Fitted at most; more are thinned evenly in time. Validation and holdout take a third of it each."""
    fewest_opportunities: int = 500
    """To fit; a tenth of it to stop and to be judged."""
    continued_passes: float = 1 / 3
    """Share of the passes when it continues from a champion, at half the rate."""
    threshold: float = 0.35
    """Of the win model's probability, for the comparison with it; `MIN_CONFIDENCE`."""


@dataclass(frozen=True)
class Fitted:
    """A trained network, not yet exported."""

    network: Any
    """Normalised states to values in R."""
    parameters: DqnParameters
    learnt: Learnt
    states: Float32
    """The fitted states, normalised: what calibrates INT8."""
    masks: NDArray[np.bool_]
    continued: bool
    """Whether it went on from a champion."""

    def values(self, experience: Experience) -> Float32:
        """Values of every state of `experience`, by Keras."""
        return values_of(self.network, normalise(experience.states(), self.parameters))


def fit(
    experience: Experience,
    split: Split,
    config: DqnConfig,
    progress: Progress,
    *,
    checkpoint_in: Path | None = None,
    initial: Path | None = None,
) -> Fitted:
    """Fit to the split's fit part, stopped early and calibrated on its validation part, from scratch or `initial`.

    With a folder `checkpoint_in` it goes on from the checkpoint there, and leaves one. Raises as `train` does.
    """
    require(DQN)
    check_split(DQN, config.fewest_opportunities, len(split.fit), len(split.validation), len(split.holdout))
    early = spaced(split.fit, config.most_opportunities)
    late = spaced(split.validation, max(config.most_opportunities // 3, 1))
    seen = experience.select(np.concatenate([early, late]))
    later = seen.episodes.select(np.arange(len(early), len(seen)))
    fitted = seen.episodes.state_opportunity < len(early)
    states, masks, steps = seen.states(), seen.masks(), seen.episodes.transitions()
    start, learner = _start(initial, experience.names), config.learner
    if start is None:
        parameters = _normalisation(states[fitted], experience.names)
    else:
        parameters = start.parameters
        passes = max(round(learner.passes * config.continued_passes), 1)
        learner = replace(learner, passes=passes, learning_rate=learner.learning_rate / 2)
    of_fit = fitted[steps.state]
    problem = Problem(normalise(states, parameters), masks, steps.select(of_fit), steps.select(~of_fit))
    key = training_key(DQN, learner, {"states": states, **vars(steps)}, str(len(early)), start.digest if start else "")

    def watch(values: Float32) -> dict[str, float]:
        played = greedy(later, values[~fitted])
        means = {f"mean_{name}": value for name, value in mean_values(later, values[~fitted]).items()}
        return {**means, "r_per_opportunity": played.per_opportunity, "trades": float(played.trades.mean())}

    learnt = learn(
        problem,
        learner,
        checkpoint=None if checkpoint_in is None else Checkpoint(checkpoint_in, key),
        start=None if start is None else (start.network, start.replay),
        watch=watch,
        on_pass=lambda done, _: progress(f"{DQN}: fitting", 0.75 * done / learner.passes),
    )
    intercept, slope = calibrated(later, values_of(learnt.network, problem.states[~fitted]))
    _change_head(learnt.network, *_entry_change(intercept, slope))
    parameters = msgspec.structs.replace(
        parameters,
        value_scale=[1.0] * len(ACTIONS),
        calibration=(intercept, slope),
        discount=learner.discount,
        updates=parameters.updates + 1,
        analyses=parameters.analyses + len(early),
        batches=parameters.batches + learnt.batches,
        history={name: [finite(value) for value in curve] for name, curve in learnt.curves.items()},
    )
    return Fitted(learnt.network, parameters, learnt, problem.states[fitted], masks[fitted], start is not None)


def train(
    experience: Experience,
    split: Split,
    config: DqnConfig,
    folder: Path,
    progress: Progress,
    *,
    initial: Path | None = None,
    probability: NDArray[np.floating[Any]] | None = None,
) -> Component:
    """Train, export and judge the network; its files are written to `folder`.

    `split` cuts the opportunities: fitted, stopped early, judged. `initial` is a folder with a champion's files, whose
    network and replay buffer it continues from if the columns are the same. `probability` [n, 2] is the win model's of
    each opportunity, long and short, NaN where the direction is no candidate, to be compared with.

    Raises `NotEnoughData`, and `TrainingUnavailable` without TensorFlow; a format that cannot be exported is named in
    the component and raises nothing. Interrupted, it goes on from its checkpoint.
    """
    found = fit(experience, split, config, progress, checkpoint_in=folder, initial=initial)
    held = spaced(split.holdout, max(config.most_opportunities // 3, 1))
    judged = experience.select(held)
    progress(f"{DQN}: converting", 0.75)
    scale = _scaled_head(found.network, values_of(found.network, found.states), found.masks)
    parameters = msgspec.structs.replace(found.parameters, value_scale=scale.tolist())
    states = normalise(judged.states(), parameters)
    export = NetworkExport(DQN, folder, config)
    export.keep(found.network)
    found.learnt.replay.save(folder / REPLAY_FILE)
    export.pin(REPLAY_FILE)
    export.record(parameters, parameters.history, parameters.names, ACTIONS)
    note, metrics = origin(initial, found.continued), {}
    if _formats(export, found, states, judged.masks(), scale) is not None:
        played = greedy(judged.episodes, export.served().run(states)[0] * scale)
        metrics = judge(judged.episodes, played, config, None if probability is None else probability[held])
        trades = f"{round(played.trades.sum())} trades at {len(judged)} held-out opportunities"
        note = "; ".join(filter(None, [note, trades]))
    Checkpoint(folder, "").discard()
    progress(DQN, 1.0)
    return export.component(parameters, metrics=metrics, headline=HEADLINE, note=note)


def judge(
    episodes: Episodes, played: Played, config: DqnConfig, probability: NDArray[np.floating[Any]] | None = None
) -> dict[str, Metric]:
    """What the policy got on held-out episodes beside never trading, dice, the rules and the win model's threshold."""
    baselines = {"always_skip": always_skip(episodes), "random": uniform(episodes), "rules": rules(episodes)}
    if probability is not None:
        baselines["win_threshold"] = by_probability(episodes, probability, config.threshold)
    return policy_metrics(episodes, played, baselines, config.learner.seed)


def spaced(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most `most` of the rows, evenly spaced."""
    return rows if len(rows) <= most else rows[evenly(len(rows), most)]


def _normalisation(states: Float32, names: list[str]) -> DqnParameters:
    """Medians and spreads of the fitted states: a spread is that of the middle nine tenths, as a normal's is."""
    known = np.where(np.isfinite(states), states, np.nan).astype(np.float64)
    known[:, np.isnan(known).all(axis=0)] = 0.0
    low, centre, high = np.nanquantile(known, (0.05, 0.5, 0.95), axis=0)
    spread = (high - low) / (2 * 1.645)
    # Flags that are rarely set have no middle to speak of.
    spread = np.where(spread > 1e-9, spread, np.nanstd(known, axis=0))
    spread = np.where(spread > 1e-9, spread, 1.0)
    return DqnParameters(names=names, centre=centre.tolist(), spread=spread.tolist(), value_scale=[1.0] * len(ACTIONS))


@dataclass(frozen=True)
class _Start:
    """A champion to continue from."""

    network: Any
    replay: ReplayBuffer | None
    parameters: DqnParameters
    digest: str


def _start(folder: Path | None, names: list[str]) -> _Start | None:
    """The champion in `folder`; None when there is none, or its columns are others."""
    stored = champion(folder, FILES)
    if folder is None or stored is None or stored.inputs != names:
        return None
    parameters = msgspec.convert(stored.parameters, DqnParameters)
    import keras

    network = keras.models.load_model(folder / FILES.keras, compile=False)
    _change_head(network, np.asarray(parameters.value_scale, dtype=np.float32), np.float32(0))
    try:
        replay = ReplayBuffer.load(folder / REPLAY_FILE)
    except ReplayUnreadable:
        replay = None
    digest = "".join(sha256_of(folder / file) for file in (FILES.keras, REPLAY_FILE) if (folder / file).is_file())
    return _Start(network, replay, parameters, digest)


def calibrated(episodes: Episodes, values: Float32) -> tuple[float, float]:
    """Intercept and slope of what entries gave on what they were valued at, least squares; the slope within 0 to 1.

    The best of several uncertain values is too high by its own error, and who acts on it pays for that. On entries that
    the network was not fitted to the slope says how much of the differences between values is true.

    Both directions of all opportunities, closed as the network says; (0, 1) where there are too few to tell.
    """
    closes = masked(values, action_mask(episodes.state_position[:, 0]))[len(episodes) :] == CLOSE
    taken = episodes.outcome != VOID
    got = episodes.managed(closes)[taken]
    valued = values[: len(episodes), LONG : SHORT + 1][taken].astype(np.float64)
    if len(got) < FEWEST_CALIBRATED or valued.std() < 1e-6:
        return 0.0, 1.0
    slope = float(np.clip(np.cov(valued, got)[0, 1] / valued.var(ddof=1), 0.0, 1.0))
    return float(got.mean() - slope * valued.mean()), slope


def _entry_change(intercept: float, slope: float) -> tuple[Float32, Float32]:
    """Factor and addition for each action: those of the calibration for long and short."""
    entry = np.isin(np.arange(len(ACTIONS)), (LONG, SHORT))
    return np.where(entry, slope, 1.0).astype(np.float32), np.where(entry, intercept, 0.0).astype(np.float32)


def _change_head(network: Any, factor: Float32, added: Float32 | np.float32) -> None:
    """Multiply what the network gives for each action, and add to it."""
    head = network.get_layer("values")
    kernel, bias = head.get_weights()
    head.set_weights([kernel * factor, bias * factor + added])


def _scaled_head(network: Any, values: Float32, masks: NDArray[np.bool_]) -> Float32:
    """Bring every action's values to about one, and return the units: 1 where an action is worth nothing."""
    largest = np.array([np.abs(values[masks[:, a], a]).max(initial=0.0) for a in range(values.shape[1])])
    scale = np.where(largest > 1e-6, largest, 1.0).astype(np.float32)
    _change_head(network, np.float32(1.0) / scale, np.float32(0))
    return scale


def _formats(
    export: NetworkExport, found: Fitted, states: Float32, masks: NDArray[np.bool_], scale: Float32
) -> str | None:
    """Every format, measured against Keras on held-out states: what is decided is the best action."""
    rows = representative(np.arange(len(states)), 8192)
    known, allowed = states[rows], masks[rows]
    expected = values_of(found.network, known) * scale
    best = masked(expected, allowed)

    def parity(outputs: list[Float32]) -> tuple[dict[str, float], float]:
        values = outputs[0] * scale
        error = float(np.abs(np.where(allowed, values - expected, 0.0)).max())
        return {"max_error": error}, float((masked(values, allowed) == best).mean())

    return export.formats(FILES.keras, representative(found.states, 1024), known, parity)
