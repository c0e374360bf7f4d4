"""TensorFlowNetwork: conversions, dtype, biases, what is left untouched."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import pytest
import tensorflow as tf

from harness.contract import Batch, Inputs, NetworkSpec, Optimizer, Readout, Target
from harness.errors import InputError, UnavailableError
from harness.loading import load_cell
from implementations.tensorflow_backend.network import TensorFlowNetwork
from tests.backend_cases import (
    BATCH,
    REGISTRY,
    SPEC,
    assert_training_goes_on,
    assert_weights_come_back,
    build,
    draw_batch,
    draw_state,
    draw_weights,
    errors_against_reference,
)

NAMES = ["tensorflow-keras", "tensorflow-loop"]
CELLS = ["rnn", "rnn-relu", "gru", "gru-reset-before", "lstm"]
SMALL = replace(
    SPEC, inputs=Inputs("reals", 2), num_layers=1, target=Target.REAL, cell="gru"
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cell", CELLS)
def test_weights_come_back_bit_for_bit(name: str, cell: str) -> None:
    spec = replace(SPEC, cell=cell)
    assert_weights_come_back(build(name, spec), spec)


# With two moments and a redundant bias, and with none.
@pytest.mark.parametrize(
    ("name", "optimizer"),
    [("tensorflow-keras", Optimizer("adam")), ("tensorflow-loop", Optimizer("sgd"))],
)
def test_training_goes_on_from_weights_and_optimiser_state(
    name: str, optimizer: Optimizer
) -> None:
    assert_training_goes_on(name, cell="gru", optimizer=optimizer)


def test_loading_weights_forgets_the_moments() -> None:
    network = build("tensorflow-keras", SMALL)
    batch = network.place(draw_batch(SMALL))
    found = []
    for _ in range(2):
        network.load_weights(draw_weights(SMALL))
        found.append(network.train_steps([batch] * 2).read().losses)
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("tensorflow-keras", replace(SPEC, num_layers=1)),
        (
            "tensorflow-loop",
            replace(SMALL, cell="lstm", num_layers=2, readout=Readout.LAST),
        ),
    ],
    ids=["tokens, every", "reals, last"],
)
def test_float64_is_computed_in_float64_and_stays_within_the_network(
    name: str, spec: NetworkSpec
) -> None:
    spec = replace(spec, dtype="float64")
    errors = errors_against_reference(build(name, spec), spec)
    # Nine time steps in float64; in float32 the same are near 1e-7.
    assert max(errors.values()) < 1e-14, errors
    assert keras.config.dtype_policy().name == "float32"


def test_no_product_is_rounded_to_tf32() -> None:
    tf.config.experimental.enable_tensor_float_32_execution(True)
    build("tensorflow-keras", SMALL)
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


# --- biases --------------------------------------------------------------------------


@pytest.mark.parametrize(("biases", "moves"), [("canonical", False), ("native", True)])
def test_redundant_biases_stay_zero_in_canonical_mode_only(
    biases: Any, moves: bool
) -> None:
    spec = replace(SMALL, biases=biases, optimizer=Optimizer("sgd"))
    network = cast(TensorFlowNetwork, build("tensorflow-keras", spec))
    batch = network.place(draw_batch(spec))
    gradients = network.loss_and_gradients(batch).read().gradients
    norm = network.train_steps([batch] * 2).read().gradient_norms[0]
    first, second = network._variables["layer0.bias"].numpy()
    redundant, needed = second[:12], second[12:]  # of z and r; b_hn of n
    assert (redundant != 0).all() == moves
    assert (needed != 0).all()
    squares = {name: (g**2).sum() for name, g in gradients.items()}
    # A bias that is trained has the gradient of its twin, and counts in the norm.
    twice = (gradients["layer0.b"][:2] ** 2).sum() if moves else 0
    assert norm == pytest.approx(np.sqrt(sum(squares.values()) + twice), rel=1e-5)
    z, r = first[:6] + second[:6], first[6:12] + second[6:12]
    found = network.weights()["layer0.b"]
    np.testing.assert_array_equal(found, np.stack([r, z, first[12:]]))


@pytest.mark.parametrize(
    ("cell", "count"), [("rnn", 640 - 20), ("gru", 1920), ("lstm", 2560 - 80)]
)
def test_keras_trains_as_many_parameters_as_it_ships(cell: str, count: int) -> None:
    spec = replace(SMALL, cell=cell, inputs=Inputs("reals", 10), hidden_size=20)
    network = build("tensorflow-keras", replace(spec, biases="native"))
    held = cast(TensorFlowNetwork, network)._variables
    shipped = sum(np.prod(v.shape) for n, v in held.items() if n.startswith("layer"))
    declared = load_cell(REGISTRY, cell).parameter_counts(10, 20)
    assert shipped == declared["keras"] == count


# --- what is left untouched ----------------------------------------------------------


def test_what_was_read_or_placed_is_not_touched_by_what_comes_after() -> None:
    network = build("tensorflow-keras", SMALL)
    drawn = draw_batch(SMALL)
    # One sequence of float32: nothing is converted on the way to TensorFlow.
    batch = Batch(
        drawn.inputs[:1].astype(np.float32),
        drawn.lengths[:1],
        drawn.targets[:1].astype(np.float32),
        drawn.scored[:1],
    )
    placed = network.place(batch)
    given = draw_weights(SMALL)
    network.load_weights(given)
    first = network.train_steps([placed])
    weights = network.weights()
    copies = {name: tensor.copy() for name, tensor in weights.items()}
    loss = network.loss_and_gradients(placed)
    expected = loss.read().loss
    for array in (batch.inputs, batch.targets, *given.values()):
        array[:] = 0
    network.train_steps([placed] * 3).wait()
    first.wait()
    assert first.read().losses.shape == (1,)
    assert loss.read().loss == expected
    for name, tensor in copies.items():
        np.testing.assert_array_equal(weights[name], tensor)
        assert (network.weights()[name] != tensor).any()
    network.load_weights(copies)
    for tensor in copies.values():
        tensor[:] = 0
    assert network.loss_and_gradients(placed).read().loss == expected


@pytest.mark.skipif(
    os.environ.get("TF_NUM_INTRAOP_THREADS") != "1", reason="threads are not pinned"
)
def test_one_thread_is_one_thread() -> None:
    """With a worker's variables one thread computes, beside the one that waits."""

    def busy() -> dict[str, int]:
        """Return the clock ticks of every thread but the one that waits."""
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


# --- bad input -----------------------------------------------------------------------


def test_weights_and_states_that_do_not_fit_are_refused() -> None:
    network = build("tensorflow-keras", SMALL)
    weights = draw_weights(SMALL)
    weights["layer0.b"][0, 1] = np.nan
    with pytest.raises(InputError, match=r"'layer0.b' holds nan at \[0, 1\]"):
        network.load_weights(weights)
    placed = network.place(draw_batch(SMALL))
    with pytest.raises(InputError, match=r"expected \(1, 4, 6\)"):
        network.forward(placed, draw_state(SMALL, BATCH + 1))


def test_a_missing_gpu_is_unavailable_in_one_sentence() -> None:
    cell = load_cell(REGISTRY, "gru")
    with pytest.raises(UnavailableError, match="so cuda:99 is not there") as caught:
        TensorFlowNetwork(SMALL, cell, "cuda:99", lambda *_: None)
    assert f"tensorflow {tf.__version__} sees" in str(caught.value)


def test_another_backend_of_keras_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UnavailableError, match="KERAS_BACKEND must be tensorflow"):
        build("tensorflow-keras", SMALL)
