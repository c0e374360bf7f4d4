"""Layers of somebody's own: what is taken, what is refused, and what really ran."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from harness.contract import Batch, Inputs, NetworkSpec, Target
from harness.errors import PluginError, describe_error
from harness.loading import build_network, load_cell
from implementations.tensorflow_backend.kernel import kernel_of
from implementations.tensorflow_backend.network import TensorFlowNetwork
from tests.backend_cases import (
    BATCH,
    REGISTRY,
    SPEC,
    build,
    draw_batch,
    draw_state,
    draw_weights,
    errors_against_reference,
)

SMALL = replace(
    SPEC, inputs=Inputs("reals", 2), num_layers=1, target=Target.REAL, cell="gru"
)
STACKED = {"return_sequences": True, "return_state": True}


def network_of(
    make: Any, spec: NetworkSpec = SMALL, device: str = "cpu"
) -> TensorFlowNetwork:
    """Build a network of the layers that `make` returns for a hidden size."""
    cell = load_cell(REGISTRY, spec.cell)
    network = TensorFlowNetwork(spec, cell, device, lambda name, i, h: make(h))
    network.load_weights(draw_weights(spec))
    return network


def gru(hidden_size: int, **changes: Any) -> Any:
    return layers.GRU(hidden_size, **{**STACKED, **changes})


# --- what is taken -------------------------------------------------------------------

PLUGIN = """\
from harness import declare_implementation

declare_implementation(
    "my-lstm",
    framework="tensorflow",
    cells=["lstm"],
    dtypes=["float32", "float64"],
    layer="my_lstm:layer",
)

def layer(cell, input_size, hidden_size):
    from keras.layers import RNN, LSTMCell

    return RNN(LSTMCell(hidden_size), return_sequences=True, return_state=True)
"""


def test_a_plugin_file_of_a_few_lines_computes_what_the_reference_does(
    tmp_path: Path,
) -> None:
    file = tmp_path / "my_lstm.py"
    file.write_text(PLUGIN, encoding="utf-8")
    registry = type(REGISTRY).discover([file])
    assert registry.problems == []
    spec = replace(SMALL, cell="lstm", dtype="float64")
    cell = load_cell(registry, "lstm")
    network = cast(
        TensorFlowNetwork, build_network(registry, "my-lstm", spec, cell, "cpu")
    )
    network.load_weights(draw_weights(spec))
    errors = errors_against_reference(network, spec)
    assert max(errors.values()) < 1e-14, errors


class Integrator(layers.Layer):  # type: ignore[misc]
    """A rectified network of U = 0 with canonical names, blind to padding."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.supports_masking = True

    def build(self, shape: Any) -> None:
        size = self.hidden_size
        self.w = self.add_weight(name="w_ih", shape=(1, size, shape[-1]))
        self.u = self.add_weight(name="w_hh", shape=(1, size, size))
        self.b = self.add_weight(name="b", shape=(1, size))

    def call(self, x: Any, initial_state: Any = None, mask: Any = None) -> Any:
        outputs = ops.relu(ops.matmul(x, ops.transpose(self.w[0])) + self.b[0])
        return outputs, outputs[:, -1]


def test_a_layer_may_name_its_weights_canonically() -> None:
    spec = replace(SMALL, cell="rnn-relu")
    weights = draw_weights(spec)
    weights["layer0.w_hh"][:] = 0
    own, oracle = network_of(Integrator, spec), build("numpy-reference", spec)
    own.load_weights(weights)
    oracle.load_weights(weights)
    batch = replace(draw_batch(spec), lengths=np.full(4, 9))
    found = own.loss_and_gradients(own.place(batch)).read()
    expected = oracle.loss_and_gradients(oracle.place(batch)).read()
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    # It does not use U, whose gradient is zero where the reference's is not.
    assert not found.gradients.pop("layer0.w_hh").any()
    for name, tensor in found.gradients.items():
        np.testing.assert_allclose(
            tensor, expected.gradients[name], rtol=1e-5, atol=1e-7
        )
    assert own.kernel() == "TensorFlow operations"


def test_dropout_acts_where_gradients_follow_and_only_there() -> None:
    """So that a certificate shows it: in the loss, not in the outputs."""
    wet = network_of(lambda h: gru(h, dropout=0.5, seed=1))
    errors = errors_against_reference(wet, SMALL)
    assert errors["outputs"] < 1e-6
    assert errors["loss"] > 1e-3
    assert errors["vjp layer0.w_ih"] > 1e-3


# --- tracing -------------------------------------------------------------------------


def call_everything(network: TensorFlowNetwork, batch: Batch, size: int) -> None:
    placed = network.place(batch)
    state = draw_state(SMALL, size)
    done = network.forward(placed, state).read()
    network.forward(placed).read()
    network.step(batch.inputs[:, 0], state).read()
    network.vjp(placed, state, done.outputs, done.state)
    network.loss_and_gradients(placed).read()
    network.train_steps([placed] * 2).read()


