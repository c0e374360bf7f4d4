"""torch-cuda-graph: a replay gives the same results as torch-native.

Here a recording runs its body again at each replay and writes into the same tensors, as
a graph does on a GPU. One test records real graphs if there is a GPU.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.contract import (
    Batch,
    Inputs,
    NetworkSpec,
    Optimizer,
    Readout,
    Target,
)
from harness.loading import build_network, load_cell
from harness.measure.problem import initial_weights
from tests.helpers import REGISTRY

torch = pytest.importorskip("torch")

from implementations.torch_backend import native  # noqa: E402
from implementations.torch_backend.cuda_graph import GraphNetwork  # noqa: E402
from implementations.torch_backend.network import TorchNetwork  # noqa: E402

SPEC = NetworkSpec(
    "gru",
    Inputs("reals", 3),
    8,
    2,
    Readout.EVERY,
    Target.REAL,
    num_layers=2,
    dtype="float64",
    optimizer=Optimizer(learning_rate=1e-2, clip_norm=0.05),
)
OPTIMIZERS = {
    "adam": Optimizer("adam", 1e-2, 0.05),
    "rmsprop": Optimizer("rmsprop", 1e-3, 0.05),
    "sgd": Optimizer("sgd", 0.1, None),
    "momentum": Optimizer("sgd", 0.1, 0.05, momentum=0.9),
}


class Recorder:
    """Imitates the memory of a graph: a replay must find the same tensors."""

    network: GraphNetwork

    def __init__(self) -> None:
        self.recordings = self.replays = 0

    def moments(self) -> set[int]:
        states = self.network._optimizer.state.values()
        return {id(tensor) for state in states for tensor in state.values()}

    def __call__(self, body: Any) -> Any:
        self.recordings += 1
        for _ in range(3):
            body()
        found, moments = body(), self.moments()

        def replay() -> Any:
            self.replays += 1
            assert moments <= self.moments(), "a graph would write to earlier moments"
            for kept, new in zip(found, body(), strict=True):
                kept.copy_(new)
            return found

        return replay


def batch(seed: int, size: int = 4, time_steps: int = 5) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch(
        rng.standard_normal((size, time_steps, 3)),
        np.full(size, time_steps),
        rng.standard_normal((size, time_steps, 2)),
        rng.random((size, time_steps)) < 0.7,
    )


def networks(spec: NetworkSpec = SPEC) -> tuple[TorchNetwork, GraphNetwork, Recorder]:
    cell, recorder = load_cell(REGISTRY, spec.cell), Recorder()
    plain = TorchNetwork(spec, cell, "cpu", native.layer)
    graph = GraphNetwork(spec, cell, "cpu", native.layer, recorder)
    recorder.network = graph
    for network in (plain, graph):
        network.load_weights(weights(spec))
    return plain, graph, recorder


def weights(spec: NetworkSpec, seed: int = 0) -> Any:
    return initial_weights(spec, load_cell(REGISTRY, spec.cell), "canonical", seed, 5)


def assert_same(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_allclose(found[name], tensor, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_replayed_updates_equal_those_of_torch_native(name: str, cell: str) -> None:
    spec = replace(SPEC, cell=cell, optimizer=OPTIMIZERS[name])
    plain, graph, recorder = networks(spec)
    for seed in range(6):
        # Two shapes in turn, and more batches of one shape: two recordings are enough.
        one = batch(seed, size=4 + seed % 2)
        expected = plain.train_steps([plain.place(one)]).read()
        found = graph.train_steps([graph.place(one)]).read()
        np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-12)
        np.testing.assert_allclose(found.gradient_norms, expected.gradient_norms)
    assert_same(graph.weights(), plain.weights())
    assert_same(graph.optimizer_state(), plain.optimizer_state())
    assert (recorder.recordings, recorder.replays) == (2, 6)


def test_replayed_passes_equal_those_of_torch_native_and_keep_their_results() -> None:
    plain, graph, recorder = networks()
    first, second = batch(0), batch(1)
    handles = [graph.forward(graph.place(one)) for one in (first, second)]
    for handle, one in zip(handles, (first, second), strict=True):
        expected = plain.forward(plain.place(one)).read()
        np.testing.assert_allclose(handle.read().outputs, expected.outputs)
        np.testing.assert_allclose(handle.read().state[0], expected.state[0])
    for one in (first, second):
        found = graph.loss_and_gradients(graph.place(one)).read()
        expected_ones = plain.loss_and_gradients(plain.place(one)).read()
        assert found.loss == pytest.approx(expected_ones.loss, rel=1e-12)
        assert_same(found.gradients, expected_ones.gradients)
    assert (recorder.recordings, recorder.replays) == (2, 4)
    assert graph.kernel().startswith("CUDA graph of ")


def test_training_continues_from_loaded_weights_and_moments() -> None:
    plain, graph, _ = networks()
    kept = None
    for network in (plain, graph):
        network.train_steps([network.place(batch(0))])
        kept = network.optimizer_state()
        network.load_weights(weights(SPEC, seed=3))
        network.train_steps([network.place(batch(1))])
        network.load_weights(weights(SPEC, seed=4))
        network.load_optimizer_state(kept)
        network.train_steps([network.place(batch(2))])
    assert_same(graph.weights(), plain.weights())
    assert_same(graph.optimizer_state(), plain.optimizer_state())


def test_padded_batches_and_other_initial_states_are_not_recorded() -> None:
    plain, graph, recorder = networks()
    padded = replace(batch(0), lengths=np.array([5, 3, 1, 4]))
    for network in (plain, graph):
        network.train_steps([network.place(padded)])
    state = (np.random.default_rng(0).standard_normal((2, 4, 8)),)
    expected = plain.forward(plain.place(batch(1)), state).read()
    found = graph.forward(graph.place(batch(1)), state).read()
    np.testing.assert_allclose(found.outputs, expected.outputs, rtol=1e-12)
    assert_same(graph.weights(), plain.weights())
    assert recorder.recordings == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_graphs_are_recorded_and_replayed_on_a_gpu(cell: str) -> None:
    spec = replace(SPEC, cell=cell, dtype="float32")
    made = load_cell(REGISTRY, cell)
    plain = TorchNetwork(spec, made, "cuda:0", native.layer)
    graph = build_network(REGISTRY, "torch-cuda-graph", spec, made, "cuda:0")
    for network in (plain, graph):
        network.load_weights(weights(spec))
    for seed in range(6):
        one = batch(seed, size=4 + seed % 2)
        expected = plain.train_steps([plain.place(one)]).read()
        found = graph.train_steps([graph.place(one)]).read()
        np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)
    for name, tensor in plain.weights().items():
        np.testing.assert_allclose(graph.weights()[name], tensor, rtol=1e-3, atol=1e-5)
    assert graph.kernel() == "CUDA graph of cuDNN"
