"""`strategy_dqn`: a state to the value of skip, long and short when flat, of hold and close when a position is open.

First what the live runtime needs of it: normalisation, the policy and the plain version that stands in when there is no
network. Then its training, export and measure, which import TensorFlow when they are called. Values are R still to
come over closing now, net of fees and funding (`features.episodes`).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.barriers import VOID
from features.episodes import ACTIONS, CLOSE, HOLD, LONG, SHORT, SKIP, Episodes, action_mask
from models_registry.checkpoints import Checkpoint, training_key
from models_registry.convert import convert
from models_registry.dqn_experience import Experience
from models_registry.dqn_learner import LearnerConfig, Learnt, Problem, learn, values_of
from models_registry.errors import InputRejected, NotEnoughData, ReplayUnreadable, TrainingUnavailable
from models_registry.exports import LATENCY_ROWS, choose, report, sha256_of, with_latencies
from models_registry.manifest import Component, FormatReport, finite
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
from models_registry.sessions import TfliteSession
from models_registry.structure_autoencoder import Progress
from models_registry.training_set import Split

Float32 = NDArray[np.float32]

DQN = "strategy_dqn"
KERAS_FILE = f"{DQN}.keras"
REPLAY_FILE = f"{DQN}.replay.npz"
PARAMETERS_FILE = f"{DQN}.json"
"""These three are what a later training continues from."""
SAVED_MODEL_FILE = f"{DQN}.saved_model.zip"
CURVES_FILE = f"{DQN}.curves.json"

HEADLINE = "r_per_opportunity_vs_always_skip"
FEWEST_CALIBRATED = 50
CLIP = 5.0
"""Normalised inputs are limited to this many spreads: INT8 has one input scale per tensor."""


class DqnParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What the runtime applies around the network, and what a later training goes on from."""

    names: list[str]
    """The columns of a state."""
    centre: list[float]
    """Per column, the median of the fitted states."""
    spread: list[float]
    value_scale: list[float]
    """Per action: the network gives values in these units, so that one INT8 scale serves all of them."""
    calibration: tuple[float, float] = (0.0, 1.0)
    """Intercept and slope that the values of long and short went through (`calibrated`); the file has them in it."""
    clip: float = CLIP
    actions: list[str] = msgspec.field(default_factory=lambda: list(ACTIONS))
    discount: float = 1.0
    """A bar of the deciding timeframe."""
    updates: int = 0
    """Trainings that the network has been through."""
    analyses: int = 0
    """Opportunities that they were fitted to, altogether."""
    batches: int = 0
    history: dict[str, list[float | None]] = {}
    """The curves of the last training, one number a pass; the first is of the network that it began with."""


def normalise(state: Float32, parameters: DqnParameters, out: Float32 | None = None) -> Float32:
    """States `[k, S]` as the network takes them: centred, scaled, clipped; NaN as the median. In `out` when given."""
    centre = np.asarray(parameters.centre, dtype=np.float32)
    scale = np.float32(1.0) / np.asarray(parameters.spread, dtype=np.float32)
    scaled = np.subtract(state, centre, out=out)
    scaled *= scale
    np.nan_to_num(scaled, copy=False, nan=0.0, posinf=parameters.clip, neginf=-parameters.clip)
    return np.clip(scaled, -parameters.clip, parameters.clip, out=scaled)


