"""Networks of every backend: conversions, dtypes, copies, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from harness.contract import Array, NetworkSpec, Optimizer, Readout, TrainableNetwork
from harness.errors import InputError, UnavailableError
from harness.loading import build_network, load_cell
from harness.measure.certificate.record import TOLERANCES
from tests.backend_cases import (
    BATCH,
    REGISTRY,
    SPEC,
    assert_training_resumes,
    assert_weights_come_back,
    build,
    draw_batch,
    draw_state,
    draw_weights,
    errors_against_reference,
)
from tests.difference_cases import dtype_of_differences
from tests.frameworks.backends import CELLS, SMALL, Backend


@pytest.mark.parametrize("cell", CELLS)
def test_weights_come_back_bit_for_bit(implementation: str, cell: str) -> None:
    spec = replace(SPEC, cell=cell)
    assert_weights_come_back(build(implementation, spec), spec)


@pytest.mark.parametrize(
    "cell",
    [
        cell if cell in ("gru", "lstm") else pytest.param(cell, marks=pytest.mark.long)
        for cell in CELLS
    ],
)
def test_each_cell_has_the_values_and_gradients_of_the_reference(
    implementation: str, cell: str
) -> None:
    # With padded tokens. `make test-all` makes the whole certificates.
    spec = replace(SPEC, cell=cell, num_layers=1)
    errors = errors_against_reference(build(implementation, spec), spec)
    assert {"outputs", "d_inputs", "final 0", "vjp layer0.w_hh"} <= errors.keys()
    allowed = TOLERANCES["float32", "highest"].certified
    assert {name: e for name, e in errors.items() if e > allowed} == {}


# Optimisers with two moments and with none.
@pytest.mark.parametrize("optimizer", [Optimizer("adam"), Optimizer("sgd")])
def test_training_resumes_from_weights_and_optimiser_state(
    implementation: str, optimizer: Optimizer
) -> None:
    assert_training_resumes(implementation, cell="gru", optimizer=optimizer)


def test_loading_weights_resets_the_moments(implementation: str) -> None:
    network = build(implementation, SMALL)
    batch = network.place(draw_batch(SMALL))
    found = []
    for _ in range(2):
        network.load_weights(draw_weights(SMALL))
        found.append(network.train_steps([batch] * 2).read().losses)
    np.testing.assert_array_equal(*found)


@pytest.mark.long
@pytest.mark.parametrize(
    "spec",
    [
        replace(SPEC, num_layers=1),
        replace(SMALL, cell="lstm", num_layers=2, readout=Readout.LAST),
    ],
    ids=["tokens, every", "reals, last"],
)
def test_a_network_computes_in_its_dtype_and_leaves_the_default_as_it_was(
    backend: Backend, implementation: str, spec: NetworkSpec
) -> None:
    for dtype, rounding in backend.rounding.items():
        asked = replace(spec, dtype=dtype)
        errors = errors_against_reference(build(implementation, asked), asked)
        assert max(errors.values()) < rounding, errors
    assert backend.default_dtype() == "float32"


def test_finite_differences_use_float64_where_the_framework_computes_in_it(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    implementation, dtype = backend.differences
    assert dtype_of_differences(implementation, monkeypatch) == dtype


# --- what does not change -------------------------------------------------------------


def aligned(array: Array) -> Array:
    """Return a copy in float32 whose memory JAX would use without copying."""
    memory = np.empty(4 * array.size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    same = memory[start : start + 4 * array.size].view(np.float32).reshape(array.shape)
    same[:] = array
    return same


def test_later_calls_do_not_change_what_was_read_or_placed(
    implementation: str,
) -> None:
    network, drawn = build(implementation, SMALL), draw_batch(SMALL)
    # One sequence in float32, which needs no conversion for the framework.
    batch = replace(
        drawn,
        inputs=aligned(drawn.inputs[:1]),
        lengths=drawn.lengths[:1],
        targets=aligned(drawn.targets[:1]),
        scored=drawn.scored[:1],
    )
    placed = network.place(batch)
    given = {name: aligned(tensor) for name, tensor in draw_weights(SMALL).items()}
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


def test_a_network_keeps_a_copy_of_its_weights(implementation: str) -> None:
    network = build(implementation, SMALL)
    given = {name: aligned(tensor) for name, tensor in draw_weights(SMALL).items()}
    network.load_weights(given)
    for tensor in given.values():
        tensor[:] = 0
    assert_weights_come_back(network, SMALL)


# --- bad input -----------------------------------------------------------------------


def test_weights_and_states_of_wrong_shapes_are_refused(implementation: str) -> None:
    network = build(implementation, SMALL)
    weights = draw_weights(SMALL)
    weights["layer0.b"][0, 1] = np.nan
    with pytest.raises(InputError, match=r"'layer0.b' holds nan at \[0, 1\]"):
        network.load_weights(weights)
    placed = network.place(draw_batch(SMALL))
    with pytest.raises(InputError, match=r"expected \(1, 4, 6\)"):
        network.forward(placed, draw_state(SMALL, BATCH + 1))


def test_a_missing_gpu_is_unavailable_in_one_sentence(backend: Backend) -> None:
    with pytest.raises(UnavailableError, match="so cuda:99 is not there") as caught:
        backend.network_of(lambda *_: None, device="cuda:99")
    assert f"{backend.version} sees" in str(caught.value)


# --- on a GPU ------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("cell", CELLS)
def test_a_gpu_gives_the_results_of_the_cpu_without_tf32(
    backend: Backend, implementation: str, cell: str
) -> None:
    if not backend.on_gpu():
        pytest.skip("no CUDA device")
    # TF32 has a unit roundoff of 5e-4; float32 over 9 time steps errs by about 1e-6.
    spec, declared = replace(SPEC, cell=cell), load_cell(REGISTRY, cell)
    network = cast(
        TrainableNetwork,
        build_network(REGISTRY, implementation, spec, declared, "cuda:0"),
    )
    network.load_weights(draw_weights(spec))
    errors = errors_against_reference(network, spec)
    assert max(errors.values()) < 1e-5, errors
    assert network.kernel() == backend.kernel_on_gpu(implementation, cell)