def test_graphs_are_traced_once_a_batch_size_for_every_length() -> None:
    traces = 0

    class CountedGru(layers.GRU):  # type: ignore[misc]
        def call(
            self, sequences: Any, initial_state: Any = None, mask: Any = None
        ) -> Any:
            nonlocal traces
            traces += not tf.executing_eagerly()
            return super().call(sequences, initial_state, mask)

    network = network_of(lambda h: CountedGru(h, **STACKED))
    padded = draw_batch(SMALL)
    call_everything(network, padded, BATCH)
    # When built, to see that it takes any length; forward with padding and without,
    # pull, loss, update with padding.
    assert traces == 1 + 5
    shorter = replace(
        padded,
        inputs=padded.inputs[:, :5],
        lengths=np.minimum(padded.lengths, 5),
        targets=padded.targets[:, :5],
        scored=padded.scored[:, :5],
    )
    call_everything(network, shorter, BATCH)
    assert traces == 1 + 5
    call_everything(network, replace(padded, lengths=np.full(BATCH, 9)), BATCH)
    assert traces == 1 + 5 + 3
    fewer = replace(
        padded,
        inputs=padded.inputs[:3],
        lengths=padded.lengths[:3],
        targets=padded.targets[:3],
        scored=padded.scored[:3],
    )
    call_everything(network, fewer, 3)
    assert traces == 1 + 5 + 3 + 5


# --- what is refused -----------------------------------------------------------------


class NoState(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x


class Unrolled(Integrator):
    def call(self, x: Any, initial_state: Any = None, mask: Any = None) -> Any:
        outputs, final = super().call(x, initial_state, mask)
        return ops.stack([outputs[:, t] for t in range(x.shape[1])], axis=1), final


class Rounded(Integrator):
    def build(self, shape: Any) -> None:
        super().build(shape)
        self.scale = self.add_weight(name="scale", shape=(), dtype="float16")


class Answering(layers.GRU):  # type: ignore[misc]
    """A GRU whose (outputs, state) a function changes."""

    def __init__(self, hidden_size: int, answer: Any) -> None:
        super().__init__(hidden_size, **STACKED)
        self.answer = answer

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None) -> Any:
        found = super().call(sequences, initial_state=initial_state, mask=mask)
        return self.answer(*found)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda h: None, "returned NoneType; expected a keras.layers.Layer"),
        (lambda h: NoState(), "expected call(x, initial_state, mask)"),
        (
            lambda h: layers.Bidirectional(gru(h)),
            "Bidirectional: has 2 parameters named 'kernel'; expected one layer",
        ),
        (
            lambda h: layers.RNN([layers.GRUCell(h), layers.GRUCell(h)], **STACKED),
            "RNN: has 2 parameters named 'kernel'; expected one layer",
        ),
        (
            lambda h: gru(h, use_bias=False),
            "GRU: parameter 'bias' is missing; expected shape (2, 18)",
        ),
        (
            lambda h: gru(h, reset_after=False),
            "parameter 'bias' has shape (18,); expected shape (2, 18); a GRU with "
            "reset_after=False computes the cell gru-reset-before: declare it for that "
            "one, or give it reset_after=True",
        ),
        (
            lambda h: gru(h, dtype="mixed_bfloat16"),
            "GRU: has the dtype policy mixed_bfloat16; expected float32",
        ),
        (Rounded, "Rounded: has the dtype policy float16; expected float32"),
        (
            lambda h: gru(h, return_sequences=False),
            "GRU: answered float32 (1, 6), float32 (1, 6); expected outputs float32 "
            "(1, 2, 6)",
        ),
        (
            lambda h: gru(h, return_state=False),
            "GRU: answered float32 (1, 2, 6); expected outputs float32 (1, 2, 6), "
            "[batch, time, hidden], and 1 state parts float32 (1, 6)",
        ),
        (
            lambda h: gru(h, stateful=True),
            "GRU: keeps its state from call to call (stateful=True); expected a layer "
            "that starts from initial_state; build it with stateful=False",
        ),
        (
            lambda h: Answering(h, lambda o, s: (ops.cast(o, "float16"), s)),
            "Answering: answered float16 (1, 2, 6), float32 (1, 6); expected outputs "
            "float32 (1, 2, 6)",
        ),
        (
            lambda h: Answering(h, lambda o, s: (o, [s])),
            "Answering: answered float32 (1, 2, 6), list; expected outputs float32",
        ),
        (
            lambda h: gru(h, unroll=True),
            "GRU: runs over 2 time steps but not over any number of them: ValueError",
        ),
    ],
)
def test_a_layer_of_another_form_is_refused_when_it_is_built(
    make: Any, words: str
) -> None:
    with pytest.raises(PluginError) as caught:
        network_of(make)
    assert words in str(caught.value)


def test_an_error_of_a_layer_is_told_as_it_was_raised() -> None:
    def fail(outputs: Any, state: Any) -> Any:
        raise RuntimeError("no kernel here")

    with pytest.raises(RuntimeError) as caught:
        network_of(lambda h: Answering(h, fail))
    assert describe_error(caught.value).startswith(
        "RuntimeError: no kernel here (test_layers.py:"
    )


