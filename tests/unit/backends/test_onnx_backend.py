"""ONNX Runtime: weights that come back, nodes that ran, no training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.contract import Weights
from harness.errors import RefusedError, UnavailableError
from harness.loading import load_cell
from harness.measure.problem import Problem, initial_weights
from harness.run.plan.plan import make_plan
from harness.suite import load_suite
from harness.trial import Trial
from tests import helpers
from tests.backend_cases import SPEC
from tests.helpers import REGISTRY

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from implementations.onnx_backend.kernel import kernel_of
from implementations.onnx_backend.network import OnnxNetwork

CELLS = REGISTRY.implementation("onnxruntime").cells
each_cell = pytest.mark.parametrize("cell", CELLS)


def build(cell: str) -> tuple[OnnxNetwork, Weights]:
    spec = replace(SPEC, cell=cell)
    network = OnnxNetwork(spec, load_cell(REGISTRY, cell), "cpu")
    drawn = initial_weights(spec, load_cell(REGISTRY, cell), "native-torch", 0, 10)
    weights = {name: tensor.astype(np.float32) for name, tensor in drawn.items()}
    network.load_weights(weights)
    return network, weights


@each_cell
def test_weights_come_back_bit_for_bit(cell: str) -> None:
    network, weights = build(cell)
    found = network.weights()
    assert list(found) == list(weights)
    for name, tensor in weights.items():
        np.testing.assert_array_equal(found[name], tensor)
        assert found[name].dtype == np.float32


@each_cell
def test_the_kernel_is_the_node_that_the_profile_shows(cell: str) -> None:
    node = {"gru-reset-before": "GRU", "gru": "GRU", "lstm": "LSTM"}.get(cell, "RNN")
    assert build(cell)[0].kernel() == f"{node} on CPU"


def test_a_profile_without_a_recurrent_node_names_the_nodes_that_ran(
    tmp_path: Path,
) -> None:
    nodes = [("MatMul", "CUDAExecutionProvider"), ("Loop", "CPUExecutionProvider")]
    events = [
        {"cat": "Node", "args": {"op_name": name, "provider": provider}}
        for name, provider in nodes
    ]
    session = {"cat": "Session", "args": {"op_name": "GRU"}}
    file = helpers.write(tmp_path / "profile.json", json.dumps([session, *events]))
    assert kernel_of(file) == "MatMul on CUDA, Loop on CPU"
    events.append({"cat": "Node", "args": {"op_name": "GRU", "provider": "CPU"}})
    file = helpers.write(tmp_path / "profile.json", json.dumps(events))
    assert kernel_of(file) == "GRU on CPU"


def test_a_network_computes_with_newly_loaded_weights() -> None:
    network, weights = build("gru")
    state = (np.zeros((2, 3, 6), np.float32),)
    before = network.step(np.array([1, 2, 3]), state).read().outputs
    weights["readout.b"] = weights["readout.b"] + 1
    network.load_weights(weights)
    after = network.step(np.array([1, 2, 3]), state).read().outputs
    np.testing.assert_allclose(after, before + 1, rtol=1e-6)


def test_a_missing_gpu_is_unavailable_in_one_sentence() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has the CUDA provider")
    with pytest.raises(UnavailableError, match="so cuda:0 is not there"):
        OnnxNetwork(SPEC, load_cell(REGISTRY, "gru"), "cuda:0")


TIMED = Trial(
    "speed",
    "onnxruntime",
    "gru",
    time_steps=5,
    input_size=2,
    hidden_size=4,
    batch=2,
    seed=0,
    data_seed=0,
)


def test_training_with_onnxruntime_is_refused() -> None:
    with pytest.raises(RefusedError, match="onnxruntime does not train"):
        Problem(REGISTRY, TIMED).trainable_network()


def test_onnxruntime_is_in_no_training_comparison(tmp_path: Path) -> None:
    everyone = helpers.learning(cells=["gru"], implementations=None)
    file = helpers.write(tmp_path / "x.toml", helpers.suite(everyone))
    plan = make_plan(load_suite(str(file), REGISTRY), REGISTRY, "cpu", choices={})
    timed = [t.implementation for trials in plan.speed.values() for t in trials]
    assert "torch-loop" in timed
    assert "onnxruntime" not in timed
    assert "onnxruntime" not in plan.learning[0].implementations
