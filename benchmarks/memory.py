"""Memory of a process that runs a bundle and does nothing else, against one that has TensorFlow for it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.inference import ROWS
from benchmarks.report import Row
from benchmarks.small_bundle import asked_wave, small_bundle
from benchmarks.trained_with import KERAS, TREES

_RESIDENT = """
def resident():
    lines = [line.split() for line in open("/proc/self/status")]
    return {line[0].strip(":"): int(line[1]) * 1024 / 1e6 for line in lines if line[0] in ("VmRSS:", "VmHWM:")}
"""

_RUNTIME = (
    _RESIDENT
    + """
import sys
import numpy as np
bare = resident()["VmRSS"]
from models_registry.runtime import Predictor
imported = resident()["VmRSS"]
predictor = Predictor.load(sys.argv[1])
assert not predictor.fallbacks, predictor.fallbacks
wave = dict(np.load(sys.argv[2]))
said = predictor.predict(**wave)
assert np.isfinite(said.win_probability).all()
heavy = {"numba", "tensorflow", "xgboost", "scipy", "pandas", "duckdb"} & set(sys.modules)
assert not heavy, heavy
print(bare, imported, *resident().values())
"""
)

_TRAINED = (
    _RESIDENT
    + """
import sys
import keras, xgboost
networks = [keras.models.load_model(file, compile=False) for file in sys.argv[2:]]
trees = xgboost.Booster(model_file=sys.argv[1])
for network in networks:
    shapes = network.input_shape
    import numpy as np
    network.predict(np.zeros((200, *shapes[1:]), np.float32), verbose=0)
print(*resident().values())
"""
)


def run() -> list[Row]:
    """The resident memory of each in a process of its own, after one wave of 200 rows."""
    bundle = small_bundle()
    wave = asked_wave(bundle.history, ROWS)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "wave.npz"
        np.savez(file, **vars(wave))
        bare, imported, peak, resident = _told(_RUNTIME, str(bundle.folder), str(file))
    files = [str(bundle.folder / file) for file in KERAS.values()]
    _, other = _told(_TRAINED, str(bundle.folder / TREES), *files)
    return [
        Row(
            "memory of a process with runtime and bundle, resident",
            resident,
            "MB",
            other,
            "the same models in TensorFlow and xgboost",
            f"numpy alone {bare:.0f}, runtime imported {imported:.0f}, peak {peak:.0f} MB",
            at_most=130,
        )
    ]


def _told(script: str, *arguments: str) -> list[float]:
    """The numbers on the last line that a new process prints."""
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [float(part) for part in done.stdout.splitlines()[-1].split()]
