"""A converter that dies, hangs or lies costs its format and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models_registry import convert as convert_module
from models_registry.convert import FORMATS, FP32, INT8, INT8_IO, Converted, convert
from models_registry.sessions import TfliteSession
from tests.models_registry.stand_in import child, command

ROWS = np.zeros((4, 32, 5), dtype=np.float32)

FAILURES = pytest.mark.parametrize(
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
        ("finish(name) if 'fp32' in name else finish(name, 'ValueError: odd')", "ValueError: odd"),
        ("finish(name, size=5000 if 'fp32' in name else 0)", "has 0 bytes"),
    ],
)
HANGS = "finish(name) if 'fp32' in name else time.sleep(600)"


def check_failure(found: dict[str, Converted], folder: Path, reason: str) -> None:
    assert found[FP32].path == folder / "tflite_fp32.tflite"
    assert found[FP32].failed is None
    assert found[INT8].path is None
    assert reason in str(found[INT8].failed)


@FAILURES
def test_a_failure_is_named_and_belongs_to_its_format(tmp_path: Path, body: str, reason: str) -> None:
    found = convert(tmp_path / "m.keras", ROWS, tmp_path, FORMATS, worker=command(body))
    check_failure(found, tmp_path, reason)


@FAILURES
def test_a_failure_of_a_fork_is_named_and_belongs_to_its_format(tmp_path: Path, body: str, reason: str) -> None:
    found = convert(tmp_path / "m.keras", ROWS, tmp_path, FORMATS, child=child(body, tmp_path))
    check_failure(found, tmp_path, reason)


def test_a_converter_that_hangs_is_ended_at_its_time_limit(tmp_path: Path) -> None:
    found = convert(tmp_path / "m.keras", ROWS, tmp_path, (FP32, INT8), time_limit_s=2.0, worker=command(HANGS))
    check_failure(found, tmp_path, "time limit of 2 s")


def test_a_fork_that_hangs_is_ended_at_its_time_limit(tmp_path: Path) -> None:
    hangs = child(HANGS, tmp_path)
    found = convert(tmp_path / "m.keras", ROWS, tmp_path, (FP32, INT8), time_limit_s=4.0, child=hangs)
    check_failure(found, tmp_path, "time limit of 4 s")


def test_a_fork_that_hangs_gives_its_place_to_a_process_that_loads_all_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock may have been held when it was forked: that is no fault of the format."""
    monkeypatch.setattr(convert_module, "FORK_S", 0.5)
    monkeypatch.setattr(convert_module, "ALONE", tuple(command("finish(name)")))
    found = convert(tmp_path / "m.keras", ROWS, tmp_path, FORMATS, child=child("time.sleep(600)", tmp_path))
    assert [each.failed for each in found.values()] == [None] * len(FORMATS)


ANOTHER = """
import fcntl, os, signal, sys
from multiprocessing import forkserver
from pathlib import Path
import numpy as np
from models_registry import convert
from tests.models_registry.stand_in import child, command
folder = Path(sys.argv[1])
convert.PRELOAD = "preloaded"
convert.ALONE = tuple(command("finish(name) if 'io' not in name else sys.exit('alone')"))
def converted(body):
    found = convert.convert(folder / "m.keras", np.zeros((4, 1), np.float32), folder, child=child(body, folder))
    return [each.failed or "" for each in found.values()]
BODY
"""
"""Conversions in a process of its own, whose forks are of one that has loaded the module `preloaded` alone."""


def in_another_process(folder: Path, preloaded: str, body: str) -> None:
    (folder / "preloaded.py").write_text(preloaded)
    paths = os.pathsep.join([str(folder), *filter(None, sys.path)])
    code = ANOTHER.replace("BODY", body)
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, env=os.environ | {"PYTHONPATH": paths})


BY_ONE_ALONE = 'assert said[:2] == ["", ""] and said[2].endswith("alone"), said'


@pytest.mark.parametrize("preloaded", ["import os; os.abort()", "raise RuntimeError('no such processor')"])
def test_where_nothing_can_be_forked_from_each_conversion_loads_all_anew(tmp_path: Path, preloaded: str) -> None:
    body = f'for said in (converted("finish(name)"), converted("finish(name)")):\n    {BY_ONE_ALONE}'
    in_another_process(tmp_path, preloaded, body)


def test_what_is_forked_from_may_die_between_two_conversions(tmp_path: Path) -> None:
    body = """
assert converted("finish(name)") == [""] * 3
os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
said = converted("finish(name)")
assert said == [""] * 3 or said[:2] == ["", ""] and said[2].endswith("alone"), said
assert converted("finish(name)") == [""] * 3
"""
    in_another_process(tmp_path, "", body)


def test_what_is_forked_from_may_die_during_a_conversion_and_leaves_none_behind(tmp_path: Path) -> None:
    body = f"""
holds = "lock = open(folder + '/lock', 'w'); fcntl.flock(lock, fcntl.LOCK_EX); "
said = converted(holds + "os.kill(os.getppid(), signal.SIGKILL); time.sleep(600)")
{BY_ONE_ALONE}
with (folder / "lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
"""
    in_another_process(tmp_path, "", body)


def test_the_formats_after_a_crash_are_tried_again(tmp_path: Path) -> None:
    body = "os.abort() if 'fp32' in name else finish(name)"
    found = convert(tmp_path / "m.keras", ROWS, tmp_path, FORMATS, worker=command(body))
    assert "SIGABRT" in str(found[FP32].failed)
    assert found[INT8].path is not None


def test_a_model_that_is_none_fails_every_format(tmp_path: Path) -> None:
    (tmp_path / "m.keras").write_bytes(b"nothing")
    found = convert(
        tmp_path / "m.keras", ROWS, tmp_path, [INT8], worker=command("raise SystemExit(open(model).read())")
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