def test_a_loop_over_a_length_that_must_be_known_is_refused_with_its_place() -> None:
    with pytest.raises(PluginError) as caught:
        network_of(Unrolled, replace(SMALL, cell="rnn"))
    assert "Unrolled: runs over 2 time steps but not over any number" in str(
        caught.value
    )
    assert "(test_layers.py:" in str(caught.value)


# --- what really ran -----------------------------------------------------------------

X = tf.TensorSpec([5, 3, 2])


def graph_of(function: Any, *signature: Any) -> Any:
    """Trace a function that calls another, and return its graph; nothing runs."""
    inner = tf.function(function, autograph=False)
    outer = tf.function(lambda *a: inner(*a), autograph=False)
    return outer.get_concrete_function(*signature).graph.as_graph_def()


def cudnn(x: Any) -> Any:
    return tf.raw_ops.CudnnRNNV3(
        input=x,
        input_h=tf.zeros([1, 3, 4]),
        input_c=0.0,
        params=tf.zeros([100]),
        sequence_lengths=[5, 5, 5],
        rnn_mode="gru",
        is_training=True,
    )[0]


def loop(x: Any) -> Any:
    return tf.while_loop(lambda y: tf.reduce_sum(y) < 9, lambda y: (y + x,), (x,))[0]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (cudnn, "cuDNN"),
        (loop, "TensorFlow while loop"),
        (lambda x: (cudnn(x), loop(x)), "cuDNN and TensorFlow while loop"),
        (tf.tanh, "TensorFlow operations"),
    ],
)
def test_a_kernel_is_named_by_the_nodes_of_a_graph(function: Any, words: str) -> None:
    assert kernel_of(graph_of(function, X)) == words


@pytest.fixture
def keras_sees_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Keras choose as on a GPU; what it chooses is traced and does not run."""
    # By name: what the package calls `rnn` is a function in this module.
    module = importlib.import_module("keras.src.backend.tensorflow.rnn")
    monkeypatch.setattr(module, "_is_gpu_available", lambda: True)


@pytest.mark.usefixtures("keras_sees_a_gpu")
@pytest.mark.parametrize("kind", [layers.GRU, layers.LSTM])
def test_keras_leaving_cudnn_is_reported(kind: Any) -> None:
    parts = 2 if kind is layers.LSTM else 1
    h = tf.TensorSpec([5, 4])

    def seen(**changes: Any) -> str:
        layer = kind(4, **STACKED, **changes)
        layer.build((None, None, 2))
        return kernel_of(
            graph_of(lambda x, h: layer(x, initial_state=[h] * parts), X, h)
        )

    assert seen() == "cuDNN"
    assert seen(recurrent_dropout=0.1) == "TensorFlow while loop"
    assert seen(recurrent_activation="hard_sigmoid") == "TensorFlow while loop"


@pytest.mark.usefixtures("keras_sees_a_gpu")
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_on_the_cpu_keras_does_not_take_cudnn_where_a_gpu_is_there(cell: str) -> None:
    spec = replace(SMALL, cell=cell)
    network, oracle = build("tensorflow-keras", spec), build("numpy-reference", spec)
    assert network.kernel() == "TensorFlow while loop"
    batch = draw_batch(spec)
    found = network.forward(network.place(batch)).read().outputs
    expected = oracle.forward(oracle.place(batch)).read().outputs
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# --- on a GPU ------------------------------------------------------------------------

on_gpu = pytest.mark.skipif(
    not tf.config.list_physical_devices("GPU"), reason="no CUDA device"
)


@pytest.mark.gpu
@on_gpu
def test_on_a_gpu_a_layer_that_leaves_cudnn_is_reported() -> None:
    found = {
        dropout: network_of(
            lambda h, dropout=dropout: gru(h, recurrent_dropout=dropout),
            device="cuda:0",
        ).kernel()
        for dropout in (0.0, 0.1)
    }
    assert found == {0.0: "cuDNN", 0.1: "TensorFlow while loop"}


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("name", ["tensorflow-keras", "tensorflow-loop"])
@pytest.mark.parametrize("cell", ["rnn", "rnn-relu", "gru", "gru-reset-before", "lstm"])
def test_a_gpu_gives_what_the_cpu_gives_without_tf32(name: str, cell: str) -> None:
    # TF32 has a unit roundoff of 5e-4; float32 at 9 time steps stays near 1e-6.
    spec = replace(SPEC, cell=cell)
    declared = load_cell(REGISTRY, cell)
    network = cast(
        TensorFlowNetwork, build_network(REGISTRY, name, spec, declared, "cuda:0")
    )
    network.load_weights(draw_weights(spec))
    errors = errors_against_reference(network, spec)
    assert max(errors.values()) < 1e-5, errors
    fused = name == "tensorflow-keras" and cell in ("gru", "lstm")
    assert network.kernel() == ("cuDNN" if fused else "TensorFlow while loop")
