"""A converter that dies, hangs or lies costs its format and nothing else."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from models_registry.convert import FORMATS, FP32, INT8, INT8_IO, convert
from models_registry.sessions import TfliteSession

ROWS = np.zeros((4, 32, 5), dtype=np.float32)

STAND_IN = """
    import json, os, pathlib, signal, sys, time
    model, data, folder, *formats = sys.argv[1:]
    def finish(name, failed=None, size=5000):
        pathlib.Path(folder, f"{name}.tflite").write_bytes(b"x" * size)
        print(json.dumps({"format": name, "failed": failed}), flush=True)
    for name in formats:
        BODY
"""


def stand_in(body: str) -> list[str]:
    """A converter that does `body` for each format `name`."""
    return [sys.executable, "-c", textwrap.dedent(STAND_IN).replace("BODY", body)]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("finish(name) if 'fp32' in name else os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        (
            "finish(name) if 'fp32' in name else sys.exit('no such layer')",
            "exit code 1 before it was done: no such layer",
        ),
        (
            "finish(name) if 'fp32' in name else sys.exit('no such layer\\nI0000 00:00:17 port.cc:153] is on.')",
            "exit code 1 before it was done: no such layer",
        ),
        ("finish(name) if 'fp32' in name else os._exit(0)", "exit code 0 before it was done"),
        ("finish(name) if 'fp32' in name else time.sleep(600)", "time limit of 2 s"),
        ("finish(name) if 'fp32' in name else finish(name, 'ValueError: odd')", "ValueError: odd"),
        ("finish(name, size=5000 if 'fp32' in name else 0)", "has 0 bytes"),
    ],
)
def test_a_failure_is_named_and_belongs_to_its_format(tmp_path: Path, body: str, reason: str) -> None:
    found = convert(tmp_path / "m.keras", ROWS, tmp_path, FORMATS, time_limit_s=2.0, worker=stand_in(body))
    assert found[FP32].path == tmp_path / "tflite_fp32.tflite"
    assert found[FP32].failed is None
    assert found[INT8].path is None
    assert reason in str(found[INT8].failed)


def test_the_formats_after_a_crash_are_tried_again(tmp_path: Path) -> None:
    body = "os.abort() if 'fp32' in name else finish(name)"
    found = convert(tmp_path / "m.keras", ROWS, tmp_path, FORMATS, worker=stand_in(body))
    assert "SIGABRT" in str(found[FP32].failed)
    assert found[INT8].path is not None


def test_a_model_that_is_none_fails_every_format(tmp_path: Path) -> None:
    (tmp_path / "m.keras").write_bytes(b"nothing")
    found = convert(
        tmp_path / "m.keras", ROWS, tmp_path, [INT8], worker=stand_in("raise SystemExit(open(model).read())")
    )
    assert found[INT8].path is None
    assert str(found[INT8].failed).endswith("nothing")


def test_what_the_converter_makes_gives_numbers_or_says_that_it_does_not(tmp_path: Path) -> None:
    """The real one, on a network that is sound and on one whose weights are not numbers."""
    import keras

    source = keras.layers.Input((32, 5), name="x")
    flat = keras.layers.Flatten(name="flat")(source)
    network = keras.Model(source, keras.layers.Dense(16, name="out")(flat))
    rows = np.random.default_rng(0).standard_normal((64, 32, 5)).astype(np.float32)
    network.save(tmp_path / "sound.keras")
    (tmp_path / "sound").mkdir()
    sound = convert(tmp_path / "sound.keras", rows, tmp_path / "sound")
    expected = np.asarray(network(rows))
    for name in (FP32, INT8, INT8_IO):
        path = sound[name].path
        assert path is not None
        assert np.abs(TfliteSession(path).run(rows)[0] - expected).max() < 0.05 * np.abs(expected).max(), name
    path = sound[INT8_IO].path
    assert path is not None
    session = TfliteSession(path)
    parts = [session.run(part)[0] for part in np.split(rows, [1, 40])]
    assert np.concatenate(parts).tobytes() == session.run(rows)[0].tobytes(), "rows do not depend on the batch"
    assert session.run(rows[:0])[0].shape == (0, 16)
    network.set_weights([part * np.nan for part in network.get_weights()])
    network.save(tmp_path / "spoilt.keras")
    (tmp_path / "spoilt").mkdir()
    spoilt = convert(tmp_path / "spoilt.keras", rows, tmp_path / "spoilt", (FP32,))[FP32]
    assert spoilt.path is None
    assert spoilt.failed == "the converted file gives NaN"
