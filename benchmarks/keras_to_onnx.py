"""A Keras graph of dense layers as the same graph in ONNX: only to time another runtime on what is served.

It knows the layers that the networks here are made of, an LSTM in its unrolled form, and no others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

OPSET = 15
ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}
JOINS = {"Add": "Add", "Multiply": "Mul"}


def to_onnx(model: Any) -> bytes:
    """The model, any number of rows in and out; raises `ValueError` for a layer that it does not know."""
    graph = _Graph()
    depths = sorted(model._nodes_by_depth, reverse=True)
    for node in (node for depth in depths for node in model._nodes_by_depth[depth]):
        if type(node.operation).__name__ != "InputLayer":
            graph.add(node)
    inputs = [_value("source", model.inputs[0])]
    graph.names[id(model.inputs[0])] = "source"
    outputs = [_value(graph.name(tensor), tensor) for tensor in model.outputs]
    whole = helper.make_graph(graph.nodes, "network", inputs, outputs, graph.weights)
    made = helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    return bytes(made.SerializeToString())


def _value(name: str, tensor: Any) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", *tensor.shape[1:]])


class _Graph:
    """Nodes and weights, as the model's are walked through."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.names: dict[int, str] = {}
        self._known: set[str] = set()

    def name(self, tensor: Any) -> str:
        """Of a tensor; the first that is asked for is the model's input."""
        return self.names.setdefault(id(tensor), "source" if not self.names else f"t{len(self.names)}")

    def weight(self, name: str, values: np.ndarray) -> str:
        """A constant, once: layers may be used at several places."""
        if name not in self._known:
            self._known.add(name)
            self.weights.append(numpy_helper.from_array(values, name))
        return name

    def node(self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        """One operation."""
        self.nodes.append(helper.make_node(kind, inputs, outputs, **attributes))

    def add(self, node: Any) -> None:
        """The operations of one place where a layer is used."""
        layer, kind = node.operation, type(node.operation).__name__
        inputs = [self.name(tensor) for tensor in node.input_tensors]
        outputs = [self.name(tensor) for tensor in node.outputs]
        if kind == "Dense":
            kernel, bias = (np.asarray(part) for part in layer.get_weights())
            activation = ACTIVATIONS.get(layer.activation.__name__)
            product = outputs[0] if activation is None else f"{outputs[0]}.sum"
            weights = [self.weight(f"{layer.name}.kernel", kernel), self.weight(f"{layer.name}.bias", bias)]
            self.node("Gemm", [*inputs, *weights], [product])
            if activation is not None:
                self.node(activation, [product], outputs)
        elif kind in JOINS:
            self.node(JOINS[kind], inputs, outputs)
        elif kind == "Activation":
            self.node(ACTIVATIONS[layer.activation.__name__], inputs, outputs)
        elif kind == "Concatenate":
            self.node("Concat", inputs, outputs, axis=1)
        elif kind == "Dropout":
            self.node("Identity", inputs, outputs)
        elif kind in ("Flatten", "Reshape"):
            shape = [-1, *node.outputs[0].shape[1:]]
            self.node("Reshape", [*inputs, self.weight(f"{layer.name}.shape", np.array(shape, np.int64))], outputs)
        elif kind == "Unstack":
            for step, output in enumerate(outputs):
                self.node("Gather", [*inputs, self.weight(f"step{step}", np.array(step, np.int64))], [output], axis=1)
        else:
            raise ValueError(f"{kind} is no layer of these networks")
