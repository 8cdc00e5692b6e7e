"""One model file loaded for inference: TFLite and ONNX, one thread each.

A result must not depend on how a batch is split, or replay would differ from live. Both runtimes compute rows
independently when they use one thread; with more, XGBoost's trees were seen to change bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """A TFLite model with one input `[rows, ...]` and outputs `[rows, ...]`, float32 for the caller.

    A file that takes and gives int8 is quantised for and read back in numpy. One interpreter for each tile size is
    allocated at load, so that no call reallocates. The outputs are returned with the fewest dimensions first. Not safe
    for concurrent calls.
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
        self._input_scale = _scale_of(source)
        self.row_shape: tuple[int, ...] = tuple(int(size) for size in source["shape"][1:])
        outputs = sorted(interpreter.get_output_details(), key=lambda output: len(output["shape"]))
        self._outputs: list[int] = [output["index"] for output in outputs]
        self.output_shapes = [tuple(int(size) for size in output["shape"][1:]) for output in outputs]
        self._output_scales = [_scale_of(output) for output in outputs]

    def run(self, rows: Float32, out: Sequence[Float32 | None] | None = None) -> list[Float32]:
        """The outputs for `rows [n, ...]`: in the arrays of `out`, `[n, ...]`, or in a new one where None is given."""
        taken: NDArray[Any] = rows if self._input_scale is None else self._input_scale.whole(rows)
        results = [
            np.empty((len(rows), *shape), dtype=np.float32) if given is None else given
            for given, shape in zip(out or [None] * len(self.output_shapes), self.output_shapes, strict=True)
        ]
        start = 0
        for tile in plan_tiles(len(rows)):
            interpreter = self._interpreters[tile]
            stop = min(start + tile, len(rows))
            # The view must be gone before invoke, which the runtime checks: hence no local name for it.
            interpreter.tensor(self._input)()[: stop - start] = taken[start:stop]
            interpreter.invoke()
            for result, index in zip(results, self._outputs, strict=True):
                result[start:stop] = interpreter.tensor(index)()[: stop - start]
            start = stop
        for result, scale in zip(results, self._output_scales, strict=True):
            if scale is not None:
                scale.apply(result)
        return results


@dataclass(frozen=True)
class _Int8Scale:
    """What an int8 tensor's whole numbers stand for: `step * (whole - zero)`."""

    step: np.float32
    zero: int

    def whole(self, values: Float32) -> NDArray[np.int8]:
        """The whole numbers nearest to `values`."""
        return np.asarray(np.clip(np.round(values / self.step) + self.zero, -128, 127), dtype=np.int8)

    def apply(self, whole: Float32) -> None:
        """Put what whole numbers stand for in their place."""
        whole -= np.float32(self.zero)
        whole *= self.step


def _scale_of(tensor: dict[str, Any]) -> _Int8Scale | None:
    if tensor["dtype"] is not np.int8:
        return None
    step, zero = tensor["quantization"]
    return _Int8Scale(np.float32(step), int(zero))


class OnnxSession:
    """An ONNX classifier with one float32 input `[rows, columns]`; the probability of class 1.

    Calls may run side by side: each is run in its caller's thread, with buffers of its own.
    """

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
