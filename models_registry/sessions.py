"""One model file loaded for inference: TFLite and ONNX, one thread each.

A result must not depend on how a batch is split, or replay would differ from live. Both runtimes compute rows
independently when they use one thread; with more, XGBoost's trees were seen to change bits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

TILES = (8, 32, 64)
"""Batch sizes that an interpreter is allocated for, ascending. Two hundred rows are three tiles of 64 and one of 8."""


def plan_tiles(rows: int) -> list[int]:
    """The tiles that `rows` are run in: the largest as often as it fills, the rest in the smallest that holds it.

    >>> plan_tiles(200), plan_tiles(33), plan_tiles(1)
    ([64, 64, 64, 8], [64], [8])
    """
    full, rest = divmod(rows, TILES[-1])
    return [TILES[-1]] * full + ([next(tile for tile in TILES if tile >= rest)] if rest else [])


class TfliteSession:
    """A TFLite model with one float32 input `[rows, ...]` and float32 outputs `[rows, ...]`.

    One interpreter for each tile size is allocated at load, so that no call reallocates. The outputs are returned
    with the fewest dimensions first. Not safe for concurrent calls.
    """

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        content = path.read_bytes()
        self._interpreters = {}
        for tile in TILES:
            interpreter = Interpreter(model_content=content, num_threads=1)
            source = interpreter.get_input_details()[0]
            interpreter.resize_tensor_input(source["index"], [tile, *source["shape"][1:]])
            interpreter.allocate_tensors()
            self._interpreters[tile] = interpreter
        self._input: int = source["index"]
        self.row_shape: tuple[int, ...] = tuple(int(size) for size in source["shape"][1:])
        outputs = sorted(interpreter.get_output_details(), key=lambda output: len(output["shape"]))
        self._outputs: list[int] = [output["index"] for output in outputs]
        self._output_shapes = [tuple(int(size) for size in output["shape"][1:]) for output in outputs]

    def run(self, rows: Float32) -> list[Float32]:
        """The outputs for `rows [n, ...]`, newly allocated."""
        results = [np.empty((len(rows), *shape), dtype=np.float32) for shape in self._output_shapes]
        start = 0
        for tile in plan_tiles(len(rows)):
            interpreter = self._interpreters[tile]
            stop = min(start + tile, len(rows))
            # The view must be gone before invoke, which the runtime checks: hence no local name for it.
            interpreter.tensor(self._input)()[: stop - start] = rows[start:stop]
            interpreter.invoke()
            for result, index in zip(results, self._outputs, strict=True):
                result[start:stop] = interpreter.tensor(index)()[: stop - start]
            start = stop
        return results


def run_integers(path: Path, rows: Float32) -> list[Float32]:
    """The outputs of a TFLite file that takes and gives int8, for `rows [n, ...]`: quantised to its scale and back.

    To check such a file, not to serve it: it is loaded for the one call. Outputs come as those of `TfliteSession`.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=path.read_bytes(), num_threads=1)
    source = interpreter.get_input_details()[0]
    interpreter.resize_tensor_input(source["index"], [len(rows), *source["shape"][1:]])
    interpreter.allocate_tensors()
    scale, zero = source["quantization"]
    whole = np.clip(np.round(rows / scale) + zero, -128, 127).astype(np.int8)
    interpreter.set_tensor(source["index"], whole)
    interpreter.invoke()
    outputs = sorted(interpreter.get_output_details(), key=lambda output: len(output["shape"]))
    found = []
    for output in outputs:
        scale, zero = output["quantization"]
        found.append((interpreter.get_tensor(output["index"]).astype(np.float32) - zero) * np.float32(scale))
    return found


class OnnxSession:
    """An ONNX classifier with one float32 input `[rows, columns]`; the probability of class 1."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        source = self._session.get_inputs()[0]
        self._input: str = source.name
        self._output: str = self._session.get_outputs()[1].name
        self.columns = int(source.shape[1])

    def run(self, rows: Float32) -> Float32:
        """Probabilities `[n]` of rows `[n, columns]`; NaN is a missing value."""
        if not len(rows):
            return np.empty(0, dtype=np.float32)
        both = self._session.run([self._output], {self._input: rows})[0]
        return np.ascontiguousarray(both[:, 1], dtype=np.float32)
