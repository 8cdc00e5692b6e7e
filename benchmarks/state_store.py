"""Keeping the state of 200 symbols and going on from it: the mapped file, against a snapshot file.

And what it costs to keep, for 1,000 open positions, what the models saw of each: slots, against a dict each.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Row, seconds
from benchmarks.universe import SYMBOLS, Universe, percentile
from features import DECISION_SPEC
from trading_worker import sight
from trading_worker.engine import Engine
from trading_worker.events import digest
from trading_worker.feature_slots import FeatureSlots
from trading_worker.mapped_file import PAGE
from trading_worker.shell.keeping import StateKeeper
from trading_worker.shell.mapped_keeper import MappedKeeper
from trading_worker.shell.metrics import Board
from trading_worker.shell.snapshot_store import SnapshotStore

WARM_MINUTES = 6 * 1440
WAVES = 120
POSITIONS = 1_000
CHARGED = (0,) * SYMBOLS

RESTART = """
import sys, time
began = time.perf_counter()
from pathlib import Path
from benchmarks.state_store import resumed
from benchmarks.universe import Universe
from trading_worker.shell.mapped_keeper import MappedKeeper
from trading_worker.shell.metrics import Board
from trading_worker.shell.snapshot_store import SnapshotStore
folder = Path(sys.argv[1])
universe = Universe(0, 0)
imported = time.perf_counter()
engine = resumed(MappedKeeper(folder, SnapshotStore(folder / "snapshots"), Board("bench")), universe)
print(imported - began, time.perf_counter() - imported)
"""


def run() -> list[Row]:
    """Parity of what both places give back, to the bit and in the decisions after it, then the times."""
    universe = Universe(WARM_MINUTES, WAVES + 30)
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        snapshots = SnapshotStore(folder / "snapshots")
        mapped = MappedKeeper(folder, _Nowhere(), Board("bench"))
        engine = universe.engine(universe.state())
        minutes, decisions = _commits(engine, universe, mapped)
        written = seconds(lambda: snapshots.save(engine, CHARGED, lasting=True), 10)
        _parity(engine, universe, mapped, snapshots)
        resume = seconds(lambda: resumed(mapped, universe), 20)
        restore = seconds(lambda: resumed(snapshots, universe), 20)
        size = sum(array.nbytes for array in engine.capture().arrays.values())
        mapped.close()
        note = f"{size / 2**20:.1f} MiB of state"
        rows = [
            _row("state commit after a 5m wave", decisions, written, "snapshot file with sha256 and fsync", note),
            _row("state commit after another minute", minutes, written, "snapshot file with sha256 and fsync", note),
            _row("resume from the state", resume, restore, "the newest snapshot file", _process(folder)),
        ]
        return [*rows, _vectors(folder)]


class _Nowhere(SnapshotStore):
    """Snapshots that are neither written nor found."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))

    def save(self, engine: Engine, charged_until: Any, *, lasting: bool) -> None:
        """Nothing."""


def _row(what: str, measured: np.ndarray, baseline: np.ndarray, against: str, note: str) -> Row:
    note = f"p99 {percentile(measured, 0.99):.2f} ms; {note}"
    return Row(f"{what}, {SYMBOLS} symbols", percentile(measured, 0.5), "ms", percentile(baseline, 0.5), against, note)


def _commits(engine: Engine, universe: Universe, keeper: MappedKeeper) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of the commits after minutes that close no 5m bar, and after those that do."""
    taken: dict[bool, list[float]] = {False: [], True: []}
    for wave in universe.waves[:WAVES]:
        engine.on_wave(wave)
        began = time.perf_counter()
        keeper.save(engine, CHARGED, lasting=False)
        taken[(wave.time_ms + 1) % 300_000 == 0].append(time.perf_counter() - began)
    # The first commit makes the file and the second fills its other half.
    return np.array(taken[False][2:]), np.array(taken[True][1:])


def resumed(keeper: StateKeeper, universe: Universe) -> Engine:
    """A blank engine that goes on from the newest state."""
    kept = next(iter(keeper.newest_first(_fail)))
    engine = universe.engine()
    engine.resume(kept.state)
    return engine


def _fail(reason: str) -> None:
    raise AssertionError(reason)


def _parity(engine: Engine, universe: Universe, *keepers: StateKeeper) -> None:
    others = [resumed(keeper, universe) for keeper in keepers]
    for name, array in engine.state.arrays().items():
        for other in others:
            assert other.state.arrays()[name].tobytes() == array.tobytes(), f"{name} came back changed"
    # The engine itself is saved again by nobody, so it may go on.
    after = [[event for wave in universe.waves[WAVES:] for event in each.on_wave(wave)] for each in (engine, *others)]
    assert len({digest(events) for events in after}) == 1, "decisions differ after going on from a state"


def _process(folder: Path) -> str:
    """What a new process takes, apart from its imports."""
    done = subprocess.run([sys.executable, "-c", RESTART, str(folder)], capture_output=True, text=True, check=True)
    imports, resume = map(float, done.stdout.split())
    return f"in a new process {resume * 1e3:.0f} ms, kernels loaded, after {imports:.1f} s of imports"


def _held(make: Callable[[], Any]) -> tuple[Any, int]:
    """What `make` gives, and the bytes that it keeps."""
    tracemalloc.start()
    made = make()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return made, held


def _vectors(folder: Path) -> Row:
    """Memory per 1,000 vectors; the mapped file is counted in full."""
    rng, names = np.random.default_rng(5), DECISION_SPEC.names
    width = sight.width(DECISION_SPEC)
    columns = [*names, *(f"window.{i}" for i in range(width - len(names)))]
    seen = rng.normal(size=(POSITIONS, width)).astype(np.float32)
    keys = [f"COIN{i % SYMBOLS}USDT-{1_767_571_499_999 + 300_000 * i}-1" for i in range(POSITIONS)]

    def slots() -> FeatureSlots:
        made = FeatureSlots(folder / "vectors.map", width, POSITIONS)
        for key, vector in zip(keys, seen, strict=True):
            made.put(key, vector, DECISION_SPEC.id)
        return made

    slotted, heap = _held(slots)
    arrays, array_bytes = _held(lambda: {key: vector.copy() for key, vector in zip(keys, seen, strict=True)})
    objects, object_bytes = _held(
        lambda: {key: dict(zip(columns, vector.tolist(), strict=True)) for key, vector in zip(keys, seen, strict=True)}
    )
    for key in keys:
        assert slotted.get(key).tobytes() == arrays[key].tobytes(), "a slot gives another vector"
        assert list(objects[key].values()) == arrays[key].tolist(), "a dict gives another vector"
    total = heap + (folder / "vectors.map").stat().st_size - PAGE
    slotted.close()
    return Row(
        f"memory of {POSITIONS:,} positions' vectors of {width}",
        total / 2**20,
        "MiB",
        object_bytes / 2**20,
        "a dict of column and number for each",
        f"{heap / 2**10:.0f} KiB of it on the heap; an array each: {array_bytes / 2**20:.2f} MiB, lost at a restart",
    )
