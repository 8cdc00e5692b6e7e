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
from models_registry.manifest import AUTOENCODER, FEATURE_NETWORK, WIN, Component
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
from tests.models_registry import crossed, planted

SETTINGS = TrainingSettings(
    epochs=4, rounds=120, fewest_rows=100, holdout_hours=72, liquidity_predictor=False, strategy_dqn=False
)
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
    lake, rows = Lake(str(folder / "lake")), crossed.training_set()
    training_data.store(lake, rows)
    record = of_labels(rows, split_of(rows, config()), 7)
    for name in (AUTOENCODER, FEATURE_NETWORK, WIN):
        part = folder / "plain" / name
        part.mkdir(parents=True)
        save_component(part, msgspec.structs.replace(PLAIN, provenance=record))
        put_folder(lake, folder_of(name), part)
    return folder


def given(folder: Path, tracking_uri: str = "") -> dict[str, object]:
    source = "synthetic:seed=1,symbols=1"
    return resources(folder, source=source, tracking_uri=tracking_uri, training=SETTINGS)


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
    materialise(({asset!r},), home={str(folder)!r}, resources=here.given(Path({str(folder)!r}), {tracking_uri!r}))
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
@pytest.mark.parametrize("model", [WIN, FEATURE_NETWORK, AUTOENCODER])
def test_a_killed_training_goes_on_in_another_process_to_the_same_model(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert_here(monkeypatch)
    undisturbed, one = home(tmp_path / "undisturbed"), home(tmp_path / "killed")
    materialise((model,), home=undisturbed, resources=given(undisturbed))
    killed(one, model, AFTER_THE_SECOND)
    assert served(one, model) is None, "the plain version still: nothing half-trained took its place"
    told: list[Progress] = []
    materialise((model,), home=one, resources=given(one), progress=told.append)
    messages = [progress.message for progress in told if progress.kind == "log"]
    assert f"{model}: there is a training that was not finished" in messages
    assert served(one, model) == served(undisturbed, model) is not None
    fitting = [float(said.split()[-2]) for said in messages if said.startswith(f"{model}: fitting")]
    first = [float(said.split()[-2]) for said in undisturbed_messages(tmp_path, model)]
    assert fitting[0] > first[0], "it did not begin anew"


def undisturbed_messages(folder: Path, model: str) -> list[str]:
    """What a training from the beginning says of its fitting."""
    told: list[Progress] = []
    again = home(folder / "again")
    materialise((model,), home=again, resources=given(again), progress=told.append)
    return [progress.message for progress in told if progress.message.startswith(f"{model}: fitting")]


def served(folder: Path, model: str) -> str | None:
    """sha256 of the file that the current model of the lake serves."""
    get_folder(Lake(str(folder / "lake")), folder_of(model), folder / "look" / model)
    part = load_component(folder / "look" / model)
    return None if part.served is None else part.files[part.served]


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
