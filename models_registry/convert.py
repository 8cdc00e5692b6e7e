"""Keras to TFLite and xgboost to ONNX, in a subprocess: a converter that crashes takes a format with it, not the run.

`main` converts to each format in turn and tries every file before it says so on its standard output. `convert` runs
that in a process of its own, with a time limit: a fork of one that has loaded TensorFlow once, as loading it takes
longer than converting a small network.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FP32 = "tflite_fp32"
INT8 = "tflite_int8"
INT8_IO = "tflite_int8_io"
"""INT8 that also takes and gives int8, for who quantises elsewhere; it is not served."""
FORMATS = (FP32, INT8, INT8_IO)
"""Of every network."""
ONNX = "onnx"
"""Of the win model's trees."""

FORK_S = 60.0
"""A fork that takes longer is ended, and a process that loads all anew takes its place, with the whole time limit: a
library may have held a lock when it was forked."""
ALONE = (sys.executable, "-c", "import sys; from models_registry.convert import main; main(sys.argv[1:])")
"""Loads all anew."""
PRELOAD = "models_registry.convert_loaded"
"""What the process has loaded that conversions are forked from."""
SERVER_LOST = 255
"""The exit code that `multiprocessing` gives a fork when what it was forked from is gone."""

Child = Callable[[Sequence[str]], None]
"""What a conversion runs, with the arguments of `main`; a fork finds it by its module and name."""

_NOTE = re.compile(r"[IW]\d{4} |INFO|WARNING")
"""What libraries tell of themselves on standard error: no reason of anything."""

SMALLEST_BYTES = 1024
"""A TFLite converter that loses the weights still writes a file, of a few hundred bytes. Trees may have no more."""


@dataclass(frozen=True)
class Converted:
    """What became of one format: `path` of a file that loads and gives finite numbers, or why there is none."""

    format: str
    path: Path | None
    failed: str | None


def convert(
    model: Path,
    representative: NDArray[np.float32],
    folder: Path,
    formats: Sequence[str] = FORMATS,
    *,
    time_limit_s: float = 180.0,
    worker: Sequence[str] | None = None,
    child: Child | None = None,
) -> dict[str, Converted]:
    """Convert the file `model`, of Keras or for `ONNX` of xgboost, to every format, as `folder/` `file_of(format)`.

    `representative [n, ...]` calibrates INT8, and every file is tried on the first of it. A format whose conversion
    fails, crashes the subprocess or exceeds `time_limit_s` is reported as failed, and the remaining ones are tried in a
    new subprocess. `worker` is a command to run in place of `main`, with the same arguments, and `child` a function
    that a fork calls in place of it.
    """
    results: dict[str, Converted] = {}
    with tempfile.TemporaryDirectory(prefix="convert-") as scratch:
        data = Path(scratch) / "representative.npy"
        np.save(data, representative)
        while remaining := [name for name in formats if name not in results]:
            arguments = [str(model), str(data), str(folder), *remaining]
            if worker is None:
                report = _forked(arguments, Path(scratch), time_limit_s, child or main)
            else:
                report = _run([*worker, *arguments], Path(scratch), time_limit_s)
            for name, failed in report.finished.items():
                results[name] = _checked(name, folder / file_of(name), failed)
            unfinished = [name for name in remaining if name not in results]
            if unfinished:
                # Whatever ended the subprocess happened in the format that was next.
                results[unfinished[0]] = Converted(unfinished[0], None, report.ended)
    return results


def file_of(name: str) -> str:
    """What a format's file is called.

    >>> file_of("tflite_int8"), file_of("onnx")
    ('tflite_int8.tflite', 'onnx.onnx')
    """
    return f"{name}.onnx" if name == ONNX else f"{name}.tflite"


@dataclass(frozen=True)
class _Report:
    finished: dict[str, str | None]
    ended: str


