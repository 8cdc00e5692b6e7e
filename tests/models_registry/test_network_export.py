"""A network is exported whatever becomes of one of its formats, and the table says what became of each."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models_registry import keras_setup, network_export
from models_registry.convert import FORMATS, FP32, INT8, INT8_IO, convert
from models_registry.exports import LATENCY_ROWS, Parity, report, sha256_of
from models_registry.manifest import Component, encode
from models_registry.network_export import ExportConfig, NetworkExport, NetworkFiles, champion, origin, take_weights

ROWS = np.random.default_rng(0).standard_normal((300, 40)).astype(np.float32)
NAME = "a_network"

STAND_IN = """
    import json, os, pathlib, shutil, signal, sys, time
    model, data, folder, *formats = sys.argv[1:]
    def give(name, file=None):
        place = pathlib.Path(folder, f"{name}.tflite")
        shutil.copy(pathlib.Path(GOOD, f"{name}.tflite"), place) if file is None else place.write_bytes(file)
        print(json.dumps({"format": name, "failed": None}), flush=True)
    for name in formats:
        if name == WRONG:
            BODY
        else:
            give(name)
"""


class Parameters(msgspec.Struct, frozen=True):
    """What stands around the network."""

    scale: float = 1.0


def network(width: int = 256) -> Any:
    import keras

    keras_setup.prepare(1)
    source = keras.layers.Input((40,), name="x")
    hidden = keras.layers.Dense(width, activation="relu", name="hidden")(source)
    return keras.Model(source, keras.layers.Dense(8, name="out")(hidden), name=NAME)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three formats of `network`, and it itself as `m.keras`."""
    folder = tmp_path_factory.mktemp("good")
    network().save(folder / "m.keras")
    assert all(found.path is not None for found in convert(folder / "m.keras", ROWS, folder).values())
    return folder


def stand_in(good: Path, wrong: str, body: str) -> list[str]:
    """A converter that gives what is in `good`, and for the format `wrong` does `body`."""
    text = textwrap.dedent(STAND_IN).replace("GOOD", repr(str(good))).replace("WRONG", repr(wrong))
    return [sys.executable, "-c", text.replace("BODY", body)]


def exported(
    folder: Path, good: Path, monkeypatch: pytest.MonkeyPatch, wrong: str = "", body: str = "pass", **config: Any
) -> Component:
    """`network` exported by a converter that errs in one format; decisions are the largest output."""
    worker = stand_in(good, wrong, body)
    monkeypatch.setattr(network_export, "convert", partial(convert, worker=worker))
    if wrong:
        monkeypatch.setattr(network_export, "save_model", lambda network, path: path.touch())
    trained = network()
    settings = ExportConfig(**{"time_limit_s": 60.0, **config})
    export = NetworkExport(NAME, folder, settings)
    export.keep(trained)
    expected = np.asarray(trained(ROWS))

    def parity(outputs: list[np.ndarray]) -> tuple[dict[str, float], float]:
        found = outputs[0]
        agreed = (found.argmax(axis=1) == expected.argmax(axis=1)).mean()
        return {"max_error": float(np.abs(found - expected).max())}, float(agreed)

    served = export.formats(export.names.keras, ROWS, ROWS, parity, {"max_error": 0.2})
    export.record(Parameters(), {"fit": [1.0]}, ["x"], ["y"], "spec")
    found = export.component(Parameters(), note="a note")
    assert found.format == served
    return found


