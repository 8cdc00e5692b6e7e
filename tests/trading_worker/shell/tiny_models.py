"""A bundle of real model files, written by hand in a moment: linear models that know nothing of any market.

The runtimes load and run them as they do trained ones, which is all that a test of the worker's imports asks for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import msgspec
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as tflite
from onnx import TensorProto, helper

from features import DECISION_SPEC
from models_registry.convert import FP32, INT8
from models_registry.manifest import AUTOENCODER, WIN, Component, FormatReport
from models_registry.structure_autoencoder import LATENTS, AutoencoderParameters
from models_registry.win_classifier import WinParameters
from models_registry.win_inputs import columns
from tests.trading_worker.shell.conftest import write_bundle

WINDOW = (DECISION_SPEC.window, len(DECISION_SPEC.window_names))
FLAT = WINDOW[0] * WINDOW[1]
INPUTS = ["decision", "latents", "direction"]


class _Graph:
    """One subgraph of a TFLite model, put together tensor by tensor."""

    def __init__(self) -> None:
        self.model, self.graph = tflite.ModelT(), tflite.SubGraphT()
        self.model.version = 3
        self.model.buffers = [tflite.BufferT()]
        self.model.operatorCodes, self.model.subgraphs = [], [self.graph]
        self.graph.tensors, self.graph.operators = [], []

    def tensor(self, shape: Sequence[int], values: np.ndarray[Any, Any] | None = None) -> int:
        """A tensor of `shape`, whose first dimension is free unless it is the constant `values`; its place."""
        tensor = tflite.TensorT()
        tensor.name = f"tensor_{len(self.graph.tensors)}"
        tensor.shape, tensor.buffer = list(shape), 0
        if values is None:
            tensor.shapeSignature = [-1, *shape[1:]]
        else:
            buffer = tflite.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), dtype=np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        whole = values is not None and values.dtype == np.int32
        tensor.type = tflite.TensorType.INT32 if whole else tflite.TensorType.FLOAT32
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _operator(self, builtin: int, version: tuple[Any, int], inputs: list[int], shape: Sequence[int]) -> int:
        code, operator = tflite.OperatorCodeT(), tflite.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        code.version = 1
        options, kind = version
        operator.opcodeIndex = len(self.model.operatorCodes)
        operator.builtinOptions, operator.builtinOptionsType = options, kind
        output = self.tensor(shape)
        operator.inputs, operator.outputs = inputs, [output]
        self.model.operatorCodes.append(code)
        self.graph.operators.append(operator)
        return output

    def reshape(self, source: int, shape: Sequence[int]) -> int:
        """`source` in another shape, rows kept."""
        wanted = np.array([-1, *shape], dtype=np.int32)
        options = tflite.ReshapeOptionsT()
        options.newShape = wanted.tolist()
        inputs = [source, self.tensor(wanted.shape, wanted)]
        kinds = tflite.BuiltinOperator.RESHAPE, tflite.BuiltinOptions.ReshapeOptions
        return self._operator(kinds[0], (options, kinds[1]), inputs, [1, *shape])

    def dense(self, source: int, weights: np.ndarray[Any, Any]) -> int:
        """`source` times the transpose of `weights`."""
        inputs = [source, self.tensor(weights.shape, weights.astype(np.float32)), -1]
        kinds = tflite.BuiltinOperator.FULLY_CONNECTED, tflite.BuiltinOptions.FullyConnectedOptions
        return self._operator(kinds[0], (tflite.FullyConnectedOptionsT(), kinds[1]), inputs, [1, len(weights)])

    def packed(self, source: int, outputs: list[int]) -> bytes:
        """The model's file."""
        self.graph.inputs, self.graph.outputs = [source], outputs
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def autoencoder(step: float = 0.0) -> bytes:
    """A projection of the window, and its transpose back, as TFLite; its weights are rounded to `step` where given."""
    weights = np.random.default_rng(1).standard_normal((LATENTS, FLAT)) / np.sqrt(FLAT)
    if step:
        weights = np.round(weights / step) * step
    graph = _Graph()
    source = graph.tensor([1, *WINDOW])
    latents = graph.dense(graph.reshape(source, [FLAT]), weights)
    return graph.packed(source, [latents, graph.reshape(graph.dense(latents, weights.T.copy()), WINDOW)])


def classifier(width: int) -> bytes:
    """One tree of two leaves, as the trees of xgboost come: a label, and the probabilities of both classes."""
    tree = helper.make_node(
        "TreeEnsembleClassifier",
        ["rows"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        classlabels_int64s=[0, 1],
        post_transform="LOGISTIC",
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_modes=["BRANCH_LT", "LEAF", "LEAF"],
        nodes_values=[0.0, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        nodes_hitrates=[1.0, 1.0, 1.0],
        nodes_missing_value_tracks_true=[1, 0, 0],
        class_treeids=[0, 0],
        class_nodeids=[1, 2],
        class_ids=[0, 0],
        class_weights=[-0.3, 0.3],
    )
    graph = helper.make_graph(
        [tree],
        "tree",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, width])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
        ],
    )
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return model.SerializeToString()


def write_models(folder: Path, name: str, served: str | None = None) -> Path:
    """A bundle of both files in `folder`, with real golden outputs.

    With `served`, `tflite_int8` or `tflite_fp32`, the autoencoder is there in both formats, and that one is served.
    """
    channels = WINDOW[1]
    seen = AutoencoderParameters(mean=[0.0] * channels, std=[1.0] * channels, limit=1e9)
    files = {
        "autoencoder.tflite": autoencoder(),
        "win.onnx": classifier(len(columns(INPUTS, DECISION_SPEC.names))),
    }
    components = {
        component: Component(
            version=name,
            served=file,
            format=file.rpartition(".")[2],
            files={file: hashlib.sha256(files[file]).hexdigest()},
            parameters=msgspec.to_builtins(parameters),
        )
        for component, file, parameters in (
            (AUTOENCODER, "autoencoder.tflite", seen),
            (WIN, "win.onnx", WinParameters(inputs=INPUTS)),
        )
    }
    if served is not None:
        components[AUTOENCODER], more = _in_two_formats(components[AUTOENCODER], served)
        files = {**files, **more}
        del files["autoencoder.tflite"]
    return write_bundle(folder, name, files=files, components=components)


def _in_two_formats(component: Component, served: str) -> tuple[Component, dict[str, bytes]]:
    """The autoencoder as fp32 and with rounded weights, which stands for INT8; and the files."""
    contents = {FP32: autoencoder(), INT8: autoencoder(step=0.004)}
    files = {f"autoencoder.{kind}": content for kind, content in contents.items()}
    digests = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    formats = {
        kind: FormatReport(passed=True, file=f"autoencoder.{kind}", sha256=digests[f"autoencoder.{kind}"])
        for kind in contents
    }
    file = f"autoencoder.{served}"
    return msgspec.structs.replace(component, served=file, format=served, formats=formats, files=digests), files
