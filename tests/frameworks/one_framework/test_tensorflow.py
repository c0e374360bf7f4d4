from __future__ import annotations

import importlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from harness.contract import NetworkSpec
from harness.errors import PluginError, describe_error
from implementations.tensorflow_backend.kernel import kernel_of
from implementations.tensorflow_backend.network import TensorFlowNetwork
from tests import probe_cases as cases
from tests.backend_cases import (
    BATCH,
    build,
    call_everything,
    draw_batch,
    draw_weights,
    errors_against_reference,
)
from tests.frameworks.backends import SMALL, Backend
from tests.frameworks.keras_layers import (
    STACKED,
    Answering,
    WithoutLoop,
    factory,
    gru,
)


def network_of(
    make: Any, spec: NetworkSpec = SMALL, device: str = "cpu"
) -> TensorFlowNetwork:
    """Build a network of the layers that `make` returns for a hidden size."""
    network: TensorFlowNetwork = Backend.of("tensorflow").network_of(
        factory(make), spec, device
    )
    return network


# --- layers that are accepted ---------------------------------------------------------


def test_a_layer_may_leave_a_weight_unused_whose_gradient_is_zero() -> None:
    spec = replace(SMALL, cell="rnn-relu")
    weights = draw_weights(spec)
    weights["layer0.w_hh"][:] = 0
    own, oracle = network_of(WithoutLoop, spec), build("numpy-reference", spec)
    own.load_weights(weights)
    oracle.load_weights(weights)
    batch = replace(draw_batch(spec), lengths=np.full(BATCH, 9))
    found = own.loss_and_gradients(own.place(batch)).read()
    expected = oracle.loss_and_gradients(oracle.place(batch)).read()
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    # That of the reference is not zero, as it uses the weight.
    assert not found.gradients.pop("layer0.w_hh").any()
    for name, tensor in found.gradients.items():
        np.testing.assert_allclose(
            tensor, expected.gradients[name], rtol=1e-5, atol=1e-7
        )


def test_dropout_acts_only_where_gradients_are_computed() -> None:
    """A certificate then shows it in the loss and not in the outputs."""
    wet = network_of(lambda h: gru(h, dropout=0.5, seed=1))
    errors = errors_against_reference(wet, SMALL)
    assert errors["outputs"] < 1e-6
    assert errors["loss"] > 1e-3
    assert errors["vjp layer0.w_ih"] > 1e-3


# --- tracing -------------------------------------------------------------------------


@pytest.mark.long
def test_graphs_are_traced_once_for_each_batch_size_and_serve_every_length() -> None:
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
    call_everything(network, SMALL, padded)
    # One when built, to check that it takes any length; then forward with and without
    # padding, pull, loss, and an update with padding.
    assert traces == 1 + 5
    shorter = replace(
        padded,
        inputs=padded.inputs[:, :5],
        lengths=np.minimum(padded.lengths, 5),
        targets=padded.targets[:, :5],
        scored=padded.scored[:, :5],
    )
    call_everything(network, SMALL, shorter)
    assert traces == 1 + 5
    call_everything(network, SMALL, replace(padded, lengths=np.full(BATCH, 9)))
    assert traces == 1 + 5 + 3
    fewer = replace(
        padded,
        inputs=padded.inputs[:3],
        lengths=padded.lengths[:3],
        targets=padded.targets[:3],
        scored=padded.scored[:3],
    )
    call_everything(network, SMALL, fewer)
    assert traces == 1 + 5 + 3 + 5


# --- refusals -------------------------------------------------------------------------


class Unrolled(WithoutLoop):
    def call(self, x: Any, initial_state: Any = None, mask: Any = None) -> Any:
        outputs, final = super().call(x, initial_state, mask)
        return ops.stack([outputs[:, t] for t in range(x.shape[1])], axis=1), final


def test_an_error_of_a_layer_is_reported_as_it_was_raised() -> None:
    def fail(outputs: Any, state: Any) -> Any:
        raise RuntimeError("no kernel here")

    with pytest.raises(RuntimeError) as caught:
        network_of(lambda h: Answering(h, fail))
    assert describe_error(caught.value).startswith(
        "RuntimeError: no kernel here (test_tensorflow.py:"
    )