def plain_actions(signal: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The plain version: take the rule signal [k] (1, -1, 0), hold to the barrier. Actions `[k]` within `mask`.

    >>> flat, held = [True, True, True, False, False], [False, False, False, True, True]
    >>> plain_actions(np.array([1, -1, 0, 1]), np.array([flat, flat, flat, held])).tolist()
    [1, 2, 0, 3]
    """
    wanted = np.where(signal > 0, LONG, np.where(signal < 0, SHORT, SKIP))
    possible = mask[np.arange(len(mask)), wanted]
    return np.where(mask[:, HOLD], HOLD, np.where(possible, wanted, SKIP))


class DqnPolicy:
    """The network of a component, or its plain version when it serves none. Rows do not depend on each other.

    One caller at a time: the buffers are reused.
    """

    def __init__(self, folder: Path, component: Component) -> None:
        self._session: TfliteSession | None = None
        if component.served is None:
            return
        self.parameters = msgspec.convert(component.parameters, DqnParameters)
        self._session = TfliteSession(folder / component.served)
        self._scale = np.asarray(self.parameters.value_scale, dtype=np.float32)
        self._buffer = np.empty((256, len(self.parameters.names)), dtype=np.float32)

    def run(
        self, state: Float32, mask: NDArray[np.bool_], signal: NDArray[Any] | None = None
    ) -> tuple[Float32, NDArray[np.int64]]:
        """Values `[k, 5]` in R and the best actions `[k]` among those of `mask [k, 5]`.

        `signal [k]` is the rule strategy's, which the plain version follows; its values are NaN. Raises `InputRejected`
        for states of other columns, a row without any action, or a plain version without signals.
        """
        if mask.shape != (len(state), len(ACTIONS)) or not mask.any(axis=1).all():
            raise InputRejected(f"the mask {mask.shape} of {len(state)} states leaves a row without an action")
        if self._session is None:
            if signal is None:
                raise InputRejected("the plain version of the strategy follows the rule signal, which is not given")
            return np.full(mask.shape, np.nan, dtype=np.float32), plain_actions(signal, mask)
        if state.shape[1] != len(self.parameters.names):
            raise InputRejected(f"states have {state.shape[1]} columns, the bundle's {len(self.parameters.names)}")
        if len(state) > len(self._buffer):
            self._buffer = np.empty((2 * len(state), state.shape[1]), dtype=np.float32)
        rows = normalise(state, self.parameters, self._buffer[: len(state)])
        values = self._session.run(rows)[0]
        values *= self._scale
        return values, masked(values, mask)


def plain_component(reason: str) -> Component:
    """The component of a strategy that could not be trained: the rules, and why."""
    return Component(version="none", served=None, format=None, fallback=reason)


@dataclass(frozen=True)
class DqnConfig:
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
    quantise: bool = True
    """Serve INT8 when it passes; `ENABLE_QUANTIZATION`."""
    agreement: float = 0.98
    """Parity: least share of best actions that a format has in common with Keras."""
    time_limit_s: float = 180.0
    """Of one conversion subprocess."""


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
    if find_spec("tensorflow") is None:
        raise TrainingUnavailable(DQN, "tensorflow")
    _enough(split, config)
    third = max(config.most_opportunities // 3, 1)
    fit, validation = spaced(split.fit, config.most_opportunities), spaced(split.validation, third)
    held = spaced(split.holdout, third)
    seen, judged = experience.select(np.concatenate([fit, validation])), experience.select(held)
    fitted = seen.episodes.state_opportunity < len(fit)
    start = _start(initial, experience.names)
    states = seen.states()
    parameters = _normalisation(states[fitted], experience.names) if start is None else start.parameters
    learner = config.learner
    if start is not None:
        passes = max(round(learner.passes * config.continued_passes), 1)
        learner = replace(learner, passes=passes, learning_rate=learner.learning_rate / 2)
    steps, of_fit = seen.episodes.transitions(), fitted[seen.episodes.transitions().state]
    problem = Problem(normalise(states, parameters), seen.masks(), steps.select(of_fit), steps.select(~of_fit))
    key = training_key(DQN, learner, {"states": states, **vars(steps)}, start.digest if start else "")
    checkpoint = Checkpoint(folder, key)
    later = seen.episodes.select(np.arange(len(fit), len(seen)))

    def tell(done: int, learnt: Learnt) -> None:
        progress(f"{DQN}: fitting", 0.75 * done / learner.passes)

    def watch(values: Float32) -> dict[str, float]:
        of_later = values[~fitted]
        played = greedy(later, of_later)
        means = {f"mean_{name}": value for name, value in mean_values(later, of_later).items()}
        return {**means, "r_per_opportunity": played.per_opportunity, "trades": float(played.trades.mean())}

    learnt = learn(
        problem,
        learner,
        checkpoint=checkpoint,
        start=None if start is None else (start.network, start.replay),
        watch=watch,
        on_pass=tell,
    )
    progress(f"{DQN}: converting", 0.75)
    held_states = normalise(judged.states(), parameters)
    intercept, slope = calibrated(later, values_of(learnt.network, problem.states[~fitted]))
    _change_head(learnt.network, *_entry_change(intercept, slope))
    scale = _scaled_head(learnt.network, values_of(learnt.network, problem.states[fitted]), seen.masks()[fitted])
    formats = _export(learnt.network, problem.states[fitted], held_states, judged.masks(), scale, config, folder)
    parameters = msgspec.structs.replace(
        parameters,
        value_scale=scale.tolist(),
        calibration=(intercept, slope),
        discount=learner.discount,
        updates=parameters.updates + 1,
        analyses=parameters.analyses + len(fit),
        batches=parameters.batches + learnt.batches,
        history={name: [finite(value) for value in curve] for name, curve in learnt.curves.items()},
    )
    files = _keep(learnt, parameters, folder) | {
        found.file: found.sha256 for found in formats.values() if found.file and found.sha256
    }
    served, why = choose(formats, config.quantise)
    checkpoint.discard()
    progress(DQN, 1.0)
    if served is None:
        return msgspec.structs.replace(plain_component(why), formats=formats, files=files)
    values = TfliteSession(folder / str(formats[served].file)).run(held_states)[0] * scale
    baselines = {"always_skip": always_skip(judged.episodes), "random": uniform(judged.episodes)}
    baselines["rules"] = rules(judged.episodes)
    if probability is not None:
        baselines["win_threshold"] = by_probability(judged.episodes, probability[held], config.threshold)
    played = greedy(judged.episodes, values)
    return Component(
        version=str(formats[served].sha256)[:12],
        served=formats[served].file,
        format=served,
        formats=formats,
        files=files,
        metrics=policy_metrics(judged.episodes, played, baselines, learner.seed),
        headline=HEADLINE,
        parameters=msgspec.to_builtins(parameters),
        note=_note(why, initial, start, played, judged),
    )


def spaced(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most `most` of the rows, evenly spaced, both ends among them."""
    if len(rows) <= most:
        return rows
    return rows[np.unique(np.linspace(0, len(rows) - 1, most).round().astype(np.int64))]


def _enough(split: Split, config: DqnConfig) -> None:
    need = config.fewest_opportunities
    for what, part, least in (
        ("fit", split.fit, need),
        ("be stopped early", split.validation, need // 10),
        ("be judged", split.holdout, need // 10),
    ):
        if len(part) < least:
            raise NotEnoughData(f"{DQN} to {what}", len(part), least)


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
    if folder is None or not (folder / PARAMETERS_FILE).is_file():
        return None
    parameters = msgspec.json.decode((folder / PARAMETERS_FILE).read_bytes(), type=DqnParameters)
    if parameters.names != names:
        return None
    import keras

    network = keras.models.load_model(folder / KERAS_FILE, compile=False)
    _change_head(network, np.asarray(parameters.value_scale, dtype=np.float32), np.float32(0))
    try:
        replay = ReplayBuffer.load(folder / REPLAY_FILE)
    except ReplayUnreadable:
        replay = None
    digest = "".join(sha256_of(folder / file) for file in (KERAS_FILE, REPLAY_FILE) if (folder / file).is_file())
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


def _export(
    network: Any,
    fitted: Float32,
    states: Float32,
    masks: NDArray[np.bool_],
    scale: Float32,
    config: DqnConfig,
    folder: Path,
) -> dict[str, FormatReport]:
    """Every format, measured against Keras on held-out states."""
    network.save(folder / KERAS_FILE)
    with tempfile.TemporaryDirectory() as scratch:
        network.export(Path(scratch) / "model", verbose=False)
        shutil.make_archive(str(folder / SAVED_MODEL_FILE.removesuffix(".zip")), "zip", Path(scratch) / "model")
    converted = convert(
        folder / KERAS_FILE, fitted[_every(len(fitted), 1024)], folder, time_limit_s=config.time_limit_s
    )
    rows = _every(len(states), 8192)
    expected = values_of(network, states[rows]) * scale
    best = masked(expected, masks[rows])
    batch = np.resize(states[rows], (LATENCY_ROWS, states.shape[1]))
    sessions: dict[str, TfliteSession] = {}
    formats = {}
    for name, result in converted.items():
        if result.path is None:
            formats[name] = FormatReport(passed=False, failed=result.failed)
            continue
        path = result.path.rename(folder / f"{DQN}.{name.removeprefix('tflite_')}.tflite")
        sessions[name] = TfliteSession(path)
        found = sessions[name].run(states[rows])[0] * scale
        agreement = float((masked(found, masks[rows]) == best).mean())
        errors = {
            "max_error": float(np.abs(np.where(masks[rows], found - expected, 0.0)).max()),
            "disagreement": 1.0 - agreement,
        }
        formats[name] = msgspec.structs.replace(
            report(path, errors, {"disagreement": 1.0 - config.agreement}), agreement=agreement
        )
    return with_latencies(formats, {name: partial(session.run, batch) for name, session in sessions.items()})


def _every(rows: int, most: int) -> NDArray[np.int64]:
    return spaced(np.arange(rows), most)


def _keep(learnt: Learnt, parameters: DqnParameters, folder: Path) -> dict[str, str]:
    """Write what a later training continues from, and the curves; the files' sha256."""
    learnt.replay.save(folder / REPLAY_FILE)
    (folder / PARAMETERS_FILE).write_bytes(msgspec.json.encode(parameters))
    (folder / CURVES_FILE).write_text(json.dumps(parameters.history))
    names = (KERAS_FILE, SAVED_MODEL_FILE, REPLAY_FILE, PARAMETERS_FILE, CURVES_FILE)
    return {name: sha256_of(folder / name) for name in names}


def _note(why: str, initial: Path | None, start: _Start | None, played: Played, judged: Experience) -> str:
    parts = [why]
    if initial is not None:
        parts.append("trained from scratch: the champion has other columns" if start is None else "continued")
    parts.append(f"{round(played.trades.sum())} trades at {len(judged)} held-out opportunities")
    return "; ".join(parts)
