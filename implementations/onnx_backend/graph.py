"""The ONNX graph of a network: recurrent nodes and a linear readout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from harness.contract import Array, NetworkSpec, Readout

OPSET = 17
IR_VERSION = 8

NODES: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn": ("RNN", {"activations": ["Tanh"]}),
    "rnn-relu": ("RNN", {"activations": ["Relu"]}),
    "gru": ("GRU", {"linear_before_reset": 1}),
    "gru-reset-before": ("GRU", {"linear_before_reset": 0}),
    "lstm": ("LSTM", {}),
}
"""Operator and attributes of each cell."""

STATES = {1: ("h",), 2: ("h", "c")}


def build_model(
    spec: NetworkSpec, parts: int, tensors: Mapping[str, Array], *, padded: bool
) -> onnx.ModelProto:
    """Return the model of a network, its weights inside.

    Inputs: `x` [time, batch, input] or tokens [time, batch], the state parts `h` and
    `c` [layers, batch, hidden], and `lengths` [batch] where sequences are padded.
    Outputs: `outputs` [batch, readouts, output] and the final state, `h_n` and `c_n`.
    """
    graph = _Graph(spec, parts, padded)
    graph.build()
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "network",
            graph.inputs(),
            graph.outputs(),
            [
                numpy_helper.from_array(a, n)
                for n, a in graph.constants(tensors).items()
            ],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


class _Graph:
    """Nodes as they are added, in order."""

    def __init__(self, spec: NetworkSpec, parts: int, padded: bool) -> None:
        self._spec, self._states, self._padded = spec, STATES[parts], padded
        self.nodes: list[onnx.NodeProto] = []

    def _add(
        self, operator: str, inputs: list[str], output: str, **attributes: Any
    ) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def build(self) -> None:
        """Add every node."""
        x = "x"
        if self._spec.inputs.embedded:
            x = self._add("Gather", ["embedding", x], "embedded", axis=0)
        layers = range(self._spec.num_layers)
        for state in self._states:
            parts = [f"{state}{i}" for i in layers]
            self.nodes.append(helper.make_node("Split", [state], parts, axis=0))
        for i in layers:
            x = self._layer(i, x)
        for state in self._states:
            finals = [f"{state}_n{i}" for i in layers]
            self._add("Concat", finals, f"{state}_n", axis=0)
        top = f"h_n{layers[-1]}"
        if self._spec.readout is Readout.EVERY:
            top = x
        top = self._add("Transpose", [top], "top", perm=[1, 0, 2])
        product = self._add("MatMul", [top, "readout.w_t"], "product")
        self._add("Add", [product, "readout.b"], "outputs")

    def _layer(self, i: int, x: str) -> str:
        operator, attributes = NODES[self._spec.cell]
        initial = [f"{state}{i}" for state in self._states]
        finals = [f"{state}_n{i}" for state in self._states]
        lengths = "lengths" if self._padded else ""
        weights = [f"layer{i}.{name}" for name in ("W", "R", "B")]
        self.nodes.append(
            helper.make_node(
                operator,
                [x, *weights, lengths, *initial],
                [f"y{i}", *finals],
                hidden_size=self._spec.hidden_size,
                **attributes,
            )
        )
        # [time, directions, batch, hidden], and there is one direction.
        return self._add("Squeeze", [f"y{i}", "directions"], f"top{i}")

    def constants(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Return the weights under the names the nodes know them by."""
        found = dict(tensors)
        found["readout.w_t"] = np.ascontiguousarray(found.pop("readout.w").T)
        return {**found, "directions": np.array([1], np.int64)}

    def inputs(self) -> list[onnx.ValueInfoProto]:
        """Return the graph's inputs; batch and time are free."""
        spec = self._spec
        sizes: list[str | int] = ["time", "batch"]
        kind = TensorProto.INT64
        if not spec.inputs.embedded:
            sizes, kind = [*sizes, spec.input_size], TensorProto.FLOAT
        found = [helper.make_tensor_value_info("x", kind, sizes)]
        if self._padded:
            lengths = helper.make_tensor_value_info(
                "lengths", TensorProto.INT32, ["batch"]
            )
            found.append(lengths)
        return [*found, *(self._state(name) for name in self._states)]

    def outputs(self) -> list[onnx.ValueInfoProto]:
        """Return the graph's outputs."""
        sizes: list[str | int] = ["batch", "readouts", self._spec.output_size]
        outputs = helper.make_tensor_value_info("outputs", TensorProto.FLOAT, sizes)
        return [outputs, *(self._state(f"{name}_n") for name in self._states)]

    def _state(self, name: str) -> onnx.ValueInfoProto:
        sizes: list[str | int] = [
            self._spec.num_layers,
            "batch",
            self._spec.hidden_size,
        ]
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)