def test_a_layer_of_fixed_length_is_refused_with_its_line_of_code() -> None:
    with pytest.raises(PluginError) as caught:
        network_of(Unrolled, replace(SMALL, cell="rnn"))
    assert "Unrolled: runs over 2 time steps but not over any number" in str(
        caught.value
    )
    assert "(test_tensorflow.py:" in str(caught.value)
    with pytest.raises(PluginError) as caught:
        network_of(lambda h: gru(h, unroll=True))
    assert str(caught.value).startswith(
        "GRU: runs over 2 time steps but not over any number of them: ValueError"
    )


# --- the kernel that ran --------------------------------------------------------------

X = tf.TensorSpec([5, 3, 2])


def graph_of(function: Any, *signature: Any) -> Any:
    """Trace a function that calls another; return its graph without running it."""
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
    """Let Keras choose kernels as on a GPU; they are traced and do not run."""
    # By name, as `rnn` in the package is also a function of this module.
    module = importlib.import_module("keras.src.backend.tensorflow.rnn")
    monkeypatch.setattr(module, "_is_gpu_available", lambda: True)


@pytest.mark.usefixtures("keras_sees_a_gpu")
@pytest.mark.parametrize("kind", [layers.GRU, layers.LSTM])
def test_a_keras_layer_that_does_not_use_cudnn_is_reported(kind: Any) -> None:
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
def test_keras_does_not_use_cudnn_on_the_cpu_of_a_machine_with_a_gpu(cell: str) -> None:
    spec = replace(SMALL, cell=cell)
    network, oracle = build("tensorflow-keras", spec), build("numpy-reference", spec)
    assert network.kernel() == "TensorFlow while loop"
    batch = draw_batch(spec)
    found = network.forward(network.place(batch)).read().outputs
    expected = oracle.forward(oracle.place(batch)).read().outputs
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# --- precision, threads, what the probe reports ---------------------------------------


def test_no_product_is_rounded_to_tf32() -> None:
    tf.config.experimental.enable_tensor_float_32_execution(True)
    build("tensorflow-keras", SMALL)
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


@pytest.mark.long
@pytest.mark.skipif(
    os.environ.get("TF_NUM_INTRAOP_THREADS") != "1", reason="threads are not pinned"
)
def test_a_network_with_one_thread_computes_on_one_thread() -> None:
    """With the variables of a worker one thread computes, beside the one that waits."""

    def busy() -> dict[str, int]:
        """Return the clock ticks of every thread except the one that waits."""
        times = {}
        for task in Path("/proc/self/task").iterdir():
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            times[task.name] = int(fields[11]) + int(fields[12])
        return {name: t for name, t in times.items() if name != str(os.getpid())}

    spec = replace(SMALL, hidden_size=256)
    network = build("tensorflow-loop", spec)
    batch = network.place(draw_batch(spec))
    network.train_steps([batch]).wait()
    before = busy()
    network.train_steps([batch] * 240).wait()
    spent = [time - before.get(name, 0) for name, time in busy().items()]
    most, *others = sorted(spent, reverse=True)
    assert most > 20
    assert sum(others) <= 0.2 * most, spent


def test_tracing_is_reported_of_a_graph_that_is_freed_at_once() -> None:
    probe = cases.load("tensorflow")
    before = probe.state()
    tf.function(lambda x: 2 * x)(tf.ones(2))
    assert probe.state().builds > before.builds


SET = """\
import tensorflow as tf
from tests import probe_cases as cases
probe = cases.load("tensorflow")
print(probe.state().threads)
tf.config.threading.set_intra_op_parallelism_threads(3)
tf.ones(2)
print(probe.state().threads)
"""


@pytest.mark.long
def test_threads_are_reported_if_they_were_set() -> None:
    found = subprocess.check_output([sys.executable, "-c", SET], text=True)
    assert found.split() == ["None", "3"]


# --- on a GPU ------------------------------------------------------------------------

on_gpu = pytest.mark.skipif(
    not tf.config.list_physical_devices("GPU"), reason="no CUDA device"
)


@pytest.mark.gpu
@on_gpu
def test_a_layer_that_does_not_use_cudnn_on_a_gpu_is_reported() -> None:
    found = {
        dropout: network_of(
            lambda h, dropout=dropout: gru(h, recurrent_dropout=dropout),
            device="cuda:0",
        ).kernel()
        for dropout in (0.0, 0.1)
    }
    assert found == {0.0: "cuDNN", 0.1: "TensorFlow while loop"}