def test_every_format_has_its_line_in_the_table(tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = exported(tmp_path, good, monkeypatch)
    assert set(found.formats) == set(FORMATS) == {FP32, INT8, INT8_IO}
    for name, line in found.formats.items():
        assert line.passed, name
        assert line.file is not None
        assert (tmp_path / line.file).stat().st_size == line.bytes
        assert sha256_of(tmp_path / line.file) == line.sha256 == found.files[line.file]
        assert line.latency_us
        assert line.latency_rows == LATENCY_ROWS
        assert line.speedup == pytest.approx(found.formats[FP32].latency_us / line.latency_us)  # type: ignore[operator]
        assert line.original_us is None, "Keras is not timed"
        assert line.max_error is not None
        assert line.agreement is not None
        assert line.failed is None
    assert found.formats[FP32].max_error < 1e-4  # type: ignore[operator]
    assert found.formats[INT8].bytes <= 0.35 * found.formats[FP32].bytes  # type: ignore[operator]
    assert {path.name for path in tmp_path.iterdir()} == set(found.files), "nothing else is left behind"
    assert encode(found)


CRASH = "os.kill(os.getpid(), signal.SIGSEGV)"


@pytest.mark.parametrize(
    ("wrong", "body", "reason", "instead"),
    [
        (INT8, CRASH, "killed by SIGSEGV", FP32),
        (INT8, "give(name, b'')", "the converted file has 0 bytes", FP32),
        (INT8, "print(json.dumps({'format': name, 'failed': 'it gives NaN'}), flush=True)", "it gives NaN", FP32),
        (INT8, "time.sleep(600)", "time limit of 5 s", FP32),
        (FP32, CRASH, "killed by SIGSEGV", INT8),
        (INT8_IO, CRASH, "killed by SIGSEGV", None),
    ],
)
def test_a_format_that_fails_fails_alone(
    wrong: str, body: str, reason: str, instead: str | None, tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = exported(tmp_path, good, monkeypatch, wrong, body, time_limit_s=5.0)
    assert not found.formats[wrong].passed
    assert reason in str(found.formats[wrong].failed)
    assert all(found.formats[name].passed for name in set(FORMATS) - {wrong})
    assert found.fallback is None
    if instead is not None:
        assert found.format == instead
        assert reason in found.note


def test_a_file_that_gives_other_numbers_does_not_pass(
    tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that loads and runs, but is another network's."""
    other = tmp_path / "other"
    shutil.copytree(good, other)
    strange = network()
    strange.set_weights([-part for part in strange.get_weights()])
    strange.save(other / "m.keras")
    path = convert(other / "m.keras", ROWS, other, (INT8,))[INT8].path
    assert path is not None
    body = f"give(name, pathlib.Path({str(path)!r}).read_bytes())"
    found = exported(tmp_path / "own", good, monkeypatch, INT8, body)
    assert found.format == FP32
    assert "max_error" in str(found.formats[INT8].failed)
    assert "agreement" in str(found.formats[INT8].failed)
    assert found.note.startswith("INT8 is not usable: max_error")


def test_a_number_that_is_none_fails_and_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    found = report(path, Parity({"max_error": float("nan")}, {"max_error": 1.0}, float("nan"), 0.98))
    assert not found.passed
    assert found.failed == "max_error nan exceeds 1; agreement nan is below 0.98"
    assert msgspec.json.decode(encode(found), type=type(found)) == found


def test_quantisation_that_is_switched_off_serves_fp32(
    tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = exported(tmp_path, good, monkeypatch, quantise=False)
    assert found.format == FP32
    assert found.note == "quantisation is switched off; a note"
    assert found.formats[INT8].passed


def test_int8_that_is_not_faster_is_not_served(tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = {FP32: 10.0, INT8: 10.0, INT8_IO: 1.0}
    monkeypatch.setattr("models_registry.exports.latencies_us", lambda calls: {name: slow[name] for name in calls})
    found = exported(tmp_path, good, monkeypatch)
    assert found.format == FP32
    assert found.note == "INT8 is not faster; a note"


def test_when_nothing_passes_there_is_no_version(tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = exported(tmp_path, good, monkeypatch, agreement=1.5)
    assert (found.served, found.version) == (None, "none")
    assert str(found.fallback).startswith("no format is usable: INT8 agreement")
    assert set(found.files) == {path.name for path in tmp_path.iterdir()}


def test_what_a_later_training_goes_on_from(tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = NetworkFiles(NAME)
    assert champion(None, files) is None
    assert champion(tmp_path, files) is None
    exported(tmp_path, good, monkeypatch)
    stored = champion(tmp_path, files)
    assert stored is not None
    assert (stored.inputs, stored.outputs, stored.decision_spec) == (["x"], ["y"], "spec")
    assert msgspec.convert(stored.parameters, Parameters) == Parameters()
    assert json.loads((tmp_path / files.curves).read_bytes()) == {"fit": [1.0]}
    assert "saved_model.pb" in zipfile.ZipFile(tmp_path / files.saved_model).namelist()
    own, other = network(), network(32)
    own.set_weights([0 * part for part in own.get_weights()])
    before = other.get_weights()
    assert take_weights(own, tmp_path / files.keras)
    assert not take_weights(other, tmp_path / files.keras)
    assert all(np.array_equal(a, b) for a, b in zip(own.get_weights(), network().get_weights(), strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(other.get_weights(), before, strict=True))
    assert (origin(None, False), origin(tmp_path, True)) == ("", "continued from the champion")
    assert origin(tmp_path, False).startswith("trained anew")


def test_how_a_network_is_exported_does_not_decide_its_training() -> None:
    assert ExportConfig().training == {}
