"""SIGKILL: a training goes on from what the lake kept of it, and nothing half-written is ever registered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from market.lake import Lake
from models_registry.bundle import verify
from models_registry.checkpoints import Checkpoint, TrainingState
from models_registry.component_folder import load_component, save_component
from models_registry.manifest import AUTOENCODER, DQN, FEATURE_NETWORK, LIQUIDITY, WIN, Component
from models_registry.provenance import of_labels
from models_registry.registry import Registry
from models_registry.training_config import TrainingConfig, split_of
from orchestration import training_data
from orchestration.artifacts import get_folder, put_folder
from orchestration.bundling import register_bundle
from orchestration.model_folders import KeptCheckpoint, folder_of
from orchestration.resources import TrainingSettings
from orchestration.run import Progress, materialise, resources
from tests.in_process_conversion import convert_here
from tests.mlflow_server import emptied_server
from tests.models_registry import crossed, made_five, planted

ALL_FIVE = TrainingSettings(epochs=6, rounds=120, fewest_rows=100, holdout_hours=72)
SETTINGS = TrainingSettings(**ALL_FIVE.model_dump() | {"liquidity_predictor": False, "strategy_dqn": False})
FIVE = (AUTOENCODER, FEATURE_NETWORK, LIQUIDITY, WIN, DQN)
UNFINISHED = "a training was not finished; its checkpoint is taken up if it fits"
PLAIN = Component(version="none", served=None, format=None, fallback="left out by the test")


class Clock:
    """Says what it is told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def checkpoint(folder: Path, epoch: int, at: str = "") -> None:
    Checkpoint(folder / "checkpoint" / at if at else folder, "k").save(
        TrainingState({"weights": np.full(3, epoch)}, {"epoch": epoch})
    )


