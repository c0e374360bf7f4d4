"""The ONNX graph of a network: recurrent nodes and a linear readout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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


def build_model(
    spec: NetworkSpec, parts: int, tensors: Mapping[str, Array], *, padded: bool
) -> onnx.ModelProto:
    """Return the model of a network; its weights are constants of the model.

    The inputs are `x` [time, batch, input] or tokens [time, batch], `lengths` [batch]
    if sequences are padded, and the state parts `h` and `c` [layers, batch, hidden].
    The outputs are `outputs` [batch, readouts, output] and the final state, `h_n` and
    `c_n`.
    """
    states = ("h", "c")[:parts]
    constants = dict(tensors)
    constants["readout.w_t"] = np.ascontiguousarray(constants.pop("readout.w").T)
    constants["directions"] = np.array([1], np.int64)
    graph = helper.make_graph(
        list(_nodes(spec, states, padded=padded)),
        "network",
        _inputs(spec, states, padded=padded),
        [
            _real("outputs", ["batch", "readouts", spec.output_size]),
            *_states(spec, [f"{state}_n" for state in states]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


def _nodes(
    spec: NetworkSpec, states: Sequence[str], *, padded: bool
) -> Iterator[onnx.NodeProto]:
    """Make every node, in the order of computation."""
    node = helper.make_node
    x, layers = "x", range(spec.num_layers)
    if spec.inputs.embedded:
        yield node("Gather", ["embedding", x], ["embedded"], axis=0)
        x = "embedded"
    for state in states:
        yield node("Split", [state], [f"{state}{i}" for i in layers], axis=0)
    operator, attributes = NODES[spec.cell]
    for i in layers:
        weights = [f"layer{i}.{name}" for name in ("W", "R", "B")]
        yield node(
            operator,
            [x, *weights, "lengths" if padded else "", *(f"{s}{i}" for s in states)],
            [f"y{i}", *(f"{s}_n{i}" for s in states)],
            hidden_size=spec.hidden_size,
            **attributes,
        )
        x = f"top{i}"
        # [time, directions, batch, hidden], and there is one direction.
        yield node("Squeeze", [f"y{i}", "directions"], [x])
    for state in states:
        yield node("Concat", [f"{state}_n{i}" for i in layers], [f"{state}_n"], axis=0)
    top = x if spec.readout is Readout.EVERY else f"h_n{layers[-1]}"
    yield node("Transpose", [top], ["top"], perm=[1, 0, 2])
    yield node("MatMul", ["top", "readout.w_t"], ["product"])
    yield node("Add", ["product", "readout.b"], ["outputs"])


def _inputs(
    spec: NetworkSpec, states: Sequence[str], *, padded: bool
) -> list[onnx.ValueInfoProto]:
    """Return the graph's inputs; the sizes of batch and time are not fixed."""
    value = helper.make_tensor_value_info
    x = _real("x", ["time", "batch", spec.input_size])
    if spec.inputs.embedded:
        x = value("x", TensorProto.INT64, ["time", "batch"])
    lengths = value("lengths", TensorProto.INT32, ["batch"])
    return [x, *([lengths] if padded else []), *_states(spec, states)]


def _states(spec: NetworkSpec, names: Sequence[str]) -> list[onnx.ValueInfoProto]:
    size: list[str | int] = [spec.num_layers, "batch", spec.hidden_size]
    return [_real(name, size) for name in names]


def _real(name: str, size: Sequence[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, size)