@cache
def _loaded() -> ForkServerContext:
    """Forks of a process that has loaded TensorFlow; it ends with this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOAD])
    return context


def _forked(arguments: list[str], scratch: Path, time_limit_s: float, child: Child) -> _Report:
    process = _loaded().Process(target=_child, args=(child, arguments, str(scratch)), name="conversion")
    try:
        process.start()
    except (EOFError, OSError):
        # There is nothing to fork from: what it loads ended it, or something else did.
        return _run([*ALONE, *arguments], scratch, time_limit_s)
    process.join(min(FORK_S, time_limit_s))
    if process.exitcode is None:
        process.kill()
        process.join()
        if time_limit_s > FORK_S:
            return _run([*ALONE, *arguments], scratch, time_limit_s)
        return _report(scratch, f"conversion exceeded its time limit of {time_limit_s:g} s")
    if process.exitcode == SERVER_LOST:
        # The fork outlives it, and would write the same files.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.ident or 0, signal.SIGKILL)
        return _run([*ALONE, *arguments], scratch, time_limit_s)
    return _report(scratch, _exit_words(process.exitcode))


def _child(child: Child, arguments: list[str], scratch: str) -> None:
    """In the fork: convert, with the standard streams in files."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(Path(scratch) / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    child(arguments)


def _run(command: list[str], scratch: Path, time_limit_s: float) -> _Report:
    with (scratch / "stdout").open("wb") as out, (scratch / "stderr").open("wb") as err:
        try:
            code = subprocess.run(command, stdout=out, stderr=err, timeout=time_limit_s, check=False).returncode
            ended = _exit_words(code)
        except subprocess.TimeoutExpired:
            ended = f"conversion exceeded its time limit of {time_limit_s:g} s"
    return _report(scratch, ended)


def _report(scratch: Path, ended: str) -> _Report:
    """What the subprocess said of each format before it `ended`."""
    said = (scratch / "stderr").read_text(errors="replace").strip().splitlines()
    tail = [line for line in said if not _NOTE.match(line)][-1:]
    finished: dict[str, str | None] = {}
    for line in (scratch / "stdout").read_text(errors="replace").splitlines():
        if line.startswith('{"format"'):
            entry = json.loads(line)
            finished[entry["format"]] = entry["failed"]
    return _Report(finished, ": ".join([ended, *tail]))


def _exit_words(code: int) -> str:
    if code < 0:
        return f"conversion was killed by {signal.Signals(-code).name}"
    return f"conversion ended with exit code {code} before it was done"


def _checked(name: str, path: Path, failed: str | None) -> Converted:
    if failed is not None:
        return Converted(name, None, failed)
    size = path.stat().st_size if path.is_file() else 0
    if size < (1 if name == ONNX else SMALLEST_BYTES):
        return Converted(name, None, f"the converted file has {size} bytes")
    return Converted(name, path, None)


def main(arguments: Sequence[str]) -> None:
    """The subprocess: convert, try the file, and report each format in one line of JSON."""
    model, data_path, folder, *formats = arguments
    representative = np.load(data_path)
    for name in formats:
        path = Path(folder) / file_of(name)
        failed = None
        try:
            path.write_bytes(
                _to_onnx(model, representative) if name == ONNX else _to_tflite(model, representative, name)
            )
            failed = _try(path, representative[:64], name)
        except (ValueError, RuntimeError, TypeError, OSError) as error:
            failed = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        print(json.dumps({"format": name, "failed": failed}), flush=True)


@cache
def _keras_model(path: str) -> object:
    import keras

    return keras.models.load_model(path, compile=False)


def _to_tflite(model: str, representative: NDArray[np.float32], name: str) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(_keras_model(model))
    if name in (INT8, INT8_IO):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([row[None]] for row in representative)
        # Float input and output: quantising in numpy is slower than in the graph.
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if name == INT8_IO:
            converter.inference_input_type = converter.inference_output_type = tf.int8
    elif name != FP32:
        raise ValueError(f"unknown format {name}, known are {', '.join((*FORMATS, ONNX))}")
    return bytes(converter.convert())


def _to_onnx(model: str, representative: NDArray[np.float32]) -> bytes:
    import xgboost
    from onnxmltools.convert import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    booster = xgboost.Booster(model_file=model)
    kinds = [("input", FloatTensorType([None, representative.shape[1]]))]
    return bytes(convert_xgboost(booster, "trees", kinds, target_opset=15).SerializeToString())


def _try(path: Path, rows: NDArray[np.float32], name: str) -> str | None:
    from models_registry.sessions import OnnxSession, TfliteSession

    outputs = [OnnxSession(path).run(rows)] if name == ONNX else TfliteSession(path).run(rows)
    return None if all(np.isfinite(values).all() for values in outputs) else "the converted file gives NaN"