def test_another_folder_takes_up_what_the_lake_kept(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    checkpoint(tmp_path / "one", 5)
    checkpoint(tmp_path / "one", 2, at="fold-1")
    KeptCheckpoint(lake, "model", tmp_path / "one").keep()
    checkpoint(tmp_path / "used", 1)
    for folder in (tmp_path / "fresh", tmp_path / "used"):
        assert KeptCheckpoint(lake, "model", folder).fetch() == 2
        for at, epoch in ((folder, 5), (folder / "checkpoint" / "fold-1", 2)):
            state = Checkpoint(at, "k").load()
            assert state is not None
            assert state.record["epoch"] == epoch
    assert KeptCheckpoint(lake, "another", tmp_path / "fresh").fetch() == 0


def test_a_finished_training_leaves_nothing_to_take_up(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    checkpoint(tmp_path / "one", 5)
    kept = KeptCheckpoint(lake, "model", tmp_path / "one")
    kept.keep()
    kept.discard()
    assert KeptCheckpoint(lake, "model", tmp_path / "two").fetch() == 0
    assert not (tmp_path / "two").exists()


def test_what_is_being_written_is_not_kept(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    checkpoint(tmp_path / "one", 5)
    (tmp_path / "one" / "checkpoint" / ".state.npz.partial.npz").write_bytes(b"half")
    KeptCheckpoint(lake, "model", tmp_path / "one").keep()
    assert KeptCheckpoint(lake, "model", tmp_path / "two").fetch() == 1


def test_keeping_takes_at_most_a_twentieth_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, clock = Lake(str(tmp_path / "lake")), Clock()
    kept = KeptCheckpoint(lake, "model", tmp_path / "one", clock)
    put = lake.put_bytes

    def slow(path: str, data: bytes) -> str:
        clock.now += 2.0
        return put(path, data)

    monkeypatch.setattr(lake, "put_bytes", slow)

    def epoch_kept() -> int:
        KeptCheckpoint(lake, "model", tmp_path / "seen").fetch()
        state = Checkpoint(tmp_path / "seen", "k").load()
        assert state is not None
        return int(state.record["epoch"])

    for epoch, at, expected in ((1, 0.0, 1), (2, 39.9, 1), (3, 40.1, 3)):
        checkpoint(tmp_path / "one", epoch)
        clock.now = at
        kept.keep()
        assert epoch_kept() == expected


def config() -> TrainingConfig:
    return SETTINGS.config(int(crossed.training_set().decided_at[-1]))


def home(folder: Path) -> Path:
    """A lake with a training set, and plain versions of all models: each test trains the one that it is about."""
    lake, rows = Lake(str(folder / "lake")), made_five.with_paths(crossed.training_set())
    training_data.store(lake, rows)
    training_data.store_opportunities(lake, made_five.opportunities(rows))
    record = of_labels(rows, split_of(rows, config()), 7)
    for name in FIVE:
        part = folder / "plain" / name
        part.mkdir(parents=True)
        save_component(part, msgspec.structs.replace(PLAIN, provenance=record))
        put_folder(lake, folder_of(name), part)
    return folder


def given(folder: Path, asset: str, tracking_uri: str = "") -> dict[str, object]:
    source = "synthetic:seed=1,symbols=1"
    training = ALL_FIVE if asset in (LIQUIDITY, DQN) else SETTINGS
    return resources(folder, source=source, tracking_uri=tracking_uri, training=training)


def trained(folder: Path, model: str) -> list[str]:
    """Materialise `model`; what was logged meanwhile."""
    told: list[Progress] = []
    materialise((model,), home=folder, resources=given(folder, model), progress=told.append)
    return [progress.message for progress in told if progress.kind == "log"]


def killed(folder: Path, asset: str, how: str, tracking_uri: str = "") -> None:
    """Materialise `asset` in a process of its own, which the code `how` makes kill itself."""
    code = f"""
import os, signal
from pathlib import Path
import pytest
from orchestration.run import materialise
from tests.in_process_conversion import convert_here
from tests.orchestration import test_killed as here
def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
with pytest.MonkeyPatch.context() as patch:
    convert_here(patch)
{how}
    given = here.given(Path({str(folder)!r}), {asset!r}, {tracking_uri!r})
    materialise(({asset!r},), home={str(folder)!r}, resources=given)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=dict(os.environ), check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]


AFTER_THE_SECOND = """
    from orchestration.model_folders import KeptCheckpoint
    keep = KeptCheckpoint.keep
    stored = []
    def kept(self):
        self._next_s = 0.0
        keep(self)
        now = dict(self._kept)
        if now and (not stored or stored[-1] != now):
            stored.append(now)
        if len(stored) == 2:
            kill()
    patch.setattr(KeptCheckpoint, "keep", kept)
"""
"""Kills itself when a second state of the training is in the lake."""


@pytest.mark.deep
@pytest.mark.parametrize("model", FIVE)
def test_a_killed_training_goes_on_in_another_process_to_the_same_model(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert_here(monkeypatch)
    undisturbed, one = home(tmp_path / "undisturbed"), home(tmp_path / "killed")
    from_the_beginning = fitting(model, trained(undisturbed, model))
    killed(one, model, AFTER_THE_SECOND)
    assert served(one, model) is None, "the plain version still: nothing half-trained took its place"
    messages = trained(one, model)
    assert f"{model}: {UNFINISHED}" in messages
    assert not any("refused" in message for message in messages)
    assert served(one, model) == served(undisturbed, model) is not None
    assert fitting(model, messages)[0] > from_the_beginning[0], "it did not begin anew"


def fitting(model: str, messages: list[str]) -> list[float]:
    """How far the fitting was, each time that it was told, in percent."""
    return [float(said.split()[-2]) for said in messages if said.startswith(f"{model}: fitting")]


REFUSED = {
    "it is of other data or another configuration": lambda content: content,
    "it is damaged": lambda content: content[:-1],
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_checkpoint_that_is_not_taken_up_is_told_of_with_the_reason(why: str, tmp_path: Path) -> None:
    one = home(tmp_path / "home")
    checkpoint(tmp_path / "other", 1)
    path = Checkpoint(tmp_path / "other", "k").path
    path.write_bytes(REFUSED[why](path.read_bytes()))
    KeptCheckpoint(Lake(str(one / "lake")), WIN, tmp_path / "other").keep()
    messages = trained(one, WIN)
    (told,) = [message for message in messages if "refused" in message]
    assert told.startswith("the training begins anew: checkpoint ")
    assert f"refused, {why}: " in told
    assert messages.index(f"{WIN}: {UNFINISHED}") < messages.index(told)


def served(folder: Path, model: str) -> dict[str, str | None] | None:
    """sha256 of each format of the lake's current model, if it serves any: which one does hangs on measured times."""
    get_folder(Lake(str(folder / "lake")), folder_of(model), folder / "look" / model)
    part = load_component(folder / "look" / model)
    return None if part.served is None else {name: report.sha256 for name, report in part.formats.items()}


MOMENTS = {
    "while the bundle is written": (
        "    from models_registry import bundle\n    patch.setattr(bundle, 'encode', kill)\n"
    ),
    "between component and bundle": (
        "    from models_registry.registry import Registry\n    patch.setattr(Registry, 'register', kill)\n"
    ),
    "in the middle of the upload": """
    from mlflow import MlflowClient
    upload = MlflowClient.log_artifacts
    def half(self, run_id, folder, path=None):
        if not (Path(folder) / "manifest.json").exists():
            return upload(self, run_id, folder, path)
        self.log_artifact(run_id, str(Path(folder) / "manifest.json"), path)
        kill()
    patch.setattr(MlflowClient, "log_artifacts", half)
""",
    "before it has a version": """
    from mlflow import MlflowClient
    create = MlflowClient.create_model_version
    patch.setattr(
        MlflowClient, "create_model_version",
        lambda self, name, *more, **given: kill() if name == "trading_bundle" else create(self, name, *more, **given),
    )
""",
    "before it is challenger": (
        "    from models_registry.registry import Registry\n    patch.setattr(Registry, 'challenge', kill)\n"
    ),
}


@pytest.mark.deep
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_leaves_no_half_bundle_in_the_registry(moment: str, tmp_path: Path) -> None:
    one, url = home(tmp_path / "home"), emptied_server().url
    lake, registry = Lake(str(one / "lake")), Registry(url, one / "registry" / "ledger.jsonl")
    killed(one, "trading_bundle", MOMENTS[moment], url)
    whole = len(registry.list())
    assert whole == (1 if moment == "before it is challenger" else 0)
    assert registry.champion() is None
    assert registry.challenger() is None
    assert not lake.exists(training_data.LEARNT), "the labels are still to be learnt from"
    made = register_bundle(lake, registry, training_data.load(lake), config())
    assert [version.version for version in registry.list()] == [made.version], "the same models, the same version"
    assert registry.challenger() == made.version
    files = registry.download(made.version, tmp_path / "bundle")
    assert verify(files, planted.SPEC_ID).bundle_version == made.version
